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
from collections.abc import Iterator
from pathlib import Path

from kinema.config import config
from kinema.data.manifest import LABEL, Entry
from kinema.datasets.hmdb51 import film, find_action_lists, read_sides, refuse_other_folders
from kinema.datasets.listing import ANNOTATIONS, Listing, count_splits, read_annotations, read_listing, video_name
from kinema.datasets.options import DatasetOptions, Holdout
from kinema.datasets.prepared import Prepared, hold_out, write_prepared
from kinema.datasets.skeleton import Files, check_paths, find_files, join, scan_classes
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
SIDES = {"1": "train", "2": "test"}
"""Splits by their number in the official lists."""


@config
class JhmdbOptions(DatasetOptions):
    """Make a manifest of J-HMDB."""


def prepare(options: JhmdbOptions) -> Prepared:
    """Write the manifest of J-HMDB.

    Raises:
        ManifestError: No clip is found, a list is malformed, or a clip is in the folder of another action.
    """
    check_paths(options, "a folder for each action")
    root = options.root
    if (root / ANNOTATIONS).is_file():
        return _from_table(options)
    files = find_files(root, VIDEO_DIRS, _clips, example=CLASSES[0])
    if not files.paths:
        raise ManifestError(f"{root}: no clip found; looked in {files.searched}", path=root)
    names = Counter(key.rpartition("/")[2] for key in files.paths)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise ManifestError(f"{root}: clip {twice[0]} is in two folders. Move one of them away.", path=root)
    lists = find_action_lists(root, LIST_DIRS, 1, CLASSES)
    if not lists:
        keys = [(path, *key.split("/", 1)) for key, path in files.paths.items()]
        clips = [Entry(rgb=path, group=film(name, action), labels={LABEL: action}) for path, action, name in keys]
        entries, notes = hold_out(clips, Holdout())
        return write_prepared(
            entries,
            options.out,
            base=root,
            dataset=DATASET,
            version="own split by films",
            classes={LABEL: CLASSES},
            notes=[*files.notes, *notes],
        )
    samples = read_listing(lists, lambda path, action: read_sides(path, action, SIDES))
    refuse_other_folders(samples, files)
    listing = Listing(
        dataset=DATASET,
        lists=f"the {len(lists)} lists",
        version="official split 1",
        samples=samples,
        classes=CLASSES,
        declared=count_splits(samples, SIDES.values()),
    )
    return join(options, listing, files)


def _from_table(options: DatasetOptions) -> Prepared:
    samples = read_annotations(options.root, "rgb", {"group": "source_video"}, CLASSES)
    files = find_files(options.root, ("",), _sources, example=f"{CLASSES[0]}/NAME.avi")
    listed = {sample.name: sample.name for sample in samples if (options.root / sample.name).exists()}
    listing = Listing(
        dataset=DATASET,
        lists=ANNOTATIONS,
        version=f"split of {ANNOTATIONS}",
        samples=samples,
        classes=CLASSES,
        declared=Counter(sample.entry.split for sample in samples),
    )
    return join(options, listing, Files(paths=files.paths | listed, searched=files.searched, archives=files.archives))


def _sources(root: Path) -> Iterator[tuple[str, Path]]:
    yield from ((path.relative_to(root).as_posix(), path) for path in scan(root).sources)


def _clips(folder: Path) -> Iterator[tuple[str, Path]]:
    for action, contents in scan_classes(folder, CLASSES):
        for path in sorted((*contents.videos, *contents.image_folders)):
            yield f"{action}/{video_name(path.name)}", path
