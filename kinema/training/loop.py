"""The training loop, on Lightning Fabric.

Each iteration evaluates, saves and stops if due, then takes one step. All randomness is a function of the seed and the
step, so on a CPU a resumed run gives the same
result as an uninterrupted one, to the bit.
"""

import time
from contextlib import closing
from typing import Literal

from torch import nn

from kinema.data.loaders import ClipLoader
from kinema.evaluation.evaluate import predict_split
from kinema.evaluation.predictions import Predictions, measure
from kinema.inference.trained_model import TrainedModel
from kinema.training.checkpoints import begin_or_resume, save_checkpoint, ship
from kinema.training.distributed import all_gather, gather_predictions
from kinema.training.initialize import initialize_model
from kinema.training.learner import Learner
from kinema.training.loaders import make_loaders, readable_batch
from kinema.training.loggers import TrainingLogger
from kinema.training.messages import evaluation_message, init_messages, plan_message, rate_messages, run_message
from kinema.training.optimizer import learning_rate
from kinema.training.plan import Plan, make_plan
from kinema.training.recipe import Recipe
from kinema.training.runs import Run
from kinema.training.schedule import score
from kinema.training.setup import TrainingSetup
from kinema.training.step import training_step
from kinema.training.stopping import StopRequests


def train(
    recipe: Recipe,
    run: Run | None = None,
    *,
    model: nn.Module | None = None,
    max_steps: int | None = None,
    progress: Literal["none", "bar"] = "none",
) -> Run:
    """Train a network and return its run, which `Recognizer.load` reads. Messages go to the logger `kinema`.

    Args:
        recipe: Settings of the run.
        run: Run to write, or to resume if it has a checkpoint. None makes a new one.
        model: Your own network, instead of the recipe's.
        max_steps: Number of steps after which to stop. The learning-rate schedule does not change.
        progress: `bar` prints a progress bar and the messages to stderr.

    Raises:
        RecipeError: The recipe does not fit the manifest, the network or the number of processes.
        StartError: The initial weights or the parts to freeze do not fit the network.
        RunError: The run to resume used another manifest, or its folder cannot be written.
        UnreadableSample: A sample cannot be read, and the recipe does not skip it.
        NonFiniteLoss: The loss or the gradient is not finite. The weights do not change.
        TrainingStopped: A signal stopped the training after a checkpoint was saved.
    """
    setup = TrainingSetup.build(recipe, run, model=model, max_steps=max_steps)
    run, schedule, fabric = setup.run, setup.schedule, setup.fabric
    init_report = initialize_model(setup)
    learner = Learner(fabric, setup.model, recipe)
    trained = setup.trained_model(learner.eval_model)
    state = begin_or_resume(setup, learner, init_report.load.digest if init_report.load else "")
    start = state.step
    train_loader, eval_loader = make_loaders(setup, start=start, last=schedule.last)
    logger = TrainingLogger(run, recipe, steps=schedule.last, start=start, is_first=setup.is_first, progress=progress)
    stop, clock = 0, time.perf_counter()
    with closing(run), logger, closing(train_loader), closing(eval_loader), StopRequests() as requests:
        batches = iter(train_loader)
        logger.log(run_message(run.path, start=start, schedule=schedule, start_weights=state.start_weights))
        logger.log(*init_messages(init_report, setup.model), *_rate_messages(setup), plan_message(_plan(setup)))
        for step in range(start, schedule.last + 1):
            # -- evaluate, save, stop ----------------------------------------------------------------------------
            state.step, names = step, list[str]()
            evaluates = step > start and schedule.should_evaluate(step)
            if evaluates:
                learner.sync_eval_model()
                predictions = _evaluate(setup, trained, eval_loader)
                measures = dict(measure(predictions))
                is_best = state.update(score(measures, recipe.checkpoint.metric), is_due=schedule.is_due(step))
                names += ["best"] if is_best else []
                logger.log_evaluation(step, measures)
                logger.log(evaluation_message(step, measures, run.skipped(), predictions.caveat))
                if setup.is_first and (is_best or recipe.checkpoint.keep == "last"):
                    ship(setup, trained, predictions, state)
            if schedule.should_keep(step):
                names.append(f"step-{step:06d}")
            if step > start and (evaluates or names or stop or schedule.should_save(step)):
                save_checkpoint(setup, learner, state, also=names)
                logger.flush()
                clock = time.perf_counter()
            if schedule.is_over(step, stale=state.stale):
                break
            if stop:
                raise setup.stop_error(step, stop)

            # -- one step ----------------------------------------------------------------------------------------
            batch = readable_batch(setup, next(batches), step)
            waited = time.perf_counter() - clock
            shares = all_gather(fabric, [0 if batch is None else len(batch["index"]), requests.signal])
            share_sizes, stop = [int(size) for size, _ in shares], int(max(signal for _, signal in shares))
            if batch is None or not all(share_sizes):
                continue  # all processes skip a step in which one has no sample
            lr = learning_rate(step, optim=recipe.optim, steps=schedule.steps, warmup_steps=schedule.warmup_steps)
            learner.set_lr(lr)
            loss = training_step(setup, learner, batch, step=step, share_sizes=share_sizes)

            # -- log ---------------------------------------------------------------------------------------------
            took, clock, samples = time.perf_counter() - clock, time.perf_counter(), sum(share_sizes)
            line = {"loss": loss, "lr": lr, "clips_per_s": samples / took, "data_wait": waited / took}
            logger.log_step(step + 1, line, skipped=recipe.data.batch_size - samples)
    return run


def _rate_messages(setup: TrainingSetup) -> list[str]:
    rates = setup.manifest.rates(setup.train_positions)
    return rate_messages(setup.sampling, rates, setup.manifest.path)


def _plan(setup: TrainingSetup) -> Plan:
    fabric = setup.fabric
    with setup.training_threads():
        return make_plan(
            setup.model,
            setup.recipe,
            steps=setup.schedule.steps,
            num_processes=fabric.world_size,
            device=fabric.device,
        )


def _evaluate(setup: TrainingSetup, trained: TrainedModel, loader: ClipLoader) -> Predictions:
    """Return the predictions on the evaluation split, from all processes."""
    own = None
    if setup.own_eval_positions:  # a process may have none if there are fewer samples than processes
        own = predict_split(
            trained,
            loader,
            setup.manifest,
            split=setup.recipe.data.evaluate,
            missing="stop",
            device=setup.fabric.device,
            positions=setup.own_eval_positions,
        )
    return gather_predictions(setup.fabric, own, setup.manifest, setup.run.path)
