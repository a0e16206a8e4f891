"""Frames in memory as a frame source: arrays, tensors and lists of images."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy import ndarray
from PIL.Image import Image
from torch import Tensor

from kinema.errors import VideoError
from kinema.modality import Modality, ReadAs
from kinema.video.array_file import ArrayFile

Frames = ndarray | Tensor | Sequence[ndarray] | Sequence[Tensor] | Sequence[Image]
"""Frames of one video in memory: uint8 RGB, (frames, height, width, 3) or (frames, 3, height, width), or depth in
integers, (frames, height, width). The items of a list are single frames."""


class FrameArray(ArrayFile):
    """Frames in memory, read as the same array in a file is.

    Args:
        frames: Frames of one video.
        read_as: Content of the frames.

    Raises:
        VideoError: The frames have another shape or type.
    """

    def __init__(self, frames: Frames, read_as: ReadAs) -> None:
        self.modality: Modality = "rgb" if read_as == "rgb" else "depth"
        super().__init__(f"{self.modality} frames", read_as=read_as)
        # ArrayFile reads these from its file.
        self.__dict__ |= {"_names": [], "_parts": [], "_array": self._check(self._stack(frames))}

    def _stack(self, frames: Frames) -> ndarray:
        """Return one array of all frames."""
        if isinstance(frames, ndarray | Tensor):
            return self._to_numpy(frames)
        pictures = [self._to_numpy(frame) for frame in (frames if isinstance(frames, Iterable) else [frames])]
        shapes = sorted({picture.shape for picture in pictures})
        if len(shapes) != 1:
            found = " and ".join(map(str, shapes[:2])) or "no frame"
            raise VideoError(f"{self.path}: got {found}; expected frames of one shape", field=self.modality)
        return np.stack(pictures)

    def _to_numpy(self, frames: Any) -> ndarray:
        if isinstance(frames, Image):
            return np.asarray(frames.convert("RGB") if self.modality == "rgb" else frames)
        if not isinstance(frames, ndarray | Tensor):
            raise VideoError(
                f"{self.path}: {type(frames).__name__} {str(frames)[:80]!r}; expected a path, an array, a tensor, or a "
                "list of frames. For several videos, call predict for each, or embed for all.",
                field=self.modality,
            )
        try:
            return frames.detach().cpu().numpy() if isinstance(frames, Tensor) else frames
        except (TypeError, RuntimeError) as error:  # bfloat16, sparse, quantized or meta
            raise VideoError(
                f"{self.path}: a tensor of {frames.dtype} cannot be read ({error}); expected torch.uint8",
                field=self.modality,
            ) from error

    def _check(self, frames: ndarray) -> ndarray:
        has_colors = frames.ndim == 4 and self.read_as != "depth"
        if has_colors and frames.shape[1] == 3 != frames.shape[3]:
            frames = frames.transpose(0, 2, 3, 1)
        elif frames.ndim == 4 and not has_colors and 1 in (frames.shape[1], frames.shape[3]):
            frames = frames.squeeze(3 if frames.shape[3] == 1 else 1)
        fits = frames.shape[3] == 3 if has_colors else frames.ndim == 3 and self.modality == "depth"
        if not fits or 0 in frames.shape:
            colors = "uint8 RGB of shape (frames, height, width, 3) or (frames, 3, height, width)"
            expected = colors if self.modality == "rgb" else "depth of shape (frames, height, width)"
            raise VideoError(f"{self.path}: got shape {frames.shape}; expected {expected}", field=self.modality)
        most = 255 if has_colors else 65535
        if frames.dtype.kind not in "iu" or frames.min() < 0 or frames.max() > most:
            found = f"{frames.dtype} from {frames.min()} to {frames.max()}"
            raise VideoError(f"{self.path}: got {found}; expected integers from 0 to {most}", field=self.modality)
        return frames.astype(np.uint8 if has_colors or frames.dtype == np.uint8 else np.uint16, copy=False)
