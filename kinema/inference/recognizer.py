"""Recognizer: a trained model, put to work on files."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from kinema.data.dataset import read_clips
from kinema.data.manifest import Entry, Modality
from kinema.inference.artefact import Artefact, load_artefact
from kinema.inference.engine import Device, choose_device

Video = str | Path | Mapping[Modality, str | Path]


class VideoError(ValueError):
    """Videos that do not fit what the model sees."""


class Prediction(NamedTuple):
    """A class and its probability (softmax over the classes of its task head)."""

    label: str
    score: float


class Recognizer:
    """Names the action in a video.

    >>> from kinema import Recognizer
    >>> recognizer = Recognizer.load("runs/latest")  # doctest: +SKIP
    >>> recognizer("video.mp4", top_k=5)  # doctest: +SKIP
    [Prediction(label='cartwheel', score=0.98...), ...]

    Args:
        artefact: what a training made.
        device: where it computes.
    """

    def __init__(self, artefact: Artefact, *, device: Device = "auto") -> None:
        self.artefact = artefact
        self.engine = artefact.engine(choose_device(device))

    @classmethod
    def load(cls, path: str | Path, *, model: nn.Module | None = None, device: Device = "auto") -> "Recognizer":
        """Load a run or an artefact.

        Args:
            path: the folder.
            model: the network, where the artefact holds the weights of the user's own.
            device: where it computes.

        Raises:
            ArtefactError: something is missing, broken, or does not fit.
        """
        return cls(load_artefact(path, model=model), device=device)

    @property
    def classes(self) -> Mapping[str, tuple[str, ...]]:
        """Class names of each task head."""
        return self.artefact.classes

    def prepare(self, video: Video) -> dict[Modality, Tensor]:
        """The clips that the model sees of a video: bytes, (1, channels, time, height, width) for each modality.

        Raises:
            UnreadableVideo: the file is missing or cannot be decoded.
            VideoError: a modality that the model wants is not given.
        """
        modalities = self.artefact.preprocessing.modalities
        if isinstance(video, str | Path):
            if len(modalities) > 1:
                raise VideoError(f"the model sees {' and '.join(modalities)}: give a file for each")
            video = {modalities[0]: video}
        missing = [m for m in modalities if m not in video]
        if missing:
            raise VideoError(f"the model sees {' and '.join(modalities)}; no {missing[0]} file is given")
        unseen = [m for m in video if m not in modalities]
        if unseen:
            raise VideoError(f"the model sees {' and '.join(modalities)}, and nothing of the {unseen[0]} file given")
        clips = read_clips(
            Entry(rgb=str(video.get("rgb", "")), depth=str(video.get("depth", ""))),
            locate=str,
            sampling=self.artefact.sampling,
            preprocessing=self.artefact.preprocessing,
        )
        return {modality: clip.unsqueeze(0) for modality, clip in clips.items()}

    def predict(self, video: Video, *, top_k: int = 5) -> dict[str, list[Prediction]]:
        """The likeliest classes of each task head, best first; fewer than `top_k` where there are fewer.

        Args:
            video: a file or URL, or one for each modality: `{"rgb": ..., "depth": ...}`.
            top_k: how many, at least 1.

        Raises:
            UnreadableVideo: the file is missing or cannot be decoded.
        """
        if top_k < 1:
            raise VideoError(f"top_k={top_k} must be at least 1")
        logits = self.engine.logits(self.prepare(video))
        return {head: self._ranked(head, logits[head][0], top_k) for head in self.classes}

    def __call__(self, video: Video, *, top_k: int = 5) -> list[Prediction] | dict[str, list[Prediction]]:
        """As `predict`; a model with one task head answers with its list alone."""
        ranked = self.predict(video, top_k=top_k)
        return next(iter(ranked.values())) if len(ranked) == 1 else ranked

    def _ranked(self, head: str, logits: Tensor, top_k: int) -> list[Prediction]:
        names = self.classes[head]
        scores, order = torch.topk(logits.softmax(-1), k=min(top_k, len(names)))
        return [Prediction(names[i], score) for score, i in zip(scores.tolist(), order.tolist(), strict=True)]
