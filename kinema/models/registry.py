"""The models by name, and the one place that turns a config into a network.

from kinema import create_model
model = create_model("ctn_base", num_classes=48, position="learned")
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import assert_never

from torch import nn

from kinema.errors import StreamError, UnknownField, UnknownModel, did_you_mean
from kinema.models.baselines import ViTSpatial, ViTSpatialConfig, ViViT, ViViTConfig
from kinema.models.ctn import CTN, CTNConfig
from kinema.models.fields import fields_of, with_fields
from kinema.models.fusion import MODALITIES, TwoStream, TwoStreamConfig
from kinema.models.mfst import MFST, MFSTConfig
from kinema.models.rpe_stdt import RPESTDT, RPESTDTConfig

__all__ = [
    "MODELS",
    "ModelConfig",
    "UnknownField",
    "UnknownModel",
    "ZooEntry",
    "build_model",
    "config_fields",
    "config_from",
    "config_kind",
    "create_model",
    "list_models",
]

ModelConfig = CTNConfig | MFSTConfig | RPESTDTConfig | TwoStreamConfig | ViTSpatialConfig | ViViTConfig

KINDS: Mapping[str, type[ModelConfig]] = {
    "ctn": CTNConfig,
    "mfst": MFSTConfig,
    "rpe-stdt": RPESTDTConfig,
    "two-stream": TwoStreamConfig,
    "vit-spatial": ViTSpatialConfig,
    "vivit": ViViTConfig,
}
"""What an artefact calls a config's type."""


@dataclass(frozen=True, kw_only=True)
class ZooEntry:
    """A named architecture and the clips it is meant for."""

    config: ModelConfig
    frames: int
    size: int
    summary: str

    @property
    def channels(self) -> dict[str, int]:
        """Of each modality's clip, where nothing else is said."""
        return {"rgb": 3} | ({"depth": 1} if isinstance(self.config, TwoStreamConfig) else {})


CTN_BASE = CTNConfig()
CTN_BASE_DENSE = CTNConfig(time_stride=1)
CTN_SMALL = CTNConfig(width=384, attention_heads=6)
CTN_TINY = CTNConfig(
    stem_kernel=5,
    stem_channels=16,
    stem_activation="relu",
    start="scratch",
    width=128,
    depth=4,
    attention_heads=4,
)
MFST_BASE = MFSTConfig()
MFST_LARGE = MFSTConfig(stages=4)
MFST_BM = MFSTConfig(stages=4, stem_operator="vanilla", shortcut="none", temporal_scales=(1,))
MFST_SMALL = MFSTConfig(widths=(128, 128, 256, 256), channel_divisor=2, layers=2, attention_heads=4, mlp_channels=512)
MFST_TINY = MFSTConfig(
    widths=(64, 96, 128, 128),
    channel_divisor=4,
    layers=2,
    attention_heads=4,
    head_channels=32,
    mlp_channels=256,
)

MFST_LARGE_DEPTH = replace(MFST_LARGE, stem_operator="cdc-t")
MFST_TINY_DEPTH = replace(MFST_TINY, stem_operator="cdc-t")
MFST_LARGE_RGBD = TwoStreamConfig(rgb=MFST_LARGE, depth=MFST_LARGE_DEPTH, stream_dropout=0.2)
MFST_TINY_RGBD = TwoStreamConfig(rgb=MFST_TINY, depth=MFST_TINY_DEPTH, stream_dropout=0.2)

RPE_STDT_BASE = RPESTDTConfig()
RPE_STDT_BASE12 = RPESTDTConfig(spatial_layers=12, temporal_head_channels=64, temporal_mlp_channels=768)
RPE_STDT_SMALL = RPESTDTConfig(
    width=384,
    spatial_heads=6,
    spatial_mlp_channels=1536,
    temporal_heads=6,
    temporal_head_channels=64,
    temporal_mlp_channels=1536,
)
RPE_STDT_TINY = RPESTDTConfig(
    frame_norm="clip",
    start="scratch",
    width=128,
    spatial_layers=4,
    spatial_heads=4,
    spatial_mlp_channels=512,
    temporal_heads=4,
    temporal_head_channels=32,
    temporal_mlp_channels=512,
)
VIT_BASE_SPATIAL = ViTSpatialConfig()
VIT_TINY_SPATIAL = ViTSpatialConfig(start="scratch", width=128, depth=4, attention_heads=4)
VIVIT_BASE = ViViTConfig()
VIVIT_TINY = ViViTConfig(tubelet=(4, 16, 16), start="scratch", width=128, depth=4, attention_heads=4)

