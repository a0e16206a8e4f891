"""Recognizer: a trained model, put to work on files."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from kinema.data.dataset import read_views
from kinema.data.manifest import Entry
from kinema.errors import VideoError
from kinema.inference.engine import Device, choose_device
from kinema.inference.trained_model import TrainedModel, load_model
from kinema.modality import Modality
from kinema.video.read_options import READ_OPTIONS, ReadOptions

Video = str | Path | Mapping[Modality, str | Path]


class MissingStream(UserWarning):
    """Issued when a model of RGB and depth gets only one of them."""


class Prediction(NamedTuple):
    """A class and its probability (softmax over the classes of its task head)."""

    label: str
    score: float


class Recognizer:
    """A trained model that recognizes the action in a video.

    >>> from kinema import Recognizer
    >>> recognizer = Recognizer.load("runs/latest")  # doctest: +SKIP
    >>> recognizer("video.mp4", top_k=5)  # doctest: +SKIP
    [Prediction(label='cartwheel', score=0.98...), ...]

    Args:
        trained: a trained model.
        device: device that computes.
        read_options: decoding options and limits.
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
        """Load a run or a model folder.

        Args:
            path: the folder.
            model: the network, if the folder holds the weights of the user's own.
            device: device that computes.
            read_options: decoding options and limits.

        Raises:
            ModelError: something is missing, broken, or does not fit.
        """
        return cls(load_model(path, model=model), device=device, read_options=read_options)

    @property
    def classes(self) -> Mapping[str, tuple[str, ...]]:
        """Class names of each task head."""
        return self.trained.classes

    def prepare(self, video: Video) -> dict[Modality, Tensor]:
        """Return the clips of a video: bytes, (views, channels, time, height, width) for each modality.

        Raises:
            UnreadableVideo: the file is missing or cannot be decoded.
            VideoError: a modality that the model wants is not given.

        Warns:
            MissingStream: a model of two streams is given one, and does with it.
        """
        preprocessing = self.trained.preprocessing
        if not isinstance(video, str | Path):
            given = tuple(m for m in preprocessing.modalities if m in video)
            if given and given != preprocessing.modalities and self.engine.binding.allows_missing:
                preprocessing = self.trained.seeing(given).preprocessing
                absent = next(m for m in self.trained.preprocessing.modalities if m not in given)
                warnings.warn(f"no {absent} given; predicting from {given[0]} alone", MissingStream, stacklevel=2)
        wanted = preprocessing.files
        if isinstance(video, str | Path):
            if len(wanted) > 1:
                raise VideoError(f"the model takes {self._taken()}; pass a file for each: {{'rgb': ..., 'depth': ...}}")
            video = {wanted[0]: video}
        missing = [m for m in wanted if m not in video]
        if missing:
            raise VideoError(f"the model takes {self._taken()}; no {missing[0]} file given", field=missing[0])
        unseen = [m for m in video if m not in wanted]
        if unseen:
            raise VideoError(f"the model takes {self._taken()}; got a {unseen[0]} file too", field=unseen[0])
        return read_views(
            Entry(rgb=str(video.get("rgb", "")), depth=str(video.get("depth", ""))),
            locate=str,
            sampling=self.trained.sampling,
            preprocessing=preprocessing,
            read_options=self.read_options,
        )

    def _taken(self) -> str:
        preprocessing = self.trained.preprocessing
        crop = "" if preprocessing.files == preprocessing.modalities else ", cut to the person that depth shows"
        return " and ".join(preprocessing.modalities) + crop

    def predict(self, video: Video, *, top_k: int = 5) -> dict[str, list[Prediction]]:
        """Return the likeliest classes of each task head, best first.

        Args:
            video: a file or URL, or one for each modality: `{"rgb": ..., "depth": ...}`.
            top_k: number of classes, at least 1; all where a task head has fewer.

        Raises:
            UnreadableVideo: the file is missing or cannot be decoded.

        Warns:
            MissingStream: as `prepare`.
        """
        if top_k < 1:
            raise VideoError(f"top_k must be at least 1; got {top_k}", field="top_k")
        logits = self.engine.logits(self.prepare(video))
        return {head: self._ranked(head, logits[head][0], top_k) for head in self.classes}

    def __call__(self, video: Video, *, top_k: int = 5) -> list[Prediction] | dict[str, list[Prediction]]:
        """Return what `predict` does; for one task head, its list alone."""
        ranked = self.predict(video, top_k=top_k)
        return next(iter(ranked.values())) if len(ranked) == 1 else ranked

    def _ranked(self, head: str, logits: Tensor, top_k: int) -> list[Prediction]:
        names = self.classes[head]
        scores, order = torch.topk(logits.softmax(-1), k=min(top_k, len(names)))
        return [Prediction(names[i], score) for score, i in zip(scores.tolist(), order.tolist(), strict=True)]
