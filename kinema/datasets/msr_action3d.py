"""MSR-Action3D: depth of 20 actions, 10 people, up to three takes, from a sensor like Kinect; 15 frames per second.

W. Li, Z. Zhang, Z. Liu: Action recognition based on a bag of 3D points, CVPR Workshops 2010. The data has no stated
license. The root folder contains, at any depth, files named by action, subject and take: `a01_s01_e01_sdepth.mat` (the
original form in MATLAB: `depth`, height x width x frames) or `a01_s01_e01.npz` (`depth`, frames x height x width). The
original `.bin` files are not supported.

The split is the usual one by subjects: 1, 3, 5, 7 and 9 are `train`, the others `test`. If the root has a table
`annotations.csv` (path, label, subject, split), its samples and its split are used.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from kinema.data.manifest import LABEL, Entry
from kinema.datasets.options import DatasetOptions
from kinema.datasets.prepared import PreparedDataset, note_names
from kinema.datasets.registry import DatasetSpec
from kinema.datasets.skeleton import ANNOTATIONS, Files, ListedSample, check_paths, count_splits, join, read_annotations
from kinema.errors import ManifestError
from kinema.modality import DepthFacts
from kinema.video.scan import scan

DATASET = "MSR-Action3D"
# fmt: off
CLASSES = (
    "high_arm_wave", "horizontal_arm_wave", "hammer", "hand_catch", "forward_punch", "high_throw", "draw_x",
    "draw_tick", "draw_circle", "hand_clap", "two_hand_wave", "side_boxing", "bend", "forward_kick", "side_kick",
    "jogging", "tennis_swing", "tennis_serve", "golf_swing", "pickup_and_throw",
)
# fmt: on
"""Names of actions 1 to 20."""
NUM_SEQUENCES = 567
"""Number of sequences in the complete dataset, according to its page."""
TRAINING_SUBJECTS = frozenset({"s01", "s03", "s05", "s07", "s09"})
DEPTH = DepthFacts(unit_mm=None, near=325, far=580, coverage="masked")
"""Range of the person's depth in the sensor's own unit: of all nonzero values in 437 sequences of eight subjects,
0.01 % are below the near end and 0.01 % above the far end; the extremes are 290 and 649."""
NAME = re.compile(r"(a(\d\d)_(s\d\d)_e\d\d)(?:_sdepth)?")


class SequenceName(NamedTuple):
    """Parts of a file name: `a01_s01_e01`, class name, subject."""

    sequence: str
    label: str
    subject: str


def prepare(options: DatasetOptions) -> PreparedDataset:
    """Write the manifest of MSR-Action3D.

    Raises:
        ManifestError: No sequence is found, one is found twice, or the table contradicts a file name.
    """
    check_paths(options, "the files aAA_sSS_eEE")
    root = options.root
    contents = scan(root)
    names = {path.relative_to(root).as_posix(): name for path in contents.arrays if (name := parse_name(path))}
    raw = [path.name for path in contents.others if path.suffix == ".bin"]
    if not names:
        fix = f"Convert its {len(raw)} .bin files to .mat or .npz." if raw else "Pass the folder of the dataset."
        raise ManifestError(f"{root}: no file named like a01_s01_e01.npz or a01_s01_e01_sdepth.mat. {fix}", path=root)
    notes = note_names(raw, ".bin files are not supported and are omitted")
    if (root / ANNOTATIONS).is_file():
        samples = read_annotations(root, "depth", {"subject": "subject"}, CLASSES)
        _refuse_contradictions(samples, names)
        lists, version = ANNOTATIONS, f"split of {ANNOTATIONS}"
    else:
        samples = _split_by_subject(root, names)
        lists, version = "the files", "cross-subject: 1, 3, 5, 7, 9 train"
        if len(samples) != NUM_SEQUENCES:
            notes.append(f"{len(samples)} sequences found; the whole dataset has {NUM_SEQUENCES}")
    return join(
        options,
        samples,
        Files(paths={path: path for path in names}, searched="a01_s01_e01.npz"),
        dataset=DATASET,
        lists=lists,
        version=version,
        classes=CLASSES,
        declared=count_splits(samples),
        depth=DEPTH,
        notes=notes,
    )


def _refuse_contradictions(samples: Sequence[ListedSample], names: Mapping[str, SequenceName]) -> None:
    """Raise ManifestError if a line of the table contradicts the name of its file."""
    for sample in samples:
        label, subject = sample.entry.labels[LABEL], sample.entry.subject
        name = names.get(sample.name)
        if name is not None and (name.label, name.subject) != (label, subject):
            problem = f"{label} of {subject} contradicts the file name {sample.name}: {name.label} of {name.subject}"
            raise sample.error(problem, field=LABEL if name.label != label else "subject")


def _split_by_subject(root: Path, names: Mapping[str, SequenceName]) -> list[ListedSample]:
    """Return all sequences with the split of their subjects; refuse two files of one sequence."""
    samples = []
    paths: dict[str, str] = {}
    for path, name in names.items():
        first = paths.setdefault(name.sequence, path)
        if first != path:
            problem = f"{first} and {path} are the same sequence. Pass the folder of one of them."
            raise ManifestError(f"{root}: {problem}", path=root / path)
        split = "train" if name.subject in TRAINING_SUBJECTS else "test"
        entry = Entry(depth=path, split=split, subject=name.subject, labels={LABEL: name.label})
        samples.append(ListedSample(name=path, entry=entry, path=root, line=0))
    return samples


def parse_name(path: Path) -> SequenceName | None:
    """Return the parts of a file name, or None if it is not a sequence.

    Raises:
        ManifestError: The number of the action is above 20.
    """
    parts = NAME.fullmatch(path.stem)
    if parts is None:
        return None
    name, action, subject = parts.groups()
    if not 1 <= int(action) <= len(CLASSES):
        raise ManifestError(f"{path}: expected an action from 1 to {len(CLASSES)}, got {action}", path=path)
    return SequenceName(sequence=name, label=CLASSES[int(action) - 1], subject=subject)


SPECS = (DatasetSpec("msr_action3d", "MSR-Action3D: 567 depth sequences of 20 actions.", DatasetOptions, prepare),)