MODELS: Mapping[str, ZooEntry] = {
    "ctn_base": ZooEntry(
        config=CTN_BASE, frames=8, size=224, summary="CTN as printed (Table 4.1): one token time from 8 frames"
    ),
    "ctn_base_dense": ZooEntry(
        config=CTN_BASE_DENSE,
        frames=8,
        size=224,
        summary="CTN whose stem keeps all times: 4 token times from 8 frames, near the printed FLOPs",
    ),
    "ctn_small": ZooEntry(config=CTN_SMALL, frames=8, size=224, summary="CTN as narrow as ViT-S"),
    "ctn_tiny": ZooEntry(
        config=CTN_TINY, frames=16, size=112, summary="a small CTN that a laptop trains from scratch in minutes"
    ),
    "mfst_base": ZooEntry(config=MFST_BASE, frames=32, size=224, summary="MFST of three stages (Table 2.3)"),
    "mfst_large": ZooEntry(config=MFST_LARGE, frames=32, size=224, summary="MFST of four stages (Table 2.3)"),
    "mfst_bm": ZooEntry(
        config=MFST_BM,
        frames=32,
        size=224,
        summary="figure 2.6's base model: MFST-Large without central differences, shortcuts and scales of time",
    ),
    "mfst_large_rgbd": ZooEntry(
        config=MFST_LARGE_RGBD,
        frames=32,
        size=224,
        summary="two MFST-Large, of 3D-CDC-ST for RGB and 3D-CDC-T for depth, that learn together",
    ),
    "mfst_small": ZooEntry(
        config=MFST_SMALL, frames=16, size=112, summary="MFST of three stages, half as wide and half as deep"
    ),
    "mfst_tiny": ZooEntry(
        config=MFST_TINY, frames=16, size=64, summary="a small MFST that a laptop trains from scratch in minutes"
    ),
    "mfst_tiny_rgbd": ZooEntry(
        config=MFST_TINY_RGBD, frames=16, size=64, summary="two MFST-tiny, for RGB and depth, that learn together"
    ),
    "rpe_stdt_base": ZooEntry(
        config=RPE_STDT_BASE,
        frames=16,
        size=224,
        summary="RPE-STDT as section 3.4.2 has it: 8 layers in space, 4 in time",
    ),
    "rpe_stdt_base12": ZooEntry(
        config=RPE_STDT_BASE12,
        frames=16,
        size=224,
        summary="RPE-STDT as the sizes of Tables 3.1 and 3.3 have it: 12 layers in space, 4 light ones in time",
    ),
    "rpe_stdt_small": ZooEntry(config=RPE_STDT_SMALL, frames=16, size=224, summary="RPE-STDT as narrow as ViT-S"),
    "rpe_stdt_tiny": ZooEntry(config=RPE_STDT_TINY, frames=16, size=112, summary="a small RPE-STDT for a laptop"),
    "vit_base_spatial": ZooEntry(
        config=VIT_BASE_SPATIAL,
        frames=16,
        size=224,
        summary="ViT-B on single frames, their mean: spatial attention alone (Table 3.3)",
    ),
    "vit_tiny_spatial": ZooEntry(
        config=VIT_TINY_SPATIAL, frames=16, size=112, summary="the same, as narrow as rpe_stdt_tiny"
    ),
    "vivit_base": ZooEntry(
        config=VIVIT_BASE,
        frames=8,
        size=224,
        summary="ViViT-B, joint attention in space and time: what CTN is compared with (Tables 4.3 and 4.7)",
    ),
    "vivit_tiny": ZooEntry(
        config=VIVIT_TINY,
        frames=16,
        size=112,
        summary="the same, as narrow as ctn_tiny and about as many multiply-adds",
    ),
}


def list_models() -> tuple[str, ...]:
    """All names that `create_model` knows."""
    return tuple(sorted(MODELS))


