"""Small RPE-STDT and clips, shared by several test files."""

import dataclasses

import torch

from kinema.models.rpe_stdt import RPESTDT, RPESTDTConfig

TINY = RPESTDTConfig(
    patch=8,
    width=16,
    spatial_layers=2,
    spatial_heads=2,
    spatial_mlp_channels=24,
    temporal_heads=2,
    temporal_head_channels=6,
    temporal_mlp_channels=20,
)
POOLS = ("top-k", "max", "average", "convolution", "random", "uniform", "none")


def tiny(heads=None, frames=8, size=32, channels=3, **changes):
    torch.manual_seed(0)
    config = dataclasses.replace(TINY, **changes)
    return RPESTDT(config, heads=heads or {"label": 5}, channels=channels, frames=frames, size=size)


def clip(batch=2, frames=8, height=32, width=32, channels=3, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, channels, frames, height, width, generator=generator).to(dtype)


def shake(model, by=0.3):
    """Perturb every parameter, tables included, so that equal outputs mean equal arithmetic."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += by * torch.randn(parameter.shape, generator=generator)
    return model
