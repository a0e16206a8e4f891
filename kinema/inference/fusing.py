"""Late fusion of an RGB model and a depth model into one, as in the thesis's RGB-D rows."""

from dataclasses import fields, replace
from pathlib import Path

from kinema.errors import ModelError
from kinema.inference.trained_model import TrainedModel, load_model
from kinema.layers.score_fusion import ScoreFusion
from kinema.modality import MODALITIES
from kinema.models.two_stream import TwoStream, TwoStreamConfig

PER_MODALITY = ("modalities", "mean", "std", "depth_std", "depth", "depth_encoding", "depth_channels", "depth_colors")
"""Preprocessing fields that concern one modality. All others must be equal in both models."""


def fuse_models(
    first: str | Path | TrainedModel, second: str | Path | TrainedModel, *, score: ScoreFusion
) -> TrainedModel:
    """Return one model that averages the predictions of two. If a modality is missing, it uses the other alone.

    If the precisions differ, the fused model uses float32.

    Args:
        first: Run folder, model folder, or loaded model of RGB or depth.
        second: The same for the other modality.
        score: Average logits or softmax scores.

    Raises:
        ModelError: The models are not one for RGB and one for depth, or differ in classes, sampling or preprocessing.
    """
    both = [source if isinstance(source, TrainedModel) else load_model(source) for source in (first, second)]
    by_modality = {trained.preprocessing.modalities: trained for trained in both}
    if set(by_modality) != {(modality,) for modality in MODALITIES}:
        modalities = " and ".join("+".join(trained.preprocessing.modalities) for trained in both)
        raise ModelError(f"expected one rgb model and one depth model; got {modalities}", field="modalities")
    rgb, depth = (by_modality[(modality,)] for modality in MODALITIES)
    if rgb.config is None or depth.config is None:
        raise ModelError("a network of your own cannot be fused into one model. Use `kinema evaluate --fuse`.")
    _check_same(rgb, depth)
    config = TwoStreamConfig(
        rgb=rgb.config,  # type: ignore[arg-type]  # a model of one modality is not two-stream
        depth=depth.config,  # type: ignore[arg-type]  # as above
        fusion=score,
    )
    provenance = {
        f"{modality}_{name}": value
        for modality, trained in (("rgb", rgb), ("depth", depth))
        for name, value in {**trained.provenance, "digest": trained.digest}.items()
    }
    starts = dict.fromkeys((rgb.start_weights, depth.start_weights))
    return TrainedModel(
        model=TwoStream(config, rgb=rgb.model, depth=depth.model, heads=rgb.heads),  # type: ignore[arg-type]  # as above
        config=config,
        classes=rgb.classes,
        sampling=rgb.sampling,
        preprocessing=replace(
            depth.preprocessing, modalities=MODALITIES, mean=rgb.preprocessing.mean, std=rgb.preprocessing.std
        ),
        precision=rgb.precision if rgb.precision == depth.precision else "float32",
        provenance={"fused": score, "start_weights": "; ".join(starts), **provenance},
    )


def _check_same(rgb: TrainedModel, depth: TrainedModel) -> None:
    """Check that both models have the same classes and take the same clips."""
    if rgb.classes.keys() != depth.classes.keys() or any(
        list(names) != list(depth.classes[head]) for head, names in rgb.classes.items()
    ):
        raise ModelError("the models differ in their classes or the order of classes", field="classes")
    for part in ("sampling", "preprocessing"):
        ours, theirs = getattr(rgb, part), getattr(depth, part)
        for field in fields(ours):
            if part == "preprocessing" and field.name in PER_MODALITY:
                continue
            one, other = getattr(ours, field.name), getattr(theirs, field.name)
            if one != other:
                name = f"{part}.{field.name}"
                raise ModelError(
                    f"{name}: {one} for rgb and {other} for depth; expected equal clips. Train both models alike, or "
                    "average their predictions with `kinema evaluate --fuse`.",
                    field=name,
                )
