"""ChaLearn IsoGD: 47,933 pairs of RGB and depth video, 249 gestures, from Kinect; 320 x 240, about 10 frames a second.

J. Wan, S. Z. Li, Y. Zhao, S. Zhou, I. Guyon, S. Escalera: ChaLearn Looking at People RGB-D isolated and continuous
datasets for gesture recognition, CVPR Workshops 2016. For research and education only; not to be passed on.

The folder holds `train/001/M_00002.avi` (RGB) beside `train/001/K_00002.avi` (depth), `valid/...` and `test/...`, and
the official lists, which are the split; people are in one split only. A line of a list is RGB, depth and, where labels
are given, the number of the gesture. The public test list has none: its pairs can be answered, and not measured. Depth
is 8-bit grey video, not metric, 0 is no reading: it is taken as it is.
"""

from dataclasses import dataclass
from pathlib import Path

from kinema.config import config
from kinema.data.manifest import LABEL, Entry
from kinema.datasets.listed import check_once, differences
from kinema.datasets.options import DatasetOptions
from kinema.datasets.prepared import Prepared, check_target, finish
from kinema.errors import ManifestError
from kinema.video.scan import scan

CLASSES = tuple(f"{number:03}" for number in range(1, 250))
"""The gestures have numbers; with leading zeros they sort as numbers do."""
LISTS = {
    "train": ("train_list.txt", "train_list_subset.txt"),
    "val": ("valid_list_with_labels.txt", "valid_list.txt"),
    "test": ("test_list_with_labels.txt", "test_list.txt"),
}
"""Names of the list of each split; the first that is there is used."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One line of a list.

    Args:
        rgb, depth: paths below the folder of the data set.
        label: of the gesture; empty where the list gives none.
        line: in the list.
    """

    rgb: str
    depth: str
    label: str
    line: int


def read_pairs(path: Path) -> list[Pair]:
    """The pairs of an official list.

    Raises:
        ManifestError: a line is not of the form RGB DEPTH or RGB DEPTH NUMBER, a number is no gesture's, some lines
            have a number and others not, or a file stands there twice.
    """
    pairs = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        if len(words) not in (2, 3):
            raise ManifestError(f"{path}, line {number}: {line!r} is not of the form RGB DEPTH NUMBER")
        label = words[2].zfill(3) if len(words) == 3 else ""
        if label and label not in CLASSES:
            raise ManifestError(f"{path}, line {number}: {words[2]!r} is no gesture; they are 1 to {len(CLASSES)}")
        pairs.append(Pair(rgb=words[0], depth=words[1], label=label, line=number))
    if not pairs:
        raise ManifestError(f"{path}: is empty; a line is RGB DEPTH NUMBER")
    for pair in pairs:
        if bool(pair.label) != bool(pairs[0].label):
            raise ManifestError(f"{path}, line {pair.line}: some lines of the list have a label, and some have none")
    check_once(path, [(pair.line, pair.rgb) for pair in pairs])
    check_once(path, [(pair.line, pair.depth) for pair in pairs])
    return pairs


@config
class IsogdOptions(DatasetOptions):
    """Make a manifest of ChaLearn IsoGD."""


def prepare(options: IsogdOptions) -> Prepared:
    """Write the manifest of the data set; see `prepare_isogd`."""
    return prepare_isogd(options.root, options.out)


def prepare_isogd(root: Path, out: Path) -> Prepared:
    """Make a manifest of the pairs of IsoGD that the lists name and the disk holds.

    Args:
        root: the folder that holds the lists and the folders `train`, `valid` and `test`.
        out: the CSV to write; the JSON comes beside it.

    Raises:
        ManifestError: there is no such folder, no list with labels, a list says something impossible, or not one of its
            pairs with labels is on disk.
    """
    check_target(out)
    if not root.is_dir():
        raise ManifestError(f"{root}: no such folder; give the one that holds train_list.txt and the folder train")
    on_disk = frozenset(path.relative_to(root).as_posix() for path in scan(root).videos)
    entries: list[Entry] = []
    missing: list[str] = []
    listed: set[str] = set()
    used: list[str] = []
    declared: dict[str, int] = {}
    labelled = False
    notes: list[str] = []
    for split, names in LISTS.items():
        path = next((root / name for name in names if (root / name).is_file()), None)
        if path is None:
            notes.append(f"split {split} is left out: {' or '.join(names)} is not in {root}")
            continue
        pairs = read_pairs(path)
        listed.update(source for pair in pairs for source in (pair.rgb, pair.depth))
        if not pairs[0].label:
            notes.append(
                f"split {split} has no labels: the {len(pairs)} pairs of {path.name} can be answered, and not measured"
            )
        labelled = labelled or bool(pairs[0].label)
        used.append(path.name)
        declared[split] = len(pairs)
        for pair in pairs:
            if pair.rgb in on_disk and pair.depth in on_disk:
                labels = {LABEL: pair.label} if pair.label else {}
                entries.append(Entry(rgb=pair.rgb, depth=pair.depth, split=split, labels=labels))
            else:
                missing.append(pair.rgb)
    if not labelled:
        wanted = ", ".join(name for names in LISTS.values() for name in names)
        raise ManifestError(f"{root}: there is no list with labels; looked for {wanted}")
    if not any(entry.labels for entry in entries):
        raise ManifestError(
            f"{root}: no pair with a label is on disk; {len(missing)} listed pairs are missing, e.g. {missing[0]}"
        )
    notes += differences(", ".join(used), listed, on_disk, missing)
    return finish(
        entries,
        out,
        base=root,
        corpus="ChaLearn IsoGD",
        version=", ".join(used),
        classes={LABEL: CLASSES},
        declared=declared,
        notes=notes,
    )
