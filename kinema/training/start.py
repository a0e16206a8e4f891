"""What a training starts from: weights of another run or from the public, and the parts that stay as they are."""

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
from kinema.inference.trained_model import DESCRIPTION
from kinema.models.mfst import MFST
from kinema.models.pretrained.i3d import from_i3d, is_i3d
from kinema.models.pretrained.vit import ViTNetwork, from_vit
from kinema.models.pretrained.vit_file import is_vit, read_vit

HEADS = "heads."
"""Where the names of the task heads' weights begin; they belong to the classes and are made anew for other ones."""

BACKBONE = "backbone"
"""In `run.freeze`: everything but the task heads."""

HUB = "hf:"
"""Before the owner and name of a model of Hugging Face's hub."""

TRANSFORMERS = "model.safetensors"
"""What transformers calls a file of weights, in folders and on the hub; of several there is a list beside them."""

UNREADABLE = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError),
    *(SafetensorError, pickle.UnpicklingError),
)
"""What comes of a file that is something else than it says, or damaged."""


@dataclass(frozen=True, kw_only=True)
class Started:
    """What came of a file of weights.

    Args:
        source: the file, folder or model of the hub.
        digest: SHA-256 of the file; of several, as if they were one, in the order of their names.
        loaded: names that were taken over.
        rebuilt: names of task heads that start anew, each with the reason.
        missing: names of the network that the file does not hold, or holds in another shape.
        left_over: names in the file that the network does not have.
        unfit: of I3D's weights: convolutions that I3D has in another shape -> both shapes; they start anew.
        origins: of ViT's weights: parts of the network -> which blocks they are, and what was changed on the way.
        public: whose public weights they are; empty where the file has the network's own names.
        beyond: of public weights: names of the network that they have nothing like; they start as they are.
    """

    source: str
    digest: str
    loaded: tuple[str, ...]
    rebuilt: Mapping[str, str]
    missing: tuple[str, ...]
    left_over: tuple[str, ...]
    unfit: Mapping[str, str] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)
    public: Literal["", "I3D", "ViT", "ViViT"] = ""
    beyond: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """What is printed before a training."""
        said = [f"weights from {self.source}: {len(self.loaded)} tensors loaded"]
        said += [f"  {part}: {origin}" for part, origin in self.origins.items()]
        said += [f"  starts anew: {name} ({reason})" for name, reason in self.rebuilt.items()]
        said += [f"  does not fit: {name} ({reason})" for name, reason in self.unfit.items()]
        if self.beyond:
            parts = ", ".join(_parts(self.beyond, apart_from=[*self.loaded, *self.unfit, *self.rebuilt]))
            said.append(f"  not in {self.public}, start as they are: {len(self.beyond)} tensors ({parts})")
        said += [f"  not in the file: {name}" for name in self.missing]
        said += [f"  left over in the file: {name}" for name in self.left_over]
        return said


@dataclass(frozen=True, kw_only=True)
class _Stored:
    """What a source holds.

    Args:
        tensors: by name.
        classes: class names of the task heads, where they are known.
        name: for messages.
        files: that the tensors are from.
    """

    tensors: dict[str, Tensor]
    classes: Mapping[str, Sequence[str]] | None = None
    name: str
    files: Sequence[Path]

    @property
    def digest(self) -> str:
        together = hashlib.sha256()
        for file in self.files:
            together.update(file.read_bytes())
        return together.hexdigest()


def start_from(
    model: nn.Module,
    source: str | Path,
    *,
    classes: Mapping[str, Sequence[str]],
    unmatched: str = "refuse",
    blocks: Sequence[int] = (),
    ignore: Sequence[str] = (),
) -> Started:
    """Load what fits of an artefact, a run, or a file of weights; task heads of other classes start anew.

    An MFST can start from a file of I3D's public weights too (`kinema.models.pretrained.i3d`), the transformers on
    patches from ViT's, and CTN and ViViT from ViViT's (`kinema.models.pretrained.vit`). They have parts that
    those lack, and lack others: they are said, and not refused.

    Args:
        model: gets the weights.
        source: a run or artefact folder; a `.safetensors` file, or a `.pt`/`.pth` file, which is read as tensors alone;
            a folder that transformers wrote; or `hf:owner/name`, a model of Hugging Face's hub.
        classes: class names of each task head of the model, in order.
        unmatched: `refuse` a file that lacks weights of the network, or has others; or `allow` it.
        blocks: of ViT's weights: numbers of the blocks to take, as `from_vit` has them.
        ignore: of ViT's weights: beginnings of names that are not ViT's and may be there.

    Raises:
        StartError: there is no such file, it cannot be read, nothing of it fits, or weights are unmatched; I3D's or
            ViT's lack one that has a place, have another shape, or are not for this network; or `blocks` and `ignore`
            are given for other weights than ViT's.
    """
    stored = _stored(source)
    tensors, theirs, file = stored.tensors, stored.classes, stored.name
    own = model.state_dict()
    if is_vit(tensors) and not is_vit(own):  # as for I3D below
        return _start_from_vit(model, stored, source=str(source), blocks=blocks, ignore=ignore)
    for name, given in (("init_blocks", blocks), ("init_ignore", ignore)):
        if given:
            raise StartError(f"{file}: run.{name}={tuple(given)} is for ViT's weights, and the file holds others")
    if is_i3d(tensors) and not is_i3d(own):  # a user's own network may be I3D, and takes its weights by their names
        return _start_from_i3d(model, stored, source=str(source))
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
        digest=stored.digest,
        loaded=tuple(loaded),
        rebuilt=rebuilt,
        missing=tuple(missing),
        left_over=tuple(left_over),
    )


