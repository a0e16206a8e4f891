"""J-HMDB: 928 clips of 21 actions from films and the web, 15 to 40 frames each, cut from HMDB-51.

H. Jhuang, J. Gall, S. Zuffi, C. Schmid, M. J. Black: Towards understanding action recognition, ICCV 2013. HMDB's page
states CC BY 4.0; the footage has its own owners. The root folder contains a folder for each action, directly or in
`videos`, `ReCompress_Videos` or `Rename_Images`, with clips as video files or as folders of images.

The group of a clip is its film (`April_09` in `April_09_brush_hair_u_nm_np1_ba_goo_0`), which a split must not divide.
The split is the first of: a table `annotations.csv` (path, label, source_video, split) in the root; the official lists
`ACTION_test_split1.txt` in the root or in `splits`, one clip per line, `NAME.avi 1` for training and `NAME.avi 2` for
testing; a fifth held out by films.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from kinema.data.manifest import LABEL, Entry
from kinema.datasets.hmdb51 import find_action_lists, parse_film, read_clips, refuse_other_folders
from kinema.datasets.holdout import class_notes, hold_out
from kinema.datasets.options import DatasetOptions, Holdout
from kinema.datasets.prepared import PreparedDataset
from kinema.datasets.registry import DatasetSpec
from kinema.datasets.skeleton import (
    ANNOTATIONS,
    Files,
    ListedSample,
    check_paths,
    count_splits,
    find_files,
    join,
    read_annotations,
    read_listing,
    scan_classes,
    video_name,
)
from kinema.errors import ManifestError
from kinema.video.scan import scan

DATASET = "J-HMDB"
# fmt: off
CLASSES = (
    "brush_hair", "catch", "clap", "climb_stairs", "golf", "jump", "kick_ball", "pick", "pour", "pullup", "push",
    "run", "shoot_ball", "shoot_bow", "shoot_gun", "sit", "stand", "swing_baseball", "throw", "walk", "wave",
)
# fmt: on
VIDEO_DIRS = ("", "videos", "ReCompress_Videos", "Rename_Images")
"""Folders that may contain the folders of the actions."""
LIST_DIRS = ("", "splits")
SPLITS = {"1": "train", "2": "test"}
"""Splits by their number in the official lists."""


def prepare(options: DatasetOptions) -> PreparedDataset:
    """Write the manifest of J-HMDB.

    Raises:
        ManifestError: No clip is found, a list is malformed, or a clip is in the folder of another action.
    """
    check_paths(options, "a folder for each action")
    root = options.root
    splits: Iterable[str] = ()
    notes: list[str] = []
    if (root / ANNOTATIONS).is_file():
        samples = read_annotations(root, "rgb", {"group": "source_video"}, CLASSES)
        files = find_files(root, ("",), _find_sources, example=f"{CLASSES[0]}/NAME.avi")
        listed = {sample.name: sample.name for sample in samples if (root / sample.name).exists()}
        files = replace(files, paths=files.paths | listed, notes=())
        lists, version = ANNOTATIONS, f"split of {ANNOTATIONS}"
    else:
        files = _find_unique_clips(root)
        paths = find_action_lists(root, LIST_DIRS, 1, CLASSES)
        lists, version = f"the {len(paths)} lists", "official split 1"
        if paths:
            samples = read_listing(paths, lambda path, action: read_clips(path, action, SPLITS))
            refuse_other_folders(samples, files)
            splits = SPLITS.values()
        else:
            clips = []
            for key in files.paths:
                action, name = key.split("/", 1)
                clips.append(Entry(rgb=key, group=parse_film(name, action), labels={LABEL: action}))
            entries, _, notes = hold_out(clips, Holdout(test_share=0.0))
            notes += class_notes(entries)
            samples = [ListedSample(name=entry.rgb, entry=entry, path=root, line=0) for entry in entries]
            version = "own split by films"
    return join(
        options,
        samples,
        files,
        dataset=DATASET,
        lists=lists,
        version=version,
        classes=CLASSES,
        declared=count_splits(samples, splits),
        notes=notes,
    )


def _find_unique_clips(root: Path) -> Files:
    files = find_files(root, VIDEO_DIRS, _find_clips, example=CLASSES[0])
    if not files.paths:
        raise ManifestError(f"{root}: no clip found; looked in {files.searched}", path=root)
    names = Counter(key.rpartition("/")[2] for key in files.paths)
    duplicate = next((name for name, count in names.items() if count > 1), None)
    if duplicate:
        raise ManifestError(f"{root}: clip {duplicate} is in two folders. Move one of them away.", path=root)
    return files


def _find_sources(root: Path) -> Iterator[tuple[str, Path]]:
    yield from ((path.relative_to(root).as_posix(), path) for path in scan(root).sources)


def _find_clips(folder: Path) -> Iterator[tuple[str, Path]]:
    for action, contents in scan_classes(folder, CLASSES):
        for path in sorted((*contents.videos, *contents.image_folders)):
            yield f"{action}/{video_name(path.name)}", path


SPECS = (DatasetSpec("jhmdb", "J-HMDB: 928 videos of 21 actions.", DatasetOptions, prepare),)
