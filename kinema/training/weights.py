"""Initial weights of a training, from another run or public files, and frozen parts."""

import hashlib
import json
import pickle
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from kinema.errors import I3DError, StartError, ViTError
from kinema.inference.trained_model import find_description
from kinema.models.mfst import MFST
from kinema.models.pretrained.i3d import from_i3d, is_i3d
from kinema.models.pretrained.vit import ViTNetwork, from_vit
from kinema.models.pretrained.vit_file import is_vit, read_vit

HEADS = "heads."
"""Prefix of the task heads' weights. They belong to the classes and are initialized anew for other ones."""

BACKBONE = "backbone"
"""Name in `init.freeze` for everything but the task heads."""

HUB = "hf:"
"""Prefix of a model on the Hugging Face hub."""

TRANSFORMERS = "model.safetensors"
"""Name of a file of weights written by transformers. Several files have an index beside them."""

UNREADABLE = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError),
    *(SafetensorError, pickle.UnpicklingError),
)
"""Errors raised by a file that is damaged or of another type."""


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """Result of loading a file of weights.

    Args:
        source: File, folder or model of the hub.
        digest: SHA-256 of the file. Several files count as one, in the order of their names.
        loaded_keys: Loaded weights.
        reset_keys: Weights of task heads that are initialized anew, each with the reason.
        missing_keys: Weights of the network that the file does not have, or has in another shape.
        unexpected_keys: Weights in the file that the network does not have.
        mismatched_keys: For I3D weights: convolutions that I3D has in another shape, with both shapes. They are
            initialized anew.
        origins: For ViT weights: parts of the network, each with the blocks that it is from and what was changed.
        family: Family of public weights. Empty if the file has the network's own names.
        extra_keys: For public weights: weights of the network that the family does not have. They stay as initialized.
    """

    source: str
    digest: str
    loaded_keys: tuple[str, ...]
    reset_keys: Mapping[str, str] = field(default_factory=dict)
    missing_keys: tuple[str, ...] = ()
    unexpected_keys: tuple[str, ...] = ()
    mismatched_keys: Mapping[str, str] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)
    family: Literal["", "I3D", "ViT", "ViViT"] = ""
    extra_keys: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FreezeReport:
    """Result of freezing parts of a network.

    Args:
        frozen: Names of the frozen parameters, sorted.
        num_parameters: Number of all parameter tensors.
    """

    frozen: tuple[str, ...]
    num_parameters: int


@dataclass(frozen=True, kw_only=True)
class _Source:
    """Content of a source of weights.

    Args:
        tensors: Tensors by name.
        classes: Class names of the task heads, if known.
        name: Name for messages.
        files: Files of the tensors.
    """

    tensors: dict[str, Tensor]
    classes: Mapping[str, Sequence[str]] | None = None
    name: str
    files: Sequence[Path]

    @property
    def digest(self) -> str:
        content = hashlib.sha256()
        for file in self.files:
            content.update(file.read_bytes())
        return content.hexdigest()


def load_weights(
    model: nn.Module,
    source: str | Path,
    *,
    classes: Mapping[str, Sequence[str]],
    unmatched: Literal["refuse", "allow"] = "refuse",
    blocks: Sequence[int] = (),
    ignore: Sequence[str] = (),
) -> LoadReport:
    """Load the weights of a run, a model folder or a file into a network. Task heads with other classes are reset.

    MFST also loads public I3D weights (`kinema.models.pretrained.i3d`), the transformers on patches load ViT's, and CTN
    and ViViT load ViViT's (`kinema.models.pretrained.vit`). For these, missing and unexpected weights are reported and
    not refused.

    Args:
        model: Network, changed in place.
        source: A run or model folder, a `.safetensors` file, a `.pt` or `.pth` file, which is read as tensors alone, a
            folder written by transformers, or `hf:owner/name` on the Hugging Face hub.
        classes: Class names of each task head of the network, in order.
        unmatched: Action when the file lacks weights of the network or has others.
        blocks: For ViT weights: numbers of the blocks to load, as in `from_vit`.
        ignore: For ViT weights: prefixes of names that are not ViT's and may be in the file.

    Raises:
        StartError: the source does not exist, cannot be read, fits nowhere, or has unmatched weights. I3D or ViT
            weights are incomplete, have another shape, or are not for this network. `blocks` or `ignore`
            is given for weights that are not ViT's.
    """
    stored = _read_source(source)
    tensors, theirs, file = stored.tensors, stored.classes, stored.name
    own = model.state_dict()
    if is_vit(tensors) and not is_vit(own):  # as for I3D below
        return _load_vit(model, stored, source=str(source), blocks=blocks, ignore=ignore)
    for name, values in (("blocks", blocks), ("ignore", ignore)):
        if values:
            raise StartError(
                f"{file}: init.{name}={tuple(values)} is for ViT weights only", path=file, field=f"init.{name}"
            )
    if is_i3d(tensors) and not is_i3d(own):  # a user's own network may be I3D and loads its weights by name
        return _load_i3d(model, stored, source=str(source))
    reset: dict[str, str] = {}
    loaded: dict[str, Tensor] = {}
    missing: list[str] = []
    for name, weight in own.items():
        head = _head_of(name)
        if head is not None and theirs is not None and list(theirs.get(head, ())) != list(classes.get(head, ())):
            there, here = len(theirs.get(head, ())), len(classes.get(head, ()))
            reset[name] = f"other classes: {there} in the file, {here} in the network"
        elif name not in tensors:
            missing.append(name)
        elif tensors[name].shape != weight.shape:
            reason = f"{list(tensors[name].shape)} in the file, {list(weight.shape)} in the network"
            if head is not None:
                reset[name] = reason
            else:
                missing.append(f"{name}: {reason}")
        else:
            loaded[name] = tensors[name]
    unexpected = [name for name in tensors if name not in own and _head_of(name) is None]
    if not any(_head_of(name) is None for name in loaded):
        example = next(iter(tensors), "nothing")
        raise StartError(
            f"{file}: no tensor fits the network; the file has {len(tensors)} tensors, such as {example}", path=file
        )
    if unmatched == "refuse":
        _check_matched(file, missing, unexpected)
    model.load_state_dict(loaded, strict=False)
    return LoadReport(
        source=str(source),
        digest=stored.digest,
        loaded_keys=tuple(loaded),
        reset_keys=reset,
        missing_keys=tuple(missing),
        unexpected_keys=tuple(unexpected),
    )


