"""train(recipe, run): one straight function on Lightning Fabric.

Each turn of the loop reads: maybe evaluate, maybe save, maybe stop, then one step. All randomness is a function of the
recipe's seed and the step, so that a resumed run repeats what an uninterrupted one would have done.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import torch
from lightning_fabric import Fabric
from torch import nn
from torch.utils.data import DataLoader

from kinema import __version__
from kinema.data.dataset import (
    Batch,
    Loaded,
    TrainingBatches,
    UnreadableSample,
    VideoDataset,
    check_uncounted,
    complete,
    evaluation_batches,
    make_loader,
    to_device,
)
from kinema.data.manifest import Manifest
from kinema.evaluation.evaluate import Protocol, check_declared, measure, predict_all, save_predictions
from kinema.inference.artefact import OWN, Artefact, save_artefact
from kinema.inference.engine import Precision, by_head, choose_device
from kinema.models.fusion import input_binding
from kinema.models.zoo import build_model, config_kind
from kinema.training.optim import learning_rate, loss_of_heads, make_optimizer
from kinema.training.progress import TrainingProgress
from kinema.training.recipe import Recipe, RecipeError
from kinema.training.runs import Run, RunError, commit

PRECISION: dict[Precision, Literal["32-true", "bf16-mixed"]] = {"float32": "32-true", "bfloat16": "bf16-mixed"}
"""Our names -> Fabric's."""


MANY_SKIPPED = 32
"""Draws that may be skipped before a training that skips more than it reads is stopped."""


