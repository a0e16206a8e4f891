"""Inference engine: clips to logits.

Evaluation during training, `kinema evaluate` and `Recognizer` all use this class, so that equal batches give equal
logits everywhere.
"""

import os
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any, Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from kinema.errors import DeviceError, ModelError
from kinema.layers.folding import evaluation_copy
from kinema.layers.score_fusion import mean_logits
from kinema.modality import Modality
from kinema.models.binding import by_head, input_binding
from kinema.transforms.preprocessing import Preprocessing

Precision = Literal["float32", "bfloat16"]
Device = Literal["auto", "cpu", "cuda", "mps"]


class Engine:
    """Frozen copy of a network with its preprocessing.

    Args:
        model: Any network whose `forward` takes one clip, or `rgb` and `depth`. It is copied and not changed.
        preprocessing: Preprocessing that the network was trained with.
        heads: Number of classes of each task head.
        device: Device to run on.
        precision: Arithmetic precision of the network. Logits are always float32.
        views: Clips per sample, whose scores are averaged.

    Threads may share an engine. A forked process may use its parent's engine on the CPU, and computes on one thread.
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
            raise ValueError(f"views={views}; expected at least 1")
        _compute_after_fork()
        self.owner = os.getpid()
        self.model = evaluation_copy(model).to(device)
        self.binding = input_binding(model)
        self.preprocessing = preprocessing
        self.heads = dict(heads)
        self.device = device
        self.precision = precision
        self.views = views

    @torch.inference_mode()
    def logits(self, inputs: Mapping[Modality, Tensor]) -> dict[str, Float[Tensor, "batch classes"]]:
        """Return the logits of each task head for each sample, in float32 on the CPU.

        With several views they are the logarithm of the views' mean softmax, so that their softmax is the mean score.

        Args:
            inputs: Clip of each modality: uint8, (batch x views, channels, time, height, width). The views of a sample
                are adjacent.

        Raises:
            DeviceError: The engine is on a GPU, and this process was forked after it was made.
        """
        if self.device.type == "cuda" and os.getpid() != self.owner:
            raise DeviceError(
                "a forked process cannot use its parent's model on CUDA; load the model in the process, or start "
                "processes by multiprocessing.get_context('spawn')",
                field="device",
            )
        if self.views == 1:
            return self._network_logits(inputs)
        for modality, clips in inputs.items():
            if len(clips) % self.views:
                raise ValueError(f"{len(clips)} {modality} clips; expected a multiple of {self.views} views")
        # View by view, so that memory does not grow with the number of views.
        parts = [
            self._network_logits({modality: clips[view :: self.views] for modality, clips in inputs.items()})
            for view in range(self.views)
        ]
        return {head: mean_logits([part[head] for part in parts], "softmax") for head in self.heads}

    @torch.inference_mode()
    def features(self, inputs: Mapping[Modality, Tensor]) -> Float[Tensor, "batch channels"]:
        """Return the features that the task heads classify, in float32 on the CPU: the mean over a sample's views.

        Raises:
            ModelError: The network has no method `features`.
        """
        method = getattr(self.model, "features", None)
        if method is None:
            raise ModelError(f"{type(self.model).__name__}: has no method features, which returns the heads' input")
        features: Tensor = rearrange(self._run(method, inputs).float().cpu(), "(b v) c -> b v c", v=self.views).mean(1)
        return features

    def _network_logits(self, inputs: Mapping[Modality, Tensor]) -> dict[str, Float[Tensor, "batch classes"]]:
        output = self._run(self.model, inputs)
        return {head: logits.float().cpu() for head, logits in by_head(output, self.heads).items()}

    def _run(self, method: Callable[..., Any], inputs: Mapping[Modality, Tensor]) -> Any:
        on_device = {modality: clip.to(self.device, non_blocking=True) for modality, clip in inputs.items()}
        bound = self.binding(self.preprocessing.normalize_all(on_device))
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bfloat16"):
            return method(**bound)


@cache
def _compute_after_fork() -> None:
    """Let forked processes of this one compute on one thread: OpenMP's others do not exist there and are waited for."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=partial(torch.set_num_threads, 1))


def choose_device(device: Device) -> torch.device:
    """Return the named device; for `auto`, CUDA if available, else the CPU. Apple's MPS is untested.

    Raises:
        DeviceError: The named device is not available.
    """
    availability = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return torch.device("cuda" if availability["cuda"] else "cpu")
    if not availability[device]:
        names = ", ".join(name for name, is_available in availability.items() if is_available)
        raise DeviceError(f"device {device!r} is not available; expected one of {names}", field="device")
    return torch.device(device)
