"""J-HMDB: 928 clips of 21 actions from films and the web, 15 to 40 frames each, cut from HMDB-51.

H. Jhuang, J. Gall, S. Zuffi, C. Schmid, M. J. Black: Towards understanding action recognition, ICCV 2013. HMDB's page
says CC BY 4.0; the footage has its own owners. The folder holds one folder for each action, itself or in `videos`,
`ReCompress_Videos` or `Rename_Images`; in it clips as video files, or each as a folder of pictures.

Clips of one film must not be torn apart: the group of a clip is the film's name, which is all that stands before the
action in the clip's name (`April_09` in `April_09_brush_hair_u_nm_np1_ba_goo_0`). The split, by the first that is
there: a table `annotations.csv` (path, label, source_video, split) in the folder; the official lists
`ACTION_test_split1.txt` in it or in its folder `splits`, a line a clip, `NAME.avi 1` to train and `NAME.avi 2` to test;
else a fifth is held out, by films.
"""

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

from kinema.config import config
from kinema.data.manifest import LABEL, Entry
from kinema.datasets.listed import ANNOTATIONS, Chosen, differences, read_annotations
from kinema.datasets.options import DatasetOptions
from kinema.datasets.prepared import HOLDOUT, Prepared, check_target, finish, hold_out
from kinema.errors import ManifestError
from kinema.video.scan import VIDEO_SUFFIXES, scan

CLASSES = (
    "brush_hair",
    "catch",
    "clap",
    "climb_stairs",
    "golf",
    "jump",
    "kick_ball",
    "pick",
    "pour",
    "pullup",
    "push",
    "run",
    "shoot_ball",
    "shoot_bow",
    "shoot_gun",
    "sit",
    "stand",
    "swing_baseball",
    "throw",
    "walk",
    "wave",
)
FOLDERS = ("", "videos", "ReCompress_Videos", "Rename_Images")
"""Where the folders of the actions may lie."""
LIST_ENDING = "_test_split1.txt"
SIDES = {"1": "train", "2": "test"}
"""Numbers in the official lists."""
ATTRIBUTES = r"_[hufl]_(?:cm|nm)_np\d+_(?:fr|ba|le|ri)_(?:bad|med|goo)_\d+"
"""Visible body parts, motion of the camera, number of people, direction, quality, number of the clip."""


@config
class JhmdbOptions(DatasetOptions):
    """Make a manifest of J-HMDB."""


def prepare(options: JhmdbOptions) -> Prepared:
    """Write the manifest of the data set; see `prepare_jhmdb`."""
    return prepare_jhmdb(options.root, options.out)


def prepare_jhmdb(root: Path, out: Path) -> Prepared:
    """Make a manifest of J-HMDB.

    Args:
        root: the folder.
        out: the CSV to write; the JSON comes beside it.

    Raises:
        ManifestError: there is no such folder, no clip in it, or a list contradicts itself or names what is no class.
    """
    check_target(out)
    chosen = _chosen(root)
    return finish(
        chosen.entries,
        out,
        base=root,
        corpus="J-HMDB",
        version=chosen.version,
        classes={LABEL: CLASSES},
        declared=chosen.declared,
        notes=chosen.notes,
    )


def _chosen(root: Path) -> Chosen:
    if not root.is_dir():
        raise ManifestError(f"{root}: no such folder; give the one that holds a folder for each action")
    if (root / ANNOTATIONS).is_file():
        return _by_table(root)
    clips, notes = _clips(root)
    lists = sorted(path for folder in (root, root / "splits") for path in folder.glob(f"*{LIST_ENDING}"))
    if lists:
        return _by_lists(clips, lists, notes)
    entries, said = hold_out(clips, HOLDOUT)
    return Chosen(entries, "own split by films", [*notes, *said])


def film(clip: str, action: str) -> str:
    """The film that a clip was cut from, by the clip's name without suffix; the whole name where it has no pattern."""
    parts = re.fullmatch(f"(.+)_{re.escape(action)}{ATTRIBUTES}", clip)
    return parts[1] if parts else clip


