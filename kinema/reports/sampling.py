"""Printed sampling: the frames that a recipe takes from a video."""

from collections.abc import Iterator

import numpy as np

from kinema.data.dataset import frames_of
from kinema.data.manifest import Manifest
from kinema.errors import UsageError
from kinema.modality import Modality
from kinema.training.recipe import Clip
from kinema.video.source import open_source


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
    source = entry.source(clip.modalities[0]) or entry.rgb or entry.depth
    modality: Modality = "rgb" if source == entry.rgb != entry.depth else clip.modalities[0]
    with open_source(manifest.locate(source), read_as=manifest.read_as(modality)) as opened:
        start, stop = frames_of(entry, opened)
    rule = clip.frame_sampling()
    box = "" if entry.rgb_box is None else f", RGB cropped to {entry.rgb_box}"
    where = f"{manifest.path}, line {entry.line}: {source}, frames {start} to {stop - 1}{box}"
    yield f"{where}; {rule}; crops per clip: {clip.crops}"
    for number, view in enumerate((start + rule.views(stop - start)).tolist(), 1):
        yield " ".join(["evaluation:" if rule.clips == 1 else f"evaluation {number}:", *map(str, view)])
    for seed in range(draws):
        frames = start + rule.indices(stop - start, np.random.default_rng(seed))
        yield " ".join([f"draw {seed}:    ", *map(str, frames.tolist())])
