"""NTU RGB+D 60 and 120: 56,880 and 114,480 samples of 60 and 120 actions, seen by three Kinect v2 at once.

A. Shahroudy et al., CVPR 2016; J. Liu et al., TPAMI 42, 2020. From rose1.ntu.edu.sg/dataset/actionRecognition after
signing its terms: academic research only, not to be passed on. The folder holds, anywhere below it,
`nturgb+d_rgb/S001C001P001R001A001_rgb.avi` (1920 x 1080), and depth of 16 bits in millimetres (512 x 424) as folders of
pictures: `nturgb+d_depth_masked/S001C001P001R001A001/MDepth-00000001.png`, where all but the people is 0, or
`nturgb+d_depth/S001C001P001R001A001/Depth-00000001.png`. The names say everything: label, subject, camera, split.

A sample's group is its performance: what three cameras saw at once. Under cross-view every performance is in both
splits, by design. Samples without a skeleton stay, unless a list says which are to be left out: the thesis uses none.
"""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

from kinema.config import config
from kinema.data.manifest import LABEL, Entry
from kinema.datasets.listed import check_once
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
from kinema.datasets.prepared import Prepared, check_target, examples, finish
from kinema.errors import ManifestError
from kinema.modality import DepthFacts
from kinema.video.image_files import PICTURE_SUFFIXES
from kinema.video.scan import Found, scan

Coverage = Literal["masked", "full"]
RgbCrop = Literal["auto", "subject", "none"]

