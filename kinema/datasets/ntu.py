"""NTU RGB+D 60 and 120: 56,880 and 114,480 samples of 60 and 120 actions, seen by three Kinect v2 at once.

A. Shahroudy et al., CVPR 2016; J. Liu et al., TPAMI 42, 2020. From rose1.ntu.edu.sg/dataset/actionRecognition after
signing its terms: academic research only, not to be redistributed. The root folder contains, at any depth,
`nturgb+d_rgb/S001C001P001R001A001_rgb.avi` (1920 x 1080) and 16-bit depth in millimeters (512 x 424) as folders of
images: `nturgb+d_depth_masked/S001C001P001R001A001/MDepth-00000001.png`, where all pixels but the people's are 0, or
`nturgb+d_depth/S001C001P001R001A001/Depth-00000001.png`. Label, subject, camera and split follow from the names.

The group of a sample is its performance, which three cameras saw at once. In cross-view every performance is in both
splits by design. Samples without a skeleton stay unless `--without` lists them: the thesis uses no skeletons.
"""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

from kinema.config import config
from kinema.data.manifest import LABEL, Entry
from kinema.datasets.listing import line_error, read_lines, refuse_duplicates
from kinema.datasets.ntu_crop import check_crop_size, crop_notes, find_boxes
from kinema.datasets.ntu_names import (
    ALIKE,
    FIRST_SETUPS,
    NTU60,
    NTU120,
    Collection,
    Protocol,
    Sample,
    official_counts,
    official_samples,
    parse_name,
    split_of,
)
from kinema.datasets.options import DatasetOptions
from kinema.datasets.prepared import Prepared, examples, single_modality_notes, write_prepared
from kinema.datasets.skeleton import ARCHIVE_SUFFIXES, check_paths
from kinema.errors import ManifestError
from kinema.modality import DepthFacts
from kinema.video.image_folder import IMAGE_SUFFIXES
from kinema.video.scan import FolderContents, scan

Coverage = Literal["masked", "full"]
RgbCrop = Literal["auto", "subject", "none"]

FACTS: dict[Coverage, DepthFacts] = {
    "masked": DepthFacts(unit_mm=1.0, near=1000.0, far=5500.0, coverage="masked"),
    "full": DepthFacts(unit_mm=1.0, near=500.0, far=8000.0, coverage="full"),
}
"""Full is the range of Kinect v2, 0.5 to 8 m. Masked is where people are: 2 to 4.5 m from the cameras in the setups of
the paper, plus a step and an arm on both sides. One level is then 18 mm instead of 30. Values outside are clipped."""
IMAGE_PREFIXES: dict[str, Coverage] = {"MDepth-": "masked", "Depth-": "full"}
"""Prefixes of the image names in a depth folder."""
RGB_SIZE = (640, 480)
"""Width and height of the box around the person (thesis 2.4.2, as in `ntu60_mfst_large`)."""
PLACES = {
    "rgb": "nturgb+d_rgb/S001C001P001R001A001_rgb.avi",
    "masked": "nturgb+d_depth_masked/S001C001P001R001A001/MDepth-00000001.png",
    "full": "nturgb+d_depth/S001C001P001R001A001/Depth-00000001.png",
}


@config
class NtuOptions(DatasetOptions):
    """Options of NTU RGB+D 60 and 120.

    Args:
        depth_coverage: Kind of depth: masked (all pixels but the people's are 0) or full; auto is what is found, masked
            before full.
        without: List of samples to omit, such as the official list of missing skeletons.
        rgb_crop: subject crops RGB to a box around the person, located in masked depth; auto does so if masked depth is
            found.
        rgb_crop_size: Width and height of that box [px].
    """

    collection: ClassVar[Collection]
    depth_coverage: Literal["auto", "masked", "full"] = "auto"
    without: Path | None = None
    rgb_crop: RgbCrop = "auto"
    rgb_crop_size: tuple[int, int] = RGB_SIZE


@config
class Ntu60Options(NtuOptions):
    """Make a manifest of NTU RGB+D 60.

    Args:
        split: Official split.
    """

    collection: ClassVar[Collection] = NTU60
    split: Literal["cross_subject", "cross_view"] = "cross_subject"


@config
class Ntu120Options(NtuOptions):
    """Make a manifest of NTU RGB+D 120.

    Args:
        split: Official split.
    """

    collection: ClassVar[Collection] = NTU120
    split: Literal["cross_subject", "cross_setup"] = "cross_subject"


