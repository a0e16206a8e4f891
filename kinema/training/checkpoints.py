"""Checkpoints of a training: saving, resuming, and shipping a model."""

import math
from dataclasses import dataclass, replace

from kinema import __version__
from kinema.errors import RunError
from kinema.evaluation.predictions import Predictions, save_predictions
from kinema.inference.trained_model import TrainedModel, save_model
from kinema.training.learner import Learner
from kinema.training.setup import TrainingSetup


@dataclass(kw_only=True)
class TrainingState:
    """Progress of a run: steps taken, best score, evaluations since the best, and SHA-256 of the initial weights."""

    step: int = 0
    best: float = -math.inf
    stale: int = 0
    init_digest: str = ""

    def update(self, score: float, *, counts: bool) -> bool:
        """Record the score of an evaluation, which may count for early stopping, and return whether it is the best."""
        is_best = score > self.best
        self.best = max(score, self.best)
        self.stale = 0 if is_best else self.stale + counts
        return is_best


def begin_or_resume(setup: TrainingSetup, learner: Learner, init_digest: str) -> TrainingState:
    """Make the run's folder, or load its checkpoint into the learner. All processes call this.

    Raises:
        RunError: The checkpoint is damaged or from other samples, or the folder cannot be written.
    """
    run, manifest, fabric = setup.run, setup.manifest, setup.fabric
    if setup.is_first:
        run.begin()
    run.path = fabric.broadcast(run.path)
    content = run.load_checkpoint(logs="truncate" if setup.is_first else "leave")
    state = TrainingState(init_digest=init_digest)
    if content is not None:
        if content["manifest_digest"] != manifest.digest:
            raise RunError(
                f"{run.path}: the run used another version of {manifest.path}, with other samples or classes. "
                "Restore it, or start a new run.",
                path=run.path,
                field="data.manifest",
            )
        learner.load_state(content)
        state = TrainingState(**{name: content[name] for name in ("step", "best", "stale", "init_digest")})
    fabric.barrier()  # the first process truncates the logs before any process appends
    return state


def save_checkpoint(setup: TrainingSetup, learner: Learner, state: TrainingState, *, also: list[str]) -> None:
    """Save the state of a training, also under further names such as `best`.

    All processes call this, and the first one writes.
    """
    learner.sync_eval_model()
    content = {
        "step": state.step,
        "best": state.best,
        "stale": state.stale,
        "manifest_digest": setup.manifest.digest,
        "init_digest": state.init_digest,
    }
    content |= learner.state()
    if setup.is_first:
        setup.run.save_checkpoint(content, also=also)
    setup.fabric.barrier()


def ship(setup: TrainingSetup, trained: TrainedModel, predictions: Predictions, state: TrainingState) -> None:
    """Write the model and its predictions to the run's folder."""
    recipe, run, manifest = setup.recipe, setup.run, setup.manifest
    skipped = run.skipped()
    provenance: dict[str, str | int] = {
        "kinema": __version__,
        "commit": setup.commit,
        "step": state.step,
        "seed": recipe.run.seed,
        "dataset": manifest.dataset,
        "version": manifest.version,
        "manifest_digest": manifest.digest,
        "train": recipe.data.train,
        "evaluate": recipe.data.evaluate,
        "init_digest": state.init_digest,
        "skipped_draws": len(skipped),
        "skipped_samples": len({line["index"] for line in skipped}),
    }
    digest = save_model(run.model, replace(trained, provenance=provenance))
    save_predictions(run.predictions, replace(predictions, weights_digest=digest))
    run.point_latest()
