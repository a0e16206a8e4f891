"""Log messages of a training run."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from torch import nn

from kinema.inference.trained_model import NOT_PRETRAINED
from kinema.training.initialize import InitReport
from kinema.training.plan import Plan
from kinema.training.schedule import Schedule
from kinema.training.weights import LoadReport
from kinema.transforms.sampling import Sampling, group_rates, same_rate


def run_message(path: Path, *, start: int, schedule: Schedule, start_weights: str) -> str:
    """Return the folder and the steps of a run, and whether it lacks pretrained weights, in one line."""
    message = f"run: {path} (steps {start} to {schedule.last} of {schedule.steps})"
    if NOT_PRETRAINED in start_weights:
        message += (
            " from scratch, from random weights: not the setting of the thesis's chapters 3 and 4, which start from "
            f"ImageNet weights; results say `{NOT_PRETRAINED}`. Pass --init WEIGHTS."
        )
    return message


def init_messages(report: InitReport, model: nn.Module) -> list[str]:
    """Return messages about loaded, frozen and calibrated weights of a network."""
    messages = [] if report.load is None else load_messages(report.load)
    if report.frozen:
        messages.append(f"frozen: {len(report.frozen)} of {len(list(model.parameters()))} parameter tensors")
        loaded = () if report.load is None else report.load.loaded_keys
        random = [] if report.load is None else [name for name in report.frozen if name not in set(loaded)]
        if random:
            parts = ", ".join(_shorten(random, [*loaded]))
            messages.append(f"  {len(random)} frozen tensors are not in the file and stay random: {parts}")
    if report.calibrated_norms:
        messages.append(f"calibrated: {report.calibrated_norms} BatchNorm layers of queries, keys and values")
    return messages


def load_messages(report: LoadReport) -> list[str]:
    """Return messages about weights that were loaded, and weights that were not."""
    messages = [f"weights: {len(report.loaded_keys)} tensors loaded from {report.source}"]
    messages += [f"  {part}: {origin}" for part, origin in report.origins.items()]
    messages += [f"  reset: {name} ({reason})" for name, reason in report.reset_keys.items()]
    messages += [f"  shape mismatch: {name} ({reason})" for name, reason in report.mismatched_keys.items()]
    if report.extra_keys:
        parts = _shorten(report.extra_keys, [*report.loaded_keys, *report.mismatched_keys, *report.reset_keys])
        messages.append(f"  not part of {report.family}: {len(report.extra_keys)} tensors ({', '.join(parts)})")
    messages += [f"  missing: {name}" for name in report.missing_keys]
    messages += [f"  unexpected: {name}" for name in report.unexpected_keys]
    return messages


def rate_messages(sampling: Sampling, rates: Sequence[float], manifest: Path) -> list[str]:
    """Return a message if files differ in their frame rates and the sampling has an interval in frames."""
    if sampling.interval is None:
        return []
    if not rates:
        return [f"frame rates: unknown, {manifest} has no column rate; clip.interval counts the frames of each file"]
    groups = group_rates(rates)
    counts = ", ".join(f"{rate:.4g}: {count:,} samples" for rate, count in groups.items())
    if sampling.rate is None:
        text = "clip.interval counts the frames of each file, so that clips differ in their time"
        return [f"frame rates: differ ({counts}); {text}"] if len(groups) > 1 else []
    if len(groups) == 1 and same_rate(sampling.rate, rates[0]):
        return []
    interval = f"{sampling.interval} frames at {sampling.rate:.4g}/s = {sampling.interval / sampling.rate:.3f} s"
    return [f"frame rates: differ ({counts}); intervals are taken in seconds, {interval}"]


def evaluation_message(
    step: int, measures: Mapping[str, float], skipped: Sequence[Mapping[str, Any]], caveat: str = ""
) -> str:
    """Return the metrics of an evaluation, the number of draws skipped so far, and the caveat of the split."""
    numbers = "  ".join(f"{name} {value:.1f}" for name, value in measures.items())
    count = f"  (skipped {len(skipped)} draws of {len({line['index'] for line in skipped})} samples)"
    caveat = f"  ({caveat})" if caveat else ""
    return f"step {step}: {numbers}{count if skipped else ''}{caveat}"


def plan_message(plan: Plan) -> str:
    """Return the sizes and costs of a training run in one line."""
    trainable = f" ({plan.trainable:,} trainable)" if plan.trainable < plan.parameters else ""
    parts = [f"{plan.parameters:,} parameters{trainable}"]
    if plan.macs is not None:
        parts.append(f"{plan.macs / 1e9:.2f} GMACs per clip")
    share = f" ({plan.batch_size // plan.num_processes} on each of {plan.num_processes} processes)"
    parts.append(f"{plan.steps} steps of {plan.batch_size} clips{share if plan.num_processes > 1 else ''}")
    if plan.memory is not None:
        is_large = plan.memory >= 2**30
        size = f"{plan.memory / 2**30:.2f} GiB" if is_large else f"{plan.memory / 2**20:.0f} MiB"
        parts.append(f"about {size} of memory")
    if plan.seconds is not None:
        parts.append(f"at least {_duration(plan.seconds)} on this device")
    return f"plan: {', '.join(parts)}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _shorten(names: Sequence[str], others: Sequence[str]) -> list[str]:
    """Return the shortest prefixes of names that no other name has, with `*` for numbers: `stages.*.time`."""

    def prefixes(name: str) -> list[str]:
        return list(accumulate(name.split("."), "{}.{}".format))

    taken = {prefix for name in others for prefix in prefixes(name)}
    short = [next((prefix for prefix in prefixes(name) if prefix not in taken), name) for name in names]
    return list(dict.fromkeys(".".join("*" if part.isdigit() else part for part in name.split(".")) for name in short))
