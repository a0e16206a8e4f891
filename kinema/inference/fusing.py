"""Two trained models, one of colour and one of depth, as one that sees both: how the thesis has its RGB-D rows."""

from dataclasses import fields, replace
from pathlib import Path

from kinema.errors import ModelError
from kinema.inference.trained_model import TrainedModel, load_model
from kinema.layers.score_fusion import ScoreFusion
from kinema.modality import MODALITIES
from kinema.models.two_stream import TwoStream, TwoStreamConfig
from kinema.transforms.preprocessing import Preprocessing

OF_ONE_STREAM = ("modalities", "mean", "std", "depth", "depth_channels", "depth_colours")
"""Fields of the preprocessing that concern one modality alone; the others say what both are shown."""


def fuse_artefacts(
    first: str | Path | TrainedModel, second: str | Path | TrainedModel, *, score: ScoreFusion
) -> TrainedModel:
    """One model of two: it answers with the mean of their answers, or with one of them where a modality is missing.

    Args:
        first, second: runs, artefact folders, or loaded artefacts; one of RGB and one of depth, in either order.
        score: what is averaged, logits or softmaxes.

    Returns:
        The model; its arithmetic is of float32 where the two differ in that.

    Raises:
        ModelError: they are not of two modalities, know other classes, or are shown other frames or places.
    """
    both = [source if isinstance(source, TrainedModel) else load_model(source) for source in (first, second)]
    by_modality = {artefact.preprocessing.modalities: artefact for artefact in both}
    if set(by_modality) != {(modality,) for modality in MODALITIES}:
        seen = " and ".join("+".join(artefact.preprocessing.modalities) for artefact in both)
        raise ModelError(f"one model of rgb and one of depth can be fused; these see {seen}")
    rgb, depth = (by_modality[(modality,)] for modality in MODALITIES)
    if rgb.config is None or depth.config is None:
        raise ModelError("a network of your own cannot be fused into one artefact; `kinema evaluate --fuse` can do it")
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
                f"{modality}_{what}": said
                for modality, artefact in (("rgb", rgb), ("depth", depth))
                for what, said in {**artefact.provenance, "digest": artefact.digest}.items()
            },
        },
    )


def _check_same(rgb: TrainedModel, depth: TrainedModel) -> None:
    if {head: list(names) for head, names in rgb.classes.items()} != {
        head: list(names) for head, names in depth.classes.items()
    }:
        raise ModelError("the two models know other classes, or have them in another order; their answers do not mix")
    pairs = [
        (f"{part}.{field.name}", getattr(getattr(rgb, part), field.name), getattr(getattr(depth, part), field.name))
        for part in ("sampling", "preprocessing")
        for field in fields(getattr(rgb, part))
        if part == "sampling" or field.name not in OF_ONE_STREAM
    ]
    for name, ours, theirs in pairs:
        if ours != theirs:
            raise ModelError(
                f"the two models are shown other clips: {name} is {ours} for rgb and {theirs} for depth; "
                "train both alike, or average their predictions with `kinema evaluate --fuse`"
            )


def _shown_both(rgb: Preprocessing, depth: Preprocessing) -> Preprocessing:
    """Each modality as its own model had it."""
    return replace(depth, modalities=MODALITIES, mean=rgb.mean, std=rgb.std)
