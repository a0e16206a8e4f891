"""Printed sampling: the frames that a recipe takes from a video."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from kinema.data.dataset import open_sources, place_frames
from kinema.data.manifest import Manifest
from kinema.errors import UsageError
from kinema.modality import Modality
from kinema.training.recipe import Clip
from kinema.video.container import Timeline
from kinema.video.read_options import READ_OPTIONS


def sampling_lines(manifest: Manifest, index: int, clip: Clip, *, draws: int) -> Iterator[str]:
    """Yield the frames of a sample: one line per view of an evaluation, then one per training draw.

    Raises:
        UsageError: No sample has this position.
    """
    if not 0 <= index < len(manifest.entries):
        raise UsageError(
            f"--index {index}; expected 0 to {len(manifest.entries) - 1}, the samples of {manifest.path}",
            path=manifest.path,
            field="--index",
        )
    entry = manifest.entries[index]
    modalities = tuple(m for m in clip.modalities if entry.source(m)) or ("rgb" if entry.rgb else "depth",)
    preprocessing = replace(
        clip.preprocessing(manifest.depth, manifest.depth_encoding), modalities=modalities, subject=None
    )
    modality: Modality = "rgb" if "rgb" in modalities else "depth"
    rule = clip.frame_sampling(manifest.rates(range(len(manifest.entries))))
    with ExitStack() as files:
        sources = open_sources(entry, manifest.locate, preprocessing, READ_OPTIONS, files)
        place = place_frames(entry, sources, rule)
        timelines = {name: source.timeline for name, source in sources.items()}
    first, last = place.grid.frames(np.array([0, place.grid.num_places - 1])).tolist()
    box = "" if entry.rgb_box is None else f", RGB cropped to {entry.rgb_box}"
    where = f"{manifest.path}, line {entry.line}: {entry.source(modality)}, frames {first} to {last}{box}"
    yield f"{where}; {rule}; crops per clip: {clip.crops}{_span(timelines[modality], first, last)}"

    def lines(title: str, places: Int64[ndarray, " frames"]) -> Iterator[str]:
        frames = place.grid.frames(places).tolist()
        yield " ".join([title, *map(str, frames)])
        if place.grid.begins_s is not None and (times := _seconds(timelines[modality], frames)):
            yield " ".join(["  seconds:".ljust(len(title)), *(f"{time:.3f}" for time in times)])
        if len(modalities) > 1 and (depth := place.numbers("depth", frames)) != frames:
            yield " ".join(["  depth:".ljust(len(title)), *map(str, depth)])

    for number, view in enumerate(place.sampling.views(place.grid.num_places), 1):
        yield from lines("evaluation:" if rule.clips == 1 else f"evaluation {number}:", view)
    for seed in range(draws):
        yield from lines(
            f"draw {seed}:    ", place.sampling.indices(place.grid.num_places, np.random.default_rng(seed))
        )


def _span(timeline: Timeline | None, first: int, last: int) -> str:
    """Return the rate and the time of a range of frames; empty without time stamps."""
    times = _seconds(timeline, [first, last])
    if not times or first == last:
        return ""
    return f"; {(last - first) / (times[1] - times[0]):.4g} frames per second, from {times[0]:.3f} to {times[1]:.3f} s"


def _seconds(timeline: Timeline | None, frames: list[int]) -> list[float]:
    if timeline is None or frames[-1] >= len(timeline.stamps):
        return []
    return [timeline.seconds[number] for number in frames]
