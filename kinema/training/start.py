"""What a training starts from: weights of another run, and the parts that stay as they are."""

import hashlib
import json
import pickle
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from kinema.inference.artefact import DESCRIPTION
from kinema.models.mfst import MFST
from kinema.models.pretrained import I3DError, from_i3d, is_i3d

HEADS = "heads."
"""Where the names of the task heads' weights begin; they belong to the classes and are made anew for other ones."""

BACKBONE = "backbone"
"""In `run.freeze`: everything but the task heads."""


class StartError(ValueError):
    """Weights that cannot be started from, or parts that are not there; the message names file or part."""


@dataclass(frozen=True, kw_only=True)
class Started:
    """What came of a file of weights.

    Args:
        source: the file.
        digest: SHA-256 of it.
        loaded: names that were taken over.
        rebuilt: names of task heads that start anew, each with the reason.
        missing: names of the network that the file does not hold, or holds in another shape.
        left_over: names in the file that the network does not have.
        unfit: of I3D's weights: convolutions that I3D has in another shape -> both shapes; they start anew.
        beyond: of I3D's weights: names of the network that I3D has nothing like; they start as they are.
    """

    source: str
    digest: str
    loaded: tuple[str, ...]
    rebuilt: Mapping[str, str]
    missing: tuple[str, ...]
    left_over: tuple[str, ...]
    unfit: Mapping[str, str] = field(default_factory=dict)
    beyond: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """What is printed before a training."""
        said = [f"weights from {self.source}: {len(self.loaded)} tensors loaded"]
        said += [f"  starts anew: {name} ({reason})" for name, reason in self.rebuilt.items()]
        said += [f"  does not fit: {name} ({reason})" for name, reason in self.unfit.items()]
        if self.beyond:
            parts = ", ".join(_parts(self.beyond, apart_from=[*self.loaded, *self.unfit]))
            said.append(f"  not in I3D, start as they are: {len(self.beyond)} tensors ({parts})")
        said += [f"  not in the file: {name}" for name in self.missing]
        said += [f"  left over in the file: {name}" for name in self.left_over]
        return said


def start_from(
    model: nn.Module, source: str | Path, *, classes: Mapping[str, Sequence[str]], unmatched: str = "refuse"
) -> Started:
    """Load what fits of an artefact, a run, or a file of weights; task heads of other classes start anew.

    An MFST can start from a file of I3D's public weights too (`kinema.models.pretrained`). It has parts that I3D lacks,
    and lacks others: they are said, and not refused.

    Args:
        model: gets the weights.
        source: a run or artefact folder, a `.safetensors` file, or a `.pt`/`.pth` file, which is read as tensors alone.
        classes: class names of each task head of the model, in order.
        unmatched: `refuse` a file that lacks weights of the network, or has others; or `allow` it.

    Raises:
        StartError: there is no such file, it cannot be read, nothing of it fits, or weights are unmatched; I3D's lack
            one that has a place, or the network is no MFST.
    """
    tensors, theirs, file = _weights_of(Path(source))
    own = model.state_dict()
    if is_i3d(tensors) and not is_i3d(own):  # a user's own network may be I3D, and takes its weights by their names
        return _start_from_i3d(model, tensors, source=str(source), file=file)
    rebuilt: dict[str, str] = {}
    loaded: dict[str, Tensor] = {}
    missing: list[str] = []
    for name, weight in own.items():
        head = _head_of(name)
        if head is not None and theirs is not None and list(theirs.get(head, ())) != list(classes.get(head, ())):
            there, here = len(theirs.get(head, ())), len(classes.get(head, ()))
            rebuilt[name] = f"other classes: {there} there, {here} here"
        elif name not in tensors:
            missing.append(name)
        elif tensors[name].shape != weight.shape:
            reason = f"{list(tensors[name].shape)} there, {list(weight.shape)} here"
            if head is not None:
                rebuilt[name] = reason
            else:
                missing.append(f"{name}: {reason}")
        else:
            loaded[name] = tensors[name]
    left_over = [name for name in tensors if name not in own and _head_of(name) is None]
    if not any(_head_of(name) is None for name in loaded):
        example = next(iter(tensors), "nothing")
        raise StartError(f"{file}: nothing of it fits the network; it holds {len(tensors)} tensors, such as {example}")
    if unmatched == "refuse" and (missing or left_over):
        what = f"lacks {missing[0]}" if missing else f"has {left_over[0]}, which the network has not"
        others = len(missing) + len(left_over) - 1
        raise StartError(
            f"{file}: {what}{f' (and {others} more)' if others else ''}; "
            "start from a file of the same network, or say --run.init-unmatched allow"
        )
    model.load_state_dict(loaded, strict=False)
    return Started(
        source=str(source),
        digest=_digest(file),
        loaded=tuple(loaded),
        rebuilt=rebuilt,
        missing=tuple(missing),
        left_over=tuple(left_over),
    )


