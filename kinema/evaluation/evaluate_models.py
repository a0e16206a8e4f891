"""Evaluation of one or several models, from manifest or stored predictions to all numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from kinema.evaluation.attributes import AttributeSummary, summarize_attributes
from kinema.evaluation.bootstrap import BOOTSTRAP, Bootstrap
from kinema.evaluation.evaluate import Missing, evaluate
from kinema.evaluation.fusion import FusionSummary, fusion_to_json, summarize_fusion
from kinema.evaluation.predictions import Predictions, load_predictions
from kinema.evaluation.summary import Summary, summarize, summary_to_json
from kinema.inference.engine import Device
from kinema.inference.trained_model import load_model
from kinema.modality import Modality
from kinema.video.read_options import READ_OPTIONS, ReadOptions

Breakdown = Literal["none", "attributes"]
"""Whether numbers per attribute of Diving48 are computed as well."""


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """Settings of an evaluation on a manifest.

    Args:
        split: name of the split.
        batch_size: clips per batch.
        workers: number of processes that read.
        device: where to compute.
        missing: `stop` at a sample that cannot be read, or `allow` and report the coverage.
        modalities: modalities given to a two-stream model; all of its modalities if empty.
        frames, size: frames and pixels of a clip, if other than the model was trained with.
        read_options: how files are read.
    """

    split: str = "test"
    batch_size: int = 16
    workers: int = 1
    device: Device = "auto"
    missing: Missing = "stop"
    modalities: tuple[Modality, ...] = ()
    frames: int | None = None
    size: int | None = None
    read_options: ReadOptions = READ_OPTIONS


@dataclass(frozen=True, kw_only=True)
class ModelsEvaluation:
    """Numbers of one model, or of several and their fusions.

    Args:
        files: predictions file of each model, by name.
        predictions: predictions of each model, by name.
        summary: of the model, or of the mean of logits of several; None if the split has no labels.
        fusion: numbers of all models and fusions; None for one model.
        attributes: numbers per attribute of Diving48; None if not requested.
    """

    files: Mapping[str, Path]
    predictions: Mapping[str, Predictions]
    summary: Summary | None = None
    fusion: FusionSummary | None = None
    attributes: Mapping[str, AttributeSummary] | None = None


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
    """Evaluate models on a manifest, or summarize stored predictions; fuse if there are several.

    Args:
        sources: with a manifest, run or model folders, of which all but the first may also be predictions files;
            without one, predictions files or runs that hold one.
        manifest: CSV of a manifest, or the name of a built-in one.
        settings: how models are evaluated on the manifest.
        out: predictions file of the first model; `-2` and so on is added to the name for each further one.
        temperature_from: predictions of the same single model, best on another split, to fit a temperature on.
        bootstrap: how samples are drawn for the intervals.
        breakdown: `attributes` to compute numbers per attribute of Diving48 as well.

    Raises:
        KinemaError: a model, the manifest or a predictions file cannot be used; see `evaluate` and `fuse`.
    """
    settings = settings or EvaluationSettings()
    files, predictions = {}, {}
    for number, source in enumerate(sources, start=1):
        name = str(source)
        if manifest and (number == 1 or source.is_dir()):
            files[name] = out if number == 1 else out.with_stem(f"{out.stem}-{number}")
            predictions[name] = _evaluate(source, manifest, settings, files[name])
        else:
            files[name] = source
            predictions[name] = load_predictions(source)
    first = next(iter(predictions.values()))
    if manifest and not first.is_labeled:
        return ModelsEvaluation(files=files, predictions=predictions)
    fusion = None
    if len(predictions) > 1:
        fusion = summarize_fusion(predictions, bootstrap=bootstrap, missing=settings.missing)
        summary = fusion.fused["logits"]
    else:
        held_out = None if temperature_from is None else load_predictions(temperature_from)
        summary = summarize(first, bootstrap=bootstrap, temperature_from=held_out)
    attributes = None
    if breakdown == "attributes":
        attributes = summarize_attributes(summary.predictions, bootstrap=bootstrap)
    return ModelsEvaluation(files=files, predictions=predictions, summary=summary, fusion=fusion, attributes=attributes)


def evaluation_to_json(evaluation: ModelsEvaluation) -> dict[str, Any]:
    """Return all numbers as plain data; empty if the split has no labels."""
    found: dict[str, Any] = {}
    if evaluation.fusion is not None:
        found = fusion_to_json(evaluation.fusion)
    elif evaluation.summary is not None:
        found = summary_to_json(evaluation.summary)
    if evaluation.attributes is not None:
        found["attributes"] = {
            name: {**asdict(attribute), "counts": attribute.counts.tolist()}
            for name, attribute in evaluation.attributes.items()
        }
    return found


def _evaluate(source: Path, manifest: str, settings: EvaluationSettings, out: Path) -> Predictions:
    return evaluate(
        load_model(source).with_clip(frames=settings.frames, size=settings.size),
        manifest,
        split=settings.split,
        batch_size=settings.batch_size,
        workers=settings.workers,
        device=settings.device,
        missing=settings.missing,
        out=out,
        read_options=settings.read_options,
        modalities=settings.modalities,
    ).predictions
