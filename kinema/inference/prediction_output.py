"""Predictions on standard output, as text, JSON, lines of JSON, or CSV."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

from kinema.data.csv_table import csv_text
from kinema.inference.recognizer import Prediction
from kinema.modality import Modality
from kinema.terminal import echo, echo_data

OutputFormat = Literal["text", "json", "jsonl", "csv"]
"""`json` is one array and `jsonl` one object per line; `csv` has one line per class."""


@dataclass(frozen=True, kw_only=True)
class VideoPrediction:
    """Predictions for a video or a part of one.

    Attributes:
        video: Path or URL, of depth if there is no RGB.
        predictions: Best classes of each task head.
        missing: Modalities of the model that were not given.
        between: Start and end of the part [s]; None for the whole video.
    """

    video: str
    predictions: Mapping[str, Sequence[Prediction]]
    missing: Sequence[Modality] = ()
    between: tuple[float, float] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        part = {} if self.between is None else {"start_s": self.between[0], "stop_s": self.between[1]}
        ranked = {head: [p._asdict() for p in predictions] for head, predictions in self.predictions.items()}
        return {"video": self.video, **part, "missing": list(self.missing), "predictions": ranked}


class PredictionPrinter:
    """Printer of predictions, one by one as they are made. Use it in a `with` block, whose end closes the JSON.

    Args:
        output_format: Format.
        has_parts: CSV gets the columns of the parts of a video.
    """

    def __init__(self, output_format: OutputFormat, *, has_parts: bool) -> None:
        self.output_format = output_format
        self.has_parts = has_parts
        self._last = ""

    def __enter__(self) -> "PredictionPrinter":
        if self.output_format == "csv":
            parts = ["start_s", "stop_s"] if self.has_parts else []
            echo_data(csv_text([["video", *parts, "head", "rank", "label", "score"]]))
        elif self.output_format == "json":
            echo("[")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.output_format == "json":
            if self._last:
                echo(self._last)
            echo("]")

    def add(self, found: VideoPrediction) -> None:
        """Print the predictions for one video or part."""
        if self.output_format in ("json", "jsonl"):
            line = json.dumps(found.to_json(), ensure_ascii=False)
            if self.output_format == "jsonl":
                echo(line)
                return
            if self._last:
                echo(f"{self._last},")
            self._last = f"  {line}"
        elif self.output_format == "csv":
            part = [] if found.between is None else [f"{second:.3f}" for second in found.between]
            for head, ranked in found.predictions.items():
                rows = [[head, rank, p.label, f"{p.score:.6f}"] for rank, p in enumerate(ranked, start=1)]
                echo_data(csv_text([found.video, *part, *row] for row in rows))
        else:
            echo(found.video if found.between is None else "{}  {:.1f} to {:.1f} s".format(found.video, *found.between))
            for head, ranked in found.predictions.items():
                for p in ranked:
                    echo(f"  {'' if len(found.predictions) == 1 else head + '  '}{p.score:7.2%}  {p.label}")