FACTS: dict[Coverage, DepthFacts] = {
    "masked": DepthFacts(unit_mm=1.0, near=1000.0, far=5500.0, coverage="masked"),
    "full": DepthFacts(unit_mm=1.0, near=500.0, far=8000.0, coverage="full"),
}
"""Full: all that Kinect v2 measures, 0.5 to 8 m. Masked: where people are, 2 to 4.5 m from the cameras by the paper's
setups, with a step and an arm to both sides: a level is 18 mm then, not 30. What lies outside keeps the end's level."""
PICTURES: dict[str, Coverage] = {"MDepth-": "masked", "Depth-": "full"}
"""How the names of a depth folder's pictures begin."""
RGB_SIZE = (640, 480)
"""Of the box about the person (thesis 2.4.2, as `ntu60_mfst_large` reads it)."""
PLACES = {
    "rgb": "nturgb+d_rgb/S001C001P001R001A001_rgb.avi",
    "masked": "nturgb+d_depth_masked/S001C001P001R001A001/MDepth-00000001.png",
    "full": "nturgb+d_depth/S001C001P001R001A001/Depth-00000001.png",
}
ARCHIVES = frozenset({".zip", ".tar", ".gz", ".tgz", ".rar", ".7z"})


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What is to be made of a collection.

    Args:
        protocol: which official split.
        coverage: which depth; `auto` is what is there, masked before full.
        without: a list of samples that are left out, such as those that have no skeleton.
        rgb_crop: `subject` cuts RGB to a box about the person of masked depth, `none` keeps the whole picture; `auto`
            cuts where there are both.
        rgb_crop_size: width and height of the box, in pixels of 1920 x 1080.
    """

    protocol: Protocol = "cross_subject"
    coverage: Literal["auto", "masked", "full"] = "auto"
    without: Path | None = None
    rgb_crop: RgbCrop = "auto"
    rgb_crop_size: tuple[int, int] = RGB_SIZE


CHOICES = Choices()
"""The defaults."""


@dataclass(kw_only=True)
class _Disk:
    """Where the samples lie, by their names, and what else there is."""

    rgb: dict[str, Path]
    depth: dict[Coverage, dict[str, Path]]
    malformed: list[str]
    notes: list[str]

    @property
    def names(self) -> set[str]:
        return {name for places in (self.rgb, *self.depth.values()) for name in places}


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


def prepare(options: Ntu60Options | Ntu120Options) -> Prepared:
    """Write the manifest of NTU RGB+D; see `prepare_ntu`."""
    choices = Choices(
        protocol=options.split,
        coverage=options.depth_coverage,
        without=options.without,
        rgb_crop=options.rgb_crop,
        rgb_crop_size=options.rgb_crop_size,
    )
    return prepare_ntu(options.root, options.out, collection=options.collection, choices=choices)


def prepare_ntu(root: Path, out: Path, *, collection: Collection, choices: Choices = CHOICES) -> Prepared:
    """Make a manifest of the samples that are on disk.

    Args:
        root: the folder that holds the unpacked archives.
        out: the CSV to write; the JSON comes beside it.
        collection: `NTU60` or `NTU120`.
        choices: split, depth, samples that are left out, the cut of RGB.

    Raises:
        ManifestError: there is no such folder, no sample of the collection in it, a sample is there twice, the
            collection has no such split, depth or masked depth is asked for and not there, or a list of samples is
            none.
    """
    check_target(out)
    check_crop_size(choices.rgb_crop_size)
    if choices.protocol not in collection.protocols:
        raise ManifestError(
            f"{collection.name} has no split {choices.protocol}; its splits are {' and '.join(collection.protocols)}"
        )
    if not root.is_dir():
        raise ManifestError(f"{root}: no such folder; give the one that holds the folders of {collection.name}")
    official = official_samples(collection)
    notes: list[str] = []
    left_out: frozenset[str] = frozenset()
    if choices.without is not None:
        left_out, notes = _left_out(choices.without, collection, official)
    disk = _disk(root)
    there = _of_collection(root, disk, collection, official)
    wanted = [name for name in official if name not in left_out]
    coverage, said = _coverage(root, disk, choices.coverage, there)
    notes += [*said, *disk.notes, *_strangers(disk, collection, official)]
    entries = []
    for name in (name for name in wanted if name in there):
        rgb = disk.rgb.get(name)
        depth = None if coverage is None else disk.depth[coverage].get(name)
        if rgb is not None or depth is not None:  # else it is there in the other depth alone
            entries.append(_entry(root, official[name], rgb, depth, choices.protocol))
    notes += _missing({name: official[name] for name in wanted}, entries, there, collection)
    notes += _alone(entries)
    entries, said = _boxed(root, entries, disk, choices)
    declared = Counter(official_counts(collection, choices.protocol))
    declared.subtract(split_of(official[name], choices.protocol) for name in left_out)
    version = choices.protocol if choices.without is None else f"{choices.protocol}, without {choices.without.name}"
    return finish(
        entries,
        out,
        base=root,
        corpus=collection.name,
        version=version,
        classes={LABEL: collection.classes},
        depth=FACTS[coverage] if coverage is not None and any(entry.depth for entry in entries) else None,
        declared=declared,
        notes=[*notes, *said],
    )


def read_samples(path: Path) -> list[Sample]:
    """The samples of a list: one name a line, below what the list says of itself.

    Raises:
        ManifestError: there is no such file, no name in it, a line among the names is none, one is no sample of NTU
            RGB+D, or stands there twice.
    """
    if not path.is_file():
        raise ManifestError(
            f"{path}: no such file; give a list of samples, one name such as S001C001P001R001A001 a line"
        )
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: is not UTF-8 text ({error.reason} at byte {error.start})") from error
    official = official_samples(NTU120)
    samples: list[Sample] = []
    named: list[tuple[int, str]] = []
    for number, line in enumerate(lines, start=1):
        name = line.strip()
        if not name or (not samples and not ALIKE.match(name)):
            continue
        if name not in official:
            raise ManifestError(
                f"{path}, line {number}: {name!r} is no sample of NTU RGB+D, such as S001C001P001R001A001"
            )
        samples.append(official[name])
        named.append((number, name))
    if not samples:
        raise ManifestError(f"{path}: names no sample of NTU RGB+D; a line is a name such as S001C001P001R001A001")
    check_once(path, named)
    return samples


def _left_out(path: Path, collection: Collection, official: Mapping[str, Sample]) -> tuple[frozenset[str], list[str]]:
    samples = read_samples(path)
    own = [sample.name for sample in samples if sample.name in official]
    if not own:
        raise ManifestError(
            f"{path}: none of its {len(samples)} samples is of {collection.name}, e.g. {samples[0].name}"
        )
    extent = "" if len(own) == len(samples) else f" ({len(own)} of its {len(samples)} are of {collection.name})"
    return frozenset(own), [f"{len(own)} samples of {path.name} are left out, and not declared{extent}"]


def _disk(root: Path) -> _Disk:
    """All that lies below the folder, by what it is.

    Raises:
        ManifestError: a sample is there twice in the same form.
    """
    there = scan(root)
    disk = _Disk(rgb={}, depth={"masked": {}, "full": {}}, malformed=[], notes=[])
    infrared: list[str] = []
    strange: list[str] = []
    for path in there.videos:
        source = path.relative_to(root).as_posix()
        name = path.stem.removesuffix("_rgb")
        if parse_name(name) is not None:
            _put(root, disk.rgb, name, path)
        elif parse_name(path.stem.removesuffix("_ir")) is not None:
            infrared.append(source)
        else:
            (disk.malformed if ALIKE.match(path.stem) else strange).append(source)
    for folder in there.picture_folders:
        source = folder.relative_to(root).as_posix()
        kind = _pictures(folder)
        if parse_name(folder.name) is not None and kind is not None:
            _put(root, disk.depth[kind], folder.name, folder)
        elif parse_name(folder.name) is None and ALIKE.match(folder.name):
            disk.malformed.append(source)
        else:
            strange.append(source)
    disk.notes += _rest(root, there, infrared, strange)
    return disk


def _put(root: Path, places: dict[str, Path], name: str, path: Path) -> None:
    if name in places:
        first, second = (place.relative_to(root).as_posix() for place in (places[name], path))
        raise ManifestError(f"{root}: sample {name} is there twice, {first} and {second}; move one away")
    places[name] = path


def _pictures(folder: Path) -> Coverage | None:
    """Which depth a folder holds, by the name of one of its pictures; None where it is no depth."""
    with os.scandir(folder) as entries:
        names = (e.name for e in entries if Path(e.name).suffix.lower() in PICTURE_SUFFIXES and e.name[0] != ".")
        first = next(names, "")
    return next((kind for start, kind in PICTURES.items() if first.startswith(start)), None)


def _rest(root: Path, there: Found, infrared: Sequence[str], strange: Sequence[str]) -> list[str]:
    """What is left out, each kind by a sentence of its own."""
    notes = []
    if infrared:
        notes.append(f"{len(infrared)} infrared videos were left out: {examples(infrared)}")
    if strange:
        notes.append(
            f"{len(strange)} videos and folders of pictures are no RGB or depth of NTU RGB+D and were left out: "
            f"{examples(strange)}"
        )
    pictures, packed = [], []
    others: Counter[str] = Counter()
    for path in there.others:
        if path.suffix.lower() in PICTURE_SUFFIXES and parse_name(path.parent.name) is not None:
            pictures.append(path.relative_to(root).as_posix())
        elif path.suffix.lower() in ARCHIVES:
            packed.append(path.relative_to(root).as_posix())
        else:
            others[path.suffix.lower() or "(no suffix)"] += 1
    others.update(path.suffix.lower() for path in there.arrays)
    if pictures:
        notes.append(f"{len(pictures)} folders of depth hold a single picture and were left out: {examples(pictures)}")
    if packed:
        notes.append(f"{len(packed)} archives are still packed, and nothing of them is used: {examples(packed)}")
    if others:
        kinds = ", ".join(f"{suffix} {count}" for suffix, count in sorted(others.items()))
        notes.append(f"{others.total()} files of other kinds were left out: {kinds}")
    return notes


def _of_collection(root: Path, disk: _Disk, collection: Collection, official: Mapping[str, Sample]) -> set[str]:
    """Names of the collection's samples that are there.

    Raises:
        ManifestError: there is none; what there is in place of them is said.
    """
    there = disk.names & official.keys()
    if there:
        return there
    sentence = f"{root}: holds no sample of {collection.name}"
    if disk.names:
        other = NTU120 if collection is NTU60 else NTU60
        raise ManifestError(
            f"{sentence}, but {len(disk.names)} that may be of {other.name}: {examples(sorted(disk.names))}; "
            f"`kinema prepare {other.layout}` takes these"
        )
    looked = f"looked below it for {', '.join(PLACES.values())}"
    found = "; ".join([*_malformed(disk), *disk.notes]) or "it holds no files"
    raise ManifestError(f"{sentence}; {looked}; {found}")


def _malformed(disk: _Disk) -> list[str]:
    if not disk.malformed:
        return []
    return [
        f"{len(disk.malformed)} names look like those of NTU RGB+D, but are not of the form S001C001P001R001A001_rgb, "
        f"and were left out: {examples(disk.malformed)}"
    ]


def _strangers(disk: _Disk, collection: Collection, official: Mapping[str, Sample]) -> list[str]:
    """Notes on names that are none, and on names of samples that the collection has not."""
    notes = _malformed(disk)
    others = sorted(disk.names - official.keys())
    later = [name for name in others if collection is NTU60 and _is_later(name)]
    if later:
        notes.append(
            f"{len(later)} samples are of {NTU120.name} alone (setups from S018, actions from A061) and were left out: "
            f"{examples(later)}"
        )
    unknown = sorted(set(others) - set(later))
    if unknown:
        notes.append(
            f"{len(unknown)} names are of no sample of {collection.name}, by who was recorded in which setup, and were "
            f"left out: {examples(unknown)}"
        )
    return notes


def _is_later(name: str) -> bool:
    sample = parse_name(name)
    return sample is not None and (sample.setup > FIRST_SETUPS or sample.action > len(NTU60.classes))


def _coverage(
    root: Path, disk: _Disk, asked: Literal["auto", "masked", "full"], there: Iterable[str]
) -> tuple[Coverage | None, list[str]]:
    """Which depth is taken; None where there is none."""
    names = set(there)
    counts = {kind: len(names & places.keys()) for kind, places in disk.depth.items()}
    if asked != "auto":
        if not counts[asked]:
            raise ManifestError(f"{root}: holds no {asked} depth; looked below it for {PLACES[asked]}")
        chosen: Coverage = asked
    elif not any(counts.values()):
        return None, []
    else:
        chosen = "masked" if counts["masked"] else "full"
    other: Coverage = "full" if chosen == "masked" else "masked"
    if not counts[other]:
        return chosen, []
    return chosen, [f"{chosen} depth was taken ({counts[chosen]} samples), {other} depth ({counts[other]}) was not"]


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


def _missing(
    wanted: Mapping[str, Sample], entries: Sequence[Entry], there: set[str], collection: Collection
) -> list[str]:
    """By setups and by cameras, so that an archive that lacks is seen; and what is there in the other depth alone."""
    taken = {entry.sample for entry in entries}
    notes = []
    otherwise = [name for name in wanted if name in there and name not in taken]
    if otherwise:
        notes.append(
            f"{len(otherwise)} samples have neither RGB nor the depth that was taken and were left out, and coverage "
            f"counts them as missing: {examples(otherwise)}"
        )
    missing = {name: sample for name, sample in wanted.items() if name not in there}
    if missing:
        full = Counter(sample.setup for sample in wanted.values())
        setups = sorted(Counter(sample.setup for sample in missing.values()).items())
        cameras = sorted(Counter(sample.camera for sample in missing.values()).items())
        by_setups = ", ".join(f"S{setup:03} {count} of {full[setup]}" for setup, count in setups)
        by_cameras = ", ".join(f"C{camera:03} {count}" for camera, count in cameras)
        notes.append(
            f"{len(missing)} of the {len(wanted)} samples of {collection.name} are not on disk, and coverage counts "
            f"them as missing; by setups: {by_setups}; by cameras: {by_cameras}; e.g. "
            f"{examples(list(missing))}"
        )
    return notes


def _alone(entries: Sequence[Entry]) -> list[str]:
    """Where there are both modalities: the samples that have one of them."""
    notes = []
    if any(entry.rgb for entry in entries) and any(entry.depth for entry in entries):
        for modality, partner in (("rgb", "depth"), ("depth", "rgb")):
            alone = [entry.sample for entry in entries if not getattr(entry, partner)]
            if alone:
                notes.append(
                    f"{len(alone)} samples have {modality} but no {partner}; their lines stay, with {partner} empty: "
                    f"{examples(alone)}"
                )
    return notes


def _boxed(root: Path, entries: list[Entry], disk: _Disk, choices: Choices) -> tuple[list[Entry], list[str]]:
    """The entries with the boxes of their RGB, and what is to be said of them."""
    pairs = {
        entry.sample: (root / entry.rgb, disk.depth["masked"][entry.sample])
        for entry in entries
        if entry.rgb and entry.sample in disk.depth["masked"]
    }
    if choices.rgb_crop == "none" or not any(entry.rgb for entry in entries):
        return entries, []
    without = [entry.sample for entry in entries if entry.rgb and entry.sample not in pairs]
    if not pairs:
        if choices.rgb_crop == "subject":
            raise ManifestError(
                f"{root}: RGB cannot be cut to the person, who is found in masked depth, and no sample has both; "
                "--rgb-crop none keeps the whole picture"
            )
        return entries, ["RGB is not cut to the person, who is found in masked depth: no sample has both"]
    found = find_boxes(pairs, choices.rgb_crop_size)
    notes = crop_notes(found, choices.rgb_crop_size)
    if without:
        notes.append(
            f"{len(without)} samples keep the whole picture of RGB, since they have no masked depth: "
            f"{examples(without)}"
        )
    return [replace(e, rgb_box=found[e.sample].box) if e.sample in found else e for e in entries], notes
