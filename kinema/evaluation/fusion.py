"""Late fusion: averages of the scores of several models, and the gain over each model."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, get_args

import numpy as np
import torch

from kinema.evaluation.bootstrap import BOOTSTRAP, Bootstrap
from kinema.evaluation.compare import Comparison, align, compare
from kinema.evaluation.evaluate import Missing
from kinema.evaluation.predictions import Predictions
from kinema.evaluation.summary import Summary, summarize, summary_to_json
from kinema.layers.score_fusion import ScoreFusion, mean_logits


@dataclass(frozen=True, kw_only=True)
class FusionSummary:
    """Metrics of single models and of their fusions.

    Attributes:
        bootstrap: Settings of the intervals.
        models: Summaries by name: single models, then `mean of logits` and `mean of softmax`.
        differences: Paired comparisons of fusions with single models by task head, by `mean of logits - NAME`.
    """

    bootstrap: Bootstrap
    models: Mapping[str, Summary]
    differences: Mapping[str, Mapping[str, Comparison]]

    @property
    def fused(self) -> dict[ScoreFusion, Summary]:
        """Summaries of the fusions by averaged score."""
        return {score: self.models[f"mean of {score}"] for score in get_args(ScoreFusion)}


def fuse(predictions: Sequence[Predictions], *, score: ScoreFusion, missing: Missing = "stop") -> Predictions:
    """Fuse the predictions of several models by the mean of their logits or of their softmaxes.

    The mean of softmaxes is returned as its logarithm. With `missing="allow"`, only samples of all models are used.

    Raises:
        ComparisonError: The samples, their labels or the class lists differ.
    """
    aligned = align(predictions, missing=missing)
    fused = {
        head: mean_logits([torch.from_numpy(p.logits[head].astype(np.float64)) for p in aligned], score).numpy()
        for head in aligned[0].classes
    }
    digest = hashlib.sha256("\n".join([score, *(p.weights_digest for p in aligned)]).encode()).hexdigest()
    protocols = {p.protocol for p in aligned}
    return replace(
        aligned[0],
        logits=fused,
        weights_digest=digest,
        protocol=protocols.pop() if len(protocols) == 1 else None,
        start_weights="; ".join(filter(None, dict.fromkeys(p.start_weights for p in aligned))),
    )


def summarize_fusion(
    predictions: Mapping[str, Predictions], *, bootstrap: Bootstrap = BOOTSTRAP, missing: Missing = "stop"
) -> FusionSummary:
    """Compute the metrics of each model, of their fusions, and the gain of each fusion over each model. See `fuse`."""
    singles = dict(zip(predictions, align(list(predictions.values()), missing=missing), strict=True))
    fused = {f"mean of {score}": fuse(list(singles.values()), score=score) for score in get_args(ScoreFusion)}
    return FusionSummary(
        bootstrap=bootstrap,
        models={name: summarize(p, bootstrap=bootstrap) for name, p in {**singles, **fused}.items()},
        differences={
            f"{fusion} - {name}": compare([mean], [single], bootstrap=bootstrap)
            for fusion, mean in fused.items()
            for name, single in singles.items()
        },
    )


def fusion_to_json(fusion: FusionSummary) -> dict[str, Any]:
    """Return the summaries and differences as plain data."""
    return {
        "models": {name: summary_to_json(summary) for name, summary in fusion.models.items()},
        "differences": {
            name: {head: asdict(comparison) for head, comparison in comparisons.items()}
            for name, comparisons in fusion.differences.items()
        },
    }
