"""What is shipped: a folder with a network's config, weights, preprocessing, sampling and classes.

`artefact.json` says all but the weights and names the safetensors file that holds them. The JSON is replaced last and
at once, so that whoever reads the folder finds either the old artefact or the new one. Loading runs no code.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import cattrs
import torch
from cattrs.v import format_exception
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from kinema import __version__
from kinema.config import to_json
from kinema.errors import ConfigError, ModelError
from kinema.files import atomic_write
from kinema.inference.engine import Engine, Precision
from kinema.modality import Modality
from kinema.models.base import NetworkConfig
from kinema.models.binding import input_binding
from kinema.models.complexity import macs
from kinema.models.registry import config_from_json, flattened
from kinema.transforms.preprocessing import Preprocessing
from kinema.transforms.sampling import Sampling

FORMAT = 1
DESCRIPTION = "artefact.json"
Changed = TypeVar("Changed", Sampling, Preprocessing)
OWN = "own"
"""Stored in place of the kind of a network of the user's own, whose code is not stored."""


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A network with all that is needed to use it.

    Args:
        model: the network, with its weights.
        config: the network's config; None for a network of the user's own, whose code is not stored.
        classes: class names of each task head, in the order of the logits.
        sampling, preprocessing: how a video becomes a clip.
        precision: of the arithmetic that its numbers were measured with.
        provenance: where it comes from: recipe, commit, step, data.
        digest: SHA-256 of the weights' file; empty until saved.
    """

    model: nn.Module
    config: NetworkConfig | None
    classes: Mapping[str, tuple[str, ...]]
    sampling: Sampling
    preprocessing: Preprocessing
    precision: Precision
    provenance: Mapping[str, Any] = field(default_factory=dict)
    digest: str = ""

    @property
    def heads(self) -> dict[str, int]:
        return {head: len(names) for head, names in self.classes.items()}

    def seeing(self, modalities: Sequence[Modality]) -> "TrainedModel":
        """The same, shown only these of its modalities.

        Raises:
            ModelError: it sees none of them, or its network cannot do without the others.
        """
        seen = self.preprocessing.modalities
        if set(modalities) == set(seen):
            return self
        binding = input_binding(self.model)
        if not modalities or not set(modalities) < set(seen):
            raise ModelError(f"the model sees {' and '.join(seen)}; it cannot be shown {' and '.join(modalities)}")
        if not binding.answers_alone:
            raise ModelError(f"the model sees {' and '.join(seen)}, and {binding.network} does not do with one alone")
        return replace(self, preprocessing=replace(self.preprocessing, modalities=tuple(modalities)))

    def at(self, *, frames: int | None = None, size: int | None = None) -> "TrainedModel":
        """The same, shown clips of other extents than it was trained with; the picture is resized in proportion.

        Args:
            frames: in a clip; None leaves them.
            size: rows and columns of a clip; None leaves them.

        Raises:
            ModelError: its network does not see such clips.
        """
        given = self.preprocessing
        sampling = self.sampling if frames is None else _checked(lambda: replace(self.sampling, frames=frames))
        preprocessing = given
        if size is not None:
            short_side = round(given.short_side * size / given.size)
            preprocessing = _checked(lambda: replace(given, size=size, short_side=short_side))
        extents = {"frames": sampling.frames, "size": preprocessing.size}
        if (sampling, preprocessing) != (self.sampling, given):
            try:
                macs(self.model, channels=preprocessing.channels, **extents)  # runs it without numbers
            except (ValueError, RuntimeError) as error:
                wanted = f"{sampling.frames} frames of {preprocessing.size} pixels"
                said = " ".join(str(error).split())[:300]
                raise ModelError(
                    f"the network does not take clips of {wanted} ({said})", field=getattr(error, "field", None)
                ) from error
        return replace(self, sampling=sampling, preprocessing=preprocessing)

    def engine(self, device: torch.device) -> Engine:
        return Engine(
            self.model,
            preprocessing=self.preprocessing,
            heads=self.heads,
            device=device,
            precision=self.precision,
            views=self.sampling.clips * self.preprocessing.crops,
        )


def _checked(changed: Callable[[], Changed]) -> Changed:
    try:
        return changed()
    except ConfigError as error:
        raise ModelError(str(error), field=error.field) from error


def save_model(folder: Path, artefact: TrainedModel) -> str:
    """Write an artefact, or replace the one that is there; returns the SHA-256 of its weights.

    Raises:
        ModelError: it cannot be written; the one before is intact.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Copies, because the file holds no two names of one tensor, and a network may use a weight twice.
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in artefact.model.state_dict().items()}
    weights = save_tensors(tensors)
    digest = hashlib.sha256(weights).hexdigest()
    name = f"model-{digest[:12]}.safetensors"
    description = {
        "format": FORMAT,
        "kinema": __version__,
        "weights": name,
        "digest": digest,
        "model": {"kind": OWN} if artefact.config is None else to_json(artefact.config),
        "classes": {head: list(names) for head, names in artefact.classes.items()},
        "sampling": asdict(artefact.sampling),
        "preprocessing": asdict(artefact.preprocessing),
        "precision": artefact.precision,
        "fingerprint": _fingerprint(artefact),
        "provenance": dict(artefact.provenance),
    }
    _replace(folder / name, weights)
    _replace(folder / DESCRIPTION, (json.dumps(description, indent=2, ensure_ascii=False) + "\n").encode())
    for old in folder.glob("model-*.safetensors"):
        if old.name != name:
            old.unlink()
    return digest


