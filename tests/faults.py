"""Plant faults one at a time and report whether the tests see them.

    python tests/faults.py                  # all faults; rewrites tests/faults.md
    python tests/faults.py kinema/files.py  # faults of the files whose path contains this; prints only

Each fault replaces a text of one file in a copy of the tree and runs the one test file that should fail. The script
exits with 1 if a fault is not seen, or if its text is no longer in the file exactly once. It is not part of the suite.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


class Fault(NamedTuple):
    """Text of a file, what replaces it, and the test file that should fail."""

    file: str
    old: str
    new: str
    test: str


FAULTS = (
    # Files and journals
    Fault("kinema/files.py", "os.fsync(file.fileno())", "pass", "tests/test_files.py"),
    Fault("kinema/files.py", "        sync(temporary)\n", "", "tests/test_files.py"),
    Fault(
        "kinema/files.py",
        'path.with_name(f"{uuid.uuid4().hex}.unfinished")',
        'path.with_suffix(".unfinished")',
        "tests/test_files.py",
    ),
    Fault("kinema/files.py", "            leftover.unlink(missing_ok=True)", "            pass", "tests/test_files.py"),
    Fault(
        "kinema/files.py",
        "            if not path.exists():\n                raise",
        "            raise",
        "tests/test_files.py",
    ),
    Fault("kinema/files.py", 'if file.read() != b"\\n":', "if False:", "tests/test_files.py"),
    Fault(
        "kinema/files.py",
        "            self._file.write(line)\n            self._file.flush()",
        "            self._file.write(line)",
        "tests/test_files.py",
    ),
    # Packing and checking
    Fault(
        "kinema/curation/pack.py", "state in ((), record.state) and ", "", "tests/curation/test_pack_interruption.py"
    ),
    Fault(
        "kinema/curation/pack.py",
        "file.stat().st_size == record.bytes",
        "True",
        "tests/curation/test_pack_interruption.py",
    ),
    Fault(
        "kinema/curation/pack.py",
        ", target.name: origin}",
        "}",
        "tests/curation/test_pack_interruption.py",
    ),
    Fault("kinema/curation/pack.py", "        rgb_box=None,\n", "", "tests/curation/test_pack.py"),
    Fault(
        "kinema/curation/inspections.py",
        "return [stat.st_size, stat.st_mtime_ns]",
        "return [stat.st_size]",
        "tests/curation/test_check.py",
    ),
    Fault(
        "kinema/curation/inspections.py",
        "inspections[file] for file in unique",
        "inspections[file] for file in inspections",
        "tests/curation/test_check.py",
    ),
    Fault(
        "kinema/curation/check_files.py",
        "entry.stop_frame > file.frames",
        "entry.stop_frame > file.frames + 1",
        "tests/curation/test_check.py",
    ),
    Fault("kinema/curation/check_files.py", "if length < 2:", "if length < 1:", "tests/curation/test_check.py"),
    Fault(
        "kinema/curation/check_splits.py",
        "a_frame < d_frame and c_frame < b_frame",
        "a_frame <= d_frame and c_frame <= b_frame",
        "tests/curation/test_check.py",
    ),
    Fault(
        "kinema/curation/check_splits.py",
        'split == "train", split)), 2)',
        'split != "train", split)), 2)',
        "tests/curation/test_check.py",
    ),
    Fault("kinema/curation/check_splits.py", "and f not in shared", "", "tests/curation/test_check.py"),
    # Reports
    Fault("kinema/reports/page.py", "autoescape=True", "autoescape=False", "tests/reports/test_page.py"),
    Fault("kinema/reports/page.html.jinja", "== clip.truth else", "!= clip.truth else", "tests/reports/test_page.py"),
    Fault(
        "kinema/reports/results.py",
        "logits.max(axis=1, keepdims=True)",
        "logits.max()",
        "tests/reports/test_results.py",
    ),
    Fault(
        "benchmarks/tables.py",
        'order = np.argsort(stored["index"])',
        'order = np.arange(len(stored["index"]))',
        "tests/benchmarks/test_tables.py",
    ),
    Fault(
        "benchmarks/tables.py", '"low": 1 / share["high"]', '"low": 1 / share["low"]', "tests/benchmarks/test_tables.py"
    ),
    # Metrics
    Fault(
        "kinema/evaluation/metrics.py",
        "(logits == own) & ~earlier",
        "(logits == own)",
        "tests/evaluation/test_metrics.py",
    ),
    Fault(
        "kinema/evaluation/metrics.py",
        "np.nanmean(class_accuracy(counts))",
        "np.nan_to_num(class_accuracy(counts)).mean()",
        "tests/evaluation/test_metrics.py",
    ),
    Fault(
        "kinema/evaluation/metrics.py",
        "_percent(correct, predicted)",
        "_percent(correct, support)",
        "tests/evaluation/test_metrics.py",
    ),
    # Layers and models
    Fault(
        "kinema/layers/central_difference.py",
        "weight.sum((2, 3, 4), keepdim=True)",
        "weight.sum((3, 4), keepdim=True)",
        "tests/layers/test_central_difference.py",
    ),
    Fault(
        "kinema/layers/temporal_topk.py",
        "return max(1, frames // 2)",
        "return max(1, (frames + 1) // 2)",
        "tests/layers/test_temporal_topk.py",
    ),
    Fault(
        "kinema/layers/temporal_topk.py",
        "indices.sort(-1).values\n\n\ndef uniform_places",
        "indices\n\n\ndef uniform_places",
        "tests/layers/test_temporal_topk.py",
    ),
    Fault(
        "kinema/layers/temporal_topk.py",
        "rows = scores[..., 1:, :]",
        "rows = scores[..., 1:, 1:]",
        "tests/layers/test_temporal_topk.py",
    ),
)


def run(fault: Fault, tree: Path) -> tuple[str, str]:
    """Plant a fault in a copy of the tree; return `seen`, `not seen` or `stale`, and the test that failed."""
    path = tree / fault.file
    source = path.read_text(encoding="utf-8")
    if source.count(fault.old) != 1:
        return "stale", f"its text is in the file {source.count(fault.old)} times"
    path.write_text(source.replace(fault.old, fault.new), encoding="utf-8")
    try:
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "-p",
            "no:cacheprovider",
            "-m",
            "not long and not system",
        ]
        environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
        ended = subprocess.run([*command, fault.test], cwd=tree, env=environment, capture_output=True, text=True)
    finally:
        path.write_text(source, encoding="utf-8")
    failed = [line.split("::", 1)[1].split(" - ")[0] for line in ended.stdout.splitlines() if line.startswith("FAILED")]
    if ended.returncode == 1 and failed:
        return "seen", failed[0]
    return ("not seen", "") if ended.returncode == 0 else ("stale", f"pytest ended with {ended.returncode}")


def copy_tree(target: Path) -> None:
    """Copy the files that git tracks, and new ones it does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes((ROOT / name).read_bytes())


def main(chosen: str = "") -> int:
    rows = ["| file | text | becomes | test |", "| --- | --- | --- | --- |"]
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        copy_tree(Path(folder))
        for fault in FAULTS:
            if chosen not in fault.file:
                continue
            verdict, detail = run(fault, Path(folder))
            missed += verdict != "seen"
            print(f"{verdict:8} {fault.file}: {fault.old.strip()!r} -> {fault.new.strip()!r}  {detail}", flush=True)
            old, new = (" ".join(text.split()).replace("|", "\\|") for text in (fault.old, fault.new))
            seen_by = f"`{fault.test}`: {detail}" if verdict == "seen" else f"**{verdict}** {detail}"
            rows.append(f"| `{fault.file}` | `{old}` | `{new or ' '}` | {seen_by} |")
    if not chosen:
        head = "# Planted faults and the tests that see them\n\nGenerated by `python tests/faults.py`.\n\n"
        (ROOT / "tests" / "faults.md").write_text(head + "\n".join(rows) + "\n", encoding="utf-8")
    return min(missed, 1)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
