"""The tables of the documents, made from what is stored: python -m kinema.reports.tables

A document marks where a table goes with two comments, `<!-- table: trainings -->` and `<!-- end of table -->`; what
lies between them is made anew from the JSON files under `results/`. `--check` changes nothing and fails where it would.
"""

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from kinema.evaluation.bootstrap import mean_interval
from kinema.evaluation.compare import seeds_minus_floor

MARKED = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end of table -->)", re.DOTALL)
SEED = re.compile(r", seed \d+$")


class TableError(ValueError):
    """A table that cannot be made; the message names the document or the stored result."""


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A stored result: its file's name, and what it holds."""

    name: str
    said: Mapping[str, Any]

    @property
    def title(self) -> str:
        return SEED.sub("", self.said["title"])

    @property
    def right(self) -> Bool[ndarray, " samples"]:
        """Whether each clip is answered rightly, in the order of the manifest."""
        stored = self.said["predictions"]
        order = np.argsort(stored["index"])
        targets, answers = (np.array(stored[which]["label"])[order] for which in ("targets", "answers"))
        right: Bool[ndarray, " samples"] = targets == answers
        return right


def filled(document: str, results: Path) -> str:
    """A document with its tables made anew.

    Raises:
        TableError: there is no such table, or a result that it needs cannot be read.
    """

    def table(found: re.Match[str]) -> str:
        begin, name, end = found.groups()
        if name not in TABLES:
            raise TableError(f"there is no table {name!r}; there are {', '.join(TABLES)}")
        return begin + "\n".join(TABLES[name](results)) + "\n" + end

    return MARKED.sub(table, document)


def trainings(results: Path) -> list[str]:
    """A line for each training, its seeds together."""
    lines = table_head(
        "trained", "seeds", "clips", "top-1 %", "mean [95 % interval over clips]", "mean class %", "step"
    )
    for title, seeds in _groups(_stored(results, "training")).items():
        right = np.stack([seed.right for seed in seeds])
        low, high = mean_interval(100 * right.mean(axis=0))
        mean_class = np.mean([seed.said["measures"]["mean_class"] for seed in seeds])
        lines.append(
            row(
                title,
                _listed([str(seed.said["provenance"]["seed"]) for seed in seeds]),
                str(right.shape[1]),
                _listed([f"{100 * one.mean():.1f}" for one in right]),
                f"{100 * right.mean():.1f} [{low:.1f}, {high:.1f}]",
                f"{mean_class:.1f}",
                _listed(sorted({f"{seed.said['provenance']['step']:,}" for seed in seeds})),
            )
        )
    return lines


def floors(results: Path) -> list[str]:
    """Trainings against the floor of their data: the seeds' mean minus the floor, paired clip by clip."""
    known = {stored.said["provenance"]["manifest_digest"]: stored for stored in _stored(results, "penalty")}
    lines = table_head("trained", "mean of seeds %", "floor %", "difference, points [95 % interval over clips]")
    for title, seeds in _groups(_stored(results, "training")).items():
        said = seeds[0].said
        floor = known.get(said["provenance"]["manifest_digest"])
        if floor is None or floor.said["split"] != said["split"]:
            continue
        right = np.stack([seed.right for seed in seeds])
        difference, (low, high) = seeds_minus_floor(right, floor.right)
        lines.append(
            row(
                title,
                f"{100 * right.mean():.1f}",
                f"{100 * floor.right.mean():.1f}",
                f"{difference:+.1f} [{low:+.1f}, {high:+.1f}]",
            )
        )
    return lines


def kills(results: Path) -> list[str]:
    """The moments at which a training was killed, from `benchmarks/resume.py`."""
    said = _read(results / "resume.json")
    lines = table_head("kill", "after, s", "steps logged", "step of the checkpoint", "half-written then")
    for number, kill in enumerate(said["kills"], start=1):
        half = kill["unfinished"] or ("in an evaluation" if kill["evaluating"] else "-")
        lines.append(row(str(number), f"{kill['seconds']:.1f}", str(kill["steps"]), str(kill["checkpoint"]), half))
    same = "equal" if said["same_losses"] and said["same_weights"] and said["same_evaluations"] else "NOT EQUAL"
    lines += [
        "",
        f"Losses of all {said['steps']} steps, evaluations and final weights: {same} to the undisturbed run's.",
    ]
    return lines


