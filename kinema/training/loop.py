"""train(recipe, run): one straight function on Lightning Fabric.

Each turn of the loop reads: maybe evaluate, maybe save, maybe stop, then one step. All randomness is a function of the
recipe's seed and the step, so that a resumed run repeats what an uninterrupted one would have done.
"""

import math
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import nn
from torch.utils.data import DataLoader

from kinema import __version__
from kinema.data.loaders import Batch, LoadedBatch, complete, to_device
from kinema.data.manifest import Manifest
from kinema.data.samplers import TrainingBatches
from kinema.errors import NonFiniteLoss, RecipeError, RunError, StreamError, TrainingStopped, UnreadableSample
from kinema.evaluation.evaluate import predict_split
from kinema.evaluation.predictions import Predictions, Protocol, measure, save_predictions
from kinema.inference.engine import by_head
from kinema.inference.trained_model import TrainedModel, save_model
from kinema.models.binding import InputBinding, input_binding
from kinema.training.calibration import calibrate, first_inputs
from kinema.training.learner import Learner
from kinema.training.loaders import checked_samples, own_loaders, parts_of, training_batches, weights_of_classes
from kinema.training.optim import learning_rate, loss_of_heads
from kinema.training.plan import Plan, make_plan
from kinema.training.processes import exchanged, join, together
from kinema.training.recipe import Recipe
from kinema.training.runs import Run, commit
from kinema.training.schedule import Schedule, check_metric, score
from kinema.training.start import freeze, start_from, still_parts
from kinema.training.stopping import StopRequests
from kinema.training.watching import Watch, check_loggers
from kinema.transforms.preprocessing import Preprocessing

MANY_SKIPPED = 32
"""Draws that may be skipped before a training that skips more than it reads is stopped."""


