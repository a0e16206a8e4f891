"""Networks of the user's own, by the name of their class: `module:Class` or `file.py:Class`. Their code is executed."""

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from kinema.errors import ModelError, did_you_mean
from kinema.models.binding import VARIADIC


def create_own_model(name: str, *, heads: Mapping[str, int], seed: int | None = None) -> nn.Module:
    """Create a network of the user's own, with fresh weights.

    The class, or a function that returns the network, is called with `num_classes` if it takes that, and without
    arguments otherwise: a number, or a dict of numbers for several task heads, as in `create_model`.

    Args:
        name: `module:Class`, with a module in the current folder or installed, or `path/file.py:Class`.
        heads: Number of classes of each task head.
        seed: Seed of the fresh weights, set after the import of the module.

    Raises:
        ModelError: The module or the class does not exist, or the class takes other arguments. Errors in the user's own
            code are raised as they are.
    """
    source, colon, attribute = name.rpartition(":")
    if not colon or not source or not attribute.isidentifier():
        raise ModelError(f"model: {name!r}; expected module:Class or file.py:Class", field="model")
    module = _import_module(source)
    if seed is not None:
        torch.manual_seed(seed)
    if not hasattr(module, attribute):
        own = [key for key, value in vars(module).items() if inspect.isclass(value) and issubclass(value, nn.Module)]
        raise ModelError(f"model: {source} has no {attribute!r}; {did_you_mean(attribute, own)}", field="model")
    made = getattr(module, attribute)
    if not isinstance(made, nn.Module):
        made = _call(name, made, heads)
    if not isinstance(made, nn.Module):
        raise ModelError(f"model: {name} is a {type(made).__name__}; expected a torch.nn.Module", field="model")
    return made


def _import_module(source: str) -> ModuleType:
    if source.endswith(".py"):
        path = Path(source).resolve()
        if not path.is_file():
            raise ModelError(f"model: {source}: no such file", path=source, field="model")
        name = f"own_{path.stem}"  # a file called random.py must not replace that module
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
        return module
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return importlib.import_module(source)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{source}.".startswith(f"{error.name}."):
            raise  # an import of the user's module
        raise ModelError(f"model: no module {source!r} in {folder} or installed", field="model") from error


def _call(name: str, make: Any, heads: Mapping[str, int]) -> Any:
    if not callable(make):
        return make
    parameters = inspect.signature(make).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    required = [key for key, p in parameters.items() if p.default is p.empty and p.kind not in VARIADIC]
    if set(required) - {"num_classes"}:
        arguments = ", ".join(required)
        raise ModelError(
            f"model: {name}({arguments}); expected num_classes alone, or no argument without default. Name a function "
            "that returns the network instead.",
            field="model",
        )
    counts = dict(heads)
    num_classes = next(iter(counts.values())) if len(counts) == 1 else counts
    return make(num_classes=num_classes) if takes_any or "num_classes" in parameters else make()
