"""Give bad input to the command line, and count the cases that end in anything but one line and exit code 2.

    python benchmarks/hand_made.py --out results/hand_made.json

`hand_made.toml` lists the cases. Each runs `kinema.cli.app.main` in a worker process, in its own copy of a small
folder with a manifest, its videos, a model, predictions and a run.
"""

import argparse
import contextlib
import io
import json
import os
import re
import shlex
import shutil
import tempfile
import tomllib
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from hostile_files import Result, Worker
from measuring import store

CASES = Path(__file__).with_suffix(".toml")
TIMEOUT_S = 60.0
MAX_LINE = 10_000
REPORTS = re.compile(r"^(run: |plan: |step \d+: )|^kinema: 1 of 1 videos could not be read$")
"""Lines on standard error that are no errors: the progress of `train`, and the total of `predict`."""

LEVELS = {"dim": 40, "gray": 120, "bright": 200}

RECIPE = """
from dataclasses import replace
from kinema.recipes.moves_ctn_tiny import RECIPE as MOVES
RECIPE = replace(
    MOVES,
    clip=replace(MOVES.clip, frames=8, size=32, short_side=32),
    data=replace(MOVES.data, manifest="m.csv", evaluate="test", batch_size=2, workers=0),
    model=replace(MOVES.model, stem_channels=4, width=12, depth=1, attention_heads=3),
)
"""


@dataclass(frozen=True, kw_only=True)
class Case:
    """Bad input and the command that reads it.

    Attributes:
        group: Title of the group of cases.
        args: Arguments of `kinema`.
        value: What is bad, for reports.
        file: File to replace before the command runs; empty if the arguments are what is bad.
        content: Content of the file, or a node: `<folder>`, `<fifo>`, `<loop>`, `<gone>` or `<link PATH>`.
        key: Field of a JSON file that the content, itself JSON, replaces; empty for the whole file.
    """

    group: str
    args: tuple[str, ...]
    value: str
    file: str = ""
    content: str = ""
    key: str = ""

    @property
    def title(self) -> str:
        """Name of the case in reports."""
        return f"{self.group}: {self.value[:60]}"


def load_cases(path: Path = CASES) -> list[Case]:
    """Return all cases, one per value of a group."""
    cases = []
    for group in tomllib.loads(path.read_text(encoding="utf-8"))["group"]:
        for value in group["values"]:
            text = str(value["text"]) * value["times"] if isinstance(value, dict) else value
            text += value.get("then", "") if isinstance(value, dict) else ""
            shown = f"{value['text']!r} x {value['times']}" if isinstance(value, dict) else value
            where = {} if "file" not in group else {"file": group["file"], "content": text, "key": group.get("key", "")}
            args = tuple(arg.replace("@", text) if not where else arg for arg in shlex.split(group["args"]))
            if group["args"] == "@":
                args = tuple(shlex.split(text))
            cases.append(Case(group=group["about"], args=args, value=shown, **where))
    return cases


def make_ground(folder: Path) -> None:
    """Fill a folder with a manifest of six videos, a recipe, a run of one step with its model, and predictions."""
    from kinema.data.manifest import Entry, write_manifest

    entries = []
    for number in range(6):
        label = list(LEVELS)[number % 3]
        _write_video(folder / f"{number}.mp4", LEVELS[label] + number)
        split = "train" if number < 3 else "test"
        entries.append(Entry(rgb=f"{number}.mp4", frames=8, split=split, labels={"label": label}))
    classes = {"label": tuple(LEVELS)}
    write_manifest(folder / "m.csv", entries=entries, classes=classes, dataset="levels", version="1", depth=None)
    (folder / "r.py").write_text(RECIPE, encoding="utf-8")
    (folder / "t.csv").write_text("path,class\n0.mp4,dim\n1.mp4,gray\n2.mp4,bright\n", encoding="utf-8")
    np.savez(folder / "a.npz", rgb=np.zeros((8, 16, 16, 3), np.uint8))
    from kinema.cli.app import main as kinema

    with _inside(folder), contextlib.redirect_stdout(io.StringIO()):
        kinema(shlex.split("train r.py --max-steps 1 --run.out run --compute.device cpu"))
        shutil.copytree("run/model", "model")
        shutil.copy("run/predictions.safetensors", "p.safetensors")


