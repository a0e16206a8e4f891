"""Evaluation copies work for any network, and fold foldable parts."""

import torch
from torch import nn

from kinema.layers.folding import evaluation_copy


class Doubling(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x):
        return 2 * self.linear(x)

    def folded(self):
        single = nn.Linear(3, 3)
        single.load_state_dict({name: 2 * value for name, value in self.linear.state_dict().items()})
        return single


def test_a_users_own_module_is_copied_into_evaluation():
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(0.5)).train()
    copied = evaluation_copy(model)
    assert copied is not model
    assert model.training
    assert model[0].weight.requires_grad
    assert not any(module.training for module in copied.modules())
    assert not any(parameter.requires_grad for parameter in copied.parameters())
    assert copied[0].weight.data_ptr() != model[0].weight.data_ptr()
    x = torch.randn(4, 3)
    assert torch.equal(copied(x), model.eval()(x))


def test_foldable_parts_are_replaced_at_any_depth():
    model = nn.Sequential(nn.ModuleDict({"inner": Doubling()})["inner"], nn.Sequential(Doubling()))
    copied = evaluation_copy(model)
    assert [type(module) for module in copied.modules()] == [nn.Sequential, nn.Linear, nn.Sequential, nn.Linear]
    assert isinstance(model[0], Doubling)
    assert not any(module.training for module in copied.modules())
    x = torch.randn(4, 3)
    torch.testing.assert_close(copied(x), model(x))


def test_a_whole_network_may_fold():
    assert isinstance(evaluation_copy(Doubling()), nn.Linear)


def test_a_shared_part_stays_shared():
    part = Doubling()
    copied = evaluation_copy(nn.Sequential(part, nn.ReLU(), part))
    assert copied[0] is copied[2]
    assert isinstance(copied[0], nn.Linear)