def load_model(
    path: str | Path,
    *,
    model: nn.Module | None = None,
    check: Literal["fingerprint", "digest"] = "fingerprint",
) -> TrainedModel:
    """Read an artefact, or the one inside a run.

    Args:
        path: a folder that holds `artefact.json`, or a run folder.
        model: the network that the weights belong to, where it is the user's own.
        check: `fingerprint` also asks the loaded network for the logits that it gave when it was saved; `digest`
            stops at the weights' checksum.

    Raises:
        ModelError: something is missing, broken, or does not fit.
    """
    folder = Path(path)
    if not (folder / DESCRIPTION).is_file() and (folder / "artefact" / DESCRIPTION).is_file():
        folder = folder / "artefact"
    said = _read_description(folder, path)
    file = folder / Path(said.weights).name
    if not file.is_file():
        raise ModelError(f"{file}: the weights are missing")
    weights = file.read_bytes()
    digest = hashlib.sha256(weights).hexdigest()
    if digest != said.digest:
        raise ModelError(f"{file}: is not the file that was saved (its checksum differs)")
    own = flattened(said.model) == {"kind": OWN}
    try:
        config = None if own else config_from_json(said.model)
    except ConfigError as error:
        raise ModelError(f"{folder / DESCRIPTION}: {error}", path=folder / DESCRIPTION, field=error.field) from error
    if model is None:
        if config is None:
            raise ModelError(f"{folder}: holds the weights of a network of your own; pass it: load(path, model=...)")
        try:
            model = config.build(
                heads={head: len(names) for head, names in said.classes.items()},
                channels=said.preprocessing.channels,
                frames=said.sampling.frames,
                size=said.preprocessing.size,
            )
        except (TypeError, ValueError) as error:
            raise ModelError(f"{folder / DESCRIPTION}: says no network that can be built ({error})") from error
    _load_weights(model, weights, file)
    artefact = TrainedModel(
        model=model,
        config=config,
        classes=said.classes,
        sampling=said.sampling,
        preprocessing=said.preprocessing,
        precision=said.precision,
        provenance=said.provenance,
        digest=digest,
    )
    if check == "fingerprint":
        _check_fingerprint(folder, artefact, said.fingerprint)
    return artefact


@dataclass(frozen=True, kw_only=True)
class _Description:
    """`artefact.json`, field by field."""

    format: int
    kinema: str
    weights: str
    digest: str
    model: dict[str, Any]
    classes: dict[str, tuple[str, ...]]
    sampling: Sampling
    preprocessing: Preprocessing
    precision: Precision
    fingerprint: dict[str, list[float]]
    provenance: dict[str, Any]

    def __post_init__(self) -> None:
        for head, names in self.classes.items():
            if len(set(names)) != len(names) or not names:
                raise ValueError(f"classes of {head!r} are empty, or one stands twice")


def _read_description(folder: Path, asked: str | Path) -> _Description:
    path = folder / DESCRIPTION
    if not path.is_file():
        raise ModelError(f"{asked}: no artefact here ({DESCRIPTION} is missing); give a run or an artefact folder")
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: is no JSON ({error})") from error
    if not isinstance(said, dict) or said.get("format") != FORMAT:
        found = said.get("format") if isinstance(said, dict) else None
        raise ModelError(f"{path}: is of format {found}, this kinema reads {FORMAT}")
    try:
        return cattrs.Converter(forbid_extra_keys=True).structure(said, _Description)
    except Exception as error:  # cattrs lets through what a wrong type runs into; all of it is the file's fault
        faults = cattrs.transform_error(error, format_exception=_fault)
        raise ModelError(f"{path}: {'; '.join(faults)}") from error


def _fault(error: BaseException, wanted: Any) -> str:
    """What is wrong with a value: a config's own sentence where it has one."""
    own = isinstance(error, ValueError) and not isinstance(error, cattrs.BaseValidationError)
    return str(error) if own else format_exception(error, wanted)


def _load_weights(model: nn.Module, weights: bytes, path: Path) -> None:
    try:
        model.load_state_dict(load_tensors(weights))
    except (SafetensorError, RuntimeError) as error:
        summary = " ".join(str(error).split())[:300]
        raise ModelError(f"{path}: does not fit the network ({summary})") from error


def _fingerprint(artefact: TrainedModel) -> dict[str, list[float]]:
    """Logits for a clip of fixed noise, in float32 on the CPU."""
    preprocessing, frames = artefact.preprocessing, artefact.sampling.frames
    generator = torch.Generator().manual_seed(0)
    size = preprocessing.size
    inputs: dict[Modality, Tensor] = {
        modality: torch.randint(
            0,
            256,
            (1, 3 if modality == "rgb" else preprocessing.depth_channels, frames, size, size),
            dtype=torch.uint8,
            generator=generator,
        )
        for modality in preprocessing.modalities
    }
    engine = Engine(
        artefact.model,
        preprocessing=preprocessing,
        heads=artefact.heads,
        device=torch.device("cpu"),
        precision="float32",
    )
    return {head: logits[0].tolist() for head, logits in engine.logits(inputs).items()}


def _check_fingerprint(folder: Path, artefact: TrainedModel, saved: Mapping[str, list[float]]) -> None:
    for head, logits in _fingerprint(artefact).items():
        now, then = torch.tensor(logits), torch.tensor(saved.get(head, []))
        # Other processors and versions round otherwise; other weights or code move logits far more than this.
        if now.shape != then.shape or not torch.allclose(now, then, rtol=1e-3, atol=1e-3):
            raise ModelError(
                f"{folder}: the network does not answer as it did when it was saved (head {head!r}); "
                "its code or its dependencies have changed"
            )


def _replace(path: Path, content: bytes) -> None:
    try:
        with atomic_write(path) as file:
            file.write(content)
    except OSError as error:
        raise ModelError(f"{path}: cannot be written ({error}); what was saved before is intact") from error