def _check_matched(file: str, missing: Sequence[str], unexpected: Sequence[str]) -> None:
    if missing or unexpected:
        problem = f"missing {missing[0]}" if missing else f"unexpected {unexpected[0]}"
        others = len(missing) + len(unexpected) - 1
        raise StartError(
            f"{file}: {problem}{f' (and {others} more)' if others else ''}; "
            "use a file of the same network, or pass --init.unmatched allow",
            path=file,
            field="init.unmatched",
        )


def _load_i3d(model: nn.Module, stored: _Source, *, source: str) -> LoadReport:
    if not isinstance(model, MFST):
        network = type(model).__name__
        raise StartError(f"{stored.name}: I3D weights load into MFST only; the network is {network}", path=stored.name)
    try:
        converted = from_i3d(stored.tensors, model)
    except I3DError as error:
        raise StartError(f"{stored.name}: {error}", path=stored.name, field=error.field) from error
    if not converted.weights:
        part, reason = next(iter(converted.mismatched.items()))
        raise StartError(f"{stored.name}: no tensor fits the network; {part} is made of {reason}", path=stored.name)
    model.load_state_dict(converted.weights, strict=False)
    mismatched = tuple(f"{part}." for part in converted.mismatched)
    return LoadReport(
        source=source,
        digest=stored.digest,
        loaded_keys=tuple(converted.weights),
        unexpected_keys=tuple(f"{module}: {reason}" for module, reason in converted.unused.items()),
        mismatched_keys=converted.mismatched,
        family="I3D",
        extra_keys=tuple(
            name for name in model.state_dict() if name not in converted.weights and not name.startswith(mismatched)
        ),
    )


def _load_vit(
    model: nn.Module, stored: _Source, *, source: str, blocks: Sequence[int], ignore: Sequence[str]
) -> LoadReport:
    if not isinstance(model, ViTNetwork):
        network = type(model).__name__
        raise StartError(
            f"{stored.name}: ViT weights load into RPE-STDT, CTN, ViViT and ViT frame by frame only; the network is "
            f"{network}",
            path=stored.name,
        )
    try:
        vit = read_vit(stored.tensors, ignore=ignore)
        converted = from_vit(vit, model, blocks=blocks)
    except ViTError as error:
        raise StartError(f"{stored.name}: {error}", path=stored.name, field=error.field) from error
    model.load_state_dict(converted.weights, strict=False)
    others = [name for name in model.state_dict() if name not in converted.weights]
    return LoadReport(
        source=source,
        digest=stored.digest,
        loaded_keys=tuple(converted.weights),
        reset_keys={
            name: f"{vit.family} weights have none of these classes" for name in others if _head_of(name) is not None
        },
        unexpected_keys=tuple(f"{name}: {reason}" for name, reason in converted.unused.items()),
        origins=converted.origins,
        family=vit.family,
        extra_keys=tuple(name for name in others if _head_of(name) is None),
    )