def _start_from_i3d(model: nn.Module, tensors: Mapping[str, Tensor], *, source: str, file: Path) -> Started:
    if not isinstance(model, MFST):
        network = type(model).__name__
        raise StartError(f"{file}: holds I3D's weights, which only an MFST can start from; the network is {network}")
    try:
        converted = from_i3d(tensors, model)
    except I3DError as error:
        raise StartError(f"{file}: {error}") from error
    if not converted.weights:
        part, reason = next(iter(converted.unfit.items()))
        raise StartError(f"{file}: nothing of it fits the network; {part} is made of {reason}")
    model.load_state_dict(converted.weights, strict=False)
    anew = tuple(f"{part}." for part in converted.unfit)
    return Started(
        source=source,
        digest=_digest(file),
        loaded=tuple(converted.weights),
        rebuilt={},
        missing=(),
        left_over=tuple(f"{module}: {reason}" for module, reason in converted.left_out.items()),
        unfit=converted.unfit,
        beyond=tuple(
            name for name in model.state_dict() if name not in converted.weights and not name.startswith(anew)
        ),
    )


def _parts(names: Iterable[str], *, apart_from: Iterable[str]) -> list[str]:
    """Names in short, `stages.*.time`: as far as none of the others begins alike, and numbers left open."""
    others = {beginning for name in apart_from for beginning in _beginnings(name)}
    short = (next((beginning for beginning in _beginnings(name) if beginning not in others), name) for name in names)
    return list(dict.fromkeys(".".join("*" if word.isdigit() else word for word in part.split(".")) for part in short))


def _beginnings(name: str) -> Iterable[str]:
    return accumulate(name.split("."), "{}.{}".format)


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def freeze(model: nn.Module, parts: Sequence[str]) -> list[str]:
    """Let parts of a network stay as they are; returns the names of the parameters that do.

    Args:
        parts: `backbone` for all but the task heads, or the beginnings of names: `embedding`, `blocks.0`.

    Raises:
        StartError: a part is not there, or nothing is left to learn.
    """
    names = [name for name, _ in model.named_parameters()]
    frozen: set[str] = set()
    for part in parts:
        if part == BACKBONE:
            found = {name for name in names if _head_of(name) is None}
        else:
            found = {name for name in names if name == part or name.startswith(f"{part}.")}
        if not found:
            tops = ", ".join(name for name, _ in model.named_children())
            raise StartError(f"run.freeze: the network has no part {part!r}; there are {BACKBONE}, {tops}")
        frozen |= found
    if frozen == set(names) and names:
        raise StartError(f"run.freeze: {', '.join(parts)} leaves nothing to learn")
    for name, parameter in model.named_parameters():
        if name in frozen:
            parameter.requires_grad_(False)
    return sorted(frozen)


def still_parts(model: nn.Module) -> list[nn.Module]:
    """The modules all of whose parameters are frozen: they stay in evaluation mode, statistics and dropout included."""
    return [
        module
        for module in model.modules()
        if (parameters := list(module.parameters())) and not any(p.requires_grad for p in parameters)
    ]


def _head_of(name: str) -> str | None:
    """The task head that a weight belongs to (`heads.classifiers.head_verb.weight` -> `verb`)."""
    if not name.startswith(HEADS):
        return None
    return next((part.removeprefix("head_") for part in name.split(".") if part.startswith("head_")), "")


def _weights_of(path: Path) -> tuple[dict[str, Tensor], dict[str, list[str]] | None, Path]:
    """Tensors, the class names of their task heads where those are known, and the file."""
    folder = path if (path / DESCRIPTION).is_file() else path / "artefact"
    try:
        if (folder / DESCRIPTION).is_file():
            said = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
            file = folder / Path(said["weights"]).name
            return dict(load_tensors(file.read_bytes())), said["classes"], file
        if not path.is_file():
            raise StartError(f"{path}: neither a run, an artefact, nor a file of weights")
        if path.suffix == ".safetensors":
            return dict(load_tensors(path.read_bytes())), None, path
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError, pickle.UnpicklingError) as error:
        if isinstance(error, StartError):
            raise
        reason = " ".join(str(error).split())[:200]
        raise StartError(f"{path}: cannot be read as weights ({reason})") from error
    for key in ("state_dict", "model"):
        if isinstance(stored, dict) and isinstance(stored.get(key), dict):
            stored = stored[key]
    if not isinstance(stored, dict) or not all(isinstance(value, Tensor) for value in stored.values()):
        raise StartError(f"{path}: holds no table of tensors by name")
    return stored, None, path
