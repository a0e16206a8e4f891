"""Commands for predictions: evaluate, submit."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from tyro.conf import Positional

from kinema.cli.command import BootstrapUnit, Command, DeviceName, OwnNetwork
from kinema.errors import PredictionsError, UsageError
from kinema.terminal import echo
from kinema.video.read_options import ReadOptions

logger = logging.getLogger(__name__)

SupervisionLevel = Literal[0, 1, 2, 3, 4, 5]


@dataclass(frozen=True, kw_only=True)
class Evaluate(Command):
    """Evaluate a model on a manifest, or summarize stored predictions.

    Attributes:
        model: Run or model folder.
        manifest: Manifest CSV, or the name of a built-in manifest.
        predictions: Predictions file, or run that contains one, instead of MODEL and --manifest.
        fuse: More runs, model folders or predictions files. Scores are averaged over all of them.
        temperature_from: Predictions of the same weights to fit a temperature on, preferably from another split.
        bootstrap_over: Resampling unit of the confidence intervals: single clips, or all clips of a group or subject.
        per_class: Print precision, recall and F1 per class.
        per_attribute: Print accuracy per attribute: take-off, somersault, twist and position (Diving48).
        attribute_rule: Predicted attributes: those of the `top-class`, or `marginal`, each by the probabilities summed
            over classes (figure 3.8).
        json: JSON file for all metrics, classes and the confusion matrix.
        split: Split to evaluate. By default `test`, or `val` if the manifest has no `test`.
        batch_size: Number of clips per batch.
        workers: Number of reader processes.
        device: Device to compute on.
        allow_missing: Skip samples that cannot be read. Every metric is then printed with its coverage.
        out: Predictions file to write. With --fuse, the file of the second model gets the suffix -2. Predictions of an
            earlier evaluation are replaced with a warning, other files never.
        modalities: Modalities to use with an RGB-D model. Both if omitted.
        network: Network of a model of your own: module:Class or file.py:Class. Its code is executed.
        frames: Number of frames per clip. As in training if omitted.
        size: Side of the clip [px]. As in training if omitted.
        read_options: Reading of files.
    """

    EXAMPLE: ClassVar = "runs/latest --manifest mine.csv --split test"
    GROUPS: ClassVar = {
        "Data": ("manifest", "split", "predictions", "allow_missing"),
        "Model": ("fuse", "network", "modalities", "frames", "size"),
        "Metrics": ("per_class", "per_attribute", "attribute_rule", "bootstrap_over", "temperature_from"),
        "Output and speed": ("out", "json", "batch_size", "workers", "device"),
    }

    model: Positional[Path | None] = None
    manifest: str = ""
    predictions: Path | None = None
    fuse: tuple[Path, ...] = ()
    temperature_from: Path | None = None
    bootstrap_over: BootstrapUnit = "auto"
    per_class: bool = False
    per_attribute: bool = False
    attribute_rule: Literal["top-class", "marginal"] = "top-class"
    json: Path | None = None
    split: str = ""
    batch_size: int = 16
    workers: int = 1
    device: DeviceName = "auto"
    allow_missing: bool = False
    out: Path = Path("predictions.safetensors")
    modalities: tuple[Literal["rgb", "depth"], ...] = ()
    network: OwnNetwork = ""
    frames: int | None = None
    size: int | None = None
    read_options: ReadOptions = field(default_factory=ReadOptions)

    def run(self) -> int:
        """Evaluate and print all metrics."""
        sources = self._sources()
        from kinema.evaluation.bootstrap import Bootstrap
        from kinema.evaluation.evaluate_models import EvaluationSettings, evaluate_models
        from kinema.reports.evaluation import check_json_target, print_evaluation, write_evaluation_json

        if self.json is not None:
            check_json_target(self.json)
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
                network=self.network,
                read_options=self.read_options,
            ),
            out=self.out,
            temperature_from=self.temperature_from,
            bootstrap=Bootstrap(over=self.bootstrap_over),
            breakdown=self._breakdown(),
        )
        print_evaluation(evaluation, per_class=self.per_class)
        errors: list[PredictionsError] = [*evaluation.unwritten.values()]
        if self.json is not None and evaluation.summary is not None:
            try:
                write_evaluation_json(self.json, evaluation)
            except PredictionsError as error:
                errors.append(error)
        for unwritten in errors[:-1]:
            logger.error("%s", unwritten)
        if errors:
            raise errors[-1]
        return 0

    def _breakdown(self) -> Literal["none", "attributes", "marginal-attributes"]:
        if self.per_attribute:
            return "attributes" if self.attribute_rule == "top-class" else "marginal-attributes"
        if self.attribute_rule != "top-class":
            raise UsageError("--attribute-rule needs --per-attribute.", field="--attribute-rule")
        return "none"

    def _sources(self) -> tuple[Path, ...]:
        """Return the models or predictions to evaluate; refuse options that contradict each other."""
        first = self.predictions or self.model
        stored = self.predictions is not None
        if first is None or stored == bool(self.manifest) or stored == (self.model is not None):
            raise UsageError("Pass either MODEL and --manifest, or --predictions.", field="--predictions")
        if self.fuse and self.temperature_from is not None:
            raise UsageError("--temperature-from cannot be combined with --fuse.", field="--temperature-from")
        if len({first, *self.fuse}) <= len(self.fuse):
            raise UsageError("--fuse: the same model is given twice; expected different models", field="--fuse")
        return (first, *self.fuse)


@dataclass(frozen=True, kw_only=True)
class Submit(Command):
    """Write stored predictions as a challenge submission.

    Attributes:
        challenge: Name of the challenge.
        predictions: Predictions file of `kinema evaluate`, or run that contains one.
        manifest: Manifest of the predictions, with the narration id of each segment.
        out: File to write. A name that ends in .zip gives the archive that the server accepts.
        sls_pt: Level of pretraining: 0 none, 1 public images, 2 public images and videos, 3 public data without labels,
            4 the same with EPIC-KITCHENS, 5 private data (github.com/epic-kitchens/sls).
        sls_tl: Level of training labels: 3 for start and stop of each segment.
        sls_td: Level of training data: 3 for the training split, 4 for training and validation.
    """

    EXAMPLE: ClassVar = "epic_kitchens runs/latest --manifest ek.csv --out ek.zip --sls-pt 1"

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
        echo(f"{self.out}: {samples_line(predictions)}")
        return 0