def shorten(names: Iterable[str], others: Iterable[str]) -> list[str]:
    """Return the shortest prefixes of names that no other name has, with `*` for numbers: `stages.*.time`."""
    taken = {prefix for name in others for prefix in _prefixes(name)}
    short = (next((prefix for prefix in _prefixes(name) if prefix not in taken), name) for name in names)
    return list(dict.fromkeys(".".join("*" if word.isdigit() else word for word in part.split(".")) for part in short))


def _prefixes(name: str) -> Iterable[str]:
    return accumulate(name.split("."), "{}.{}".format)


def freeze(model: nn.Module, parts: Sequence[str]) -> FreezeReport:
    """Freeze parts of a network, in place.

    Args:
        model: Network.
        parts: `backbone` for all but the task heads, or prefixes of names: `embedding`, `blocks.0`.

    Raises:
        StartError: a part does not exist, or no parameter is left to train.
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
            raise StartError(
                f"init.freeze: the network has no part {part!r}; its parts are {BACKBONE}, {tops}", field="init.freeze"
            )
        frozen |= found
    if frozen == set(names) and names:
        raise StartError(f"init.freeze: {', '.join(parts)} leaves no parameter to train", field="init.freeze")
    for name, parameter in model.named_parameters():
        if name in frozen:
            parameter.requires_grad_(False)
    return FreezeReport(frozen=tuple(sorted(frozen)), num_parameters=len(names))


def frozen_modules(model: nn.Module) -> list[nn.Module]:
    """Return the modules whose parameters are all frozen. They stay in evaluation mode, BatchNorm and dropout too."""
    return [
        module
        for module in model.modules()
        if (parameters := list(module.parameters())) and not any(p.requires_grad for p in parameters)
    ]


def _head_of(name: str) -> str | None:
    """Return the task head of a weight (`heads.classifiers.head_verb.weight` -> `verb`), or None."""
    if not name.startswith(HEADS):
        return None
    return next((part.removeprefix("head_") for part in name.split(".") if part.startswith("head_")), "")


def _read_source(source: str | Path) -> _Source:
    hub = str(source).startswith(HUB)
    path = _fetched(str(source)) if hub else Path(source)
    name = str(source if hub else path)
    description = find_description(path)
    try:
        if description is not None:
            data = json.loads(description.read_text(encoding="utf-8"))
            file = description.parent / Path(data["weights"]).name
            return _Source(tensors=_tensors_of([file]), classes=data["classes"], name=str(file), files=[file])
        files = _files_of(path)
        if not files:
            raise StartError(f"{path}: not a run, a model folder or a file of weights", path=path)
        if files[0].suffix == ".safetensors":
            return _Source(tensors=_tensors_of(files), name=name, files=files)
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        if isinstance(error, StartError):
            raise
        reason = " ".join(str(error).split())[:200]
        raise StartError(f"{name}: cannot be read as weights ({reason})", path=name) from error
    for key in ("state_dict", "model"):
        if isinstance(stored, dict) and isinstance(stored.get(key), dict):
            stored = stored[key]
    if not isinstance(stored, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in stored.items()):
        raise StartError(f"{path}: not a dict of tensors by name", path=path)
    return _Source(tensors=stored, name=name, files=files)


def _tensors_of(files: Iterable[Path]) -> dict[str, Tensor]:
    """Return the tensors of all files sorted by name. The order of safetensors differs between calls."""
    tensors = {name: tensor for file in files for name, tensor in load_tensors(file.read_bytes()).items()}
    return {name: tensors[name] for name in sorted(tensors)}


def _files_of(path: Path) -> list[Path]:
    """Return the file itself, or the files of a folder written by transformers."""
    if path.is_file():
        return [path]
    one, several = path / TRANSFORMERS, path / f"{TRANSFORMERS}.index.json"
    if one.is_file() or not several.is_file():
        return [one] if one.is_file() else []
    named = json.loads(several.read_text(encoding="utf-8"))["weight_map"].values()
    return [path / name for name in sorted({Path(name).name for name in named})]


def _fetched(source: str) -> Path:
    """Return the file of a model on the hub, downloaded unless it is cached."""
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError

    model = source.removeprefix(HUB)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", model):
        raise StartError(f"{source}: not of the form {HUB}owner/name", path=source)
    try:
        return Path(huggingface_hub.hf_hub_download(model, TRANSFORMERS))
    except RepositoryNotFoundError as error:
        raise StartError(f"{source}: no such public model on the hub", path=source) from error
    except LocalEntryNotFoundError as error:
        raise StartError(
            f"{source}: the hub cannot be reached, and {TRANSFORMERS} is not cached", path=source
        ) from error
    except EntryNotFoundError as error:
        raise StartError(f"{source}: the model has no {TRANSFORMERS}", path=source) from error
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise StartError(f"{source}: cannot be downloaded from the hub ({reason})", path=source) from error