def run_case(request: tuple[Path, Case]) -> Result:
    """Run a case in a copy of the ground and return its outcome."""
    ground, case = request
    with tempfile.TemporaryDirectory(dir=ground.parent) as name:
        folder = Path(name) / "data"
        shutil.copytree(ground, folder)
        if case.file:
            _spoil(folder / case.file, case)
        out, err = io.StringIO(), io.StringIO()
        code: object = 0
        with _inside(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                from kinema.cli.app import main as kinema

                kinema(case.args)
            except SystemExit as stop:
                code = stop.code
            except BaseException as error:
                place = traceback.extract_tb(error.__traceback__)[-1]
                detail = f"{type(error).__name__} in {Path(place.filename).name}:{place.name}: {error}"
                return Result(outcome="failed", detail=detail[:300])
    lines = [line for line in err.getvalue().splitlines() if not REPORTS.search(line)]
    if code != 2:
        return Result(outcome="failed", detail=f"exit code {code}; {' / '.join(lines)}"[:300])
    if len(lines) != 1 or re.search(r"[\x00-\x08\x0b-\x1f\x7f]", lines[0]):
        return Result(outcome="failed", detail=f"{len(lines)} lines: {' / '.join(lines)}"[:300])
    if not lines[0].startswith("kinema: ") or len(lines[0]) > MAX_LINE:
        return Result(outcome="failed", detail=f"{len(lines[0])} characters: {lines[0]}"[:300])
    return Result(outcome="refused", detail=lines[0])


def run_cases(folder: Path, cases: Sequence[Case]) -> Iterator[tuple[Case, Result]]:
    """Yield each case with its outcome; a case at which the worker process crashes or hangs has failed."""
    ground = folder / "ground"
    ground.mkdir()
    make_ground(ground)
    worker: Worker | None = None
    for case in cases:
        worker = worker or Worker(run_case)
        result, reason = worker.ask((ground, case), TIMEOUT_S)
        if result is None:
            worker = None
        yield case, result or Result(outcome="failed", detail=reason)
    if worker is not None:
        worker.close()


def summary(results: Sequence[tuple[Case, Result]]) -> dict[str, Any]:
    """Return the counts by group, and the cases that failed."""

    def counts(chosen: Sequence[tuple[Case, Result]]) -> dict[str, int]:
        outcomes = Counter(result.outcome for _, result in chosen)
        return {"tried": len(chosen), "refused": outcomes["refused"], "failed": outcomes["failed"]}

    groups = dict.fromkeys(case.group for case, _ in results)
    return {
        "total": counts(results),
        "groups": {group: counts([r for r in results if r[0].group == group]) for group in groups},
        "failed": [{"case": case.title, "detail": r.detail} for case, r in results if r.outcome == "failed"],
    }


def _write_video(path: Path, level: int) -> None:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25, options={"preset": "ultrafast", "crf": "30"})
        stream.width, stream.height, stream.pix_fmt = 48, 36, "yuv420p"
        for number in range(8):
            picture = np.full((36, 48, 3), level + number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def _spoil(path: Path, case: Case) -> None:
    content = case.content
    if case.key:
        stored = json.loads(path.read_text(encoding="utf-8"))
        *parents, last = case.key.split(".")
        owner = stored
        for name in parents:
            owner = owner[name]
        # Written as text: the value may be no valid JSON, or deeper than Python can write.
        owner[last] = "@value@"
        path.write_text(json.dumps(stored).replace('"@value@"', content), encoding="utf-8")
        return
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    if content == "<folder>":
        path.mkdir()
    elif content == "<fifo>":
        os.mkfifo(path)
    elif content == "<loop>":
        path.symlink_to(path)
    elif content.startswith("<link "):
        path.symlink_to(content[6:-1])
    elif content != "<gone>":
        path.write_bytes(content.encode("latin-1" if content.startswith("\xff") else "utf-8"))


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON of the counts")
    parser.add_argument("--only", default="", help="run the cases whose title contains this, and print their lines")
    args = parser.parse_args()
    cases = [case for case in load_cases() if args.only in case.title]
    with tempfile.TemporaryDirectory() as folder:
        results = []
        for case, result in run_cases(Path(folder), cases):
            results.append((case, result))
            if args.only or result.outcome == "failed":
                print(f"{result.outcome}: {case.title}\n    {result.detail}", flush=True)
    report = store(args.out, arguments={}, packages=("pydantic", "tyro"), parts=summary(results), show=False)
    print(report["total"])
    return int(report["total"]["failed"] > 0)


if __name__ == "__main__":
    raise SystemExit(main())
