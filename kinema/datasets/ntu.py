"""NTU RGB+D 60 and 120: 56,880 and 114,480 samples of 60 and 120 actions, recorded by three Kinect v2 at once.

A. Shahroudy et al., CVPR 2016; J. Liu et al., TPAMI 42, 2020. From rose1.ntu.edu.sg/dataset/actionRecognition after
signing its terms: academic research only, not to be redistributed. The root folder contains, at any depth,
`nturgb+d_rgb/S001C001P001R001A001_rgb.avi` (1920 x 1080) and 16-bit depth in millimeters (512 x 424) as folders of
images: `nturgb+d_depth_masked/S001C001P001R001A001/MDepth-00000001.png`, where all pixels but the people's are 0, or
`nturgb+d_depth/S001C001P001R001A001/Depth-00000001.png`. Label, subject, camera and split follow from the names.

The group of a sample is its performance, recorded by three cameras at once. In cross-view every performance is in both
splits by design. Samples without a skeleton stay unless `--without` lists them: the thesis uses no skeletons.
"""

import os
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal

from kinema.config import config
from kinema.data.manifest import LABEL, Entry
from kinema.datasets.ntu_crop import box_notes, check_crop_size, find_boxes
from kinema.datasets.ntu_names import (
    LOOSE_NAME,
    NTU60,
    NTU60_SETUPS,
    NTU120,
    Collection,
    Protocol,
    Sample,
    official_samples,
    parse_name,
    split_of,
)
from kinema.datasets.options import DatasetOptions
from kinema.datasets.prepared import PreparedDataset, exclude_files, note_names, single_modality_notes, write_prepared
from kinema.datasets.registry import DatasetSpec
from kinema.datasets.skeleton import ARCHIVE_SUFFIXES, check_paths, line_error, read_lines, refuse_duplicates
from kinema.errors import ManifestError, examples
from kinema.modality import DepthFacts
from kinema.video.image_folder import IMAGE_SUFFIXES
from kinema.video.scan import scan

Coverage = Literal["masked", "full"]

FACTS: dict[Coverage, DepthFacts] = {
    "masked": DepthFacts(unit_mm=1.0, near=1000.0, far=5500.0, coverage="masked"),
    "full": DepthFacts(unit_mm=1.0, near=500.0, far=8000.0, coverage="full"),
}
"""The full range is that of Kinect v2, 0.5 to 8 m. The masked range covers people, who are 2 to 4.5 m from the cameras
in the setups of the paper, plus a step and an arm's length on both sides; one level is then 18 mm instead of 30. Values
outside are clipped."""
IMAGE_PREFIXES: dict[str, Coverage] = {"MDepth-": "masked", "Depth-": "full"}
"""Prefixes of the image names in a depth folder."""
RGB_SIZE = (640, 480)
"""Width and height of the box around the person. UMDR's page says so, its code cuts 960 x 540."""
EXAMPLES = {
    "rgb": "nturgb+d_rgb/S001C001P001R001A001_rgb.avi",
    "masked": "nturgb+d_depth_masked/S001C001P001R001A001/MDepth-00000001.png",
    "full": "nturgb+d_depth/S001C001P001R001A001/Depth-00000001.png",
}


@config
class NtuOptions(DatasetOptions):
    """Options of NTU RGB+D 60 and 120.

    Attributes:
        depth_coverage: Kind of depth: masked (all pixels but the people's are 0) or full; auto is masked if any is
            found, else full.
        without: List of samples to omit, such as the official list of missing skeletons.
        rgb_crop: Crop of RGB: subject is a box around the person, located in masked depth; auto is subject if masked
            depth is found, else none.
        rgb_crop_size: Width and height of that box [px].
    """

    collection: ClassVar[Collection]
    depth_coverage: Literal["auto", "masked", "full"] = "auto"
    without: Path | None = None
    rgb_crop: Literal["auto", "subject", "none"] = "auto"
    rgb_crop_size: tuple[int, int] = RGB_SIZE


@config
class Ntu60Options(NtuOptions):
    """Make a manifest of NTU RGB+D 60.

    Attributes:
        split: Official split.
    """

    collection: ClassVar[Collection] = NTU60
    split: Literal["cross_subject", "cross_view"] = "cross_subject"


