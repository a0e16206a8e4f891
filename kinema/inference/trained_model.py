"""Trained models as folders: weights, config, preprocessing, sampling and classes of a network.

`model.json` holds everything but the weights and names their safetensors file. It is replaced last and atomically, so
that a reader finds either the old model or the new one. Loading runs no code.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from kinema import __version__
from kinema.config import config, from_json, rename_fields, to_json
from kinema.data.names import is_unicode, normalize
from kinema.errors import ConfigError, KinemaError, ModelError, one_line
from kinema.files import atomic_write, read_bytes, read_json
from kinema.inference.engine import Engine, Precision
from kinema.memory import machine_memory
from kinema.modality import Modality
from kinema.models.base import NetworkConfig
from kinema.models.binding import input_binding
from kinema.models.complexity import macs
from kinema.models.own import create_own_model
from kinema.models.registry import ModelConfig, config_from_json, flatten_config
from kinema.transforms.clip_memory import check_clips
from kinema.transforms.preprocessing import Preprocessing
from kinema.transforms.sampling import Sampling

FORMATS = (1, 2, 3)
"""Formats that can be read; the last one is written. Format 1 stores the config as `{"kind": ..., "config": {...}}`."""
DESCRIPTION = "model.json"
OLD_DESCRIPTION = "artefact.json"
"""File name of the description in formats 1 and 2, which runs store in `artefact/`."""
OWN = "own"
"""Kind stored for a user's own network, whose code is not stored."""
RANDOM = "random"
"""Start weights of a training without weights."""
NOT_PRETRAINED = "random, not pretrained"
"""Start weights of a training without weights, for a network that is meant to start from pretrained ones."""


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """Network with everything needed to use it.

    Attributes:
        model: Network with its weights.
        config: Config of the network; None for a user's own network.
        classes: Class names of each task head, in the order of the logits.
        sampling: Frames to take from a video.
        preprocessing: Preprocessing of the frames.
        precision: Arithmetic precision of its evaluation.
        provenance: Origin of the model: commit, step, seed and dataset of its training.
        digest: SHA-256 of the weights file; empty until saved.
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
    def start_weights(self) -> str:
        """Weights that the training started from: a name or digest, `RANDOM` or `NOT_PRETRAINED`; empty if unknown."""
        return _start_weights(self.provenance, self.config)

    @property
    def heads(self) -> dict[str, int]:
        """Number of classes of each task head."""
        return {head: len(names) for head, names in self.classes.items()}

    def with_modalities(self, modalities: Sequence[Modality]) -> "TrainedModel":
        """Return the same model, restricted to some of its modalities.

        Raises:
            ModelError: The model does not take a modality, or needs all of its modalities.
        """
        own = self.preprocessing.modalities
        if set(modalities) == set(own):
            return self
        binding = input_binding(self.model)
        if not modalities or not set(modalities) < set(own):
            raise ModelError(
                f"modalities: the model takes {' and '.join(own)}; got {' and '.join(modalities) or 'none'}",
                field="modalities",
            )
        if not binding.allows_missing:
            raise ModelError(f"modalities: {binding.network} needs both {' and '.join(own)}", field="modalities")
        return replace(self, preprocessing=replace(self.preprocessing, modalities=tuple(modalities)))

    def with_clip(self, *, frames: int | None = None, size: int | None = None) -> "TrainedModel":
        """Return the same model for another number of frames or size in pixels. The short side changes in proportion.

        Raises:
            ModelError: The network does not accept such clips.
        """
        sampling, preprocessing = self.sampling, self.preprocessing
        try:
            if frames is not None:
                sampling = replace(sampling, frames=frames)
            if size is not None:
                short_side = round(preprocessing.short_side * size / preprocessing.size)
                preprocessing = replace(preprocessing, size=size, short_side=short_side)
        except ConfigError as error:
            raise ModelError(str(error), field=error.field) from error
        if (sampling, preprocessing) != (self.sampling, self.preprocessing):
            try:  # run it on the meta device
                check_clips(sampling, preprocessing)
                macs(self.model, channels=preprocessing.channels, frames=sampling.frames, size=preprocessing.size)
            except (ValueError, RuntimeError) as error:
                raise ModelError(
                    f"the network does not accept clips of {sampling.frames} frames of {preprocessing.size} pixels "
                    f"({one_line(error)})",
                    field=getattr(error, "field", None),
                ) from error
        return replace(self, sampling=sampling, preprocessing=preprocessing)

    def engine(self, device: torch.device) -> Engine:
        """Return an inference engine on a device."""
        return Engine(
            self.model,
            preprocessing=self.preprocessing,
            heads=self.heads,
            device=device,
            precision=self.precision,
            views=self.sampling.clips * self.preprocessing.crops,
        )


def random_start(config: NetworkConfig | None) -> str:
    """Return the name of random start weights of a network."""
    return NOT_PRETRAINED if config is not None and config.expects_weights else RANDOM


def name_weights(source: str) -> str:
    """Return the name of start weights; for a model that itself started from random ones, with that in brackets."""
    name = source if ":" in source else Path(source).name
    file = None if ":" in source else find_description(source)
    if file is None:
        return name
    description, config = _read_description(file)
    earlier = _start_weights(description.provenance, config)
    return f"{name} ({earlier})" if earlier.startswith(RANDOM) else name


def _start_weights(provenance: Mapping[str, Any], config: NetworkConfig | None) -> str:
    start: str | None = provenance.get("start_weights")
    if start is not None or "init_digest" not in provenance:
        return start or ""
    digest: str = provenance["init_digest"]  # models of older versions
    return digest[:12] or random_start(config)


def save_model(folder: Path, trained: TrainedModel) -> str:
    """Write a model to a folder, replacing any model in it, and return the SHA-256 of the weights.

    Raises:
        ModelError: The model cannot be written. The previous one is intact.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Clone, because safetensors rejects shared tensors and a network may share weights.
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
    _write(folder / description.weights, weights)
    content = json.dumps(to_json(description), indent=2, ensure_ascii=False) + "\n"
    _write(folder / DESCRIPTION, content.encode(errors="backslashreplace"))
    (folder / OLD_DESCRIPTION).unlink(missing_ok=True)
    for old in folder.glob("model-*.safetensors"):
        if old.name != description.weights:
            old.unlink()
    return digest