def train(
    recipe: Recipe,
    run: Run | None = None,
    *,
    model: nn.Module | None = None,
    max_steps: int | None = None,
) -> Run:
    """Train a network, and leave a run folder that holds it.

    Args:
        recipe: every number of the run.
        run: the folder to write to, or to resume from where it holds a checkpoint; a new one where None.
        model: a network of the user's own in place of the recipe's.
        max_steps: stop after this many steps; the schedule is that of the whole run.

    Returns:
        The run; `run.artefact` loads with `Recognizer.load`.

    Raises:
        RecipeError: the recipe does not fit the manifest, the network or the processes.
        StartError: the weights to start from, or the parts to freeze, do not fit the network.
        RunError: the run that is to go on was made from another manifest, or cannot be written.
        UnreadableSample: a sample cannot be read, and the recipe does not say to skip it.
        NonFiniteLoss: before the weights are touched by it.
        TrainingStopped: a signal asked for it; the checkpoint is of the step after which it came.
    """
    if max_steps is not None and max_steps < 1:
        raise RecipeError(f"max_steps={max_steps} must be at least 1")

    # -- what there is -------------------------------------------------------------------------------------------
    check_loggers(recipe.run.loggers)
    manifest = recipe.open_manifest()
    check_metric(recipe, manifest)
    positions, held_out = checked_samples(recipe, manifest)
    run = run or Run.create(recipe, name=Path(recipe.data.manifest).stem)
    fabric = join(recipe)
    first = fabric.is_global_zero
    torch.manual_seed(recipe.run.seed)
    preprocessing = recipe.clip.preprocessing(manifest.depth)
    own = model is not None
    model = model or _built(recipe, manifest, preprocessing)
    binding = input_binding(model)
    _check_streams(binding, preprocessing)
    said, init_digest = _begin_from(model, recipe, manifest, run)
    if recipe.run.init_calibration_batches is not None and not run.resumes:
        said.append(_calibrated(model, recipe, manifest, positions, fabric, preprocessing, binding))
    learner = Learner(fabric, model, recipe)
    artefact = TrainedModel(
        model=learner.shipped,
        config=None if own else recipe.model,
        classes=manifest.classes,
        sampling=recipe.clip.frame_sampling(),
        preprocessing=preprocessing,
        precision=recipe.run.precision,
    )
    weights = weights_of_classes(recipe, manifest, positions)

    # -- where to start and when to stop -------------------------------------------------------------------------
    schedule = Schedule.of(recipe, samples=len(positions), max_steps=max_steps)
    if first:
        run.begin()
    run.path = fabric.broadcast(run.path)
    start, best, stale, init_digest = _go_on(run, learner, manifest, first, init_digest)
    fabric.barrier()  # the logs are cut back before any process adds to them

    training = training_batches(recipe, manifest, positions, start=start, last=schedule.last)
    loader, evaluating, share = own_loaders(recipe, manifest, training, held_out, fabric)
    batches = iter(loader)
    watch = Watch(run, recipe, steps=schedule.last, start=start, first=first)
    code = commit()  # asked once: the source may move on while a training runs
    stop, clock = 0, time.perf_counter()
    with watch, StopRequests() as requests:
        watch.say(f"run: {run.path}, from step {start} to {schedule.last} of {schedule.steps}", *said)
        watch.say(f"plan: {_plan(model, recipe, schedule, fabric)}")
        for step in range(start, schedule.last + 1):
            # -- evaluate, save, stop ----------------------------------------------------------------------------
            evaluates, names = step > start and schedule.evaluates(step), []
            if evaluates:
                learner.gather()
                predictions = _answers(fabric, artefact, evaluating, manifest, share, recipe, run)
                measures = dict(measure(predictions))
                reached = score(measures, recipe.run.metric)
                names = ["best"] if reached > best else []
                best, stale = max(reached, best), 0 if names else stale + schedule.counts(step)
                watch.evaluated(step, measures)
                if first and (names or recipe.run.keep == "last"):
                    origin = _provenance(recipe, run, manifest, step, code, init_digest)
                    digest = save_model(run.artefact, replace(artefact, provenance=origin))
                    save_predictions(run.predictions, predictions.with_weights_digest(digest))
                    run.point_latest()
            if schedule.keeps(step):
                names.append(f"step-{step:06d}")
            if step > start and (evaluates or names or stop or schedule.saves(step)):
                learner.gather()
                standing = {"step": step, "best": best, "stale": stale, "manifest_digest": manifest.digest}
                standing |= {"init_digest": init_digest} | learner.state()
                if first:
                    run.save_checkpoint(standing, also=names)
                    watch.saved()
                fabric.barrier()
                clock = time.perf_counter()
            if schedule.ends(step, stale=stale):
                break
            if stop:
                raise _stopped(step, run, stop)

            # -- one step ----------------------------------------------------------------------------------------
            read = _readable(next(batches), recipe, run, manifest, step, fabric.world_size)
            waited = time.perf_counter() - clock
            everyone = exchanged(fabric, [0 if read is None else len(read["index"]), requests.signal])
            samples, stop = sum(int(row[0]) for row in everyone), max(int(row[1]) for row in everyone)
            if read is None or not all(row[0] for row in everyone):
                continue  # skipped, and counted; where one process has nothing to read, none takes the step
            batch = to_device(read, fabric.device)
            torch.manual_seed(_step_seed(recipe.run.seed, step, fabric.global_rank))  # dropout, too, follows the step
            lr = learning_rate(step, optim=recipe.optim, steps=schedule.steps, warmup_steps=schedule.warmup_steps)
            learner.set_rate(lr)
            learner.optimizer.zero_grad()
            loss = 0.0
            with _threads(recipe.run.cpu_threads):
                # As many in every process, since each of them is met by the others where the weights are shared out.
                parts = min(recipe.optim.accumulate, *(int(row[0]) for row in everyone))
                for part, last in parts_of(batch, parts):
                    with fabric.no_backward_sync(learner.network, enabled=not last):
                        inputs = binding(preprocessing.normalize_all(part["inputs"]))
                        logits = by_head(learner.network(**inputs), manifest.heads)
                        part_loss = loss_of_heads(
                            logits, part["targets"], label_smoothing=recipe.optim.label_smoothing, weights=weights
                        )
                        part_loss = part_loss * (len(part["index"]) / samples)
                        # Gradients of processes are averaged; each sample of the whole batch is to weigh the same.
                        fabric.backward(part_loss * fabric.world_size)
                        loss += part_loss.item()
                loss = sum(row[0] for row in exchanged(fabric, [loss]))
                _refuse_non_finite("loss", loss, step, training, manifest)
                _refuse_non_finite("norm of the gradient", learner.clip(), step, training, manifest)
                learner.step()

            # -- log ---------------------------------------------------------------------------------------------
            took = time.perf_counter() - clock
            clock = time.perf_counter()
            line = {"loss": loss, "lr": lr, "clips_per_s": samples / took, "data_wait": waited / took}
            watch.stepped(step + 1, line, skipped=recipe.data.batch_size - samples)
    return run


