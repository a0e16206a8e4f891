"""Mean of several logits for one sample: of two networks, or of the views of a clip."""

import math
from collections.abc import Sequence
from typing import Literal, assert_never

import torch
from jaxtyping import Float
from torch import Tensor

ScoreFusion = Literal["logits", "softmax"]
"""Average logits or softmax scores."""


def mean_logits(logits: Sequence[Float[Tensor, "batch classes"]], score: ScoreFusion) -> Float[Tensor, "batch classes"]:
    """Return the mean as logits.

    Args:
        logits: Logits of each network or view.
        score: `softmax` averages scores and returns the logarithm of their mean, whose softmax is that mean.
    """
    if len(logits) == 1:
        return logits[0]
    match score:
        case "logits":
            return torch.stack(list(logits)).mean(0)
        case "softmax":
            dtype = torch.promote_types(logits[0].dtype, torch.float32)
            scores = torch.stack([one.log_softmax(-1, dtype=dtype) for one in logits])
            return scores.logsumexp(0) - math.log(len(logits))
        case _:
            assert_never(score)
