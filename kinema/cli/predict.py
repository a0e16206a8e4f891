"""Command `predict`: predict the action in videos."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from tyro.conf import Positional

from kinema.cli.command import Command, DeviceName, OwnNetwork
from kinema.video.read_options import ReadOptions


@dataclass(frozen=True, kw_only=True)
class Predict(Command):
    """Predict the action in videos: ranked labels as text, JSON or CSV.

    A folder stands for all videos below it, or is one video if it contains images only. Quoted patterns are expanded:
    'clips/**/*.mp4'.

    Attributes:
        model: Run or model folder.
        videos: Files, URLs, folders and patterns, or `-` for a list on standard input, one per line.
        depth: Depth of a two-stream model, in the order of the videos. Videos or depth may be omitted if the model
            accepts one modality alone.
        top_k: Number of classes to print.
        timeline: Predict part by part, in parts of this length [s].
        format: Output format. `json` is one array, `jsonl` one object per line.
        device: Device to compute on.
        network: Network of a model of your own: module:Class or file.py:Class. Its code is executed.
        read_options: Reading of files. Use `--read-options.isolation process` for untrusted files.
    """

    EXAMPLE: ClassVar = "runs/latest new.mp4 --top-k 3"
    GROUPS: ClassVar = {"Input": ("depth", "timeline"), "Output and speed": ("top_k", "format", "device")}

    model: Positional[Path]
    videos: Positional[tuple[str, ...]] = ()
    depth: tuple[str, ...] = ()
    top_k: int = 5
    timeline: float | None = None
    format: Literal["text", "json", "jsonl", "csv"] = "text"
    device: DeviceName = "auto"
    network: OwnNetwork = ""
    read_options: ReadOptions = field(default_factory=ReadOptions)

    def run(self) -> int:
        """Predict all videos; return 2 if a video cannot be read."""
        from kinema.inference.bulk import predict_files

        failed = predict_files(
            self.model,
            self.videos,
            depth=self.depth,
            top_k=self.top_k,
            output_format=self.format,
            device=self.device,
            timeline_s=self.timeline,
            network=self.network,
            read_options=self.read_options,
        )
        return 2 if failed else 0
