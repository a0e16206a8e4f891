"""Trained models as folders: config, weights, preprocessing, sampling and classes of a network.

`model.json` holds all but the weights and names the safetensors file that holds them. The JSON is replaced last and
atomically, so that a reader of the folder finds either the old model or the new one. Loading runs no code.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from kinema import __version__
from kinema.config import config, from_json, rename_fields, to_json
from kinema.errors import ConfigError, KinemaError, ModelError
from kinema.files import atomic_write
from kinema.inference.engine import Engine, Precision
from kinema.modality import Modality
from kinema.models.base import NetworkConfig
from kinema.models.binding import input_binding
from kinema.models.complexity import macs
from kinema.models.registry import ModelConfig, config_from_json, flattened
from kinema.transforms.preprocessing import Preprocessing
from kinema.transforms.sampling import Sampling

FORMATS = (1, 2, 3)
"""Formats that are read; the last one is written. Format 1 has the config as `{"kind": ..., "config": {...}}`."""
DESCRIPTION = "model.json"
OLD_DESCRIPTION = "artefact.json"
"""Name of the description in formats 1 and 2, which runs keep in `artefact/`."""
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
        """Return the same model, given only these of its modalities.

        Raises:
            ModelError: it sees none of them, or its network cannot do without the others.
        """
        seen = self.preprocessing.modalities
        if set(modalities) == set(seen):
            return self
        binding = input_binding(self.model)
        if not modalities or not set(modalities) < set(seen):
            raise ModelError(
                f"the model takes {' and '.join(seen)}; got {' and '.join(modalities) or 'none'}", field="modalities"
            )
        if not binding.allows_missing:
            raise ModelError(f"{binding.network} needs both {' and '.join(seen)}", field="modalities")
        return replace(self, preprocessing=replace(self.preprocessing, modalities=tuple(modalities)))

    def at(self, *, frames: int | None = None, size: int | None = None) -> "TrainedModel":
        """Return the same model for clips of other extents; the short side is resized in proportion.

        Args:
            frames: number of frames of a clip; None keeps it.
            size: rows and columns of a clip; None keeps them.

        Raises:
            ModelError: the network does not take such clips.
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


def save_model(folder: Path, trained: TrainedModel) -> str:
    """Write a model to a folder, or replace the model in it, and return the SHA-256 of the weights.

    Raises:
        ModelError: the model cannot be written; the previous one is intact.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Copies, because the file holds no two names of one tensor, and a network may use a weight twice.
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in trained.model.state_dict().items()}
    weights = save_tensors(tensors)
    digest = hashlib.sha256(weights).hexdigest()
    description = Description(
        kinema=__version__,
        weights=f"model-{digest[:12]}.safetensors",
        digest=digest,
        model={"kind": OWN} if trained.config is None else to_json(trained.config),
        classes=dict(trained.classes),
        sampling=trained.sampling,
        preprocessing=trained.preprocessing,
        precision=trained.precision,
        fingerprint=_fingerprint(trained),
        provenance=dict(trained.provenance),
    )
    _replace(folder / description.weights, weights)
    _replace(folder / DESCRIPTION, (json.dumps(to_json(description), indent=2, ensure_ascii=False) + "\n").encode())
    for old in folder.glob("model-*.safetensors"):
        if old.name != description.weights:
            old.unlink()
    return digest


def load_model(
    path: str | Path,
    *,
    model: nn.Module | None = None,
    check: Literal["fingerprint", "digest"] = "fingerprint",
) -> TrainedModel:
    """Load a model folder, or the model of a run.

    Args:
        path: model folder or run folder.
        model: network that the weights belong to, if it is the user's own.
        check: `fingerprint` also compares the network's logits with those it gave when it was saved; `digest` compares
            the weights' checksum only.

    Raises:
        ModelError: something is missing, broken, or does not fit.
    """
    found = find_description(path)
    if found is None:
        raise ModelError(f"{path}: not a model or a run ({DESCRIPTION} is missing)", path=path)
    folder = found.parent
    description, config = _read_description(found)
    file = folder / Path(description.weights).name
    if not file.is_file():
        raise ModelError(f"{file}: weights are missing", path=file)
    weights = file.read_bytes()
    digest = hashlib.sha256(weights).hexdigest()
    if digest != description.digest:
        raise ModelError(f"{file}: not the file that was saved (its checksum differs)", path=file, field="digest")
    if model is None:
        if config is None:
            raise ModelError(f"{folder}: holds the weights of a network of your own; pass model=...", path=folder)
        model = _build(config, description, found)
    _load_weights(model, weights, file)
    trained = TrainedModel(
        model=model,
        config=config,
        classes=description.classes,
        sampling=description.sampling,
        preprocessing=description.preprocessing,
        precision=description.precision,
        provenance=description.provenance,
        digest=digest,
    )
    if check == "fingerprint":
        _check_fingerprint(folder, trained, description.fingerprint)
    return trained


def find_description(path: str | Path) -> Path | None:
    """Return the path of the description of a model folder or of a run's model, or None if `path` is neither."""
    folder = Path(path)
    names = (DESCRIPTION, OLD_DESCRIPTION, f"model/{DESCRIPTION}", f"artefact/{OLD_DESCRIPTION}")
    return next((folder / name for name in names if (folder / name).is_file()), None)


