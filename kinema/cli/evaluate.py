"""Commands about predictions: evaluate, submit."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from kinema.cli.command import BootstrapUnit, Command, DeviceName
from kinema.errors import UsageError
from kinema.video.read_options import ReadOptions

SupervisionLevel = Literal[0, 1, 2, 3, 4, 5]


@dataclass(frozen=True, kw_only=True)
class Evaluate(Command):
    """Evaluate a model on a manifest, or summarize stored predictions.

    Args:
        model: Run or model folder.
        manifest: CSV of a manifest, or the name of a built-in one.
        predictions: Stored predictions (a file, or a run that holds one), instead of a model and a manifest.
        fuse: More runs, model folders or predictions files, whose scores are averaged with those of the first.
        temperature_from: Predictions of the same weights, best on another split, to fit a temperature on.
        bootstrap_over: Unit drawn for the intervals: clips, or all clips of a group or subject at once.
        per_class: Also print precision, recall and F1 of every class.
        per_attribute: Also print the accuracy of take-off, somersault, twist and position (Diving48).
        json: File for all numbers, classes and the confusion matrix.
        split: Name of the split.
        batch_size: Number of clips per batch.
        workers: Number of processes that read.
        device: Where to compute.
        allow_missing: Skip samples that cannot be read; every number then carries the coverage.
        out: Predictions file to write; that of a second model gets -2 before the dot.
        modalities: Modalities given to a model of color and depth; both if none is named.
        frames: Number of frames per clip, if other than in training.
        size: Size of a clip [pixels], if other than in training.
        read_options: How files are read.
    """

    model: Positional[Path | None] = None
    manifest: str = ""
    predictions: Path | None = None
    fuse: tuple[Path, ...] = ()
    temperature_from: Path | None = None
    bootstrap_over: BootstrapUnit = "clip"
    per_class: bool = False
    per_attribute: bool = False
    json: Path | None = None
    split: str = "test"
    batch_size: int = 16
    workers: int = 1
    device: DeviceName = "auto"
    allow_missing: bool = False
    out: Path = Path("predictions.safetensors")
    modalities: tuple[Literal["rgb", "depth"], ...] = ()
    frames: int | None = None
    size: int | None = None
    read_options: ReadOptions = field(default_factory=ReadOptions)

    def run(self) -> int:
        """Evaluate and print all numbers."""
        sources = self._sources()
        from kinema.evaluation.bootstrap import Bootstrap
        from kinema.evaluation.evaluate_models import EvaluationSettings, evaluate_models
        from kinema.reports.evaluation import print_evaluation, write_evaluation_json

        evaluation = evaluate_models(
            sources,
            self.manifest,
            settings=EvaluationSettings(
                split=self.split,
                batch_size=self.batch_size,
                workers=self.workers,
                device=self.device,
                missing="allow" if self.allow_missing else "stop",
                modalities=self.modalities,
                frames=self.frames,
                size=self.size,
                read_options=self.read_options,
            ),
            out=self.out,
            temperature_from=self.temperature_from,
            bootstrap=Bootstrap(over=self.bootstrap_over),
            breakdown="attributes" if self.per_attribute else "none",
        )
        print_evaluation(evaluation, per_class=self.per_class)
        if self.json is not None and evaluation.summary is not None:
            write_evaluation_json(self.json, evaluation)
        return 0

    def _sources(self) -> tuple[Path, ...]:
        """Return what is evaluated, after checking that the options fit each other."""
        first = self.predictions or self.model
        stored = self.predictions is not None
        if first is None or stored == bool(self.manifest) or stored == (self.model is not None):
            raise UsageError("Pass either MODEL and --manifest, or --predictions.", field="--predictions")
        if self.fuse and self.temperature_from is not None:
            raise UsageError("--temperature-from cannot be combined with --fuse.", field="--temperature-from")
        if len({first, *self.fuse}) <= len(self.fuse):
            raise UsageError("--fuse: a model is named twice", field="--fuse")
        return (first, *self.fuse)


@dataclass(frozen=True, kw_only=True)
class Submit(Command):
    """Write stored predictions as a challenge submission.

    Args:
        challenge: Name of the challenge.
        predictions: File that `kinema evaluate` wrote, or a run that holds one.
        manifest: Manifest of the predictions, with the segments' narration ids.
        out: File to write; a name ending in .zip gives the archive that the server accepts.
        sls_pt: Pretraining: 0 none, 1 public images, 2 public images and videos, 3 public data without labels, 4 the
            same with EPIC-KITCHENS, 5 private data (github.com/epic-kitchens/sls).
        sls_tl: Training labels: 3 is start and stop of each segment.
        sls_td: Training data: 3 is the training split, 4 adds the validation split.
    """

    challenge: Positional[Literal["epic_kitchens"]]
    predictions: Positional[Path]
    manifest: Path
    out: Path
    sls_pt: SupervisionLevel
    sls_tl: SupervisionLevel = 3
    sls_td: SupervisionLevel = 3

    def run(self) -> int:
        """Write the submission."""
        from kinema.data.manifest import load_manifest
        from kinema.evaluation.predictions import load_predictions
        from kinema.evaluation.submission import Supervision, write_submission
        from kinema.reports.evaluation import samples_line

        predictions = load_predictions(self.predictions)
        supervision = Supervision(pretraining=self.sls_pt, labels=self.sls_tl, data=self.sls_td)
        write_submission(self.out, predictions, load_manifest(self.manifest), supervision=supervision)
        print(f"{self.out}: {samples_line(predictions)}")
        return 0
