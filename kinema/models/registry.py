"""Registry of models by name.

from kinema import create_model
model = create_model("ctn_base", num_classes=48, position="learned")
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias

from pydantic import Field
from torch import nn

from kinema.config import from_json
from kinema.errors import ConfigError, UnknownField, UnknownModel, did_you_mean
from kinema.models import ctn, mfst, rpe_stdt, two_stream, vit_spatial, vivit
from kinema.models.base import NamedModel

ModelConfig: TypeAlias = Annotated[
    ctn.CTNConfig
    | mfst.MFSTConfig
    | rpe_stdt.RPESTDTConfig
    | two_stream.TwoStreamConfig
    | vit_spatial.ViTSpatialConfig
    | vivit.ViViTConfig,
    Field(discriminator="kind"),
]
"""Config of any model, selected by `kind`."""

MODELS: Mapping[str, NamedModel] = (
    ctn.MODELS | mfst.MODELS | rpe_stdt.MODELS | two_stream.MODELS | vit_spatial.MODELS | vivit.MODELS
)
"""Named models. To add a kind of model, add its config and its models above."""


def list_models() -> tuple[str, ...]:
    """Return the names of all models, sorted."""
    return tuple(sorted(MODELS))


def create_model(name: str, *, num_classes: int | Mapping[str, int], **fields: object) -> nn.Module:
    """Create a network with fresh weights.

    >>> model = create_model("ctn_tiny", num_classes=15, frames=8)
    >>> model = create_model("ctn_tiny", num_classes={"verb": 97, "noun": 300}, depth=2, channels=1)

    Args:
        name: Name of a model; see `list_models()`.
        num_classes: Number of classes, or a dict of numbers of classes for several task heads.
        fields: Fields of the model's config to change, and `channels`, `frames` and `size` of its clips. Two-stream
            models have `channels` for RGB (default 3) and `depth_channels` (default 1).

    Raises:
        UnknownModel: No model has this name.
        UnknownField: The model has no field of this name.
        ConfigError: A value breaks its field's type or constraint.
    """
    if name not in MODELS:
        raise UnknownModel(f"unknown model {name!r}; {did_you_mean(name, MODELS)}")
    model = MODELS[name]
    channel_fields = {"rgb": "channels", "depth": "depth_channels"}
    clip = {channel_fields[modality]: count for modality, count in model.channels.items()}
    clip |= {"frames": model.frames, "size": model.size}
    names = [*clip, *(field.name for field in dataclasses.fields(model.config))]  # type: ignore[arg-type]  # a dataclass
    for field, value in fields.items():
        if field not in names:
            raise UnknownField(f"{name}: unknown field {field!r}; {did_you_mean(field, names)}", field=field)
        if field in clip:
            if type(value) is not int:
                raise ConfigError(f"{name}: {field}={value!r}; expected an int", field=field)
            clip[field] = value
    changes: dict[str, Any] = {field: value for field, value in fields.items() if field not in clip}
    config = dataclasses.replace(model.config, **changes)  # type: ignore[type-var]  # configs are dataclasses
    return config.build(
        heads={"label": num_classes} if isinstance(num_classes, int) else num_classes,
        channels={modality: clip[channel_fields[modality]] for modality in model.channels},
        frames=clip["frames"],
        size=clip["size"],
    )


def config_from_json(stored: object) -> ModelConfig:
    """Build the config of a stored model or recipe, in the current format or an older one.

    Raises:
        ConfigError: A kind or field is unknown, or a value breaks its field's type or constraint.
    """
    config: ModelConfig = from_json(ModelConfig, flatten_config(stored))
    return config


def flatten_config(stored: Any) -> Any:
    """Return a stored config in the current format, `{"kind": "ctn", ...}`.

    kinema 0.1 stored `{"kind": "ctn", "config": {...}}`, also inside two-stream configs, and spelled a field of MFST
    `factorisation`.
    """
    if not isinstance(stored, Mapping):
        return stored
    if set(stored) == {"kind", "config"} and isinstance(stored["config"], Mapping):
        stored = {"kind": stored["kind"], **stored["config"]}
    names = {"factorisation": "factorization"}
    return {names.get(name, name): flatten_config(value) for name, value in stored.items()}
