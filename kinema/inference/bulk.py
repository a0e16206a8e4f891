"""Predictions for many files. A file that cannot be read is reported and skipped."""

import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from kinema.errors import UnreadableVideo, VideoError
from kinema.inference.engine import Device
from kinema.inference.find_videos import find_videos
from kinema.inference.prediction_output import OutputFormat, PredictionPrinter, VideoPrediction
from kinema.inference.recognizer import MissingStream, Recognizer, Video
from kinema.inference.trained_model import TrainedModel
from kinema.modality import Modality
from kinema.terminal import echo
from kinema.video.read_options import READ_OPTIONS, ReadOptions
from kinema.video.source import open_source

MUCH_LONGER = 2.0
"""Factor from which a video is much longer than those of the training."""

logger = logging.getLogger(__name__)


class Length(NamedTuple):
    """Frames of a video, and its first and last second; None without time stamps."""

    frames: int
    times: tuple[float, float] | None

    @property
    def seconds(self) -> float | None:
        """Duration."""
        return None if self.times is None else self.times[1] - self.times[0]


def predict_files(
    model: Path,
    sources: Sequence[str],
    *,
    depth: Sequence[str] = (),
    top_k: int,
    output_format: OutputFormat,
    device: Device,
    timeline_s: float | None = None,
    network: str = "",
    read_options: ReadOptions = READ_OPTIONS,
) -> int:
    """Print the top-k classes of every video to standard output, and failures to standard error.

    Args:
        model: Run or model folder.
        sources: Files, URLs, folders and patterns, or `-` for a list on standard input.
        depth: Depth in the order of `sources` for an RGB-D model, or without `sources` for a model that accepts depth
            alone.
        top_k: Number of classes.
        output_format: Format of the output.
        device: Device to run on.
        timeline_s: Length of the parts of a video to predict one by one [s]; None predicts the whole video.
        network: Name of a network of your own, `module:Class`.
        read_options: Decoding options and limits.

    Returns:
        Number of videos that could not be read.

    Raises:
        VideoError: No video is given, or the numbers of videos and depth files differ.
        ModelError: The model cannot be loaded.
    """
    if timeline_s is not None and not 0 < timeline_s < math.inf:
        raise VideoError(f"--timeline {timeline_s}; expected a number of seconds above 0", field="--timeline")
    paths, depth = list(find_videos(sources)), list(find_videos(depth))
    if not paths and not depth:
        raise VideoError("no videos given. Pass files, URLs or folders.")
    recognizer = Recognizer.load(model, model=network or None, device=device, read_options=read_options)
    if paths and depth and len(depth) != len(paths):
        raise VideoError(f"depth: {len(depth)} files for {len(paths)} videos; expected one per video", field="depth")
    missing, videos = _by_modality(recognizer, paths, depth)
    needed = recognizer.trained.preprocessing.files
    modality: Modality = needed[0] if len(needed) == 1 else "rgb" if paths else "depth"
    failed = 0
    with PredictionPrinter(output_format, has_parts=timeline_s is not None) as printer:
        for path, video in zip(paths or depth, videos, strict=True):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", MissingStream)  # _by_modality logs it once
                    length = _measure(path, modality, recognizer, "stored" if timeline_s is None else "decoded")
                    parts = [None] if timeline_s is None else _cut(path, length, timeline_s)
                    for between in parts:
                        ranked = recognizer.predict_heads(video, top_k=top_k, between=between)
                        printer.add(VideoPrediction(video=path, predictions=ranked, missing=missing, between=between))
            except UnreadableVideo as error:
                failed += 1
                echo(f"kinema: {error}", to="stderr")
                continue
            if timeline_s is None:
                _warn_if_long(path, length, recognizer.trained)
    if failed:
        echo(f"kinema: {failed} of {len(videos)} videos could not be read", to="stderr")
    return failed


def _by_modality(
    recognizer: Recognizer, paths: Sequence[str], depth: Sequence[str]
) -> tuple[tuple[Modality, ...], list[Video]]:
    """Return the streams that are missing, and the input of the recognizer for each video."""
    if paths and depth:
        return (), [{"rgb": rgb, "depth": depth_path} for rgb, depth_path in zip(paths, depth, strict=True)]
    preprocessing = recognizer.trained.preprocessing
    if not recognizer.engine.binding.allows_missing or len(preprocessing.files) == 1:
        return (), list(paths) if paths else [{"depth": path} for path in depth]
    modality: Modality = "rgb" if paths else "depth"
    missing = tuple(m for m in preprocessing.modalities if m != modality)
    for other in missing:
        logger.warning("no %s given; predicting from %s alone", other, modality)
    return missing, [{modality: path} for path in paths or depth]


def _measure(path: str, modality: Modality, recognizer: Recognizer, frames_of: Literal["stored", "decoded"]) -> Length:
    """Return the length of a video by its stored frames, which is fast, or by those that decode."""
    read_as = recognizer.trained.preprocessing.read_as(modality)
    with open_source(path, recognizer.read_options, read_as) as source:
        timeline = source.timeline
        stored = [] if timeline is None else timeline.seconds
        frames = len(stored) if frames_of == "stored" and len(stored) else source.num_frames
    seconds = stored[:frames]
    if len(seconds) < 2:
        return Length(frames, None)
    return Length(frames, (seconds[0], seconds[-1] + (seconds[-1] - seconds[0]) / (len(seconds) - 1)))


def _cut(path: str, length: Length, part_s: float) -> Iterator[tuple[float, float]]:
    """Yield start and end of each part; the last one takes a rest of less than half a part."""
    if length.times is None or length.seconds is None:
        raise UnreadableVideo(f"{path}: has no time stamps, which --timeline needs", path=path, field="--timeline")
    if 2 * length.seconds > part_s * length.frames:
        problem = f"{path}: --timeline {part_s:g} s is shorter than two frames"
        raise UnreadableVideo(problem, path=path, field="--timeline")
    begin, end = length.times
    count = max(1, round(length.seconds / part_s))
    for number in range(count):
        stop = end if number == count - 1 else begin + (number + 1) * part_s
        yield round(begin + number * part_s, 6), round(stop, 6)


def _warn_if_long(path: str, length: Length, trained: TrainedModel) -> None:
    """Warn about a video that is much longer than those of the training, or than the clip of a rule with intervals."""
    rule, facts = trained.sampling, trained.provenance
    span = rule.interval_s or (rule.interval / rule.rate if rule.interval and rule.rate else None)
    seen_s = span * rule.frames * rule.clips if span else _number(facts, "longest_s")
    seen_frames = rule.interval * rule.frames * rule.clips if rule.interval else _number(facts, "longest_frames")
    if length.seconds is not None and seen_s is None and seen_frames is not None:
        seen_s = seen_frames * length.seconds / length.frames
    if length.seconds is not None and seen_s is not None:
        if length.seconds > MUCH_LONGER * seen_s:
            text = "%s: lasts %.1f s; the model has seen %.1f s at most. Predict it part by part with --timeline %.2g."
            logger.warning(text, path, length.seconds, seen_s, seen_s)
    elif seen_frames is not None and length.frames > MUCH_LONGER * seen_frames:
        logger.warning("%s: has %d frames; the model has seen %d at most", path, length.frames, seen_frames)


def _number(facts: Mapping[str, Any], name: str) -> float | None:
    """Return a number of a model folder, which another program may have written; None if it is none."""
    value = facts.get(name)
    return value if isinstance(value, int | float) and value > 0 else None