def _start_from_i3d(model: nn.Module, stored: _Stored, *, source: str) -> Started:
    if not isinstance(model, MFST):
        network = type(model).__name__
        raise StartError(
            f"{stored.name}: holds I3D's weights, which only an MFST can start from; the network is {network}"
        )
    try:
        converted = from_i3d(stored.tensors, model)
    except I3DError as error:
        raise StartError(f"{stored.name}: {error}") from error
    if not converted.weights:
        part, reason = next(iter(converted.unfit.items()))
        raise StartError(f"{stored.name}: nothing of it fits the network; {part} is made of {reason}")
    model.load_state_dict(converted.weights, strict=False)
    anew = tuple(f"{part}." for part in converted.unfit)
    return Started(
        source=source,
        digest=stored.digest,
        loaded=tuple(converted.weights),
        rebuilt={},
        missing=(),
        left_over=tuple(f"{module}: {reason}" for module, reason in converted.left_out.items()),
        unfit=converted.unfit,
        public="I3D",
        beyond=tuple(
            name for name in model.state_dict() if name not in converted.weights and not name.startswith(anew)
        ),
    )


def _start_from_vit(
    model: nn.Module, stored: _Stored, *, source: str, blocks: Sequence[int], ignore: Sequence[str]
) -> Started:
    if not isinstance(model, ViTNetwork):
        network = type(model).__name__
        raise StartError(
            f"{stored.name}: holds ViT's weights, which only RPE-STDT, CTN, ViViT and ViT frame by frame can start "
            f"from; the network is {network}"
        )
    try:
        vit = read_vit(stored.tensors, ignore=ignore)
        converted = from_vit(vit, model, blocks=blocks)
    except ViTError as error:
        raise StartError(f"{stored.name}: {error}") from error
    model.load_state_dict(converted.weights, strict=False)
    others = [name for name in model.state_dict() if name not in converted.weights]
    return Started(
        source=source,
        digest=stored.digest,
        loaded=tuple(converted.weights),
        rebuilt={
            name: f"{vit.called}'s weights have none of these classes" for name in others if _head_of(name) is not None
        },
        missing=(),
        left_over=tuple(f"{name}: {reason}" for name, reason in converted.left_over.items()),
        origins=converted.origins,
        public=vit.called,
        beyond=tuple(name for name in others if _head_of(name) is None),
    )


def _parts(names: Iterable[str], *, apart_from: Iterable[str]) -> list[str]:
    """Names in short, `stages.*.time`: as far as none of the others begins alike, and numbers left open."""
    others = {beginning for name in apart_from for beginning in _beginnings(name)}
    short = (next((beginning for beginning in _beginnings(name) if beginning not in others), name) for name in names)
    return list(dict.fromkeys(".".join("*" if word.isdigit() else word for word in part.split(".")) for part in short))


def _beginnings(name: str) -> Iterable[str]:
    return accumulate(name.split("."), "{}.{}".format)


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


def _stored(source: str | Path) -> _Stored:
    hub = str(source).startswith(HUB)
    path = _fetched(str(source)) if hub else Path(source)
    name = str(source if hub else path)
    folder = path if (path / DESCRIPTION).is_file() else path / "artefact"
    try:
        if (folder / DESCRIPTION).is_file():
            said = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
            file = folder / Path(said["weights"]).name
            return _Stored(tensors=_tensors_of([file]), classes=said["classes"], name=str(file), files=[file])
        files = _files_of(path)
        if not files:
            raise StartError(f"{path}: neither a run, an artefact, nor a file of weights")
        if files[0].suffix == ".safetensors":
            return _Stored(tensors=_tensors_of(files), name=name, files=files)
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        if isinstance(error, StartError):
            raise
        reason = " ".join(str(error).split())[:200]
        raise StartError(f"{name}: cannot be read as weights ({reason})") from error
    for key in ("state_dict", "model"):
        if isinstance(stored, dict) and isinstance(stored.get(key), dict):
            stored = stored[key]
    if not isinstance(stored, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in stored.items()):
        raise StartError(f"{path}: holds no table of tensors by name")
    return _Stored(tensors=stored, name=name, files=files)


def _tensors_of(files: Iterable[Path]) -> dict[str, Tensor]:
    """Those of all files, in the order of their names: safetensors has another one at each call."""
    tensors = {name: tensor for file in files for name, tensor in load_tensors(file.read_bytes()).items()}
    return {name: tensors[name] for name in sorted(tensors)}


def _files_of(path: Path) -> list[Path]:
    """The file itself; or those of a folder that transformers wrote, where a large network is in several."""
    if path.is_file():
        return [path]
    one, several = path / TRANSFORMERS, path / f"{TRANSFORMERS}.index.json"
    if one.is_file() or not several.is_file():
        return [one] if one.is_file() else []
    named = json.loads(several.read_text(encoding="utf-8"))["weight_map"].values()
    return [path / name for name in sorted({Path(name).name for name in named})]


def _fetched(source: str) -> Path:
    """The weights of a model of the hub, downloaded unless they are here from before."""
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError

    model = source.removeprefix(HUB)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", model):
        raise StartError(f"{source}: a model of the hub is named {HUB}owner/name")
    try:
        return Path(huggingface_hub.hf_hub_download(model, TRANSFORMERS))
    except RepositoryNotFoundError as error:
        raise StartError(f"{source}: the hub has no such model, or it is not public") from error
    except LocalEntryNotFoundError as error:
        raise StartError(f"{source}: the hub cannot be reached, and {TRANSFORMERS} is not here from before") from error
    except EntryNotFoundError as error:
        raise StartError(f"{source}: the hub's model has no {TRANSFORMERS}") from error
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise StartError(f"{source}: cannot be fetched from the hub ({reason})") from error
