"""MSR-Action3D: depth of 20 actions, 10 people, up to three takes, from a sensor like Kinect; 15 frames a second.

W. Li, Z. Zhang, Z. Liu: Action recognition based on a bag of 3D points, CVPR Workshops 2010. No licence of the data is
stated. The folder holds, at any depth, files that are named by action, subject and take: `a01_s01_e01_sdepth.mat` (the
original form in MATLAB: `depth`, height x width x frames) or `a01_s01_e01.npz` (`depth`, frames x height x width). The
original `.bin` files are not read.

The split keeps people apart, as the field does: subjects 1, 3, 5, 7 and 9 train, the others are split `test`. Where a
table `annotations.csv` (path, label, subject, split) lies in the folder, it says which files count, and its split
stands.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kinema.config import config
from kinema.data.manifest import LABEL, Entry
from kinema.datasets.listed import ANNOTATIONS, Chosen, differences, read_annotations
from kinema.datasets.options import DatasetOptions
from kinema.datasets.prepared import Prepared, check_target, examples, finish
from kinema.errors import ManifestError
from kinema.modality import DepthFacts
from kinema.video.scan import scan

CLASSES = (
    "high_arm_wave",
    "horizontal_arm_wave",
    "hammer",
    "hand_catch",
    "forward_punch",
    "high_throw",
    "draw_x",
    "draw_tick",
    "draw_circle",
    "hand_clap",
    "two_hand_wave",
    "side_boxing",
    "bend",
    "forward_kick",
    "side_kick",
    "jogging",
    "tennis_swing",
    "tennis_serve",
    "golf_swing",
    "pickup_and_throw",
)
"""Names of actions 1 to 20."""
SEQUENCES = 567
"""Of the whole data set, as its page counts them."""
TRAINING_SUBJECTS = frozenset({"s01", "s03", "s05", "s07", "s09"})
DEPTH = DepthFacts(unit_mm=None, near=325, far=580, coverage="masked")
"""The sensor's own unit. Chosen so that the person spans the range: of all values that are not 0, in 437 sequences of
eight subjects, 0.01 % lie below the near end and 0.01 % above the far one; the extremes are 290 and 649."""
NAME = re.compile(r"(a(\d\d)_(s\d\d)_e\d\d)(?:_sdepth)?")


@dataclass(frozen=True, kw_only=True)
class _Sequence:
    name: str
    label: str
    subject: str


@config
class MsrAction3dOptions(DatasetOptions):
    """Make a manifest of MSR-Action3D."""


def prepare(options: MsrAction3dOptions) -> Prepared:
    """Write the manifest of the data set; see `prepare_msr_action3d`."""
    return prepare_msr_action3d(options.root, options.out)


def prepare_msr_action3d(root: Path, out: Path) -> Prepared:
    """Make a manifest of MSR-Action3D.

    Args:
        root: the folder; its files may lie in folders inside.
        out: the CSV to write; the JSON comes beside it.

    Raises:
        ManifestError: there is no such folder, no sequence in it, one is there twice, or the table contradicts a name.
    """
    check_target(out)
    chosen = _chosen(root)
    return finish(
        chosen.entries,
        out,
        base=root,
        corpus="MSR-Action3D",
        version=chosen.version,
        classes={LABEL: CLASSES},
        depth=DEPTH,
        declared=chosen.declared,
        notes=chosen.notes,
    )


def _chosen(root: Path) -> Chosen:
    if not root.is_dir():
        raise ManifestError(f"{root}: no such folder; give the one that holds the files aAA_sSS_eEE")
    found = scan(root)
    there = {
        path.relative_to(root).as_posix(): sequence
        for path in found.arrays
        if (sequence := _sequence(path)) is not None
    }
    raw = [path.name for path in found.others if path.suffix == ".bin"]
    if not there:
        hint = f"its {len(raw)} .bin files are not read, MATLAB's are" if raw else "wanted are npz and mat files"
        raise ManifestError(f"{root}: no file is named like a01_s01_e01.npz or a01_s01_e01_sdepth.mat; {hint}")
    notes = [f"{len(raw)} .bin files are not read, and were left out: {examples(raw)}"] if raw else []
    if (root / ANNOTATIONS).is_file():
        return _by_table(root, there, notes)

    seen: dict[str, str] = {}
    entries = []
    for path, sequence in there.items():
        if sequence.name in seen:
            raise ManifestError(
                f"{root}: {seen[sequence.name]} and {path} are the same sequence; give the folder of one of them"
            )
        seen[sequence.name] = path
        split = "train" if sequence.subject in TRAINING_SUBJECTS else "test"
        entries.append(Entry(depth=path, split=split, subject=sequence.subject, labels={LABEL: sequence.label}))
    if len(entries) != SEQUENCES:
        notes.append(f"{len(entries)} sequences are here; the whole data set has {SEQUENCES}")
    return Chosen(entries, "cross-subject: 1, 3, 5, 7, 9 train", notes)


def _by_table(root: Path, there: Mapping[str, _Sequence], notes: list[str]) -> Chosen:
    table = root / ANNOTATIONS
    lines = read_annotations(root, ("path", "label", "subject", "split"))
    entries, missing = [], []
    declared: dict[str, int] = {}
    for line, row in lines:
        declared[row["split"]] = declared.get(row["split"], 0) + 1
        sequence = there.get(row["path"])
        if sequence is None:
            missing.append(row["path"])
            continue
        if (row["label"], row["subject"]) != (sequence.label, sequence.subject):
            raise ManifestError(
                f"{table}, line {line}: says {row['label']} of {row['subject']}, but by its name {row['path']} is "
                f"{sequence.label} of {sequence.subject}"
            )
        frames = int(row["frames"]) if row.get("frames", "").isdecimal() else None
        entries.append(
            Entry(
                depth=row["path"],
                split=row["split"],
                subject=sequence.subject,
                frames=frames or None,
                labels={LABEL: sequence.label},
            )
        )
    said = differences(table.name, [row["path"] for _, row in lines], there, missing)
    return Chosen(entries, f"split of {ANNOTATIONS}", [*notes, *said], declared)


def _sequence(path: Path) -> _Sequence | None:
    """What a file's name says; None where it is another file's."""
    parts = NAME.fullmatch(path.stem)
    if parts is None:
        return None
    name, action, subject = parts.groups()
    if not 1 <= int(action) <= len(CLASSES):
        raise ManifestError(f"{path}: there is no action {action}; the data set has 1 to {len(CLASSES)}")
    return _Sequence(name=name, label=CLASSES[int(action) - 1], subject=subject)
