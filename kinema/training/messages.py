"""Messages of a training, made from its reports."""

from collections.abc import Mapping, Sequence
from typing import Any

from kinema.training.initialize import InitReport
from kinema.training.plan import Plan
from kinema.training.setup import TrainingSetup
from kinema.training.weights import LoadReport, shorten


def run_message(setup: TrainingSetup, start: int) -> str:
    """Return the message that a run begins or resumes."""
    schedule = setup.schedule
    return f"run: {setup.run.path}, from step {start} to {schedule.last} of {schedule.steps}"


def init_messages(report: InitReport) -> list[str]:
    """Return what was loaded, frozen and calibrated."""
    messages = [] if report.load is None else load_messages(report.load)
    if report.freeze is not None:
        messages.append(f"frozen: {len(report.freeze.frozen)} of {report.freeze.num_parameters} parameter tensors")
    if report.calibration is not None:
        norms, count = report.calibration.num_norms, report.calibration.num_batches
        batches = "1 batch" if count == 1 else f"{count} batches"
        messages.append(f"calibrated: {norms} norms of queries, keys and values, on {batches}")
    return messages


def load_messages(report: LoadReport) -> list[str]:
    """Return what was loaded from a file of weights, and what was not."""
    messages = [f"weights from {report.source}: {len(report.loaded_keys)} tensors loaded"]
    messages += [f"  {part}: {origin}" for part, origin in report.origins.items()]
    messages += [f"  initialized anew: {name} ({reason})" for name, reason in report.reset_keys.items()]
    messages += [f"  mismatched: {name} ({reason})" for name, reason in report.mismatched_keys.items()]
    if report.extra_keys:
        parts = shorten(report.extra_keys, [*report.loaded_keys, *report.mismatched_keys, *report.reset_keys])
        messages.append(f"  not part of {report.family}: {len(report.extra_keys)} tensors ({', '.join(parts)})")
    messages += [f"  missing in the file: {name}" for name in report.missing_keys]
    messages += [f"  unexpected in the file: {name}" for name in report.unexpected_keys]
    return messages


def evaluation_message(step: int, measures: Mapping[str, float], skipped: Sequence[Mapping[str, Any]]) -> str:
    """Return the numbers of an evaluation, and how many draws training has skipped so far."""
    numbers = "  ".join(f"{name} {value:.1f}" for name, value in measures.items())
    count = f"  (skipped {len(skipped)} draws of {len({line['index'] for line in skipped})} samples)"
    return f"step {step}: {numbers}{count if skipped else ''}"


def plan_message(plan: Plan) -> str:
    """Return the sizes and costs of a training in one line."""
    trainable = f" ({plan.trainable:,} trainable)" if plan.trainable < plan.parameters else ""
    parts = [f"{plan.parameters:,} parameters{trainable}"]
    if plan.macs is not None:
        parts.append(f"{plan.macs / 1e9:.2f} GMAC per clip")
    share = f" ({plan.batch_size // plan.num_processes} in each of {plan.num_processes} processes)"
    parts.append(f"{plan.steps} steps of {plan.batch_size} clips{share if plan.num_processes > 1 else ''}")
    if plan.memory is not None:
        is_large = plan.memory >= 2**30
        parts.append(f"about {plan.memory / 2**30:.2f} GiB" if is_large else f"about {plan.memory / 2**20:.0f} MiB")
    if plan.seconds is not None:
        parts.append(f"at least {_duration(plan.seconds)} on this device")
    return f"plan: {', '.join(parts)}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
