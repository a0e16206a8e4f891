"""Commands that put a model to work: predict."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from kinema.cli.command import Command, DeviceName
from kinema.video.read_options import ReadOptions


@dataclass(frozen=True, kw_only=True)
class Predict(Command):
    """Predict the action in videos: ranked labels as text, JSON or CSV.

    Args:
        model: Run or model folder.
        videos: Files, URLs, or folders of videos.
        depth: Depth files in the order of the videos, for a two-stream model; one of the two may be omitted if the
            model accepts the other alone.
        top_k: Number of classes to print.
        format: Format of the output.
        device: Where to compute.
        read_options: How files are read; use `--read-options.isolation process` for files from strangers.
    """

    model: Positional[Path]
    videos: Positional[tuple[str, ...]] = ()
    depth: tuple[str, ...] = ()
    top_k: int = 5
    format: Literal["text", "json", "csv"] = "text"
    device: DeviceName = "auto"
    read_options: ReadOptions = field(default_factory=ReadOptions)

    def run(self) -> int:
        """Predict all videos; exit code 2 if one cannot be read."""
        from kinema.inference.bulk import predict_files

        failed = predict_files(
            self.model,
            self.videos,
            depth=self.depth,
            top_k=self.top_k,
            output_format=self.format,
            device=self.device,
            read_options=self.read_options,
        )
        return 2 if failed else 0
