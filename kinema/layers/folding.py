"""A copy of a network for evaluation, in which everything that is fixed after training is computed once.

BatchNorm, for one, is a fixed scale and shift in evaluation and can be folded into the convolution before it. A module
says how by a method `folded()`; a module without one, a user's own among them, is copied as it is.
"""

import copy
from typing import Protocol, runtime_checkable

from torch import nn


@runtime_checkable
class Foldable(Protocol):
    """A module that has a cheaper equivalent in evaluation."""

    def folded(self) -> nn.Module:
        """The equivalent. The module itself stays as it is; the two may share weights."""
        ...


def evaluation_copy(module: nn.Module) -> nn.Module:
    """A deep copy in evaluation mode, foldable parts replaced, that asks for no gradients of its weights."""
    return _fold(copy.deepcopy(module), done={}).eval().requires_grad_(False)


def _fold(module: nn.Module, *, done: dict[int, nn.Module]) -> nn.Module:
    """Replaces foldable descendants in place; `done` keeps a module that stands in two places one module."""
    if id(module) not in done:
        done[id(module)] = module.folded() if isinstance(module, Foldable) else module
        if done[id(module)] is module:
            for name, child in list(module.named_modules(remove_duplicate=False)):
                if name and "." not in name:
                    setattr(module, name, _fold(child, done=done))
    return done[id(module)]
