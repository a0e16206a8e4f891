"""Predictions for many files. A file that cannot be read is reported and skipped."""

import csv
import json
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from kinema.errors import UnreadableVideo, VideoError
from kinema.inference.engine import Device
from kinema.inference.recognizer import MissingStream, Recognizer, Video
from kinema.modality import Modality
from kinema.video.read_options import READ_OPTIONS, ReadOptions
from kinema.video.scan import scan_contents


def find_videos(sources: Sequence[str]) -> Iterator[str]:
    """Yield files and URLs as they are, and all videos below a folder, whatever their names.

    Raises:
        VideoError: A folder has no videos.
    """
    for source in sources:
        if "://" not in source and os.path.isdir(source):
            videos = sorted(map(str, scan_contents(Path(source)).videos))
            if not videos:
                raise VideoError(f"{source}: no videos in this folder", path=source)
            yield from videos
        else:
            yield source


def predict_files(
    model: Path,
    sources: Sequence[str],
    *,
    depth: Sequence[str] = (),
    top_k: int,
    output_format: Literal["text", "json", "csv"],
    device: Device,
    read_options: ReadOptions = READ_OPTIONS,
) -> int:
    """Print the top-k classes of every video to standard output, and failures to standard error.

    Args:
        model: Run or model folder.
        sources: Files, URLs and folders.
        depth: Depth files in the order of `sources` for an RGB-D model, or without `sources` for a model that accepts
            depth alone.
        top_k: Number of classes.
        output_format: `text`, `json` (one object per line) or `csv` (one line per class).
        device: Device to run on.
        read_options: Decoding options and limits.

    Returns:
        Number of videos that could not be read.

    Raises:
        VideoError: No video is given, or the numbers of videos and depth files differ.
        ModelError: The model cannot be loaded.
    """
    if not sources and not depth:
        raise VideoError("no videos given. Pass files, URLs or folders.")
    recognizer = Recognizer.load(model, device=device, read_options=read_options)
    paths = list(find_videos(sources))
    if paths and depth and len(depth) != len(paths):
        raise VideoError(f"depth: {len(depth)} files for {len(paths)} videos; expected one per video", field="depth")
    videos = _by_modality(recognizer, paths, depth)
    table = csv.writer(sys.stdout)
    if output_format == "csv":
        table.writerow(["video", "head", "rank", "label", "score"])
    failed = 0
    for path, video in zip(paths or depth, videos, strict=True):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", MissingStream)  # _by_modality prints it once
                ranked = recognizer.predict(video, top_k=top_k)
        except UnreadableVideo as error:
            failed += 1
            print(f"kinema: {error}", file=sys.stderr)
            continue
        if output_format == "json":
            as_dicts = {head: [p._asdict() for p in predictions] for head, predictions in ranked.items()}
            print(json.dumps({"video": path, "predictions": as_dicts}, ensure_ascii=False))
        elif output_format == "csv":
            for head, predictions in ranked.items():
                table.writerows([path, head, i + 1, p.label, f"{p.score:.6f}"] for i, p in enumerate(predictions))
        else:
            print(path)
            for head, predictions in ranked.items():
                for p in predictions:
                    print(f"  {'' if len(ranked) == 1 else head + '  '}{p.score:7.2%}  {p.label}")
    if failed:
        print(f"kinema: {failed} of {len(videos)} videos could not be read", file=sys.stderr)
    return failed


def _by_modality(recognizer: Recognizer, paths: Sequence[str], depth: Sequence[str]) -> list[Video]:
    """Return the input of the recognizer for each video. Print a note if one of two streams is missing."""
    if paths and depth:
        return [{"rgb": rgb, "depth": depth_path} for rgb, depth_path in zip(paths, depth, strict=True)]
    if not recognizer.engine.binding.allows_missing:
        return list(paths) if paths else [{"depth": path} for path in depth]
    modality: Modality = "rgb" if paths else "depth"
    other = "depth" if paths else "rgb"
    if other in recognizer.trained.preprocessing.modalities:
        print(f"kinema: no {other} given; predicting from {modality} alone", file=sys.stderr)
    return [{modality: path} for path in paths or depth]
