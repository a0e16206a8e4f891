"""Tables of the models' parameters and multiply-adds, from stored costs, which need no torch."""

import json
from importlib.resources import files
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from kinema.errors import UnknownModel, did_you_mean

STREAMS = ("rgb", "depth")
"""Parts of a two-stream network that the list of models shows."""


class Cost(NamedTuple):
    """Parameters and multiply-adds per clip of a network's part, without classes and for each class."""

    parameters: int
    parameters_per_class: int
    macs: int
    macs_per_class: int


class StoredModel(NamedTuple):
    """Named model as stored in `assets/models.json` by `make tables`."""

    summary: str
    frames: int
    size: int
    parts: dict[str, Cost]

    def cells(self, parts: tuple[str, ...], num_classes: int) -> tuple[str, str]:
        """Return the parameters and the GMAC per clip of some parts as text."""
        costs = [self.parts[part] for part in parts]
        parameters = sum(cost.parameters + num_classes * cost.parameters_per_class for cost in costs)
        macs = sum(cost.macs + num_classes * cost.macs_per_class for cost in costs)
        return f"{parameters:,}", f"{macs / 1e9:.3f}"


def stored_models() -> dict[str, StoredModel]:
    """Return the named models with their costs."""
    stored = json.loads(files("kinema.assets").joinpath("models.json").read_text(encoding="utf-8"))
    return {
        name: StoredModel(**{**model, "parts": {part: Cost(*cost) for part, cost in model["parts"].items()}})
        for name, model in stored.items()
    }


def print_models(*, num_classes: int) -> None:
    """Print one line per model and stream: parameters, multiply-adds per clip, and clip size."""
    table = Table("model", "parameters", "GMAC per clip", "clip", "")
    for name, model in stored_models().items():
        clip = f"{model.frames} x {model.size}"
        table.add_row(name, *model.cells(tuple(model.parts), num_classes), clip, model.summary)
        for stream in STREAMS:
            if stream in model.parts:
                table.add_row(f"  {stream}", *model.cells((stream,), num_classes))
    Console().print(table)


def print_model(name: str, *, num_classes: int) -> None:
    """Print one line per part of a model: parameters and multiply-adds per clip.

    Raises:
        UnknownModel: No model has this name.
    """
    models = stored_models()
    if name not in models:
        raise UnknownModel(f"unknown model {name!r}; {did_you_mean(name, models)}")
    table = Table("part", "parameters", "GMAC per clip")
    for part in models[name].parts:
        table.add_row(part, *models[name].cells((part,), num_classes))
    table.add_row(name, *models[name].cells(tuple(models[name].parts), num_classes))
    Console().print(table)