def create_model(name: str, *, num_classes: int | Mapping[str, int], **fields: object) -> nn.Module:
    """A network with fresh weights.

    >>> model = create_model("ctn_tiny", num_classes=15, frames=8)
    >>> model = create_model("ctn_tiny", num_classes={"verb": 97, "noun": 300}, depth=2, channels=1)

    Args:
        name: one of `list_models()`.
        num_classes: classes of the one task head, or of each by name.
        fields: `channels`, `frames` and `size` of the clips, and fields of the model's config, to change. A network of
            two streams has `channels` of RGB, 3, and `depth_channels`, 1.
    """
    entry = _entry(name)
    channels = {"rgb": "channels", "depth": "depth_channels"}
    clip: dict[str, object] = {channels[modality]: count for modality, count in entry.channels.items()}
    clip |= {"frames": entry.frames, "size": entry.size}
    known = [*clip, *_field_names(entry.config)]
    for field in fields:
        if field not in known:
            raise UnknownField(f"{name} has no field {field!r}; {did_you_mean(field, known)}")
    clip |= {field: value for field, value in fields.items() if field in clip}
    for field, value in clip.items():
        if type(value) is not int:
            raise ValueError(f"{name}: {field}={value!r} is not of type int")
    changes = {field: value for field, value in fields.items() if field not in clip}
    config = replace(entry.config, **with_fields(type(entry.config), changes))
    heads = {"label": num_classes} if isinstance(num_classes, int) else num_classes
    counts = {modality: clip.pop(channels[modality]) for modality in entry.channels}
    return build_model(config, heads=heads, channels=counts, **clip)  # type: ignore[arg-type]  # checked to be int above


def build_model(
    config: ModelConfig, *, heads: Mapping[str, int], channels: Mapping[str, int], frames: int, size: int
) -> nn.Module:
    """The network of a config: the config's type names it, there is no string to misspell.

    Args:
        config: the architecture.
        heads: name of a task -> number of its classes.
        channels: of each modality's clip.
        frames, size: of the clips.

    Raises:
        StreamError: the modalities are not those that the network has streams for.
    """
    check_modalities(config, tuple(channels))
    match config:
        case CTNConfig():
            return CTN(config, heads=heads, channels=next(iter(channels.values())), frames=frames, size=size)
        case MFSTConfig():
            return MFST(config, heads=heads, channels=next(iter(channels.values())), frames=frames, size=size)
        case RPESTDTConfig():
            return RPESTDT(config, heads=heads, channels=next(iter(channels.values())), frames=frames, size=size)
        case ViTSpatialConfig():
            return ViTSpatial(config, heads=heads, channels=next(iter(channels.values())), frames=frames, size=size)
        case ViViTConfig():
            return ViViT(config, heads=heads, channels=next(iter(channels.values())), frames=frames, size=size)
        case TwoStreamConfig():
            rgb, depth = (
                build_model(stream, heads=heads, channels={modality: channels[modality]}, frames=frames, size=size)
                for modality, stream in (("rgb", config.rgb), ("depth", config.depth))
            )
            return TwoStream(config, rgb=rgb, depth=depth, heads=heads)  # type: ignore[arg-type]  # of these two configs
        case _:
            assert_never(config)


def check_modalities(config: ModelConfig, modalities: tuple[str, ...]) -> None:
    """Refuses modalities that a network of this config has no stream for, or too few of them."""
    if isinstance(config, TwoStreamConfig):
        if set(modalities) != set(MODALITIES):
            raise StreamError(f"modalities={modalities}, but TwoStream learns from {' and '.join(MODALITIES)}")
    elif len(modalities) != 1:
        network = type(config).__name__.removesuffix("Config")
        raise StreamError(f"modalities={modalities}, but {network} has one stream; choose one modality")


def config_kind(config: ModelConfig) -> str:
    """What an artefact calls the config's type."""
    return next(kind for kind, owner in KINDS.items() if type(config) is owner)


def config_fields(config: ModelConfig) -> dict[str, object]:
    """A config as JSON can hold it; a config inside another says its kind."""
    said = fields_of(config)
    if isinstance(config, TwoStreamConfig):
        for modality, stream in (("rgb", config.rgb), ("depth", config.depth)):
            said[modality] = {"kind": config_kind(stream), "config": config_fields(stream)}
    return said


def config_from(kind: str, fields: Mapping[str, object]) -> ModelConfig:
    """The config of an artefact or a stored recipe; tuples may have become lists on the way through JSON."""
    if kind not in KINDS:
        raise UnknownModel(f"there is no model kind {kind!r}; {did_you_mean(kind, KINDS)}")
    if KINDS[kind] is TwoStreamConfig:
        fields = {name: _stream(value) if name in MODALITIES else value for name, value in fields.items()}
    return KINDS[kind](**with_fields(KINDS[kind], fields))


def _stream(said: object) -> ModelConfig:
    if not isinstance(said, Mapping) or set(said) != {"kind", "config"} or not isinstance(said["config"], Mapping):
        raise ValueError(f"TwoStreamConfig: a stream is a kind and a config; got {said!r}")
    return config_from(said["kind"], said["config"])


def _entry(name: str) -> ZooEntry:
    if name not in MODELS:
        raise UnknownModel(f"there is no model {name!r}; {did_you_mean(name, MODELS)}")
    return MODELS[name]


def _field_names(config: ModelConfig) -> list[str]:
    return [field.name for field in fields(config)]