@dataclass(kw_only=True)
class _Disk:
    """Paths of the samples on disk by their names, and notes on other files."""

    rgb: dict[str, Path]
    depth: dict[Coverage, dict[str, Path]]
    malformed: list[str]
    notes: list[str]

    @property
    def names(self) -> set[str]:
        return {name for places in (self.rgb, *self.depth.values()) for name in places}


def prepare(options: Ntu60Options | Ntu120Options) -> Prepared:
    """Write the manifest of the samples that are on disk.

    Raises:
        ManifestError: No sample of the collection is found, a sample is found twice, the requested depth is not found,
            or the list of samples to omit is malformed.
    """
    collection, protocol, root = options.collection, options.split, options.root
    check_paths(options, f"the folders of {collection.name}")
    check_crop_size(options.rgb_crop_size)
    official = official_samples(collection)
    omitted, notes = _read_omitted(options.without, collection, official)
    disk = _find_samples(root)
    found = _of_collection(root, disk, collection, official)
    wanted = {name: sample for name, sample in official.items() if name not in omitted}
    coverage, coverage_notes = _choose_depth(root, disk, options.depth_coverage, found)
    notes += [*coverage_notes, *disk.notes, *_stranger_notes(disk, collection, official)]
    entries = []
    for name in (name for name in wanted if name in found):
        rgb = disk.rgb.get(name)
        depth = None if coverage is None else disk.depth[coverage].get(name)
        if rgb is not None or depth is not None:  # otherwise only the other kind of depth is on disk
            entries.append(_entry(root, official[name], rgb, depth, protocol))
    notes += _missing_notes(wanted, entries, found, collection)
    notes += single_modality_notes(entries)
    entries, crop_messages = _crop_rgb(entries, disk, options)
    declared = Counter(official_counts(collection, protocol))
    declared.subtract(split_of(official[name], protocol) for name in omitted)
    return write_prepared(
        entries,
        options.out,
        base=root,
        dataset=collection.name,
        version=protocol if options.without is None else f"{protocol}, without {options.without.name}",
        classes={LABEL: collection.classes},
        depth=FACTS[coverage] if coverage is not None and any(entry.depth for entry in entries) else None,
        declared=declared,
        notes=[*notes, *crop_messages],
    )


def read_samples(path: Path) -> list[Sample]:
    """Return the samples of a list: one name per line, after an optional introduction.

    Raises:
        ManifestError: The file cannot be read, has no name, has another line among the names, or has a name twice or
            one that is not a sample of NTU RGB+D.
    """
    official = official_samples(NTU120)
    named: list[tuple[Path, int, str]] = []
    for line, name in read_lines(path):
        if not named and not ALIKE.match(name):
            continue
        if name not in official:
            raise line_error(
                path, line, f"expected a sample such as S001C001P001R001A001, got {name!r}", field="without"
            )
        named.append((path, line, name))
    if not named:
        problem = f"{path}: no sample found; expected one name such as S001C001P001R001A001 per line"
        raise ManifestError(problem, path=path, field="without")
    refuse_duplicates(named)
    return [official[name] for *_, name in named]


def _read_omitted(
    path: Path | None, collection: Collection, official: Mapping[str, Sample]
) -> tuple[frozenset[str], list[str]]:
    """Return the names of the samples to omit, and a note on them."""
    if path is None:
        return frozenset(), []
    samples = read_samples(path)
    own = [sample.name for sample in samples if sample.name in official]
    if not own:
        problem = f"{path}: none of its {len(samples)} samples is of {collection.name}, e.g. {samples[0].name}"
        raise ManifestError(problem, path=path, field="without")
    part = "" if len(own) == len(samples) else f" ({len(own)} of its {len(samples)} are of {collection.name})"
    return frozenset(own), [f"{len(own)} samples of {path.name} are omitted and not declared{part}"]


def _find_samples(root: Path) -> _Disk:
    """Return all samples below a folder.

    Raises:
        ManifestError: A sample is found twice in the same form.
    """
    contents = scan(root)
    disk = _Disk(rgb={}, depth={"masked": {}, "full": {}}, malformed=[], notes=[])
    infrared: list[str] = []
    strange: list[str] = []
    for path in contents.videos:
        source = path.relative_to(root).as_posix()
        name = path.stem.removesuffix("_rgb")
        if parse_name(name) is not None:
            _put(root, disk.rgb, name, path)
        elif parse_name(path.stem.removesuffix("_ir")) is not None:
            infrared.append(source)
        else:
            (disk.malformed if ALIKE.match(path.stem) else strange).append(source)
    for folder in contents.image_folders:
        source = folder.relative_to(root).as_posix()
        kind = _depth_kind(folder)
        if parse_name(folder.name) is not None and kind is not None:
            _put(root, disk.depth[kind], folder.name, folder)
        elif parse_name(folder.name) is None and ALIKE.match(folder.name):
            disk.malformed.append(source)
        else:
            strange.append(source)
    disk.notes += _other_notes(root, contents, infrared, strange)
    return disk