@config
class Ntu120Options(NtuOptions):
    """Make a manifest of NTU RGB+D 120.

    Attributes:
        split: Official split.
    """

    collection: ClassVar[Collection] = NTU120
    split: Literal["cross_subject", "cross_setup"] = "cross_subject"


@dataclass(kw_only=True)
class _Disk:
    """Files on disk: paths of the samples by name, and notes on other files."""

    rgb: dict[str, Path] = field(default_factory=dict)
    depth: dict[Coverage, dict[str, Path]] = field(default_factory=lambda: {"masked": {}, "full": {}})
    notes: list[str] = field(default_factory=list)

    @property
    def names(self) -> set[str]:
        return {name for paths in (self.rgb, *self.depth.values()) for name in paths}


def prepare(options: Ntu60Options | Ntu120Options) -> PreparedDataset:
    """Write the manifest of the samples that are on disk.

    Raises:
        ManifestError: No sample of the collection is found, a sample is found twice, the requested depth is not found,
            or the list of samples to omit is malformed.
    """
    collection, protocol, root = options.collection, options.split, options.root
    check_paths(options, f"the folders of {collection.name}")
    check_crop_size(options.rgb_crop_size)
    omitted, notes = _read_omitted(options.without, collection)
    disk = _find_samples(root)
    found = _require_samples(root, disk, collection)
    expected = {name: sample for name, sample in official_samples(collection).items() if name not in omitted}
    coverage, coverage_notes = _choose_depth(root, disk, options.depth_coverage, found)
    notes += [*coverage_notes, *disk.notes, *_unofficial_notes(disk, collection)]
    depth = {} if coverage is None else disk.depth[coverage]
    entries = [
        _entry(root, sample, disk.rgb.get(name), depth.get(name), protocol)
        for name, sample in expected.items()
        if name in disk.rgb or name in depth
    ]
    notes += _missing_notes(expected, entries, found, collection)
    notes += single_modality_notes(entries)
    entries, excluded = exclude_files(entries, options, root)
    entries, crop_notes = _crop_rgb(entries, disk, options)
    return write_prepared(
        entries,
        options.out,
        base=root,
        dataset=collection.name,
        version=protocol if options.without is None else f"{protocol}, without {options.without.name}",
        classes={LABEL: collection.classes},
        depth=FACTS[coverage] if coverage is not None and any(entry.depth for entry in entries) else None,
        declared=Counter(split_of(sample, protocol) for sample in expected.values()),
        notes=[*notes, *excluded, *crop_notes],
    )


def read_samples(path: Path) -> list[Sample]:
    """Return the samples of a list with one name per line, after an optional introduction.

    Raises:
        ManifestError: The file cannot be read or has no name, a name is listed twice, or a line after the first name is
            not a sample of NTU RGB+D.
    """
    official = official_samples(NTU120)
    named: list[tuple[Path, int, str]] = []
    for line, name in read_lines(path):
        if not named and not LOOSE_NAME.match(name):
            continue
        if name not in official:
            problem = f"expected a sample such as S001C001P001R001A001, got {name!r}"
            raise line_error(path, line, problem, field="without")
        named.append((path, line, name))
    if not named:
        problem = f"{path}: no sample found; expected one name such as S001C001P001R001A001 per line"
        raise ManifestError(problem, path=path, field="without")
    refuse_duplicates(named)
    return [official[name] for *_, name in named]


def _read_omitted(path: Path | None, collection: Collection) -> tuple[Set[str], list[str]]:
    """Return the names of the samples to omit, and a note on them."""
    if path is None:
        return frozenset(), []
    names = [sample.name for sample in read_samples(path)]
    omitted = official_samples(collection).keys() & names
    if not omitted:
        problem = f"{path}: none of its {len(names)} samples is of {collection.name}, e.g. {names[0]}"
        raise ManifestError(problem, path=path, field="without")
    part = "" if len(omitted) == len(names) else f" ({len(omitted)} of its {len(names)} are of {collection.name})"
    return omitted, [f"{len(omitted)} samples of {path.name} are omitted and not declared{part}"]


