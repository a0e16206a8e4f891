"""HMDB-51: 6,766 clips of 51 actions, most from films, 240 pixels high, about 30 frames a second.

H. Kuehne, H. Jhuang, E. Garrote, T. Poggio, T. Serre: HMDB: A Large Video Database for Human Motion Recognition, ICCV
2011. Its page says CC BY 4.0; the footage has its own owners. The folder holds a folder for each action, itself or in
`hmdb51_org` or `videos`, each unpacked from a `.rar` of its own; and the official lists `ACTION_test_splitN.txt`,
itself or in `testTrainMulti_7030_splits`, `splits` or `annotations`: a line a clip, `NAME.avi 1` to train on,
`NAME.avi 2` to test on, `NAME.avi 0` in neither. Each of the three splits has 70 and 30 clips of each action.

The label of a clip is its list's, its folder's and that in its name, which must be the same. Its group is the film,
as far as the name gives it: what stands before the action (`RATRACE` in `RATRACE_wave_f_nm_np1_fr_goo_37`). A split
keeps the films of one action apart, but not those of different actions.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kinema.config import config
from kinema.data.manifest import LABEL, Entry
from kinema.datasets.jhmdb import film
from kinema.datasets.listed import check_once, differences, first_home, read_lines, still_packed
from kinema.datasets.options import DatasetOptions
from kinema.datasets.prepared import Prepared, check_target, examples, finish
from kinema.errors import ManifestError
from kinema.video.scan import VIDEO_SUFFIXES, scan

CORPUS = "HMDB-51"
CLASSES = (
    "brush_hair",
    "cartwheel",
    "catch",
    "chew",
    "clap",
    "climb",
    "climb_stairs",
    "dive",
    "draw_sword",
    "dribble",
    "drink",
    "eat",
    "fall_floor",
    "fencing",
    "flic_flac",
    "golf",
    "handstand",
    "hit",
    "hug",
    "jump",
    "kick",
    "kick_ball",
    "kiss",
    "laugh",
    "pick",
    "pour",
    "pullup",
    "punch",
    "push",
    "pushup",
    "ride_bike",
    "ride_horse",
    "run",
    "shake_hands",
    "shoot_ball",
    "shoot_bow",
    "shoot_gun",
    "sit",
    "situp",
    "smile",
    "smoke",
    "somersault",
    "stand",
    "swing_baseball",
    "sword",
    "sword_exercise",
    "talk",
    "throw",
    "turn",
    "walk",
    "wave",
)
SPLITS = (1, 2, 3)
OF_EACH = {"train": 70, "test": 30}
"""Clips of each action in the official lists, of every split."""
COUNTS = {side: len(CLASSES) * count for side, count in OF_EACH.items()}
SIDES = {"1": "train", "2": "test", "0": ""}
"""Numbers in the official lists; what stands in neither side has no split."""
LIST_FOLDERS = ("", "testTrainMulti_7030_splits", "splits", "annotations")
HOMES = ("hmdb51_org", "", "videos")
"""Where the folders of the actions may lie."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One line of an official list.

    Args:
        name: without suffix.
        action: of the list.
        film: that it was cut from, as far as its name says.
        side: `train`, `test`, or empty where it is in neither.
        path: of the list.
        line: in the list.
    """

    name: str
    action: str
    film: str
    side: str
    path: Path
    line: int


def read_list(path: Path, action: str) -> list[Clip]:
    """The clips of the official list of one action.

    Raises:
        ManifestError: a line is not of the form NAME.avi 0, 1 or 2, a name is no clip of the action, one stands there
            twice, or the list has not 70 clips to train on and 30 to test on.
    """
    clips = []
    for line, text in read_lines(path):
        file, _, side = text.rpartition(" ")
        if not file or side not in SIDES:
            raise ManifestError(
                f"{path}, line {line}: {text!r} is not of the form NAME.avi 1, NAME.avi 2 or NAME.avi 0"
            )
        name = _name(file.strip())
        source = film(name, action)
        if source == name:
            raise ManifestError(
                f"{path}, line {line}: {file.strip()} is no clip of {action!r}; they are named like "
                f"FILM_{action}_f_cm_np1_fr_med_0.avi"
            )
        clips.append(Clip(name=name, action=action, film=source, side=SIDES[side], path=path, line=line))
    check_once(path, [(clip.line, clip.name) for clip in clips])
    there = Counter(clip.side for clip in clips)
    if any(there[side] != count for side, count in OF_EACH.items()):
        raise ManifestError(
            f"{path}: lists {there['train']} clips to train on and {there['test']} to test on, and the lists of "
            f"{CORPUS} {OF_EACH['train']} and {OF_EACH['test']} of each action: it is a part, or J-HMDB's list "
            "of the same name"
        )
    return clips


@config
class Hmdb51Options(DatasetOptions):
    """Make a manifest of HMDB-51.

    Args:
        split: Official split.
    """

    split: Literal[1, 2, 3] = 1


def prepare(options: Hmdb51Options) -> Prepared:
    """Write the manifest of the data set; see `prepare_hmdb51`."""
    return prepare_hmdb51(options.root, options.out, options.split)


def prepare_hmdb51(root: Path, out: Path, split: int = 1) -> Prepared:
    """Make a manifest of the clips that the lists of one split name and the disk holds.

    Args:
        root: the folder that holds the lists and the folders of the actions.
        out: the CSV to write; the JSON comes beside it.
        split: 1, 2 or 3.

    Raises:
        ManifestError: there is no such folder or split, no list, a list says something impossible, a clip stands in
            two lists or lies in the folder of another action, or not one is on disk.
    """
    check_target(out)
    if split not in SPLITS:
        raise ManifestError(f"split {split}: {CORPUS} has {', '.join(map(str, SPLITS))}")
    if not root.is_dir():
        raise ManifestError(f"{root}: no such folder; give the one that holds a folder for each action and the lists")
    lists = _lists(root, split)
    clips = [clip for action, path in lists.items() for clip in read_list(path, action)]
    _check_apart(clips)
    on_disk, notes = _on_disk(root)
    unlisted = [action for action in CLASSES if action not in lists]
    if unlisted:
        notes.append(f"lists of {len(unlisted)} of {len(CLASSES)} actions are not there: {examples(unlisted)}")
    folders: dict[str, list[str]] = {}
    for action, name in on_disk:
        folders.setdefault(name, []).append(action)
    entries: list[Entry] = []
    missing: list[Clip] = []
    for clip in clips:
        source = on_disk.get((clip.action, clip.name))
        if source is None and clip.name in folders:
            raise ManifestError(
                f"{clip.path}, line {clip.line}: lists {clip.name}, which lies in the folder of "
                f"{folders[clip.name][0]!r}"
            )
        if clip.side and source is None:
            missing.append(clip)
        elif clip.side and source is not None:
            rgb = source.relative_to(root).as_posix()
            entries.append(Entry(rgb=rgb, split=clip.side, group=clip.film, labels={LABEL: clip.action}))
    packed = still_packed([root, *(root / home for home in HOMES if home)]) if missing else []
    names = f"the {len(lists)} lists of split {split}"
    if not entries:
        looked = ", ".join((Path(home) / CLASSES[0]).as_posix() for home in HOMES)
        raise ManifestError(
            "; ".join([f"{root}: no clip of {names} is on disk; looked in {looked} and the like", *packed])
        )
    there = {action for action, _ in on_disk}
    empty = [action for action in lists if action not in there]
    if empty:
        notes.append(f"{len(empty)} actions that have a list have no clip on disk: {examples(empty)}")
    unused = sum(not clip.side for clip in clips)
    if unused:
        notes.append(f"{unused} clips are in neither side of split {split}, and were left out: their number is 0")
    notes += differences(
        names,
        {f"{clip.action}/{clip.name}" for clip in clips},
        {"/".join(key) for key in on_disk},
        [f"{clip.action}/{clip.name}" for clip in missing],
    )
    sides = Counter(clip.side for clip in clips)
    return finish(
        entries,
        out,
        base=root,
        corpus=CORPUS,
        version=f"split {split}, " + ", ".join(f"{side} {sides[side]}" for side in COUNTS),
        classes={LABEL: CLASSES},
        declared=COUNTS,
        notes=[*notes, *packed],
    )


def _lists(root: Path, split: int) -> dict[str, Path]:
    """The list of each action that has one, from the first folder that has any."""
    ending = f"_test_split{split}.txt"
    for folder in LIST_FOLDERS:
        found = {path.name.removesuffix(ending): path for path in (root / folder).glob(f"*{ending}")}
        for action, path in found.items():
            if action not in CLASSES:
                raise ManifestError(f"{path}: {action!r} is none of the {len(CLASSES)} actions of {CORPUS}")
        if found:
            return {action: found[action] for action in CLASSES if action in found}
    places = ", ".join(folder for folder in LIST_FOLDERS if folder)
    raise ManifestError(
        f"{root}: no list like {CLASSES[0]}{ending} is in it, nor in {places}; give the folder of {CORPUS}, and unpack "
        "test_train_splits.rar into it"
    )


def _check_apart(clips: Sequence[Clip]) -> None:
    """Refuse a clip that stands in the lists of two actions."""
    first: dict[str, Clip] = {}
    for clip in clips:
        other = first.setdefault(clip.name, clip)
        if other is not clip:
            raise ManifestError(f"{clip.path}, line {clip.line}: {clip.name} stands in {other.path.name} too")


def _on_disk(root: Path) -> tuple[dict[tuple[str, str], Path], list[str]]:
    """Each clip by its action's folder and its name, and what to say of other homes."""
    homes = {
        home: [
            ((action, _name(path.name)), path)
            for action in CLASSES
            if (root / home / action).is_dir()
            for path in scan(root / home / action).videos
        ]
        for home in HOMES
    }
    return first_home(root, homes)


def _name(file: str) -> str:
    """A clip's name without its suffix; names have dots of their own."""
    suffix = Path(file).suffix
    return file.removesuffix(suffix) if suffix.lower() in VIDEO_SUFFIXES else file
