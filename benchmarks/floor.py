"""Store the predictions of a simple baseline (floor) on a split, to compare trainings with.

    python benchmarks/floor.py --tool ridge_baseline.py --data msr_action3d --manifest msr.csv --split val \
        --title "..." --out results/msr_action3d_floor.json

The baseline is ridge regression on motion-energy maps. A script outside kinema computes it by `load(folder, split)` and
`ridge(x_train, y_train, x_test, penalty)`. The better of two penalties on the evaluated split is used, which favors the
baseline.
"""

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import tyro

from kinema.data.manifest import load_manifest
from kinema.training.runs import commit

PENALTIES = (0.03, 0.3)


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Options of the command line.

    Args:
        tool: Script with the two functions.
        data: Folder with annotations.csv.
        manifest: Manifest of the same files, made by `kinema prepare`; predictions are stored in its order.
        train: Split to train on.
        split: Split to predict.
        title: Title of the result.
        out: JSON file to write.
    """

    tool: Path
    data: Path
    manifest: Path
    train: str = "train"
    split: str = "val"
    title: str
    out: Path


def main(arguments: Arguments) -> None:
    tool = import_script(arguments.tool)
    x_train, y_train = tool.load(arguments.data, arguments.train)
    x_test, y_test = tool.load(arguments.data, arguments.split)
    answers = {penalty: tool.ridge(x_train, y_train, x_test, penalty) for penalty in PENALTIES}
    accuracy = {penalty: float(100 * (predicted == y_test).mean()) for penalty, predicted in answers.items()}
    best = max(PENALTIES, key=accuracy.__getitem__)
    manifest = load_manifest(str(arguments.manifest))
    positions = manifest.positions(arguments.split)
    targets = [manifest.targets(position)["label"] for position in positions]
    check_order(arguments, manifest.classes["label"], targets, y_test.tolist())
    to_ours = class_map(targets, y_test.tolist())
    result = {
        "title": arguments.title,
        "provenance": {"commit": commit(), "manifest_digest": manifest.digest, "dataset": manifest.dataset},
        "split": arguments.split,
        "declared": len(positions),
        "penalty": best,
        "accuracy_of_penalties": {str(penalty): round(value, 3) for penalty, value in accuracy.items()},
        "measures": {"top1": round(accuracy[best], 3)},
        "classes": {"label": list(manifest.classes["label"])},
        "predictions": {
            "index": positions,
            "targets": {"label": targets},
            "answers": {"label": [to_ours[answer] for answer in answers[best].tolist()]},
        },
    }
    arguments.out.write_text(json.dumps(result) + "\n", encoding="utf-8")
    print(f"{arguments.out}: {accuracy}")


def import_script(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("floor_tool", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check_order(arguments: Arguments, classes: tuple[str, ...], ours: list[int], theirs: list[int]) -> None:
    """Check that both list the same clips in the same order, by a one-to-one mapping of their labels."""
    pairs = set(zip(ours, theirs, strict=True))
    if len(pairs) != len({one for one, _ in pairs}) or len(pairs) != len({other for _, other in pairs}):
        raise SystemExit(f"{arguments.manifest} and {arguments.data} do not list the same clips in the same order")
    if len(pairs) != len(classes):
        raise SystemExit(f"{arguments.split}: {len(pairs)} of {len(classes)} classes; expected all of them")


def class_map(ours: list[int], theirs: list[int]) -> dict[int, int]:
    return dict(zip(theirs, ours, strict=True))


if __name__ == "__main__":
    np.seterr(all="raise", under="ignore")
    main(tyro.cli(Arguments))
