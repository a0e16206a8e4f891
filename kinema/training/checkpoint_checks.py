"""Checks of a checkpoint against the network, the optimizer and the schedule of a run, before any of it is used.

A state of another shape would corrupt memory in a fused optimizer, and one of another step would shift the schedule.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from kinema.training.learner import Learner


def checkpoint_problem(content: Mapping[str, Any], learner: Learner, *, steps: int) -> str | None:
    """Return why a checkpoint does not fit a run of `steps` steps, or None if it fits."""
    try:
        _check_progress(content, steps)
        _check_tensors("model", content["model"], learner.model.state_dict())
        if learner.averages is not None:
            _check_tensors("averaged", content["averaged"], learner.averages.state_dict())
        if not learner.is_fsdp:  # FSDP stores and checks states by name
            _check_optimizer(content["optimizer"], learner.optimizer.optimizer)
    except ValueError as error:
        return str(error)
    return None


def _check_progress(content: Mapping[str, Any], steps: int) -> None:
    for name in ("step", "stale"):
        value = content[name]
        if type(value) is not int or not 0 <= value <= steps:
            raise ValueError(f"{name}={value!r}; expected a whole number from 0 to {steps}")
    if content["stale"] > content["step"]:
        raise ValueError(f"stale={content['stale']} exceeds step={content['step']}")
    best = content["best"]
    if type(best) not in (int, float) or math.isnan(best) or best == math.inf:
        raise ValueError(f"best={best!r}; expected a score")


def _check_tensors(part: str, stored: Any, expected: Mapping[str, Any]) -> None:
    if not isinstance(stored, Mapping):
        raise ValueError(f"{part} is not a table of tensors")
    different = sorted(stored.keys() ^ expected.keys())
    if different:
        problem = "missing" if different[0] in expected else "unexpected"
        raise ValueError(f"{part}: tensor {different[0]!r} is {problem}")
    for name, tensor in expected.items():
        if isinstance(tensor, Tensor):
            _check_tensor(f"{part}: tensor {name!r}", stored[name], tensor)


def _check_optimizer(stored: Any, optimizer: torch.optim.Optimizer) -> None:
    own = optimizer.state_dict()
    try:
        groups, states = list(stored["param_groups"]), dict(stored["state"])
        members = [list(group["params"]) for group in groups]
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(f"optimizer: not a state of an optimizer ({error})") from None
    if members != [group["params"] for group in own["param_groups"]]:
        raise ValueError("optimizer: its groups of parameters are not those of the recipe")
    for group, expected in zip(groups, own["param_groups"], strict=True):
        for name in (group.keys() & expected.keys()) - {"params", "lr", "lr_scale"}:
            if group[name] != expected[name]:
                raise ValueError(f"optimizer: {name}={group[name]!r}; expected {expected[name]!r} as in the recipe")
    parameters = dict(enumerate(p for group in optimizer.param_groups for p in group["params"]))
    for number, state in states.items():
        if number not in parameters or not isinstance(state, Mapping):
            raise ValueError(f"optimizer: state {number!r} belongs to no parameter")
        for name, value in state.items():
            if isinstance(value, Tensor) and value.ndim:  # the count of steps has no dimension
                _check_tensor(f"optimizer: {name} of parameter {number}", value, parameters[number])


def _check_tensor(name: str, stored: Any, expected: Tensor) -> None:
    if not isinstance(stored, Tensor) or stored.layout != torch.strided or stored.is_meta:
        raise ValueError(f"{name} is not a dense tensor")
    if (stored.shape, stored.dtype) != (expected.shape, expected.dtype):
        got, wanted = (f"{tensor.dtype} of shape {tuple(tensor.shape)}" for tensor in (stored, expected))
        raise ValueError(f"{name} is {got}; expected {wanted}")
    if _strides(stored) != _strides(torch.empty_like(stored)):
        raise ValueError(f"{name} repeats values in memory")


def _strides(tensor: Tensor) -> list[int]:
    """Return the strides of all axes that are longer than 1."""
    return [stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if size > 1]
