"""Recognizer: action recognition on video files with a trained model."""

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from kinema.data.dataset import read_views
from kinema.data.manifest import Entry
from kinema.errors import VideoError, did_you_mean
from kinema.inference.engine import Device, choose_device
from kinema.inference.frame_array import FrameArray, Frames
from kinema.inference.trained_model import TrainedModel, load_model
from kinema.modality import Modality
from kinema.video.array_file import ArrayFile
from kinema.video.read_options import READ_OPTIONS, ReadOptions

Source = str | Path | Frames
"""File, folder of images, URL, or frames in memory: an array, a tensor, or a list of images."""

Video = Source | Mapping[str, Source] | Mapping[Modality, Source]
"""Source, or one per modality: `{"rgb": ..., "depth": ...}`."""


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
    >>> recognizer.predict("video.mp4", top_k=5)  # doctest: +SKIP
    [Prediction(label='cartwheel', score=0.98...), ...]

    A video is a file, a folder of images, a URL, or its frames in memory (`Frames`). A model of RGB and depth takes one
    per modality: `{"rgb": "color.mp4", "depth": "depth.mkv"}`. Every method that takes a video raises the errors of
    `prepare`.

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
        model: nn.Module | str | None = None,
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

    def __call__(self, video: Video, *, top_k: int = 5, head: str = "") -> list[Prediction]:
        """Return what `predict` returns."""
        return self.predict(video, top_k=top_k, head=head)

    def predict(self, video: Video, *, top_k: int = 5, head: str = "") -> list[Prediction]:
        """Return the top-k classes, best first, and of equal ones the first in the list of classes.

        Args:
            video: Video, or one per modality.
            top_k: Number of classes, at least 1. A task head with fewer classes returns all of them.
            head: Task head. It may be omitted if the model has one; `predict_heads` returns those of all.

        Raises:
            UnreadableVideo: The file is missing or cannot be decoded.
            VideoError: The video does not fit the model, `top_k` is below 1, or the task head does not exist.

        Warns:
            MissingStream: A two-stream model gets one modality and predicts from it alone.
        """
        head = self._choose_head(head)
        return self.predict_heads(video, top_k=top_k)[head]

    def predict_heads(
        self, video: Video, *, top_k: int = 5, between: tuple[float, float] | None = None
    ) -> dict[str, list[Prediction]]:
        """Return the top-k classes of each task head, as `predict` does for one.

        `between` is the start and the end of the part of the video to look at [s]; None for all of it.
        """
        if top_k < 1:
            raise VideoError(f"top_k={top_k}; expected at least 1", field="top_k")
        logits = self.engine.logits(self.prepare(video, between=between))
        ranked = {}
        for head, names in self.classes.items():
            scores = logits[head][0].softmax(-1).tolist()
            order = logits[head][0].argsort(descending=True, stable=True)[:top_k].tolist()  # as metrics rank
            ranked[head] = [Prediction(names[i], scores[i]) for i in order]
        return ranked

    def logits(self, video: Video, *, head: str = "") -> Float[Tensor, " classes"]:
        """Return the logits of a task head in the order of `classes`, in float32 on the CPU.

        With several views they are the logarithm of the views' mean softmax. Arguments are those of `predict`.
        """
        head = self._choose_head(head)
        return self.engine.logits(self.prepare(video))[head][0]

    def features(self, video: Video) -> Float[Tensor, " channels"]:
        """Return the features that the task heads classify, in float32 on the CPU: the mean over the views.

        Raises:
            ModelError: The network has no method `features`.
        """
        return self.engine.features(self.prepare(video))[0]

    def embed(self, videos: Iterable[Video]) -> Float[Tensor, "videos channels"]:
        """Return the features of several videos, one row each.

        Raises:
            VideoError: No video is given.
        """
        if isinstance(videos, str | Path | Mapping | Tensor):
            raise VideoError("embed takes a list of videos; for one, call features", field="videos")
        rows = [self.features(video) for video in videos]
        if not rows:
            raise VideoError("videos: the list is empty; expected at least one video", field="videos")
        return torch.stack(rows)

    def prepare(
        self, video: Video, *, between: tuple[float, float] | None = None
    ) -> dict[Modality, UInt8[Tensor, "views channels time height width"]]:
        """Return the clips of a video for each modality, as `engine` takes them.

        Args:
            video: Video, or one per modality.
            between: Start and end of the part of the video to look at [s]; None for all of it.

        Raises:
            UnreadableVideo: The file is missing or cannot be decoded.
            VideoError: The modalities do not fit the model, or frames in memory have another shape or type.

        Warns:
            MissingStream: A two-stream model gets one modality and predicts from it alone.
        """
        preprocessing = self.trained.preprocessing
        if isinstance(video, Mapping):
            present = tuple(m for m in preprocessing.modalities if m in video)
            if present and present != preprocessing.modalities and self.engine.binding.allows_missing:
                absent = next(m for m in preprocessing.modalities if m not in present)
                preprocessing = self.trained.with_modalities(present).preprocessing
                warnings.warn(f"no {absent} given; predicting from {present[0]} alone", MissingStream, stacklevel=2)
        expected = preprocessing.files
        if not isinstance(video, Mapping):
            if len(expected) > 1:
                raise VideoError(
                    f"the model takes {self._describe_inputs()}. Pass a video for each: {{'rgb': ..., 'depth': ...}}."
                )
            video = {expected[0]: video}
        sources: dict[str, Source] = {str(modality): source for modality, source in video.items()}
        for modality in expected:
            if modality not in sources:
                raise VideoError(f"the model takes {self._describe_inputs()}; {modality} is missing", field=modality)
        for given in sources:
            if given not in expected:
                raise VideoError(f"the model takes {self._describe_inputs()}; got {given} as well", field=given)

        def locate(modality: str) -> str | ArrayFile:
            source = sources[modality]
            if isinstance(source, str | Path):
                if not str(source):
                    raise VideoError(f"{modality}: the path is empty; expected a video", field=modality)
                return str(source)
            return FrameArray(source, preprocessing.read_as("rgb" if modality == "rgb" else "depth"))

        return read_views(
            Entry(
                rgb="rgb" if "rgb" in sources else "",
                depth="depth" if "depth" in sources else "",
                start_s=None if between is None else between[0],
                stop_s=None if between is None else between[1],
            ),
            locate=locate,
            sampling=self.trained.sampling,
            preprocessing=preprocessing,
            read_options=self.read_options,
        )

    def _choose_head(self, head: str) -> str:
        if not head and len(self.classes) == 1:
            return next(iter(self.classes))
        if head not in self.classes:
            heads = ", ".join(self.classes)
            problem = (
                f"unknown task head {head!r}; {did_you_mean(head, self.classes)}"
                if head
                else (f"the model has the task heads {heads}; expected one of them as head=..., or call predict_heads")
            )
            raise VideoError(problem, field="head")
        return head

    def _describe_inputs(self) -> str:
        preprocessing = self.trained.preprocessing
        crop = "" if preprocessing.files == preprocessing.modalities else ", cropped to the person by depth"
        return " and ".join(preprocessing.modalities) + crop
