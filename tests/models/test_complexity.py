"""Costs match the models' arithmetic and a layer counted by hand."""

import torch
from torch import nn

from kinema.models.complexity import complexity_table, macs, parameter_count
from kinema.models.registry import MODELS, create_model


def test_the_tiny_model_is_tiny():
    model = create_model("ctn_tiny", num_classes=15)
    assert macs(model, channels=3, frames=MODELS["ctn_tiny"].frames, size=MODELS["ctn_tiny"].size) < 0.5e9
    assert parameter_count(model) < 3e6


def test_a_layer_counted_by_hand():
    model = nn.Sequential(nn.Conv3d(3, 4, 3, padding=1), nn.Flatten(), nn.Linear(4 * 2 * 5 * 5, 7))
    assert macs(model, channels=3, frames=2, size=5) == 50 * 4 * 3 * 27 + 200 * 7


def test_the_rows_of_the_table_add_up_to_the_total():
    model = create_model("ctn_tiny", num_classes=3, frames=8, size=32, depth=2)
    table = complexity_table(model, channels=3, frames=8, size=32)
    assert [row.name for row in table if row.macs] == ["embedding", "blocks.0", "blocks.1", "heads"]
    assert sum(row.macs for row in table) == macs(model, channels=3, frames=8, size=32)
    assert sum(row.parameters for row in table) == parameter_count(model)
    own = complexity_table(nn.Linear(5, 2), channels=3, frames=1, size=5)
    assert [(row.name, row.parameters, row.macs) for row in own] == [("(own)", 12, 3 * 5 * 5 * 2)]


def test_a_part_whose_forward_is_not_called_has_the_cost_of_its_children():
    class Parts(nn.Module):
        def __init__(self):
            super().__init__()
            self.stream = nn.ModuleDict({"a": nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3)), "b": nn.Linear(3, 2)})

        def forward(self, clip):
            return self.stream["b"](self.stream["a"](clip))

    (row,) = complexity_table(Parts(), channels=1, frames=1, size=5)
    assert (row.name, row.macs) == ("stream", 5 * (5 * 4 + 4 * 3 + 3 * 2))


def test_counting_does_not_change_the_model():
    model = create_model("ctn_tiny", num_classes=3, frames=8, size=32, depth=1).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    macs(model, channels=3, frames=8, size=32)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