def _put(root: Path, places: dict[str, Path], name: str, path: Path) -> None:
    if name in places:
        first, second = (place.relative_to(root).as_posix() for place in (places[name], path))
        problem = f"{root}: sample {name} is found twice, {first} and {second}. Move one of them away."
        raise ManifestError(problem, path=path)
    places[name] = path


def _depth_kind(folder: Path) -> Coverage | None:
    """Return the kind of depth in a folder by the name of an image, or None if it is not depth."""
    with os.scandir(folder) as entries:
        names = (e.name for e in entries if Path(e.name).suffix.lower() in IMAGE_SUFFIXES and e.name[0] != ".")
        first = next(names, "")
    return next((kind for start, kind in IMAGE_PREFIXES.items() if first.startswith(start)), None)


def _other_notes(root: Path, contents: FolderContents, infrared: Sequence[str], strange: Sequence[str]) -> list[str]:
    """Return a note on each kind of files that are omitted."""
    notes = []
    if infrared:
        notes.append(f"{len(infrared)} infrared videos are omitted: {examples(infrared)}")
    if strange:
        notes.append(
            f"{len(strange)} videos and folders of images are not RGB or depth of NTU RGB+D and are omitted: "
            f"{examples(strange)}"
        )
    images, packed = [], []
    others: Counter[str] = Counter()
    for path in contents.others:
        if path.suffix.lower() in IMAGE_SUFFIXES and parse_name(path.parent.name) is not None:
            images.append(path.relative_to(root).as_posix())
        elif path.suffix.lower() in ARCHIVE_SUFFIXES:
            packed.append(path.relative_to(root).as_posix())
        else:
            others[path.suffix.lower() or "(no suffix)"] += 1
    others.update(path.suffix.lower() for path in contents.arrays)
    if images:
        notes.append(f"{len(images)} folders of depth have a single image and are omitted: {examples(images)}")
    if packed:
        notes.append(f"{len(packed)} archives are still packed and are omitted: {examples(packed)}")
    if others:
        kinds = ", ".join(f"{suffix} {count}" for suffix, count in sorted(others.items()))
        notes.append(f"{others.total()} files of other kinds are omitted: {kinds}")
    return notes


def _of_collection(root: Path, disk: _Disk, collection: Collection, official: Mapping[str, Sample]) -> set[str]:
    """Return the names of the collection's samples that are on disk.

    Raises:
        ManifestError: No sample is found; the message lists what is found instead.
    """
    found = disk.names & official.keys()
    if found:
        return found
    sentence = f"{root}: no sample of {collection.name} found"
    if disk.names:
        other = NTU120 if collection is NTU60 else NTU60
        raise ManifestError(
            f"{sentence}, but {len(disk.names)} that may be of {other.name}: {examples(sorted(disk.names))}. "
            f"Use `kinema prepare {other.layout}` for these.",
            path=root,
        )
    looked = f"looked below it for {', '.join(PLACES.values())}"
    instead = "; ".join([*_malformed_notes(disk), *disk.notes]) or "it has no files"
    raise ManifestError(f"{sentence}; {looked}; {instead}", path=root)


def _malformed_notes(disk: _Disk) -> list[str]:
    if not disk.malformed:
        return []
    return [
        f"{len(disk.malformed)} names resemble NTU RGB+D but are not of the form S001C001P001R001A001_rgb, and are "
        f"omitted: {examples(disk.malformed)}"
    ]


def _stranger_notes(disk: _Disk, collection: Collection, official: Mapping[str, Sample]) -> list[str]:
    """Return notes on malformed names and on samples that are not in the collection."""
    notes = _malformed_notes(disk)
    others = sorted(disk.names - official.keys())
    later = [name for name in others if collection is NTU60 and _is_later(name)]
    if later:
        notes.append(
            f"{len(later)} samples are of {NTU120.name} only (setups from S018, actions from A061) and are omitted: "
            f"{examples(later)}"
        )
    unknown = sorted(set(others) - set(later))
    if unknown:
        notes.append(
            f"{len(unknown)} names are not samples of {collection.name} (wrong subject or setup) and are omitted: "
            f"{examples(unknown)}"
        )
    return notes