def _built(recipe: Recipe, manifest: Manifest, preprocessing: Preprocessing) -> nn.Module:
    try:
        return recipe.model.build(
            heads=manifest.heads,
            channels=preprocessing.channels,
            frames=recipe.clip.frames,
            size=recipe.clip.size,
        )
    except StreamError as error:
        raise RecipeError(f"clip.{error}") from error


def _check_streams(binding: InputBinding, preprocessing: Preprocessing) -> None:
    if len(preprocessing.modalities) > len(binding.arguments):
        raise RecipeError(
            f"clip.modalities={preprocessing.modalities}, but {binding.network} has one stream; choose one modality"
        )


def _begin_from(model: nn.Module, recipe: Recipe, manifest: Manifest, run: Run) -> tuple[list[str], str]:
    """Weights to start from and parts that stay as they are: what there is to say of both, and the weights' digest.

    A run that goes on has its weights; those that it started from may be gone by now.
    """
    said: list[str] = []
    digest = ""
    if not recipe.run.init and (recipe.run.init_blocks or recipe.run.init_ignore):
        raise RecipeError("run: init_blocks and init_ignore are for ViT's weights, but init names none")
    if not recipe.run.init and recipe.run.init_calibration_batches is not None:
        raise RecipeError("run: init_calibration_batches is for weights that are loaded, but init names none")
    if recipe.run.init and not run.resumes:
        started = start_from(
            model,
            recipe.run.init,
            classes=manifest.classes,
            unmatched=recipe.run.init_unmatched,
            blocks=recipe.run.init_blocks,
            ignore=recipe.run.init_ignore,
        )
        said += started.lines()
        digest = started.digest
    if recipe.run.freeze:
        frozen = freeze(model, recipe.run.freeze)
        said.append(f"frozen: {len(frozen)} of {len(list(model.parameters()))} tensors of weights")
        for module in still_parts(model):
            module.eval()
    return said, digest


def _calibrated(
    model: nn.Module,
    recipe: Recipe,
    manifest: Manifest,
    positions: list[int],
    fabric: Fabric,
    preprocessing: Preprocessing,
    binding: InputBinding,
) -> str:
    """BatchNorm set by the first training batches; a run that goes on has done so. What there is to say of it."""
    count = recipe.run.init_calibration_batches
    assert count is not None
    inputs = first_inputs(
        recipe, manifest, positions, fabric, preprocessing=preprocessing, binding=binding, batches=count
    )
    with _threads(recipe.run.cpu_threads):
        done = calibrate(model.to(fabric.device), inputs, fabric)
    return f"{done}, on {count} {'batch' if count == 1 else 'batches'}"


def _go_on(
    run: Run, learner: Learner, manifest: Manifest, first: bool, init_digest: str
) -> tuple[int, float, int, str]:
    """Of a checkpoint if there is: the step to begin at, the best score so far, and how many evaluations ago that was.

    And the digest of the weights that the run started from.

    Raises:
        RunError: the checkpoint is of other samples, or cannot be read.
    """
    state = run.load_checkpoint(logs="cut back" if first else "leave")
    if state is None:
        return 0, -math.inf, 0, init_digest
    if state["manifest_digest"] != manifest.digest:
        raise RunError(f"{run.path}: was made from another state of {manifest.path}; its samples or classes differ")
    learner.restore(state)
    return state["step"], state["best"], state["stale"], state["init_digest"]