def _find_samples(root: Path) -> _Disk:
    """Return all samples below a folder.

    Raises:
        ManifestError: A sample is found twice in the same form.
    """
    contents = scan(root)
    disk = _Disk()
    infrared, malformed, unrelated, images, packed = [], [], [], [], []
    for path in contents.videos:
        name = path.stem.removesuffix("_rgb")
        if parse_name(name) is not None:
            _add(root, disk.rgb, name, path)
        elif parse_name(path.stem.removesuffix("_ir")) is not None:
            infrared.append(path)
        elif LOOSE_NAME.match(path.stem):
            malformed.append(path)
        else:
            unrelated.append(path)
    for folder in contents.image_folders:
        coverage = _coverage(folder)
        if parse_name(folder.name) is not None and coverage is not None:
            _add(root, disk.depth[coverage], folder.name, folder)
        elif parse_name(folder.name) is None and LOOSE_NAME.match(folder.name):
            malformed.append(folder)
        else:
            unrelated.append(folder)
    others: Counter[str] = Counter()
    for path in contents.others:
        if path.suffix.lower() in IMAGE_SUFFIXES and parse_name(path.parent.name) is not None:
            images.append(path)
        elif path.suffix.lower() in ARCHIVE_SUFFIXES:
            packed.append(path)
        else:
            others[path.suffix.lower() or "(no suffix)"] += 1
    others.update(path.suffix.lower() for path in contents.arrays)
    for paths, problem in (
        (infrared, "infrared videos are omitted"),
        (unrelated, "videos and folders of images are not RGB or depth of NTU RGB+D and are omitted"),
        (images, "folders of depth have a single image and are omitted"),
        (packed, "archives are still packed and are omitted"),
        (malformed, "names resemble NTU RGB+D but are not of the form S001C001P001R001A001_rgb, and are omitted"),
    ):
        disk.notes += note_names([_relative(path, root) for path in paths], problem)
    if others:
        suffixes = ", ".join(f"{suffix} {count}" for suffix, count in sorted(others.items()))
        disk.notes.append(f"{others.total()} files of other kinds are omitted: {suffixes}")
    return disk


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _add(root: Path, paths: dict[str, Path], name: str, path: Path) -> None:
    if name in paths:
        both = f"{_relative(paths[name], root)} and {_relative(path, root)}"
        problem = f"{root}: sample {name} is found twice, {both}. Move one of them away."
        raise ManifestError(problem, path=path)
    paths[name] = path


def _coverage(folder: Path) -> Coverage | None:
    """Return the kind of depth in a folder by the name of an image, or None if it is not depth."""
    with os.scandir(folder) as entries:
        names = (e.name for e in entries if Path(e.name).suffix.lower() in IMAGE_SUFFIXES and e.name[0] != ".")
        first = next(names, "")
    return next((coverage for prefix, coverage in IMAGE_PREFIXES.items() if first.startswith(prefix)), None)


def _require_samples(root: Path, disk: _Disk, collection: Collection) -> set[str]:
    """Return the names of the collection's samples that are on disk.

    Raises:
        ManifestError: No sample is found; the message lists what is found instead.
    """
    found = disk.names & official_samples(collection).keys()
    if found:
        return found
    problem = f"{root}: no sample of {collection.name} found"
    if disk.names:
        other = NTU120 if collection is NTU60 else NTU60
        raise ManifestError(
            f"{problem}, but {len(disk.names)} that may be of {other.name}: {examples(sorted(disk.names))}. "
            f"Use `kinema prepare {other.command}` for these.",
            path=root,
        )
    contents = "; ".join(disk.notes) or "it has no files"
    raise ManifestError(f"{problem}; looked below it for {', '.join(EXAMPLES.values())}; {contents}", path=root)


def _unofficial_notes(disk: _Disk, collection: Collection) -> list[str]:
    """Return notes on samples that are not in the collection."""
    others = sorted(disk.names - official_samples(collection).keys())
    newer = [name for name in others if collection is NTU60 and _is_ntu120_only(name)]
    return [
        *note_names(newer, f"samples are of {NTU120.name} only (setups from S018, actions from A061) and are omitted"),
        *note_names(
            sorted(set(others) - set(newer)),
            f"names are not samples of {collection.name} (wrong subject or setup) and are omitted",
        ),
    ]


def _is_ntu120_only(name: str) -> bool:
    sample = parse_name(name)
    return sample is not None and (sample.setup > NTU60_SETUPS or sample.action > len(NTU60.classes))