def processes(results: Path) -> list[str]:
    """Clips per second of one process and of two, from `benchmarks/processes.py`."""
    said = _read(results / "processes.json")
    lines = table_head("processes", "clips/s, median [interval]", "against one process of one thread")
    for name, one in said["measured"].items():
        low, high = one["interval"]
        ratio = one["ratio"]
        lines.append(
            row(
                name,
                f"{one['median']:.1f} [{low:.1f}, {high:.1f}]",
                f"{ratio['median']:.2f} [{ratio['interval'][0]:.2f}, {ratio['interval'][1]:.2f}]",
            )
        )
    return lines


def streams(results: Path) -> list[str]:
    """Colour, depth and both by protocol, from `benchmarks/two_streams.py`."""
    protocols = _read(results / "moves_two_streams.json")["protocols"]
    lines = table_head(
        "MFST-tiny sees", *(f"`{name}`, mean of seeds % [95 % interval over clips]" for name in protocols)
    )
    for way in next(iter(protocols.values()))["answers"]:
        cells = []
        for said in protocols.values():
            right = np.array(said["answers"][way]) == np.array(said["targets"])
            low, high = mean_interval(100 * right.mean(axis=0))
            cells.append(f"{100 * right.mean():.1f} [{low:.1f}, {high:.1f}]")
        lines.append(row(way, *cells))
    return lines


def operators(results: Path) -> list[str]:
    """What MFST's operators take beside plainer ones, and the network beside its arithmetic."""
    difference, nearest, network = (
        _read(results / f"{name}.json") for name in ("central_difference_speed", "knn_attention_speed", "mfst_speed")
    )
    lines = table_head("what", "beside", "ratio, median [95 % interval]")
    for operator in ("cdc-st", "cdc-t"):
        for place, measured in difference["measured"].items():
            ratio = measured["training"]["ratios"][operator]
            lines.append(row(f"3D-CDC ({operator}), a training step at {place}", "plain convolution", _ratio(ratio)))
    for place, measured in nearest["measured"].items():
        for name, said in {"knn": "k-NN attention", "public knn": "the public formulation of it"}.items():
            if place.startswith("attention, spatial, stage 1"):
                ratio = measured["ratio_to_sdpa"][name]
                lines.append(
                    row(f"{said}, {place.removeprefix('attention, ')}", "dense attention (SDPA)", _ratio(ratio))
                )
    size = network["arguments"]
    clip = f"{size['model']} at {size['frames']} x {size['size']}"
    for name, share in network["share_of_the_machines_rate"].items():
        rate = {"median": 1 / share["median"], "low": 1 / share["high"], "high": 1 / share["low"]}
        lines.append(row(f"{clip}, {name}", "its convolutions and products alone at the machine's rate", _ratio(rate)))
    memory = network["peak_memory_mib"]["recompute_over_keep"]
    lines.append(row(f"{clip}, peak memory of a step, recomputing activations", "keeping them", _ratio(memory)))
    return lines


TABLES: Mapping[str, Callable[[Path], list[str]]] = {
    made.__name__: made for made in (trainings, floors, kills, processes, streams, operators)
}
"""The tables by the name that a document calls them."""


def table_head(*columns: str) -> list[str]:
    return [row(*columns), row(*("---" for _ in columns))]


def row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def main(words: Sequence[str]) -> int:
    """Make the tables of README.md and docs/ anew, or check them; returns the exit code."""
    root = Path(__file__).parents[2]
    changed = []
    for path in (root / "README.md", *sorted((root / "docs").glob("*.md"))):
        before = path.read_text(encoding="utf-8")
        try:
            after = filled(before, root / "results")
        except TableError as error:
            raise TableError(f"{path}: {error}") from error
        if after != before:
            changed.append(path)
            if "--check" not in words:
                path.write_text(after, encoding="utf-8")
    for path in changed:
        print(f"{path}: {'is not what results/ says' if '--check' in words else 'made anew'}")
    return 1 if changed and "--check" in words else 0


def _stored(results: Path, key: str) -> list[Stored]:
    """Results with predictions that hold such a key: `training`, or a floor's `penalty`."""
    found = [Stored(name=path.stem, said=_read(path)) for path in sorted(results.glob("*.json"))]
    return [stored for stored in found if "predictions" in stored.said and key in stored.said]


def _groups(stored: Sequence[Stored]) -> dict[str, list[Stored]]:
    groups: dict[str, list[Stored]] = {}
    for one in stored:
        groups.setdefault(one.title, []).append(one)
    return groups


def _read(path: Path) -> dict[str, Any]:
    try:
        said: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TableError(f"{path}: cannot be read ({error})") from error
    return said


def _ratio(of: Mapping[str, float]) -> str:
    return f"{of['median']:.2f} [{of['low']:.2f}, {of['high']:.2f}]"


def _listed(words: Sequence[str]) -> str:
    return ", ".join(words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