def _is_later(name: str) -> bool:
    sample = parse_name(name)
    return sample is not None and (sample.setup > FIRST_SETUPS or sample.action > len(NTU60.classes))


def _choose_depth(
    root: Path, disk: _Disk, requested: Literal["auto", "masked", "full"], found: set[str]
) -> tuple[Coverage | None, list[str]]:
    """Return the kind of depth to use, or None if there is none, and a note on the other."""
    counts = {kind: len(found & places.keys()) for kind, places in disk.depth.items()}
    if requested != "auto":
        if not counts[requested]:
            problem = f"{root}: no {requested} depth found; looked below it for {PLACES[requested]}"
            raise ManifestError(problem, path=root, field="depth_coverage")
        chosen: Coverage = requested
    elif not any(counts.values()):
        return None, []
    else:
        chosen = "masked" if counts["masked"] else "full"
    other: Coverage = "full" if chosen == "masked" else "masked"
    if not counts[other]:
        return chosen, []
    return chosen, [f"{chosen} depth was used ({counts[chosen]} samples), {other} depth ({counts[other]}) was not"]


def _entry(root: Path, sample: Sample, rgb: Path | None, depth: Path | None, protocol: Protocol) -> Entry:
    return Entry(
        rgb="" if rgb is None else rgb.relative_to(root).as_posix(),
        depth="" if depth is None else depth.relative_to(root).as_posix(),
        split=split_of(sample, protocol),
        group=sample.performance,
        subject=f"P{sample.performer:03}",
        camera=f"C{sample.camera:03}",
        sample=sample.name,
        labels={LABEL: NTU120.classes[sample.action - 1]},
    )


def _missing_notes(
    wanted: Mapping[str, Sample], entries: Sequence[Entry], found: set[str], collection: Collection
) -> list[str]:
    """Return notes on missing samples by setup and camera, which show missing archives."""
    used = {entry.sample for entry in entries}
    notes = []
    otherwise = [name for name in wanted if name in found and name not in used]
    if otherwise:
        notes.append(
            f"{len(otherwise)} samples have neither RGB nor the kind of depth that was used and are omitted; coverage "
            f"counts them as missing: {examples(otherwise)}"
        )
    missing = {name: sample for name, sample in wanted.items() if name not in found}
    if missing:
        full = Counter(sample.setup for sample in wanted.values())
        setups = sorted(Counter(sample.setup for sample in missing.values()).items())
        cameras = sorted(Counter(sample.camera for sample in missing.values()).items())
        by_setups = ", ".join(f"S{setup:03} {count} of {full[setup]}" for setup, count in setups)
        by_cameras = ", ".join(f"C{camera:03} {count}" for camera, count in cameras)
        notes.append(
            f"{len(missing)} of the {len(wanted)} samples of {collection.name} are not on disk; coverage counts them "
            f"as missing. By setup: {by_setups}; by camera: {by_cameras}; e.g. {examples(list(missing))}"
        )
    return notes


def _crop_rgb(entries: list[Entry], disk: _Disk, options: NtuOptions) -> tuple[list[Entry], list[str]]:
    """Return the entries with the crop boxes of their RGB, and notes on them."""
    masked = disk.depth["masked"]
    pairs = {e.sample: (options.root / e.rgb, masked[e.sample]) for e in entries if e.rgb and e.sample in masked}
    if options.rgb_crop == "none" or not any(entry.rgb for entry in entries):
        return entries, []
    if not pairs:
        problem = "RGB is not cropped to the person, because no sample has RGB and masked depth"
        if options.rgb_crop == "subject":
            problem = f"{options.root}: {problem}. Use --rgb-crop none to keep full frames."
            raise ManifestError(problem, path=options.root, field="rgb_crop")
        return entries, [problem]
    found = find_boxes(pairs, options.rgb_crop_size)
    notes = crop_notes(found, options.rgb_crop_size)
    without = [entry.sample for entry in entries if entry.rgb and entry.sample not in pairs]
    if without:
        notes.append(f"{len(without)} samples keep full RGB frames: no masked depth: {examples(without)}")
    return [replace(e, rgb_box=found[e.sample].box) if e.sample in found else e for e in entries], notes