def _choose_depth(
    root: Path, disk: _Disk, requested: Literal["auto", "masked", "full"], found: set[str]
) -> tuple[Coverage | None, list[str]]:
    """Return the kind of depth to use, or None if no depth is on disk, and a note on the unused kind."""
    counts = {coverage: len(found & paths.keys()) for coverage, paths in disk.depth.items()}
    if requested != "auto" and not counts[requested]:
        problem = f"{root}: no {requested} depth found; looked below it for {EXAMPLES[requested]}"
        raise ManifestError(problem, path=root, field="depth_coverage")
    if not any(counts.values()):
        return None, []
    chosen: Coverage = requested if requested != "auto" else "masked" if counts["masked"] else "full"
    other: Coverage = "full" if chosen == "masked" else "masked"
    if not counts[other]:
        return chosen, []
    return chosen, [f"{chosen} depth was used ({counts[chosen]} samples), {other} depth ({counts[other]}) was not"]


def _entry(root: Path, sample: Sample, rgb: Path | None, depth: Path | None, protocol: Protocol) -> Entry:
    return Entry(
        rgb="" if rgb is None else _relative(rgb, root),
        depth="" if depth is None else _relative(depth, root),
        split=split_of(sample, protocol),
        group=sample.performance,
        subject=f"P{sample.performer:03}",
        camera=f"C{sample.camera:03}",
        sample=sample.name,
        labels={LABEL: NTU120.classes[sample.action - 1]},
    )


def _missing_notes(
    expected: Mapping[str, Sample], entries: Sequence[Entry], found: set[str], collection: Collection
) -> list[str]:
    """Return notes on missing samples; counts by setup and camera show which archives are missing."""
    used = {entry.sample for entry in entries}
    notes = note_names(
        [name for name in expected if name in found and name not in used],
        "samples have neither RGB nor the kind of depth that was used and are omitted; coverage counts them as missing",
    )
    missing = {name: sample for name, sample in expected.items() if name not in found}
    if missing:
        full = Counter(sample.setup for sample in expected.values())
        setups = sorted(Counter(sample.setup for sample in missing.values()).items())
        cameras = sorted(Counter(sample.camera for sample in missing.values()).items())
        by_setups = ", ".join(f"S{setup:03} {count} of {full[setup]}" for setup, count in setups)
        by_cameras = ", ".join(f"C{camera:03} {count}" for camera, count in cameras)
        notes.append(
            f"{len(missing)} of the {len(expected)} samples of {collection.name} are not on disk; coverage counts them "
            f"as missing. By setup: {by_setups}; by camera: {by_cameras}; e.g. {examples(list(missing))}"
        )
    return notes


def _crop_rgb(entries: list[Entry], disk: _Disk, options: NtuOptions) -> tuple[list[Entry], list[str]]:
    """Return the entries with the crop boxes of their RGB, and notes on them."""
    if options.rgb_crop == "none" or not any(entry.rgb for entry in entries):
        return entries, []
    masked = disk.depth["masked"]
    pairs = {e.sample: (options.root / e.rgb, masked[e.sample]) for e in entries if e.rgb and e.sample in masked}
    if not pairs:
        problem = "RGB is not cropped to the person, because no sample has RGB and masked depth"
        if options.rgb_crop == "subject":
            problem = f"{options.root}: {problem}. Use --rgb-crop none to keep full frames."
            raise ManifestError(problem, path=options.root, field="rgb_crop")
        return entries, [problem]
    boxes = find_boxes(pairs, options.rgb_crop_size)
    without_depth = [entry.sample for entry in entries if entry.rgb and entry.sample not in pairs]
    notes = box_notes(boxes, options.rgb_crop_size)
    notes += note_names(without_depth, "samples keep full RGB frames: no masked depth")
    return [replace(e, rgb_box=boxes[e.sample].box) if e.sample in boxes else e for e in entries], notes


SPECS = (
    DatasetSpec("ntu60", "NTU RGB+D 60: RGB and depth, 56,880 samples of 60 actions.", Ntu60Options, prepare),
    DatasetSpec("ntu120", "NTU RGB+D 120: RGB and depth, 114,480 samples of 120 actions.", Ntu120Options, prepare),
)