def _plan(model: nn.Module, recipe: Recipe, schedule: Schedule, fabric: Fabric) -> Plan:
    with _threads(recipe.run.cpu_threads):
        return make_plan(
            model,
            channels=recipe.clip.preprocessing(None).channels,
            frames=recipe.clip.frames,
            size=recipe.clip.size,
            steps=schedule.steps,
            batch_size=recipe.data.batch_size,
            processes=fabric.world_size,
            parts=recipe.optim.accumulate,
            states=2 if recipe.optim.optimizer == "adamw" else 1,
            device=fabric.device,
            activations=recipe.run.activations,
            precision=recipe.run.precision,
            averaged=recipe.optim.ema_decay is not None,
        )


def _answers(
    fabric: Fabric,
    artefact: TrainedModel,
    evaluating: DataLoader[LoadedBatch],
    manifest: Manifest,
    share: list[int],
    recipe: Recipe,
    run: Run,
) -> Predictions:
    """What all processes together say of the evaluated split."""
    own = None
    if share:  # of few samples a process may have none
        own = predict_split(
            artefact.engine(fabric.device),
            evaluating,
            manifest,
            split=recipe.data.evaluate,
            missing="stop",
            protocol=Protocol.of(artefact),
            positions=share,
        )
    return together(fabric, own, manifest, run.path)


@contextmanager
def _threads(wanted: int | None) -> Iterator[None]:
    """So many threads for what is inside; evaluations outside count as everywhere else, and round as everywhere."""
    usual = torch.get_num_threads()
    torch.set_num_threads(wanted or usual)
    try:
        yield
    finally:
        torch.set_num_threads(usual)


def _provenance(
    recipe: Recipe, run: Run, manifest: Manifest, step: int, code: str, init_digest: str
) -> dict[str, str | int]:
    return {
        "kinema": __version__,
        "commit": code,
        "step": step,
        "seed": recipe.run.seed,
        "corpus": manifest.corpus,
        "version": manifest.version,
        "manifest_digest": manifest.digest,
        "train": recipe.data.train,
        "evaluate": recipe.data.evaluate,
        "init_digest": init_digest,
        "skipped_draws": len(run.skipped()),
        "skipped_samples": len({line["index"] for line in run.skipped()}),
    }


def _readable(
    loaded: LoadedBatch, recipe: Recipe, run: Run, manifest: Manifest, step: int, processes: int
) -> Batch | None:
    """The batch; where the recipe says so without the samples that cannot be read, which are logged; or none of it.

    Raises:
        UnreadableSample: a sample cannot be read and the recipe says `stop`, or more are skipped than are read.
    """
    if recipe.data.unreadable == "stop":
        return complete(loaded)
    for failure in loaded.failures:
        run.log_skipped({"step": step + 1, "index": failure.index, "reason": failure.message})
    skipped, drawn = len(run.skipped()) if loaded.failures else 0, (step + 1) * recipe.data.batch_size
    if skipped > max(drawn / 2, MANY_SKIPPED * processes):
        raise UnreadableSample(
            f"{manifest.path}: {skipped} of {drawn} draws could not be read, the last one: "
            f"{loaded.failures[-1].message}; `kinema check` lists what is broken"
        )
    return loaded.batch


def _stopped(step: int, run: Run, signal: int) -> TrainingStopped:
    again = f"kinema train --resume {shlex.quote(str(run.path))}"
    return TrainingStopped(f"stopped at step {step}; go on with: {again}", signal)


def _step_seed(seed: int, step: int, process: int) -> int:
    """Of the random numbers that the network itself draws in a step, other ones in each process."""
    return (seed + 1) * 1_000_003 + step + 1_000_000_007 * process


def _refuse_non_finite(what: str, value: float, step: int, training: TrainingBatches, manifest: Manifest) -> None:
    if not math.isfinite(value):
        lines = ", ".join(str(manifest.entries[draw.index].line) for draw in training.batch(step))
        raise NonFiniteLoss(
            f"{what} is {value} at step {step + 1}; the weights are as before it; batch: {manifest.path}, lines {lines}"
        )
