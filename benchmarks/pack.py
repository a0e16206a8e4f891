"""Benchmark packing: clips per second and bytes of original and packed files.

    python benchmarks/pack.py --out results/pack_speed.json

One process of one thread reads training clips of real recordings: UCF-101 (320x240), NTU RGB+D (1920x1080), three clips
of Kinetics, segments of a long video (the NTU clip repeated, encoded like a camera recording), depth of MSR-Action3D as
npz and as folders of 16-bit PNG, and 8-bit depth of IsoGD. RGB is packed with several keyframe intervals; depth also as
FFV1 and as an npz of one array, which `kinema pack` does not write. Each repeat reads every form of every dataset once
in random order; ratios are taken within a repeat. All files are in the page cache.
"""

import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
import tyro
from measuring import median_interval, ratio_interval, recordings, store, turns
from PIL import Image

from kinema.curation.pack import pack
from kinema.data.dataset import Failure, VideoDataset
from kinema.data.manifest import Entry, Manifest, write_manifest
from kinema.data.samplers import Draw
from kinema.modality import DepthFacts
from kinema.transforms.augment import Augmentation
from kinema.transforms.preprocessing import Preprocessing
from kinema.transforms.sampling import Sampling
from kinema.video.encode import Encoding
from kinema.video.source import count_frames, read_gray, read_rgb