@config
class Description:
    """`model.json`, field by field."""

    format: Literal[3] = 3
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
                raise ConfigError(f"classes of {head!r} are empty or repeated", field="classes")


def _read_description(path: Path) -> tuple[Description, ModelConfig | None]:
    """Return the description of a model folder, and the network's config; None for a network of the user's own."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: not valid JSON ({error})", path=path) from error
    found = stored.get("format") if isinstance(stored, dict) else None
    if found not in FORMATS:
        raise ModelError(f"{path}: format {found}; expected one of {FORMATS}", path=path, field="format")
    if found < 3:
        rename_fields(stored, {"preprocessing.depth_colours": "preprocessing.depth_colors"})
        if stored["preprocessing"].get("depth_colors") == "grey":
            stored["preprocessing"]["depth_colors"] = "gray"
    try:
        description = from_json(Description, {**stored, "format": FORMATS[-1]})
        own = flattened(description.model) == {"kind": OWN}
        return description, None if own else config_from_json(description.model)
    except ConfigError as error:
        raise ModelError(f"{path}: {error}", path=path, field=error.field) from error


def _build(config: ModelConfig, description: Description, path: Path) -> nn.Module:
    try:
        return config.build(
            heads={head: len(names) for head, names in description.classes.items()},
            channels=description.preprocessing.channels,
            frames=description.sampling.frames,
            size=description.preprocessing.size,
        )
    except KinemaError as error:
        raise ModelError(f"{path}: model cannot be built ({error})", path=path, field=error.field) from error


def _load_weights(model: nn.Module, weights: bytes, path: Path) -> None:
    try:
        model.load_state_dict(load_tensors(weights))
    except (SafetensorError, RuntimeError) as error:
        summary = " ".join(str(error).split())[:300]
        raise ModelError(f"{path}: weights do not fit the network ({summary})", path=path) from error


def _fingerprint(trained: TrainedModel) -> dict[str, list[float]]:
    """Logits for a clip of fixed noise, in float32 on the CPU."""
    preprocessing, frames = trained.preprocessing, trained.sampling.frames
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
        trained.model,
        preprocessing=preprocessing,
        heads=trained.heads,
        device=torch.device("cpu"),
        precision="float32",
    )
    return {head: logits[0].tolist() for head, logits in engine.logits(inputs).items()}


def _check_fingerprint(folder: Path, trained: TrainedModel, saved: Mapping[str, list[float]]) -> None:
    for head, logits in _fingerprint(trained).items():
        now, then = torch.tensor(logits), torch.tensor(saved.get(head, []))
        # Other processors and versions round otherwise; other weights or code move logits far more than this.
        if now.shape != then.shape or not torch.allclose(now, then, rtol=1e-3, atol=1e-3):
            raise ModelError(
                f"{folder}: the network's logits for head {head!r} differ from those it gave when it was saved; "
                "its code or its dependencies have changed",
                path=folder,
                field="fingerprint",
            )


def _replace(path: Path, content: bytes) -> None:
    try:
        with atomic_write(path) as file:
            file.write(content)
    except OSError as error:
        raise ModelError(f"{path}: cannot be written ({error}); the previous model is intact", path=path) from error
