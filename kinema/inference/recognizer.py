"""Recognizer: action recognition on video files with a trained model."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from kinema.data.dataset import read_views
from kinema.data.manifest import Entry
from kinema.errors import VideoError
from kinema.inference.engine import Device, choose_device
from kinema.inference.trained_model import TrainedModel, load_model
from kinema.modality import Modality
from kinema.video.read_options import READ_OPTIONS, ReadOptions

Video = str | Path | Mapping[Modality, str | Path]
"""Video file or URL, or one per modality."""


class MissingStream(UserWarning):
    """Issued when an RGB-D model gets only one modality."""


class Prediction(NamedTuple):
    """Class and probability (softmax over the classes of its task head)."""

    label: str
    score: float


class Recognizer:
    """Trained model that recognizes the action in a video.

    >>> from kinema import Recognizer
    >>> recognizer = Recognizer.load("runs/latest")  # doctest: +SKIP
    >>> recognizer("video.mp4", top_k=5)  # doctest: +SKIP
    [Prediction(label='cartwheel', score=0.98...), ...]

    Args:
        trained: Trained model.
        device: Device to run on.
        read_options: Decoding options and limits.
    """

    def __init__(
        self, trained: TrainedModel, *, device: Device = "auto", read_options: ReadOptions = READ_OPTIONS
    ) -> None:
        self.trained = trained
        self.read_options = read_options
        self.engine = trained.engine(choose_device(device))

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        model: nn.Module | None = None,
        device: Device = "auto",
        read_options: ReadOptions = READ_OPTIONS,
    ) -> "Recognizer":
        """Load a model or run folder, as in `load_model`.

        Raises:
            ModelError: A file is missing or damaged, or the weights do not fit the network.
            DeviceError: The device is not available.
        """
        return cls(load_model(path, model=model), device=device, read_options=read_options)

    @property
    def classes(self) -> Mapping[str, tuple[str, ...]]:
        """Class names of each task head."""
        return self.trained.classes

    def __call__(self, video: Video, *, top_k: int = 5) -> list[Prediction] | dict[str, list[Prediction]]:
        """Return the top-k classes as `predict` does, but as a list if there is one task head."""
        ranked = self.predict(video, top_k=top_k)
        return next(iter(ranked.values())) if len(ranked) == 1 else ranked

    def predict(self, video: Video, *, top_k: int = 5) -> dict[str, list[Prediction]]:
        """Return the top-k classes of each task head, best first, and of equal ones the first in the list of classes.

        Args:
            video: File or URL, or one per modality: `{"rgb": ..., "depth": ...}`.
            top_k: Number of classes, at least 1. A task head with fewer classes returns all of them.

        Raises:
            UnreadableVideo: The file is missing or cannot be decoded.
            VideoError: The modalities do not fit the model, or `top_k` is below 1.

        Warns:
            MissingStream: A two-stream model gets one modality and predicts from it alone.
        """
        if top_k < 1:
            raise VideoError(f"top_k={top_k}; expected at least 1", field="top_k")
        logits = self.engine.logits(self.prepare(video))
        ranked = {}
        for head, names in self.classes.items():
            scores = logits[head][0].softmax(-1).tolist()
            order = logits[head][0].argsort(descending=True, stable=True)[:top_k].tolist()  # as metrics rank
            ranked[head] = [Prediction(names[i], scores[i]) for i in order]
        return ranked

    def prepare(self, video: Video) -> dict[Modality, Tensor]:
        """Return the clips of a video: uint8, (views, channels, time, height, width) for each modality.

        Errors and warnings are those of `predict`.
        """
        preprocessing = self.trained.preprocessing
        if not isinstance(video, str | Path):
            present = tuple(m for m in preprocessing.modalities if m in video)
            if present and present != preprocessing.modalities and self.engine.binding.allows_missing:
                absent = next(m for m in preprocessing.modalities if m not in present)
                preprocessing = self.trained.with_modalities(present).preprocessing
                warnings.warn(f"no {absent} given; predicting from {present[0]} alone", MissingStream, stacklevel=2)
        expected = preprocessing.files
        if isinstance(video, str | Path):
            if len(expected) > 1:
                raise VideoError(
                    f"the model takes {self._describe_inputs()}. Pass a file for each: {{'rgb': ..., 'depth': ...}}."
                )
            video = {expected[0]: video}
        for modality in expected:
            if modality not in video:
                raise VideoError(f"the model takes {self._describe_inputs()}; {modality} is missing", field=modality)
        for modality in video:
            if modality not in expected:
                raise VideoError(f"the model takes {self._describe_inputs()}; got {modality} as well", field=modality)
        return read_views(
            Entry(rgb=str(video.get("rgb", "")), depth=str(video.get("depth", ""))),
            locate=str,
            sampling=self.trained.sampling,
            preprocessing=preprocessing,
            read_options=self.read_options,
        )

    def _describe_inputs(self) -> str:
        preprocessing = self.trained.preprocessing
        crop = "" if preprocessing.files == preprocessing.modalities else ", cropped to the person by depth"
        return " and ".join(preprocessing.modalities) + crop