def load_model(
    path: str | Path,
    *,
    model: nn.Module | str | None = None,
    check: Literal["fingerprint", "digest"] = "fingerprint",
) -> TrainedModel:
    """Load a model folder, or the model of a run. Its network is in evaluation mode.

    Args:
        path: Model or run folder.
        model: Network to load the weights into, if it is your own, or its name as in `create_own_model`:
            `module:Class`.
        check: `fingerprint` also compares the network's logits with those at saving time; `digest` compares only the
            checksum of the weights.

    Raises:
        ModelError: A file is missing or damaged, or the weights do not fit the network. A network of your own is named
            for a model that is not.
    """
    description_file = find_description(path)
    if description_file is None:
        raise ModelError(f"{path}: not a model or a run ({DESCRIPTION} is missing)", path=path)
    folder = description_file.parent
    description, config = _read_description(description_file)
    file = folder / Path(description.weights).name
    if not file.is_file():
        raise ModelError(f"{file}: weights are missing", path=file)
    weights = read_bytes(file, machine_memory())
    digest = hashlib.sha256(weights).hexdigest()
    if digest != description.digest:
        raise ModelError(f"{file}: damaged or replaced; its checksum is not the one saved", path=file, field="digest")
    if isinstance(model, str):
        if config is not None:
            raise ModelError(
                f"{folder}: is no network of your own, so that model={model!r} would have no effect. Leave it out.",
                path=folder,
                field="model",
            )
        model = create_own_model(model, heads={head: len(names) for head, names in description.classes.items()})
    try:
        tensors = load_tensors(weights)
        if model is None:
            if config is None:
                raise ModelError(
                    f"{folder}: the network is user-defined and not stored. Pass model=..., or --model module:Class.",
                    path=folder,
                    field="model",
                )
            model = _build(config, description, description_file, tensors)
        model.load_state_dict(tensors)
    except (SafetensorError, RuntimeError) as error:
        raise ModelError(f"{file}: weights do not fit the network ({one_line(error)})", path=file) from error
    trained = TrainedModel(
        model=model.eval(),
        config=config,
        classes={head: tuple(map(normalize, names)) for head, names in description.classes.items()},
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
    """Return the description file of a model folder or of a run's model, or None if `path` is neither."""
    folders = [Path(path), Path(path, "model"), Path(path, "artefact")]
    names = [folder / name for folder in folders for name in (DESCRIPTION, OLD_DESCRIPTION)]
    return next((name for name in names if name.is_file()), None)


def has_own_network(path: str | Path) -> bool:
    """Return whether a model or run folder has a network of the user's own, whose code is not stored."""
    file = find_description(path)
    return file is not None and _read_description(file)[1] is None


@config
class Description:
    """Content of `model.json`."""

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
        if not self.classes:
            raise ConfigError("classes: no task head; expected at least one", field="classes")
        for head, names in self.classes.items():
            if len(set(names)) != len(names) or not names:
                raise ConfigError(f"classes: empty or repeated for head {head!r}", field="classes")
            if not all(map(is_unicode, (head, *names))):
                raise ConfigError(f"classes: a name of head {head!r} is not Unicode text", field="classes")


def _read_description(path: Path) -> tuple[Description, ModelConfig | None]:
    """Return the description and the network's config, which is None for a user's own network."""
    try:
        stored = read_json(path)
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: not valid JSON ({error})", path=path) from error
    version = stored.get("format") if isinstance(stored, dict) else None
    if version not in FORMATS:
        raise ModelError(f"{path}: format {version}; expected one of {FORMATS}", path=path, field="format")
    preprocessing = stored.get("preprocessing")
    if version < 3 and isinstance(preprocessing, dict):
        rename_fields(preprocessing, {"depth_colours": "depth_colors"})
        if preprocessing.get("depth_colors") == "grey":
            preprocessing["depth_colors"] = "gray"
    try:
        description = from_json(Description, {**stored, "format": FORMATS[-1]})
        is_own = flatten_config(description.model) == {"kind": OWN}
        return description, None if is_own else config_from_json(description.model)
    except ConfigError as error:
        raise ModelError(f"{path}: {error}", path=path, field=error.field) from error


def _build(config: ModelConfig, description: Description, path: Path, tensors: dict[str, Tensor]) -> nn.Module:
    """Return the network with fresh weights, of the shapes of these tensors.

    Raises:
        ModelError: The network cannot be built.
        RuntimeError: The tensors do not fit it.
    """
    preprocessing = description.preprocessing
    build = partial(
        config.network,
        heads={head: len(names) for head, names in description.classes.items()},
        channels=preprocessing.channels,
        frames=description.sampling.frames,
        size=preprocessing.size,
    )
    try:
        check_clips(description.sampling, preprocessing)
        with torch.device("meta"):  # allocates nothing
            build().load_state_dict(tensors, assign=True)
        return build()
    except KinemaError as error:
        raise ModelError(f"{path}: model cannot be built ({error})", path=path, field=error.field) from error


def _fingerprint(trained: TrainedModel) -> dict[str, list[float]]:
    """Return the logits of a clip of fixed noise, in float32 on the CPU."""
    preprocessing = trained.preprocessing
    generator = torch.Generator().manual_seed(0)
    inputs: dict[Modality, Tensor] = {}
    for modality in preprocessing.modalities:
        shape = (1, preprocessing.channels[modality], trained.sampling.frames, preprocessing.size, preprocessing.size)
        inputs[modality] = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    engine = Engine(
        trained.model,
        preprocessing=preprocessing,
        heads=trained.heads,
        device=torch.device("cpu"),
        precision="float32",
    )
    return {head: logits[0].tolist() for head, logits in engine.logits(inputs).items()}


def _check_fingerprint(folder: Path, trained: TrainedModel, saved: Mapping[str, list[float]]) -> None:
    """Raise ModelError if the network's logits differ from those at saving time."""
    for head, logits in _fingerprint(trained).items():
        now, then = torch.tensor(logits), torch.tensor(saved.get(head, []))
        # Rounding differs between processors and versions; other weights or code change logits by far more.
        if now.shape != then.shape or not torch.allclose(now, then, rtol=1e-3, atol=1e-3):
            raise ModelError(
                f"{folder}: logits of head {head!r} differ from those at saving time; the network's code or its "
                "dependencies have changed",
                path=folder,
                field="fingerprint",
            )


def _write(path: Path, content: bytes) -> None:
    try:
        with atomic_write(path) as file:
            file.write(content)
    except OSError as error:
        raise ModelError(f"{path}: cannot be written ({error}). The previous model is intact.", path=path) from error
