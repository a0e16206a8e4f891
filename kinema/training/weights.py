"""Initial weights, from another run or public files, and frozen parts."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from kinema.data.names import normalize
from kinema.errors import I3DError, StartError, ViTError, one_line
from kinema.files import read_bytes, read_json
from kinema.inference.trained_model import find_description
from kinema.memory import machine_memory
from kinema.models.mfst import MFST
from kinema.models.pretrained.i3d import from_i3d, is_i3d
from kinema.models.pretrained.vit import ViTNetwork, from_vit
from kinema.models.pretrained.vit_file import Color, Family, color_statistics, is_vit, read_vit, unread_family
from kinema.training.recipe import Recipe

HEADS = "heads."
"""Prefix of the names of task-head weights."""

BACKBONE = "backbone"
"""Name in `init.freeze` for everything but the task heads."""

HUB = "hf:"
"""Prefix of a model on the Hugging Face Hub."""

TRANSFORMERS = "model.safetensors"
"""Name of the weights file of transformers. Sharded weights have an index beside it."""


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """Result of loading weights.

    Attributes:
        source: File, folder or model of the Hub.
        digest: SHA-256 of the file, or of several files in the order of their names.
        loaded_keys: Loaded weights.
        reset_keys: Task-head weights that keep their initialization, with the reason.
        missing_keys: Weights of the network that the file lacks or has in another shape.
        unexpected_keys: Weights in the file that the network lacks, without those of other task heads.
        mismatched_keys: For I3D weights: convolutions with another shape in the file, with both shapes. They keep
            their initialization.
        origins: For ViT weights: source block in the file and conversion of each part of the network.
        family: Architecture of public weights. Empty if the file has the network's own names.
        extra_keys: For public weights: weights of the network that the family lacks. They keep their initialization.
    """

    source: str
    digest: str
    loaded_keys: tuple[str, ...]
    reset_keys: Mapping[str, str] = field(default_factory=dict)
    missing_keys: tuple[str, ...] = ()
    unexpected_keys: tuple[str, ...] = ()
    mismatched_keys: Mapping[str, str] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)
    family: Literal["", "I3D"] | Family = ""
    extra_keys: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Source:
    """Weights read from a source.

    Attributes:
        source: Source, as passed to `load_weights`.
        name: Name for error messages.
        tensors: Tensors by name.
        digest: SHA-256 of the files.
        colors: Mean and standard deviation of RGB that the weights were trained with.
        classes: Class names of the task heads, if known.
    """

    source: str
    name: str
    tensors: dict[str, Tensor]
    digest: str
    colors: tuple[Color, Color]
    classes: Mapping[str, Sequence[str]] | None = None


def with_initial_colors(recipe: Recipe) -> Recipe:
    """Return the recipe with the mean and standard deviation of RGB that its initial weights were trained with.

    Those of a run or model folder are stored in it; those of public weights follow from their family.

    Raises:
        StartError: The initial weights do not exist or cannot be read.
    """
    clip = recipe.clip
    if not recipe.init.weights or "rgb" not in clip.modalities or (clip.mean is not None and clip.std is not None):
        return recipe
    return with_colors(recipe, *_read_source(recipe.init.weights).colors)


def with_colors(recipe: Recipe, mean: Color | None, std: Color | None) -> Recipe:
    """Return the recipe with this mean and standard deviation of RGB where it has none."""
    clip = recipe.clip
    return replace(recipe, clip=replace(clip, mean=clip.mean or mean, std=clip.std or std))


def load_weights(
    model: nn.Module,
    source: str | Path,
    *,
    classes: Mapping[str, Sequence[str]],
    unmatched: Literal["refuse", "allow"] = "refuse",
    blocks: Sequence[int] = (),
    ignore: Sequence[str] = (),
) -> LoadReport:
    """Load the weights of a run, a model folder or a file into a network. Task heads for other classes are reset.

    MFST also loads public I3D weights (`kinema.models.pretrained.i3d`). RPE-STDT, CTN, ViViT and frame-by-frame ViT
    load weights of ViT, DeiT and DINOv2, CTN and ViViT also ViViT weights (`kinema.models.pretrained.vit`). Incomplete
    or unknown tensors of these are refused whatever `unmatched` is.

    Args:
        model: Network, changed in place.
        source: Run or model folder, `.safetensors` file, `.pt` or `.pth` file (tensors only), folder written by
            transformers, or `hf:owner/name` or `hf:owner/name@revision` on the Hugging Face Hub.
        classes: Class names of each task head of the network, in order.
        unmatched: Action for missing or unexpected weights.
        blocks: For ViT weights: numbers of the blocks to load, as in `from_vit`.
        ignore: For ViT weights: prefixes of tensors to ignore.

    Raises:
        StartError: The source does not exist, cannot be read, does not fit the network, or has unmatched weights. I3D
            or ViT weights are incomplete. `blocks` or `ignore` is set for weights other than ViT's.
    """
    stored = _read_source(source)
    own = model.state_dict()
    try:
        other = unread_family(stored.tensors)
        if other is not None and other != unread_family(own):
            expected = "expected ViT, DeiT, DINOv2 or ViViT; other families are not read"
            raise StartError(f"{stored.name}: weights of {other}; {expected}", path=stored.name)
        # A user's own ViT or I3D loads weights by name.
        if is_vit(stored.tensors) and not is_vit(own):
            return _load_vit(model, stored, blocks=blocks, ignore=ignore)
        for name, values in (("blocks", blocks), ("ignore", ignore)):
            if values:
                raise StartError(
                    f"{stored.name}: init.{name}={tuple(values)} is for ViT weights only",
                    path=stored.name,
                    field=f"init.{name}",
                )
        if is_i3d(stored.tensors) and not is_i3d(own):
            return _load_i3d(model, stored)
    except (I3DError, ViTError) as error:
        raise StartError(f"{stored.name}: {error}", path=stored.name, field=error.field) from error
    return _load_by_name(model, stored, classes=classes, unmatched=unmatched)


def _load_by_name(
    model: nn.Module,
    stored: _Source,
    *,
    classes: Mapping[str, Sequence[str]],
    unmatched: Literal["refuse", "allow"],
) -> LoadReport:
    own, tensors = model.state_dict(), stored.tensors
    loaded: dict[str, Tensor] = {}
    reset: dict[str, str] = {}
    missing: list[str] = []
    for name, weight in own.items():
        head, reason = _head_of(name), ""
        if name in tensors and tensors[name].shape != weight.shape:
            reason = f"{list(tensors[name].shape)} in the file, {list(weight.shape)} in the network"
        elif name in tensors and tensors[name].is_floating_point() != weight.is_floating_point():
            reason = f"{tensors[name].dtype} in the file, {weight.dtype} in the network"
        if head is not None and stored.classes is not None:
            theirs, ours = [normalize(name) for name in stored.classes.get(head, ())], list(classes.get(head, ()))
            if theirs != ours:
                reason = f"other classes: {len(theirs)} in the file, {len(ours)} in the network"
        if name in tensors and not reason:
            loaded[name] = tensors[name]
            if weight.is_floating_point() and not loaded[name].to(torch.float32).isfinite().all():
                problem = f"tensor {name!r} has values that are not finite; expected weights"
                raise StartError(f"{stored.name}: {problem}", path=stored.name, field=name)
        elif head is not None and reason:
            reset[name] = reason
        else:
            missing.append(f"{name}: {reason}" if reason else name)
    unexpected = [name for name in tensors if name not in own and _head_of(name) is None]
    if not any(_head_of(name) is None for name in loaded):
        example = next(iter(tensors), "nothing")
        raise StartError(
            f"{stored.name}: no tensor fits the network; the file has {len(tensors)} tensors, such as {example}",
            path=stored.name,
        )
    problems = [*(f"missing {name}" for name in missing), *(f"unexpected {name}" for name in unexpected)]
    if problems and unmatched == "refuse":
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise StartError(
            f"{stored.name}: {problems[0]}{more}. Use weights of the same network, or pass --init.unmatched allow.",
            path=stored.name,
            field="init.unmatched",
        )
    model.load_state_dict(loaded, strict=False)
    return LoadReport(
        source=stored.source,
        digest=stored.digest,
        loaded_keys=tuple(loaded),
        reset_keys=reset,
        missing_keys=tuple(missing),
        unexpected_keys=tuple(unexpected),
    )


def _load_i3d(model: nn.Module, stored: _Source) -> LoadReport:
    if not isinstance(model, MFST):
        network = type(model).__name__
        raise StartError(f"{stored.name}: I3D weights load into MFST only; the network is {network}", path=stored.name)
    converted = from_i3d(stored.tensors, model)
    if not converted.weights:
        part, reason = next(iter(converted.mismatched.items()))
        raise StartError(f"{stored.name}: no tensor fits the network; {part} comes from {reason}", path=stored.name)
    model.load_state_dict(converted.weights, strict=False)
    mismatched = tuple(f"{part}." for part in converted.mismatched)
    return LoadReport(
        source=stored.source,
        digest=stored.digest,
        loaded_keys=tuple(converted.weights),
        unexpected_keys=tuple(f"{module}: {reason}" for module, reason in converted.unused.items()),
        mismatched_keys=converted.mismatched,
        family="I3D",
        extra_keys=tuple(
            name for name in model.state_dict() if name not in converted.weights and not name.startswith(mismatched)
        ),
    )


def _load_vit(model: nn.Module, stored: _Source, *, blocks: Sequence[int], ignore: Sequence[str]) -> LoadReport:
    if not isinstance(model, ViTNetwork):
        raise StartError(
            f"{stored.name}: ViT weights load into RPE-STDT, CTN, ViViT and frame-by-frame ViT only; the network is "
            f"{type(model).__name__}",
            path=stored.name,
        )
    vit = read_vit(stored.tensors, ignore=ignore)
    converted = from_vit(vit, model, blocks=blocks)
    model.load_state_dict(converted.weights, strict=False)
    others = [name for name in model.state_dict() if name not in converted.weights]
    return LoadReport(
        source=stored.source,
        digest=stored.digest,
        loaded_keys=tuple(converted.weights),
        reset_keys={name: f"not in {vit.family} weights" for name in others if _head_of(name) is not None},
        unexpected_keys=tuple(f"{name}: {reason}" for name, reason in converted.unused.items()),
        origins=converted.origins,
        family=vit.family,
        extra_keys=tuple(name for name in others if _head_of(name) is None),
    )


def freeze(model: nn.Module, parts: Sequence[str]) -> tuple[str, ...]:
    """Freeze parts of a network (`backbone` or prefixes such as `blocks.0`), and return the names of the parameters.

    Raises:
        StartError: A part does not exist, or no trainable parameter is left.
    """
    parameters = dict(model.named_parameters())
    frozen: set[str] = set()
    for part in parts:
        names = {name for name in parameters if _is_in(name, part)}
        if not names:
            tops = ", ".join(name for name, _ in model.named_children())
            raise StartError(f"init.freeze: no part {part!r}; expected {BACKBONE}, {tops}", field="init.freeze")
        frozen |= names
    if frozen == set(parameters) and parameters:
        raise StartError(f"init.freeze: {', '.join(parts)} leaves no trainable parameter", field="init.freeze")
    for name in frozen:
        parameters[name].requires_grad_(False)
    return tuple(sorted(frozen))


def frozen_modules(model: nn.Module, parts: Sequence[str] = ()) -> list[nn.Module]:
    """Return the modules to keep in evaluation mode, BatchNorm and dropout too, after these parts were frozen.

    These are the modules whose parameters are all frozen, and those of the parts that have none.
    """
    found = []
    for name, module in model.named_modules():
        parameters = list(module.parameters())
        in_parts = bool(name) and any(_is_in(name, part) for part in parts)
        if in_parts if not parameters else not any(p.requires_grad for p in parameters):
            found.append(module)
    return found


def _is_in(name: str, part: str) -> bool:
    """Return whether a parameter or module belongs to a part: `backbone` or a prefix."""
    return _head_of(name) is None if part == BACKBONE else name == part or name.startswith(f"{part}.")


def _head_of(name: str) -> str | None:
    """Return the task head of a weight (`heads.classifiers.head_verb.weight` -> `verb`), or None."""
    if not name.startswith(HEADS):
        return None
    return next((part.removeprefix("head_") for part in name.split(".") if part.startswith("head_")), "")


def _read_source(source: str | Path) -> _Source:
    is_hub = str(source).startswith(HUB)
    path = _download(str(source)) if is_hub else Path(source)
    name = str(source if is_hub else path)
    description = find_description(path)
    classes, colors = None, None
    tensors: Any
    try:
        if description is not None:
            data = read_json(description)
            files, classes = [description.parent / Path(data["weights"]).name], data["classes"]
            stored = data["preprocessing"]
            colors = tuple(stored["mean"]), tuple(stored["std"])
            name = str(files[0])
        else:
            files = _find_files(path)
        if not files:
            raise StartError(f"{path}: not a run, a model folder or a file of weights", path=path)
        is_safe = description is not None or files[0].suffix == ".safetensors"
        tensors, digest = {}, hashlib.sha256()
        for file in files:
            content = read_bytes(file, machine_memory())
            digest.update(content)
            tensors |= load_tensors(content) if is_safe else {}
        if is_safe:
            tensors = {key: tensors[key] for key in sorted(tensors)}  # the order of safetensors differs between calls
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except StartError:
        raise
    except Exception as error:  # torch raises many types for damaged files
        raise StartError(f"{name}: cannot be read as weights ({one_line(error)})", path=name) from error
    for key in ("state_dict", "model"):
        if isinstance(tensors, dict) and isinstance(tensors.get(key), dict):
            tensors = tensors[key]
    if not isinstance(tensors, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in tensors.items()
    ):
        raise StartError(f"{path}: not a dict of tensors by name", path=path)
    for key, tensor in tensors.items():
        if (problem := _problem_of(tensor)) is not None:
            raise StartError(f"{name}: tensor {key!r} {problem}; expected dense weights", path=name, field=key)
    return _Source(
        source=str(source),
        name=name,
        tensors=tensors,
        digest=digest.hexdigest(),
        colors=colors or color_statistics(tensors),
        classes=classes,
    )


def _problem_of(tensor: Tensor) -> str | None:
    """Return why a tensor cannot be used as a weight, or None."""
    if tensor.is_meta or tensor.layout != torch.strided:
        return "is on the meta device" if tensor.is_meta else "is sparse"
    if tensor.is_quantized:
        return "is quantized"
    if tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
        return "repeats values in memory"
    return None


def _find_files(path: Path) -> list[Path]:
    """Return the file itself, or the files of a folder written by transformers."""
    if path.is_file():
        return [path]
    single, index = path / TRANSFORMERS, path / f"{TRANSFORMERS}.index.json"
    if single.is_file() or not index.is_file():
        return [single] if single.is_file() else []
    listed = read_json(index)["weight_map"].values()
    return [path / name for name in sorted({Path(name).name for name in listed})]


def _download(source: str) -> Path:
    """Return the file of a model on the Hub, downloaded unless it is cached."""
    import huggingface_hub
    from huggingface_hub.errors import (
        EntryNotFoundError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    model, _, revision = source.removeprefix(HUB).partition("@")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", model):
        raise StartError(f"{source}: not a model name; expected {HUB}owner/name", path=source)
    try:
        return Path(huggingface_hub.hf_hub_download(model, TRANSFORMERS, revision=revision or None))
    except (OSError, ValueError, EntryNotFoundError) as error:
        match error:
            case RepositoryNotFoundError():
                problem = "no such public model on the Hub"
            case RevisionNotFoundError():
                problem = f"the model has no revision {revision!r}"
            case LocalEntryNotFoundError():
                link = f"https://huggingface.co/{model}/resolve/{revision or 'main'}/{TRANSFORMERS}"
                problem = (
                    f"the Hub cannot be reached, and {TRANSFORMERS} is not cached. Download {link} once and pass the "
                    "file to --init"
                )
            case EntryNotFoundError():
                problem = f"the model has no {TRANSFORMERS}"
            case PermissionError() | NotADirectoryError():
                problem = f"the cache of the Hub cannot be written ({one_line(error)}). Set HF_HOME to another folder."
            case _:
                problem = f"cannot be downloaded from the Hub ({one_line(error)})"
        raise StartError(f"{source}: {problem}", path=source) from error
