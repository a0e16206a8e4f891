"""One model of two trained ones, one for RGB and one for depth, as in the thesis's RGB-D rows."""

from dataclasses import fields, replace
from pathlib import Path

from kinema.errors import ModelError
from kinema.inference.trained_model import TrainedModel, load_model
from kinema.layers.score_fusion import ScoreFusion
from kinema.modality import MODALITIES
from kinema.models.two_stream import TwoStream, TwoStreamConfig
from kinema.transforms.preprocessing import Preprocessing

PER_MODALITY = ("modalities", "mean", "std", "depth", "depth_channels", "depth_colors")
"""Fields of the preprocessing that concern one modality alone; the others must be equal."""


def fuse_models(
    first: str | Path | TrainedModel, second: str | Path | TrainedModel, *, score: ScoreFusion
) -> TrainedModel:
    """Return one model that averages the answers of two; if a modality is missing, the other one answers alone.

    Its precision is float32 where the two differ in that.

    Args:
        first, second: run folders, model folders, or loaded models; one for RGB and one for depth, in either order.
        score: average logits or softmax scores.

    Raises:
        ModelError: the models are not for two modalities, or differ in classes, frames, or crops.
    """
    both = [source if isinstance(source, TrainedModel) else load_model(source) for source in (first, second)]
    by_modality = {trained.preprocessing.modalities: trained for trained in both}
    if set(by_modality) != {(modality,) for modality in MODALITIES}:
        seen = " and ".join("+".join(trained.preprocessing.modalities) for trained in both)
        raise ModelError(f"expected one model of rgb and one of depth; got {seen}")
    rgb, depth = (by_modality[(modality,)] for modality in MODALITIES)
    if rgb.config is None or depth.config is None:
        raise ModelError("networks of your own cannot be fused into one model; use `kinema evaluate --fuse`")
    _check_same(rgb, depth)
    config = TwoStreamConfig(
        rgb=rgb.config,  # type: ignore[arg-type]  # a model of one modality is no two-stream one
        depth=depth.config,  # type: ignore[arg-type]  # as above
        fusion=score,
    )
    return TrainedModel(
        model=TwoStream(config, rgb=rgb.model, depth=depth.model, heads=rgb.heads),  # type: ignore[arg-type]  # as above
        config=config,
        classes=rgb.classes,
        sampling=rgb.sampling,
        preprocessing=_shown_both(rgb.preprocessing, depth.preprocessing),
        precision=rgb.precision if rgb.precision == depth.precision else "float32",
        provenance={
            "fused": score,
            **{
                f"{modality}_{what}": value
                for modality, trained in (("rgb", rgb), ("depth", depth))
                for what, value in {**trained.provenance, "digest": trained.digest}.items()
            },
        },
    )


def _check_same(rgb: TrainedModel, depth: TrainedModel) -> None:
    if {head: list(names) for head, names in rgb.classes.items()} != {
        head: list(names) for head, names in depth.classes.items()
    }:
        raise ModelError("the two models differ in their classes, or in their order", field="classes")
    pairs = [
        (f"{part}.{field.name}", getattr(getattr(rgb, part), field.name), getattr(getattr(depth, part), field.name))
        for part in ("sampling", "preprocessing")
        for field in fields(getattr(rgb, part))
        if part == "sampling" or field.name not in PER_MODALITY
    ]
    for name, ours, theirs in pairs:
        if ours != theirs:
            raise ModelError(
                f"the two models take different clips: {name} is {ours} for rgb and {theirs} for depth; "
                "train both alike, or average their predictions with `kinema evaluate --fuse`",
                field=name,
            )


def _shown_both(rgb: Preprocessing, depth: Preprocessing) -> Preprocessing:
    """Return the preprocessing of both, each modality as in its own model."""
    return replace(depth, modalities=MODALITIES, mean=rgb.mean, std=rgb.std)
