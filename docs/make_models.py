"""Write kinema/assets/models.json, which `kinema models` prints: parameters and multiply-adds of the models' parts."""

import json
from pathlib import Path
from typing import Any

import torch

from kinema.models.complexity import ComplexityRow, complexity_table
from kinema.models.registry import MODELS, create_model, list_models

FILE = Path(__file__).parents[1] / "kinema" / "assets" / "models.json"


def part_rows(name: str, *, num_classes: int) -> tuple[ComplexityRow, ...]:
    """Return the cost of each part of a model."""
    model = MODELS[name]
    with torch.device("meta"):
        network = create_model(name, num_classes=num_classes)
    return complexity_table(network, channels=model.channels, frames=model.frames, size=model.size)


def stored_model(name: str) -> dict[str, Any]:
    """Return the fields of `kinema.reports.models.StoredModel`. Costs are linear in the number of classes."""
    model, parts = MODELS[name], {}
    for one, two in zip(part_rows(name, num_classes=1), part_rows(name, num_classes=2), strict=True):
        parameters, macs = two.parameters - one.parameters, two.macs - one.macs
        parts[one.name] = [one.parameters - parameters, parameters, one.macs - macs, macs]
    return {"summary": model.summary, "frames": model.frames, "size": model.size, "parts": parts}


def content() -> str:
    """Return the file's content: one line per model."""
    lines = [f"{json.dumps(name)}: {json.dumps(stored_model(name))}" for name in list_models()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    FILE.write_text(content(), encoding="utf-8")
