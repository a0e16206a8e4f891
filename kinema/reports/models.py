"""Tables of the models' parameters and multiply-adds."""

import torch
from rich.console import Console
from rich.table import Table

from kinema.models.complexity import complexity_table, macs, parameter_count
from kinema.models.registry import MODELS, create_model, list_models


def print_models(*, num_classes: int) -> None:
    """Print one line per model: parameters, multiply-adds per clip, and clip size."""
    table = Table("model", "parameters", "GMAC per clip", "clip", "")
    for name in list_models():
        entry = MODELS[name]
        with torch.device("meta"):
            model = create_model(name, num_classes=num_classes)
        total = macs(model, channels=entry.channels, frames=entry.frames, size=entry.size)
        clip = f"{entry.frames} x {entry.size}"
        table.add_row(name, f"{parameter_count(model):,}", f"{total / 1e9:.3f}", clip, entry.summary)
    Console().print(table)


def print_model(name: str, *, num_classes: int) -> None:
    """Print one line per part of a model: parameters and multiply-adds per clip.

    Raises:
        UnknownModel: No model has this name.
    """
    with torch.device("meta"):
        model = create_model(name, num_classes=num_classes)
    clip = MODELS[name]
    table = Table("part", "parameters", "GMAC per clip")
    for row in complexity_table(model, channels=clip.channels, frames=clip.frames, size=clip.size):
        table.add_row(row.name, f"{row.parameters:,}", f"{row.macs / 1e9:.3f}")
    total = macs(model, channels=clip.channels, frames=clip.frames, size=clip.size)
    table.add_row(name, f"{parameter_count(model):,}", f"{total / 1e9:.3f}")
    Console().print(table)
