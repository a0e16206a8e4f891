"""HMDB-51: 6,766 clips of 51 actions, most from films, 240 pixels high, about 30 frames per second.

H. Kuehne, H. Jhuang, E. Garrote, T. Poggio, T. Serre: HMDB: A Large Video Database for Human Motion Recognition, ICCV
2011. Its page states CC BY 4.0; the footage has its own owners. The root folder contains a folder for each action,
directly or in `hmdb51_org` or `videos`, each unpacked from its own `.rar`; and the official lists
`ACTION_test_splitN.txt`, directly or in `testTrainMulti_7030_splits`, `splits` or `annotations`: one clip per line,
`NAME.avi 1` for training, `NAME.avi 2` for testing, `NAME.avi 0` for neither. Each of the three splits has 70 and 30
clips of each action.

The list, the folder and the name of a clip must have the same action. The group of a clip is its film: the part of the
name before the action (`RATRACE` in `RATRACE_wave_f_nm_np1_fr_goo_37`). A split keeps clips of one action and one film
together; clips of different actions from one film may be on both sides.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from kinema.data.manifest import LABEL, Entry
from kinema.datasets.options import ThreeSplitOptions
from kinema.datasets.prepared import PreparedDataset
from kinema.datasets.registry import DatasetSpec
from kinema.datasets.skeleton import (
    Files,
    ListedSample,
    check_paths,
    count_splits,
    describe_counts,
    find_files,
    join,
    line_error,
    read_lines,
    read_listing,
    scan_classes,
    video_name,
)
from kinema.errors import ManifestError, examples

DATASET = "HMDB-51"
# fmt: off
CLASSES = (
    "brush_hair", "cartwheel", "catch", "chew", "clap", "climb", "climb_stairs", "dive", "draw_sword", "dribble",
    "drink", "eat", "fall_floor", "fencing", "flic_flac", "golf", "handstand", "hit", "hug", "jump", "kick",
    "kick_ball", "kiss", "laugh", "pick", "pour", "pullup", "punch", "push", "pushup", "ride_bike", "ride_horse",
    "run", "shake_hands", "shoot_ball", "shoot_bow", "shoot_gun", "sit", "situp", "smile", "smoke", "somersault",
    "stand", "swing_baseball", "sword", "sword_exercise", "talk", "throw", "turn", "walk", "wave",
)
# fmt: on
CLIPS_PER_CLASS = {"train": 70, "test": 30}
"""Clips of each action in the official lists of every split."""
COUNTS = {split: len(CLASSES) * count for split, count in CLIPS_PER_CLASS.items()}
SPLITS = {"1": "train", "2": "test", "0": ""}
"""Splits by their number in the official lists."""
LIST_DIRS = ("", "testTrainMulti_7030_splits", "splits", "annotations")
VIDEO_DIRS = ("hmdb51_org", "", "videos")
"""Folders that may contain the folders of the actions."""
ATTRIBUTES = r"_[hufl]_(?:cm|nm)_np\d+_(?:fr|ba|le|ri)_(?:bad|med|goo)_\d+"
"""End of a name: visible body parts, camera motion, number of people, viewing direction, quality, clip number."""


def prepare(options: ThreeSplitOptions) -> PreparedDataset:
    """Write the manifest of the clips that the lists of one split name and that are on disk.

    Raises:
        ManifestError: No list is found, a list is malformed, a clip is in two lists or in the folder of another action,
            or no clip is on disk.
    """
    check_paths(options, "a folder for each action and the lists")
    root, split = options.root, options.split
    paths = find_action_lists(root, LIST_DIRS, split, CLASSES)
    if not paths:
        searched = ", ".join(folder or str(root) for folder in LIST_DIRS)
        problem = f"{CLASSES[0]}_test_split{split}.txt and other lists not found; looked in {searched}"
        fix = f"Unpack test_train_splits.rar into the folder of {DATASET}."
        raise ManifestError(f"{root}: {problem}. {fix}", path=root)
    samples = read_listing(paths, read_list)
    files = find_files(root, VIDEO_DIRS, _find_videos, example=CLASSES[0])
    refuse_other_folders(samples, files)
    notes = []
    without_list = [action for action in CLASSES if action not in paths]
    if without_list:
        notes.append(f"{len(without_list)} of {len(CLASSES)} actions have no list: {examples(without_list)}")
    unused = sum(not sample.entry.split for sample in samples)
    if unused:
        notes.append(f"{unused} clips are on neither side of split {split} (number 0) and are omitted")
    return join(
        options,
        samples,
        files,
        dataset=DATASET,
        lists=f"the {len(paths)} lists of split {split}",
        version=f"split {split}, {describe_counts(count_splits(samples, COUNTS))}",
        classes=CLASSES,
        declared=COUNTS,
        notes=notes,
    )


def read_list(path: Path, action: str) -> list[ListedSample]:
    """Return the clips of the official list of one action.

    Raises:
        ManifestError: A line is malformed, a clip is of another action, or the list does not have 70 training and 30
            test clips.
    """
    samples = read_clips(path, action, SPLITS)
    for sample in samples:
        if sample.entry.group == sample.name:
            example = f"FILM_{action}_f_cm_np1_fr_med_0.avi"
            raise sample.error(f"{sample.name} is not a clip of {action!r}; expected a name such as {example}", LABEL)
    counts = count_splits(samples, CLIPS_PER_CLASS)
    if counts != CLIPS_PER_CLASS:
        problem = f"expected {describe_counts(CLIPS_PER_CLASS)} clips, got {describe_counts(counts)}"
        raise ManifestError(f"{path}: {problem}. Use the list of {DATASET}, not that of J-HMDB.", path=path)
    return samples


def find_action_lists(root: Path, folders: Sequence[str], split: int, classes: Sequence[str]) -> dict[str, Path]:
    """Return the lists by action, from the first folder that contains any.

    Raises:
        ManifestError: A list is named after an unknown action.
    """
    ending = f"_test_split{split}.txt"
    for folder in folders:
        paths = {path.name.removesuffix(ending): path for path in (root / folder).glob(f"*{ending}")}
        unknown = sorted(set(paths) - set(classes))
        if unknown:
            path = paths[unknown[0]]
            problem = f"{path}: {unknown[0]!r} is not one of the {len(classes)} actions"
            raise ManifestError(problem, path=path, field=LABEL)
        if paths:
            return {action: paths[action] for action in classes if action in paths}
    return {}


def read_clips(path: Path, action: str, splits: Mapping[str, str]) -> list[ListedSample]:
    """Return the clips of a list of lines `NAME.avi NUMBER`, where `splits` has the split of each number.

    Raises:
        ManifestError: A line is malformed.
    """
    samples = []
    for line, text in read_lines(path):
        file, _, number = text.rpartition(" ")
        if not file or number not in splits:
            forms = ", ".join(f"NAME.avi {number}" for number in splits)
            raise line_error(path, line, f"expected one of {forms}, got {text!r}", field="split")
        name = video_name(file.strip())
        group = parse_film(name, action)
        entry = Entry(rgb=f"{action}/{name}", split=splits[number], group=group, labels={LABEL: action})
        samples.append(ListedSample(name=name, entry=entry, path=path, line=line))
    return samples


def parse_film(clip: str, action: str) -> str:
    """Return the film in the name of a clip (without suffix), or the complete name if it has another form."""
    parts = re.fullmatch(f"(.+)_{re.escape(action)}{ATTRIBUTES}", clip)
    return parts[1] if parts else clip


def refuse_other_folders(samples: Collection[ListedSample], files: Files) -> None:
    """Raise ManifestError if a clip is in the folder of another action."""
    actions = {key.rpartition("/")[2]: key.rpartition("/")[0] for key in files.paths}
    for sample in samples:
        if sample.entry.rgb not in files.paths and sample.name in actions:
            action = sample.entry.labels[LABEL]
            problem = f"{sample.name} is in the folder of {actions[sample.name]!r}; expected {action!r}"
            raise sample.error(problem, LABEL)


def _find_videos(folder: Path) -> Iterator[tuple[str, Path]]:
    for action, contents in scan_classes(folder, CLASSES):
        yield from ((f"{action}/{path.stem}", path) for path in contents.videos)


SPECS = (DatasetSpec("hmdb51", "HMDB-51: 6,766 videos of 51 actions.", ThreeSplitOptions, prepare),)
