"""Checkpoints: saving and resuming a training run, and shipping its model."""

import math
from dataclasses import asdict, dataclass, fields, replace

from kinema import __version__
from kinema.data.lengths import longest
from kinema.data.splits import join_caveats
from kinema.errors import RunError
from kinema.evaluation.evaluate import CHOSEN
from kinema.evaluation.predictions import Predictions, save_predictions
from kinema.inference.trained_model import TrainedModel, save_model
from kinema.training.checkpoint_checks import checkpoint_problem
from kinema.training.learner import Learner
from kinema.training.setup import TrainingSetup


@dataclass(kw_only=True)
class TrainingState:
    """Progress of a run: steps taken, best score, evaluations since the best; SHA-256 and name of the start weights."""

    step: int = 0
    best: float = -math.inf
    stale: int = 0
    init_digest: str = ""
    start_weights: str = ""

    def update(self, score: float, *, is_due: bool) -> bool:
        """Record a score, and return whether it is the best, the first of equal ones. Due ones count for patience."""
        is_best = score > self.best
        self.best = score if is_best else self.best
        self.stale = 0 if is_best else self.stale + is_due
        return is_best


def begin_or_resume(setup: TrainingSetup, learner: Learner, init_digest: str) -> TrainingState:
    """Make the run folder, or load its checkpoint into the learner. All processes call this.

    Raises:
        RunError: The checkpoint is damaged or belongs to another manifest, or the folder cannot be written.
    """
    run, manifest, fabric = setup.run, setup.manifest, setup.fabric
    if setup.is_first:
        run.begin()
    run.path = fabric.broadcast(run.path)
    content = run.load_checkpoint()
    state = TrainingState(init_digest=init_digest)
    if content is not None:
        if content["manifest_digest"] != manifest.digest:
            raise RunError(
                f"{run.path}: the run was trained on another version of {manifest.path}. "
                "Restore it, or start a new run.",
                path=run.path,
                field="data.manifest",
            )
        problem = checkpoint_problem(content, learner, steps=setup.schedule.steps)
        if problem is not None:
            raise run.unusable(f"does not fit the run; {problem}")
        learner.load_state(content)
        state = TrainingState(**{field.name: content[field.name] for field in fields(TrainingState)})
    state.start_weights = state.start_weights or setup.start_weights
    if setup.is_first:
        run.truncate_logs(state.step)
    fabric.barrier()  # the first process truncates the logs before any process appends
    return state


def save_checkpoint(setup: TrainingSetup, learner: Learner, state: TrainingState, *, also: list[str]) -> None:
    """Save a checkpoint, also under further names such as `best`.

    All processes call this, and the first one writes.
    """
    learner.sync_eval_model()
    content = asdict(state) | {"manifest_digest": setup.manifest.digest} | learner.state()
    if setup.is_first:
        setup.run.save_checkpoint(content, also=also)
    setup.fabric.barrier()


def ship(setup: TrainingSetup, trained: TrainedModel, predictions: Predictions, state: TrainingState) -> None:
    """Write the model and its predictions to the run folder."""
    recipe, run, manifest = setup.recipe, setup.run, setup.manifest
    skipped, keep = run.skipped(), recipe.checkpoint.keep
    chosen = CHOSEN.format(split=recipe.data.evaluate) if keep == "best" else ""
    caveat = join_caveats(predictions.caveat, chosen)
    provenance: dict[str, str | int | float] = {
        **({"caveat": caveat} if caveat else {}),
        "kinema": __version__,
        "commit": setup.commit,
        "step": state.step,
        "seed": recipe.run.seed,
        "dataset": manifest.dataset,
        "version": manifest.version,
        "manifest_digest": manifest.digest,
        "train": recipe.data.train,
        "evaluate": recipe.data.evaluate,
        "keep": keep,
        "start_weights": state.start_weights,
        "init_digest": state.init_digest,
        "skipped_draws": len(skipped),
        "skipped_samples": len({line["index"] for line in skipped}),
        **longest(manifest.entries[position] for position in setup.train_positions),
    }
    digest = save_model(run.model, replace(trained, provenance=provenance))
    shipped = replace(predictions, weights_digest=digest, start_weights=state.start_weights, caveat=caveat)
    save_predictions(run.predictions, shipped)
    run.point_latest()
