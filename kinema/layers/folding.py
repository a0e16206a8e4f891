"""Evaluation copies of networks, with modules replaced by cheaper equivalents.

In evaluation, for example, BatchNorm is a fixed scale and shift that folds into the convolution before it. A module
opts in with a method `folded()`; any other module is copied unchanged.
"""

import copy
from typing import Protocol, runtime_checkable

from torch import nn


@runtime_checkable
class Foldable(Protocol):
    """Module with a cheaper equivalent in evaluation."""

    def folded(self) -> nn.Module:
        """Return the equivalent, without changing this module. Both may share weights."""
        ...


def evaluation_copy(module: nn.Module) -> nn.Module:
    """Return a deep copy in evaluation mode with foldable parts replaced and gradients disabled."""
    return _fold(copy.deepcopy(module), folded={}).eval().requires_grad_(False)


def _fold(module: nn.Module, *, folded: dict[int, nn.Module]) -> nn.Module:
    """Replace foldable descendants in place; `folded` keeps a shared module shared."""
    if id(module) not in folded:
        folded[id(module)] = module.folded() if isinstance(module, Foldable) else module
        if folded[id(module)] is module:
            for name, child in list(module.named_modules(remove_duplicate=False)):
                if name and "." not in name:
                    setattr(module, name, _fold(child, folded=folded))
    return folded[id(module)]
