"""The mean of several answers to one sample: of two networks, or of the views of a clip."""

import math
from collections.abc import Sequence
from typing import Literal, assert_never

import torch
from jaxtyping import Float
from torch import Tensor

ScoreFusion = Literal["logits", "softmax"]
"""Average logits, or softmax scores."""


def mean_logits(
    answers: Sequence[Float[Tensor, "batch classes"]], score: ScoreFusion
) -> Float[Tensor, "batch classes"]:
    """Return the mean of several answers as logits.

    Args:
        answers: logits of each network or view.
        score: `softmax` averages scores and returns the logarithm of their mean, whose softmax is that mean.
    """
    if len(answers) == 1:
        return answers[0]
    match score:
        case "logits":
            return torch.stack(list(answers)).mean(0)
        case "softmax":
            dtype = torch.promote_types(answers[0].dtype, torch.float32)
            return torch.stack([a.log_softmax(-1, dtype=dtype) for a in answers]).logsumexp(0) - math.log(len(answers))
        case _:
            assert_never(score)
