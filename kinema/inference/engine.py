"""Views to logits: the only way from a sample to an answer.

Training's evaluation, `kinema evaluate`, `Recognizer` and all that comes after them call this one class on the same
evaluation-mode copy of the network, so that equal batches give equal logits wherever they are asked for.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kinema.errors import DeviceError
from kinema.layers.folding import evaluation_copy
from kinema.layers.score_fusion import mean_logits
from kinema.modality import Modality
from kinema.models.binding import by_head, input_binding
from kinema.transforms.preprocessing import Preprocessing

Precision = Literal["float32", "bfloat16"]
Device = Literal["auto", "cpu", "cuda", "mps"]


class Engine:
    """A frozen copy of a network, with the preprocessing that it was trained with.

    Args:
        model: any network that follows the model call; it is copied, folded and left as it was.
        preprocessing: turns bytes into the numbers that the network gets.
        heads: number of classes of each task head.
        device: where the copy computes.
        precision: of the network's arithmetic; logits are float32 in any case.
        views: clips of each sample, whose scores are averaged.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        preprocessing: Preprocessing,
        heads: Mapping[str, int],
        device: torch.device,
        precision: Precision,
        views: int = 1,
    ) -> None:
        if views < 1:
            raise ValueError(f"views={views} must be at least 1")
        self.model = evaluation_copy(model).to(device)
        self.binding = input_binding(model)
        self.preprocessing = preprocessing
        self.heads = dict(heads)
        self.device = device
        self.precision = precision
        self.views = views

    @torch.inference_mode()
    def logits(self, inputs: Mapping[Modality, Tensor]) -> dict[str, Float[Tensor, "batch classes"]]:
        """Logits of each task head for each sample, float32, on the CPU.

        Of one view they are the network's own. Of several they are the logarithm of the mean of the views' softmax, so
        that their softmax is the mean score.

        Args:
            inputs: bytes, (batch x views, channels, time, height, width) for each modality; the views of a sample
                follow one another.
        """
        if self.views == 1:
            return self._network_logits(inputs)
        for modality, clips in inputs.items():
            if len(clips) % self.views:
                raise ValueError(f"{len(clips)} {modality} clips are no whole samples of {self.views} views each")
        # View by view: it takes the memory of the batch that was asked for, not of all its views.
        parts = [
            self._network_logits({modality: clips[view :: self.views] for modality, clips in inputs.items()})
            for view in range(self.views)
        ]
        return {head: mean_logits([part[head] for part in parts], "softmax") for head in self.heads}

    def _network_logits(self, inputs: Mapping[Modality, Tensor]) -> dict[str, Float[Tensor, "batch classes"]]:
        on_device = {modality: clip.to(self.device, non_blocking=True) for modality, clip in inputs.items()}
        bound = self.binding(self.preprocessing.normalize_all(on_device))
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bfloat16"):
            answer = self.model(**bound)
        return {head: logits.float().cpu() for head, logits in by_head(answer, self.heads).items()}


def choose_device(device: Device) -> torch.device:
    """CUDA where it is there, else the CPU; or the one that is named. Apple's MPS is untried, so it must be named.

    Raises:
        DeviceError: the named one is not there.
    """
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return torch.device("cuda" if there["cuda"] else "cpu")
    if not there[device]:
        available = ", ".join(name for name, is_there in there.items() if is_there)
        raise DeviceError(f"device {device!r} is not available; expected one of {available}", field="device")
    return torch.device(device)