class NonFiniteLoss(RuntimeError):
    """The loss is no number; the message names the step and the manifest's lines of the batch."""


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
        RecipeError: the recipe does not fit the manifest or the network.
        RunError: the run that is to go on was made from another manifest.
        UnreadableSample: a sample cannot be read, and the recipe does not say to skip it.
        NonFiniteLoss: before the weights are touched by it.
    """
    if max_steps is not None and max_steps < 1:
        raise RecipeError(f"max_steps={max_steps} must be at least 1")

    # -- what there is -------------------------------------------------------------------------------------------
    manifest = recipe.open_manifest()
    positions, held_out = _samples(recipe, manifest)
    device = choose_device(recipe.run.device)
    fabric = Fabric(accelerator=device.type, devices=1, precision=PRECISION[recipe.run.precision])

    torch.manual_seed(recipe.run.seed)
    preprocessing = recipe.clip.preprocessing(manifest.depth)
    own = model is not None
    model = model or build_model(
        recipe.model,
        heads=manifest.heads,
        channels=preprocessing.channels,
        frames=recipe.clip.frames,
        size=recipe.clip.size,
    )
    binding = input_binding(model)
    if len(preprocessing.modalities) > len(binding.arguments):
        raise RecipeError(
            f"clip.modalities={preprocessing.modalities}, but {binding.network} has one stream; choose one modality"
        )
    network, optimizer = fabric.setup(model, make_optimizer(model, recipe.optim))

    # -- where to start and when to stop -------------------------------------------------------------------------
    steps_per_epoch = len(positions) / recipe.data.batch_size
    steps = max(1, math.ceil(recipe.optim.epochs * steps_per_epoch))
    warmup_steps = round(recipe.optim.warmup_epochs * steps_per_epoch)
    evaluate_every = max(1, round(recipe.run.evaluate_every_epochs * steps_per_epoch))
    last = steps if max_steps is None else min(steps, max_steps)
    run = run or Run.create(recipe, name=Path(recipe.data.manifest).stem)
    run.begin()
    state = run.load_checkpoint()
    start, best = 0, -math.inf
    if state is not None:
        if state["manifest_digest"] != manifest.digest:
            raise RunError(f"{run.path}: was made from another state of {manifest.path}; its samples or classes differ")
        start, best = state["step"], state["best"]
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])

    training, evaluating = _loaders(recipe, manifest, positions, held_out, start, last, device)
    batches = iter(training)
    code = commit()  # asked once: the source may move on while a training runs
    clock = time.perf_counter()
    with TrainingProgress(steps=last, done=start) as progress:
        progress.console.print(f"run: {run.path}, from step {start} to {last} of {steps}", highlight=False)
        for step in range(start, last + 1):
            # -- evaluate, save, stop ----------------------------------------------------------------------------
            if step > start and (step % evaluate_every == 0 or step == last):
                artefact = Artefact(
                    model=model,
                    kind=OWN if own else config_kind(recipe.model),
                    config={} if own else asdict(recipe.model),
                    classes=manifest.classes,
                    sampling=recipe.clip.frame_sampling(),
                    preprocessing=preprocessing,
                    precision=recipe.run.precision,
                    provenance=_provenance(recipe, run, manifest, step, code),
                )
                predictions = predict_all(
                    artefact.engine(device),
                    evaluating,
                    manifest,
                    split=recipe.data.evaluate,
                    missing="stop",
                    protocol=Protocol.of(artefact),
                )
                measures = dict(measure(predictions))
                run.log_metrics({"step": step, **measures})
                progress.evaluated(step=step, measures=measures, skipped=run.skipped())
                score = measures["top1" if len(manifest.heads) == 1 else "joint.top1"]
                if score > best or recipe.run.keep == "last":
                    best = score
                    digest = save_artefact(run.artefact, artefact)
                    save_predictions(run.predictions, predictions.of_weights(digest))
                    run.point_latest()
                run.save_checkpoint(
                    {
                        "step": step,
                        "best": best,
                        "manifest_digest": manifest.digest,
                        "model": model.state_dict(),
                        "optimizer": optimizer.state_dict(),
                    }
                )
                clock = time.perf_counter()
            if step == last:
                break

            # -- one step ----------------------------------------------------------------------------------------
            read = _readable(next(batches), recipe, run, manifest, step)
            if read is None:
                continue  # skipped, and counted
            batch = to_device(read, fabric.device)
            waited = time.perf_counter() - clock
            torch.manual_seed(_step_seed(recipe.run.seed, step))  # dropout, too, is a function of the step
            lr = learning_rate(step, optim=recipe.optim, steps=steps, warmup_steps=warmup_steps)
            for group in optimizer.param_groups:
                group["lr"] = lr
            with _threads(recipe.run.cpu_threads):
                logits = by_head(network(**binding(preprocessing.normalise_all(batch["inputs"]))), manifest.heads)
                loss = loss_of_heads(logits, batch["targets"], label_smoothing=recipe.optim.label_smoothing)
                _refuse_non_finite(loss.item(), step, batch, manifest)
                optimizer.zero_grad()
                fabric.backward(loss)
                if recipe.optim.clip_norm is not None:
                    fabric.clip_gradients(network, optimizer, max_norm=recipe.optim.clip_norm)
                optimizer.step()

            # -- log ---------------------------------------------------------------------------------------------
            took = time.perf_counter() - clock
            clock = time.perf_counter()
            line = {
                "loss": loss.item(),
                "lr": lr,
                "clips_per_s": len(batch["index"]) / took,
                "data_wait": waited / took,
            }
            skipped = recipe.data.batch_size - len(batch["index"])
            run.log_step({"step": step + 1, **line, **({"skipped": skipped} if skipped else {})})
            progress.step(**line)
    return run


def _samples(recipe: Recipe, manifest: Manifest) -> tuple[list[int], list[int]]:
    """The samples to learn from and to be asked about; training may skip what cannot be read, an evaluation may not."""
    positions, held_out = manifest.positions(recipe.data.train), manifest.positions(recipe.data.evaluate)
    check_declared(manifest, recipe.data.evaluate)
    asked = held_out if recipe.data.unreadable == "skip" else [*held_out, *positions]
    check_uncounted(manifest, asked, recipe.clip.modalities[0], recipe.data.reading)
    return positions, held_out


def _loaders(
    recipe: Recipe,
    manifest: Manifest,
    positions: list[int],
    held_out: list[int],
    start: int,
    last: int,
    device: torch.device,
) -> tuple[DataLoader[Loaded], DataLoader[Loaded]]:
    """One loader for the whole training from `start` on, one for the evaluations."""
    dataset = VideoDataset(
        manifest,
        sampling=recipe.clip.frame_sampling(),
        preprocessing=recipe.clip.preprocessing(manifest.depth),
        augmentation=recipe.data.augmentation,
        reading=recipe.data.reading,
    )
    training = TrainingBatches(
        positions,
        batch_size=recipe.data.batch_size,
        steps=last,
        first_step=start,
        seed=recipe.run.seed,
        mixup="partner" if recipe.data.augmentation.wants_partner else "none",
    )
    pin_memory = device.type == "cuda"
    workers = recipe.data.workers
    return (
        make_loader(dataset, training, workers=workers, pin_memory=pin_memory),
        make_loader(
            dataset,
            evaluation_batches(held_out, recipe.data.batch_size),
            workers=workers,
            pin_memory=pin_memory,
        ),
    )


@contextmanager
def _threads(wanted: int | None) -> Iterator[None]:
    """So many threads for what is inside; evaluations outside count as everywhere else, and round as everywhere."""
    usual = torch.get_num_threads()
    torch.set_num_threads(wanted or usual)
    try:
        yield
    finally:
        torch.set_num_threads(usual)


def _provenance(recipe: Recipe, run: Run, manifest: Manifest, step: int, code: str) -> dict[str, str | int]:
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
        "skipped_draws": len(run.skipped()),
        "skipped_samples": len({line["index"] for line in run.skipped()}),
    }


def _readable(loaded: Loaded, recipe: Recipe, run: Run, manifest: Manifest, step: int) -> Batch | None:
    """The batch; where the recipe says so without the samples that cannot be read, which are logged; or none of it.

    Raises:
        UnreadableSample: a sample cannot be read and the recipe says `stop`, or more are skipped than are read.
    """
    if recipe.data.unreadable == "stop":
        return complete(loaded)
    for failure in loaded.failures:
        run.log_skipped({"step": step + 1, "index": failure.index, "reason": failure.message})
    skipped, drawn = len(run.skipped()) if loaded.failures else 0, (step + 1) * recipe.data.batch_size
    if skipped > max(drawn / 2, MANY_SKIPPED):
        raise UnreadableSample(
            f"{manifest.path}: {skipped} of {drawn} draws could not be read, the last one: "
            f"{loaded.failures[-1].message}; `kinema check` lists what is broken"
        )
    return loaded.batch


def _step_seed(seed: int, step: int) -> int:
    """Of the random numbers that the network itself draws in a step."""
    return (seed + 1) * 1_000_003 + step


def _refuse_non_finite(loss: float, step: int, batch: Batch, manifest: Manifest) -> None:
    if not math.isfinite(loss):
        lines = ", ".join(str(manifest.entries[i].line) for i in batch["index"].tolist())
        raise NonFiniteLoss(
            f"loss is {loss} at step {step + 1}; the weights are as before it; batch: {manifest.path}, lines {lines}"
        )
