"""One optimizer step."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from kinema.data.loaders import Batch, to_device
from kinema.errors import NonFiniteLoss, RecipeError
from kinema.models.binding import by_head
from kinema.training.distributed import all_gather
from kinema.training.learner import Learner
from kinema.training.loaders import split_batch, training_batches
from kinema.training.optimizer import multi_head_loss
from kinema.training.setup import TrainingSetup


def training_step(setup: TrainingSetup, learner: Learner, batch: Batch, *, step: int, share_sizes: list[int]) -> float:
    """Take one optimizer step on this process's share of a batch and return the loss of the whole batch.

    `step` counts from 0 and, with the seed, determines dropout. `share_sizes` are the numbers of samples of all
    processes.

    Raises:
        NonFiniteLoss: The loss or the gradient is not finite. The weights do not change.
        RecipeError: BatchNorm cannot normalize a micro-batch of one clip.
    """
    recipe, fabric, heads = setup.recipe, setup.fabric, setup.manifest.heads
    batch = to_device(batch, fabric.device)
    torch.manual_seed(step_seed(recipe.run.seed, step, fabric.global_rank))
    learner.optimizer.zero_grad()
    loss = 0.0
    with setup.training_threads():
        # All processes need the same number, because with FSDP they synchronize in each micro-batch.
        num_micro_batches = min(recipe.optim.grad_accum_steps, *share_sizes)
        for micro_batch, is_last in split_batch(batch, num_micro_batches):
            with fabric.no_backward_sync(learner.network, enabled=not is_last):
                inputs = setup.binding(setup.preprocessing.normalize_all(micro_batch["inputs"]))
                with _explain_single_values(len(micro_batch["index"])):
                    logits = by_head(learner.forward(inputs), heads)
                micro_loss = multi_head_loss(
                    logits,
                    micro_batch["targets"],
                    label_smoothing=recipe.optim.label_smoothing,
                    weights=setup.class_weights,
                )
                micro_loss = micro_loss * (len(micro_batch["index"]) / sum(share_sizes))
                # Fabric averages gradients over processes; the factor turns the average into a sum.
                fabric.backward(micro_loss * fabric.world_size)
                loss += micro_loss.item()
        loss = sum(row[0] for row in all_gather(fabric, [loss]))
        _check_finite("loss", loss, setup, step)
        _check_finite("norm of the gradient", learner.clip_gradients(), setup, step)
        learner.step()
    return loss


def step_seed(seed: int, step: int, rank: int) -> int:
    """Return the seed of the network's random draws in a step, such as dropout. It differs between processes."""
    return (seed + 1) * 1_000_003 + step + 1_000_000_007 * rank


@contextmanager
def _explain_single_values(num_clips: int) -> Iterator[None]:
    """Turn BatchNorm's error about a single value per channel into advice."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise RecipeError(
            f"data.batch_size: BatchNorm cannot train on a micro-batch of {num_clips} clip; expected at least 2. Raise "
            "data.batch_size or lower optim.grad_accum_steps.",
            field="data.batch_size",
        ) from error


def _check_finite(name: str, value: float, setup: TrainingSetup, step: int) -> None:
    if not math.isfinite(value):
        draws = training_batches(setup, start=step, last=step + 1).batch(step)
        lines = ", ".join(str(setup.manifest.entries[draw.index].line) for draw in draws)
        raise NonFiniteLoss(
            f"{name} is {value} at step {step + 1}; the weights are unchanged. Lower the learning rate, or check the "
            f"batch: {setup.manifest.path}, lines {lines}",
            path=setup.manifest.path,
        )
