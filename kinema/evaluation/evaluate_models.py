"""Evaluation of one or several models, from a manifest or stored predictions to all metrics."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from kinema.errors import PredictionsError, UnwrittenPredictions
from kinema.evaluation.attributes import AttributeRule, AttributeSummary, summarize_attributes
from kinema.evaluation.bootstrap import BOOTSTRAP, Bootstrap
from kinema.evaluation.evaluate import Evaluation, Missing, evaluate
from kinema.evaluation.fusion import FusionSummary, fusion_to_json, summarize_fusion
from kinema.evaluation.predictions import Predictions, load_predictions
from kinema.evaluation.summary import Summary, summarize, summary_to_json
from kinema.inference.engine import Device
from kinema.inference.trained_model import has_own_network, load_model
from kinema.modality import Modality
from kinema.video.read_options import READ_OPTIONS, ReadOptions

logger = logging.getLogger(__name__)

Breakdown = Literal["none", "attributes", "marginal-attributes"]
"""Additional metrics: none, or those per attribute of Diving48, by the top class or summed over classes."""


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """Settings of an evaluation on a manifest, as in `evaluate`.

    `frames` and `size` [px] of the clips override those of the model. `network` is the name of a network of the user's
    own, `module:Class`.
    """

    split: str = ""
    batch_size: int = 16
    workers: int = 1
    device: Device = "auto"
    missing: Missing = "stop"
    modalities: tuple[Modality, ...] = ()
    frames: int | None = None
    size: int | None = None
    network: str = ""
    read_options: ReadOptions = READ_OPTIONS


@dataclass(frozen=True, kw_only=True)
class ModelsEvaluation:
    """Metrics of one model, or of several and their fusions.

    Attributes:
        files: Predictions file of each model, by name.
        predictions: Predictions of each model, by name.
        summary: Metrics of the model, or of the mean of logits of several. None if the split has no labels.
        fusion: Metrics of all models and fusions. None for one model.
        attributes: Metrics per attribute of Diving48. None if not requested.
        unwritten: Errors of predictions that could not be written, by name.
    """

    files: Mapping[str, Path]
    predictions: Mapping[str, Predictions]
    summary: Summary | None = None
    fusion: FusionSummary | None = None
    attributes: Mapping[str, AttributeSummary] | None = None
    unwritten: Mapping[str, UnwrittenPredictions] = field(default_factory=dict)


def evaluate_models(
    sources: Sequence[Path],
    manifest: str = "",
    *,
    settings: EvaluationSettings | None = None,
    out: Path = Path("predictions.safetensors"),
    temperature_from: Path | None = None,
    bootstrap: Bootstrap = BOOTSTRAP,
    breakdown: Breakdown = "none",
) -> ModelsEvaluation:
    """Evaluate models on a manifest, or summarize stored predictions. Several models are also fused.

    Args:
        sources: With a manifest, run or model folders; all but the first may be predictions files. Without one,
            predictions files or runs that hold one.
        manifest: CSV of a manifest, or name of a built-in one.
        settings: Settings of the evaluation.
        out: Predictions file of the first model. The names of further ones end in `-2`, `-3` and so on.
        temperature_from: Predictions of the same model, preferably on another split, to fit a temperature on.
        bootstrap: Settings of the intervals.
        breakdown: `attributes` for metrics per attribute of Diving48, `marginal-attributes` for those of probabilities
            that are summed over classes.

    Raises:
        KinemaError: A model, the manifest or a predictions file cannot be used; see `evaluate` and `fuse`. A file that
            is no predictions file is never replaced.
    """
    settings = settings or EvaluationSettings()
    files: dict[str, Path] = {}
    for number, source in enumerate(sources, start=1):
        is_evaluated = bool(manifest) and (number == 1 or source.is_dir())
        target = out if number == 1 else out.with_stem(f"{out.stem}-{number}")
        files[str(source)] = target if is_evaluated else source
    inputs = [*sources, *([temperature_from] if temperature_from else [])]
    for target in (path for name, path in files.items() if str(path) != name):
        _check_target(target, inputs)
    # With a network of one's own, a fusion may have others, too.
    named = [source for source in sources if settings.network and (len(sources) == 1 or has_own_network(source))]
    predictions: dict[str, Predictions] = {}
    unwritten: dict[str, UnwrittenPredictions] = {}
    for source in sources:
        name = str(source)
        if files[name] == source:
            predictions[name] = load_predictions(source)
            continue
        try:
            predictions[name] = evaluate(
                load_model(source, model=settings.network if source in named else None).with_clip(
                    frames=settings.frames, size=settings.size
                ),
                manifest,
                split=settings.split,
                batch_size=settings.batch_size,
                workers=settings.workers,
                device=settings.device,
                missing=settings.missing,
                out=files[name],
                read_options=settings.read_options,
                modalities=settings.modalities,
            ).predictions
        except UnwrittenPredictions as error:  # the metrics are not lost
            predictions[name] = cast(Evaluation, error.evaluation).predictions
            unwritten[name] = error
    first = next(iter(predictions.values()))
    if manifest and not first.is_labeled:
        return ModelsEvaluation(files=files, predictions=predictions, unwritten=unwritten)
    fusion = None
    if len(predictions) > 1:
        fusion = summarize_fusion(predictions, bootstrap=bootstrap, missing=settings.missing)
        summary = fusion.fused["logits"]
    else:
        held_out = None if temperature_from is None else load_predictions(temperature_from)
        summary = summarize(first, bootstrap=bootstrap, temperature_from=held_out)
    attributes = None
    if breakdown != "none":
        rule: AttributeRule = "top-class" if breakdown == "attributes" else "marginal"
        attributes = summarize_attributes(summary.predictions, rule=rule, bootstrap=bootstrap)
    return ModelsEvaluation(
        files=files,
        predictions=predictions,
        summary=summary,
        fusion=fusion,
        attributes=attributes,
        unwritten=unwritten,
    )


def _check_target(path: Path, inputs: Sequence[Path]) -> None:
    """Refuse to replace an input or a file that holds no predictions; warn before predictions are replaced."""
    if not path.is_file():
        return
    if any(source.exists() and source.samefile(path) for source in inputs):
        raise PredictionsError(f"{path}: is read and would be replaced. Choose another --out.", path=path, field="out")
    try:
        old = load_predictions(path)
    except PredictionsError as error:
        problem = f"{path}: exists and holds no predictions. Choose another --out."
        raise PredictionsError(problem, path=path, field="out") from error
    logger.warning(
        "%s: exists (%d samples of split %r) and will be replaced. Stop and pass --out to keep it.",
        *(path, old.num_samples, old.split),
    )


def evaluation_to_json(evaluation: ModelsEvaluation) -> dict[str, Any]:
    """Return all metrics as plain data. Empty if the split has no labels."""
    data: dict[str, Any] = {}
    if evaluation.fusion is not None:
        data = fusion_to_json(evaluation.fusion)
    elif evaluation.summary is not None:
        data = summary_to_json(evaluation.summary)
    if evaluation.attributes is not None:
        data["attributes"] = {
            name: {**asdict(attribute), "counts": attribute.counts.tolist()}
            for name, attribute in evaluation.attributes.items()
        }
    return data