def _clips(root: Path) -> tuple[list[Entry], list[str]]:
    """Every clip on disk, without a split, from the first folder that has any; and a note where there are others."""
    by_folder: dict[str, list[Entry]] = {}
    for name in FOLDERS:
        for action in CLASSES:
            folder = root / name / action
            if not folder.is_dir():
                continue
            found = scan(folder)
            for path in sorted((*found.videos, *found.picture_folders)):
                source = path.relative_to(root).as_posix()
                entry = Entry(rgb=source, group=film(_name(source), action), labels={LABEL: action})
                by_folder.setdefault(name, []).append(entry)
    if not by_folder:
        places = ", ".join(f"{name}/{CLASSES[0]}".lstrip("/") for name in FOLDERS)
        raise ManifestError(f"{root}: holds no clip; looked in {places} and the like")
    (taken, entries), *others = by_folder.items()
    notes = [
        f"{len(clips)} clips in {name} were left out; those in {taken or root} were taken" for name, clips in others
    ]
    twice = [name for name, count in Counter(_name(entry.rgb) for entry in entries).items() if count > 1]
    if twice:
        raise ManifestError(f"{root}: clip {twice[0]} is there twice; move one away")
    return entries, notes


def _name(source: str) -> str:
    """A clip's name without its suffix; names have dots of their own."""
    name = source.rsplit("/", 1)[-1]
    return name[: -len(Path(name).suffix)] if Path(name).suffix.lower() in VIDEO_SUFFIXES else name


def _by_table(root: Path) -> Chosen:
    table = root / ANNOTATIONS
    lines = read_annotations(root, ("path", "label", "source_video", "split"))
    entries, missing = [], []
    for line, row in lines:
        if row["label"] not in CLASSES:
            raise ManifestError(f"{table}, line {line}: label {row['label']!r} is none of the {len(CLASSES)} actions")
        if not (root / row["path"]).exists():
            missing.append(row["path"])
            continue
        frames = int(row["frames"]) if row.get("frames", "").isdecimal() else None
        entries.append(
            Entry(
                rgb=row["path"],
                split=row["split"],
                group=row["source_video"],
                frames=frames or None,
                labels={LABEL: row["label"]},
            )
        )
    there = [path.relative_to(root).as_posix() for path in scan(root).sources]
    notes = differences(table.name, [row["path"] for _, row in lines], there, missing)
    declared = dict(Counter(row["split"] for _, row in lines))
    return Chosen(entries, f"split of {ANNOTATIONS}", notes, declared)


def _by_lists(clips: list[Entry], lists: list[Path], notes: list[str]) -> Chosen:
    on_disk = {_name(clip.rgb): clip for clip in clips}
    entries, missing = [], []
    sides: dict[str, str] = {}
    for path in lists:
        action = path.name.removesuffix(LIST_ENDING)
        if action not in CLASSES:
            raise ManifestError(f"{path}: {action!r} is none of the {len(CLASSES)} actions")
        for name, side in read_list(path).items():
            sides[name] = side
            clip = on_disk.get(name)
            if clip is None:
                missing.append(f"{action}/{name}")
            elif clip.labels[LABEL] != action:
                raise ManifestError(f"{path}: lists {name}, which lies in the folder of {clip.labels[LABEL]!r}")
            else:
                entries.append(replace(clip, split=side))
    said = differences(f"the {len(lists)} lists", sides, on_disk, missing)
    return Chosen(entries, "official split 1", [*notes, *said], dict(Counter(sides.values())))


def read_list(path: Path) -> dict[str, str]:
    """Split of each clip, by its name without suffix, from one official list.

    Raises:
        ManifestError: a line is not of the form NAME.avi 1 or NAME.avi 2, or a clip stands there twice.
    """
    sides: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        name, _, side = line.strip().rpartition(" ")
        if not name or side not in SIDES:
            raise ManifestError(f"{path}, line {number}: {line.strip()!r} is not of the form NAME.avi 1 or NAME.avi 2")
        if _name(name.strip()) in sides:
            raise ManifestError(f"{path}, line {number}: {name.strip()} stands there twice")
        sides[_name(name.strip())] = SIDES[side]
    return sides
