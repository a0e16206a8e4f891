"""Predictions for many files; a file that cannot be read is reported and skipped."""

import csv
import json
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
from kinema.video.scan import VIDEO_SUFFIXES


def videos_in(sources: Sequence[str]) -> Iterator[str]:
    """Yield files and URLs as they are, and for a folder all videos below it, by their suffix."""
    for source in sources:
        if "://" not in source and Path(source).is_dir():
            files = (p for p in Path(source).rglob("*") if p.is_file() and not p.name.startswith("."))
            found = sorted(str(p) for p in files if p.suffix.lower() in VIDEO_SUFFIXES)
            if not found:
                raise VideoError(f"{source}: no videos in this folder", path=source)
            yield from found
        else:
            yield source


def predict_files(
    model: Path,
    sources: Sequence[str],
    *,
    depth: Sequence[str] = (),
    top_k: int,
    form: Literal["text", "json", "csv"],
    device: Device,
    read_options: ReadOptions = READ_OPTIONS,
) -> int:
    """Print the likeliest classes of every video on standard output, and failures on standard error.

    Args:
        model: run or model folder.
        sources: files, URLs, folders.
        depth: depth files in the order of `sources`, for a model of both; or alone, for a model that takes them alone.
        top_k: number of classes.
        form: `text`, `json` (one object per line) or `csv` (one line per class).
        device: device that computes.
        read_options: decoding options and limits.

    Returns:
        Number of videos that could not be read.
    """
    if not sources and not depth:
        raise VideoError("no videos given")
    recognizer = Recognizer.load(model, device=device, read_options=read_options)
    paths = list(videos_in(sources))
    if paths and depth and len(depth) != len(paths):
        raise VideoError(f"{len(depth)} depth files for {len(paths)} videos; expected one each", field="depth")
    videos = _by_modality(recognizer, paths, depth)
    table = csv.writer(sys.stdout)
    if form == "csv":
        table.writerow(["video", "head", "rank", "label", "score"])
    failed = 0
    for path, video in zip(paths or depth, videos, strict=True):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", MissingStream)  # printed once, by _by_modality
                answer = recognizer.predict(video, top_k=top_k)
        except UnreadableVideo as error:
            failed += 1
            print(f"kinema: {error}", file=sys.stderr)
            continue
        if form == "json":
            ranked = {head: [p._asdict() for p in predictions] for head, predictions in answer.items()}
            print(json.dumps({"video": path, "predictions": ranked}, ensure_ascii=False))
        elif form == "csv":
            for head, predictions in answer.items():
                table.writerows([path, head, i + 1, p.label, f"{p.score:.6f}"] for i, p in enumerate(predictions))
        else:
            print(path)
            for head, predictions in answer.items():
                for p in predictions:
                    print(f"  {'' if len(answer) == 1 else head + '  '}{p.score:7.2%}  {p.label}")
    if failed:
        print(f"kinema: {failed} of {len(videos)} videos could not be read", file=sys.stderr)
    return failed


def _by_modality(recognizer: Recognizer, paths: Sequence[str], depth: Sequence[str]) -> list[Video]:
    """Return each video as the recognizer takes it; print a note if one of two streams is missing."""
    if paths and depth:
        return [{"rgb": rgb, "depth": range_} for rgb, range_ in zip(paths, depth, strict=True)]
    if not recognizer.engine.binding.allows_missing:
        return list(paths) if paths else [{"depth": path} for path in depth]
    alone: Modality = "rgb" if paths else "depth"
    other = "depth" if paths else "rgb"
    if other in recognizer.trained.preprocessing.modalities:
        print(f"kinema: no {other} given; predicting from {alone} alone", file=sys.stderr)
    return [{alone: path} for path in paths or depth]