SHORT_SIDE, SIZE = 256, 224
FACTS = DepthFacts(unit_mm=None, near=1.0, far=1000.0, coverage="masked")
SEGMENT = 100
"""Number of frames per segment of the long video."""
KEYFRAMES_OF_A_CAMERA = 250


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Options of the command line.

    Args:
        out: JSON file to write.
        repeats: Number of repeats.
        frames: Number of frames per clip.
        keyframe_every: Keyframe intervals to compare [frames]; the speed of the first is compared with the original.
        rounds: Number of repetitions of the NTU clip in the long video; each is a segment.
        files: Largest number of files per dataset.
        seed: Seed of the draws and of the order within a repeat.
    """

    out: Path
    repeats: int = 15
    frames: tuple[int, ...] = (16, 32)
    keyframe_every: tuple[int, ...] = (8, 4, 16)
    rounds: int = 20
    files: int = 9
    seed: int = 0


def main(arguments: Arguments) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        sets = {
            name: forms_of(name, entries[: arguments.files], Path(folder), arguments)
            for name, entries in samples(recordings(), Path(folder), arguments.rounds).items()
        }
        plan = [(name, form, frames) for name, forms in sets.items() for form in forms for frames in arguments.frames]
        milliseconds: dict[tuple[str, str, int], list[float]] = {key: [] for key in plan}
        for repeat, key in turns(plan, repeats=arguments.repeats, seed=arguments.seed):
            name, form, frames = key
            milliseconds[key].append(read_all(sets[name][form], frames, (arguments.seed, repeat)))
        parts = {
            name: {
                "files": {form: facts_of(manifest) for form, manifest in forms.items()},
                **{
                    f"{frames} frames": compared(name, list(forms), frames, milliseconds) for frames in arguments.frames
                },
                "repeats": {
                    f"{form}, {frames} frames": milliseconds[name, form, frames]
                    for form in forms
                    for frames in arguments.frames
                },
            }
            for name, forms in sets.items()
        }
    store(
        arguments.out,
        arguments=asdict(arguments),
        packages=("kinema", "av", "torch", "numpy", "pillow"),
        parts=parts,
    )


def samples(data: Path, folder: Path, rounds: int) -> dict[str, list[Entry]]:
    """Return the datasets; generated files are written to `folder`.

    Raises:
        FileNotFoundError: The real recordings are missing.
    """
    ntu = find_recordings(data, "format_samples/mmaction2/S001C001P001R001A001_rgb.avi")
    npz = find_recordings(data, "msr_action3d/depth160/a0*_s01_e01.npz")
    return {
        "UCF-101, 320x240": entries_of(find_recordings(data, "format_samples/ucf101/*/*.avi")),
        "NTU RGB+D, 1920x1080": entries_of(ntu),
        "Kinetics": entries_of(find_recordings(data, "format_samples/torchvision_0.14.1/*.mp4")),
        "segments of a long video, 1920x1080": long_video(ntu[0], folder / "long.mp4", rounds),
        "MSR-Action3D, npz, 160x120": entries_of(npz, "depth"),
        "MSR-Action3D, PNG, 320x240": entries_of(
            [as_pictures(path, folder) for path in find_recordings(data, "msr_action3d/original_mat/*.mat")], "depth"
        ),
        "IsoGD, 8-bit avi, 320x240": entries_of(find_recordings(data, "isogd_rgbd/train/*/K_*.avi"), "depth"),
    }


def find_recordings(data: Path, pattern: str) -> list[Path]:
    paths = sorted(data.glob(pattern))
    if not paths:
        raise FileNotFoundError(f"{data / pattern}: not found. Set KINEMA_DATA to the folder of the recordings.")
    return paths


def entries_of(paths: Iterable[Path], kind: str = "rgb") -> list[Entry]:
    return [
        Entry(
            rgb=str(path) if kind == "rgb" else "",
            depth=str(path) if kind == "depth" else "",
            frames=count_frames(str(path)),
            split="train",
            labels={"label": "any"},
        )
        for path in paths
    ]


def long_video(source: Path, target: Path, rounds: int) -> list[Entry]:
    """Write one file that repeats a clip, with a segment per repetition."""
    pictures = [
        av.VideoFrame.from_ndarray(p, format="rgb24").reformat(format="yuv420p")
        for p in read_rgb(str(source), range(SEGMENT))
    ]
    with av.open(str(target), "w") as container:
        stream = container.add_stream(
            "libx264", rate=50, options={"preset": "veryfast", "g": str(KEYFRAMES_OF_A_CAMERA)}
        )
        stream.height, stream.width, stream.pix_fmt = pictures[0].height, pictures[0].width, "yuv420p"
        for number in range(rounds * SEGMENT):
            frame = pictures[number % SEGMENT]
            frame.pts = None
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return [
        replace(entries_of([target])[0], start_s=start / 50, stop_s=(start + SEGMENT) / 50)
        for start in range(0, rounds * SEGMENT, SEGMENT)
    ]


def as_pictures(source: Path, folder: Path) -> Path:
    """Write the same depth as a folder of 16-bit PNG."""
    target = folder / "png" / source.stem
    target.mkdir(parents=True)
    for number, picture in enumerate(read_gray(str(source), range(count_frames(str(source))))):
        Image.fromarray(picture).save(target / f"{number:05}.png")
    return target


def forms_of(name: str, entries: Sequence[Entry], folder: Path, arguments: Arguments) -> dict[str, Manifest]:
    """Return the original and packed dataset, and for depth the forms that were not chosen."""
    place = folder / name.replace(" ", "_").replace(",", "")
    forms = {"original": manifest_of(place / "set.csv", entries)}
    if entries[0].rgb:
        for every in arguments.keyframe_every:
            encoding = Encoding(short_side=SHORT_SIDE, keyframe_every=every)
            forms[f"packed, keyframe every {every}"] = pack(
                forms["original"], place / f"packed {every}", encoding=encoding
            ).manifest
        return forms
    forms["packed"] = pack(forms["original"], place / "packed", encoding=Encoding(short_side=SHORT_SIDE)).manifest
    for form, write in {"FFV1": write_ffv1, "npz of one array": write_array}.items():
        (place / form).mkdir()
        files = [str(write(place / form / str(number), entry)) for number, entry in enumerate(entries)]
        others = [replace(entry, depth=file) for entry, file in zip(entries, files, strict=True)]
        forms[form] = manifest_of(place / f"{form}.csv", others)
    return forms


def manifest_of(path: Path, entries: Sequence[Entry]) -> Manifest:
    depth = FACTS if entries[0].depth else None
    return write_manifest(
        path, entries=entries, classes={"label": ("any",)}, dataset="benchmark", version="1", depth=depth
    )


def write_ffv1(stem: Path, entry: Entry) -> Path:
    pictures = read_gray(entry.depth, range(entry.frames or 0))
    form = "gray16le" if pictures.dtype == np.uint16 else "gray"
    target = stem.with_suffix(".mkv")
    with av.open(str(target), "w") as container:
        stream = container.add_stream("ffv1", rate=25, options={"level": "3", "slices": "1", "g": "1"})
        stream.height, stream.width, stream.pix_fmt = *pictures.shape[1:], form
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format=form)))
        container.mux(stream.encode())
    return target


def write_array(stem: Path, entry: Entry) -> Path:
    np.savez_compressed(stem.with_suffix(".npz"), depth=read_gray(entry.depth, range(entry.frames or 0)))
    return stem.with_suffix(".npz")


def read_all(manifest: Manifest, frames: int, seed: tuple[int, ...]) -> float:
    """Return milliseconds per clip for a training draw of each sample."""
    deep = bool(manifest.entries[0].depth)
    dataset = VideoDataset(
        manifest,
        sampling=Sampling(frames=frames),
        preprocessing=Preprocessing(
            modalities=("depth",) if deep else ("rgb",),
            short_side=SHORT_SIDE,
            size=SIZE,
            depth=FACTS if deep else None,
        ),
        augmentation=Augmentation(flip=0.5),
    )
    start = time.perf_counter()
    for number in range(len(dataset)):
        sample = dataset[Draw(number, (*seed, number))]
        if isinstance(sample, Failure):
            raise RuntimeError(sample.message)
    return 1000 * (time.perf_counter() - start) / len(dataset)


def facts_of(manifest: Manifest) -> dict[str, int]:
    """Return the number of samples and the bytes of their files."""
    paths = {Path(manifest.locate(entry.rgb or entry.depth)) for entry in manifest.entries}
    files = [file for path in paths for file in (path.iterdir() if path.is_dir() else [path])]
    return {"samples": len(manifest.entries), "files": len(files), "bytes": sum(file.stat().st_size for file in files)}


def compared(
    name: str, forms: Sequence[str], frames: int, milliseconds: dict[tuple[str, str, int], list[float]]
) -> dict[str, Any]:
    """Return clips per second of each form, and its speed over the original within each repeat."""
    original = np.array(milliseconds[name, "original", frames])
    speeds: dict[str, Any] = {}
    for form in forms:
        times = np.array(milliseconds[name, form, frames])
        speeds[form] = {
            "clips_per_second": median_interval((1000 / times).tolist()),
            "times_the_original": ratio_interval(original, times),
        }
    return speeds


if __name__ == "__main__":
    main(tyro.cli(Arguments))
