"""A step of 3D central difference convolution beside one of the plain convolution, and its evaluation when folded.

    python benchmarks/central_difference.py --out results/central_difference_speed.json

At the sizes of MFST's stem. Interleaved: in each repeat every form runs once, in a random order, and ratios are taken
within a repeat. A training step is forward and backward, to the weights and, but for the first convolution of a
network, to the clip; evaluation is convolution, BatchNorm and ReLU, without gradients.
"""

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
import tyro
from measuring import interleave, interval_text, machine, median_interval, ratio_interval, store
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from kinema.layers.central_difference import CentralDifferenceConv3d, Operator

Step = Callable[[], object]
BASELINES = {"training": "vanilla", "evaluation": "vanilla, folded"}
"""What the other forms' times are divided by."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """A convolution of the stem, a clip that it sees, and whether anything before it learns."""

    clip: tuple[int, int, int, int]
    out_channels: int
    kernel: tuple[int, int, int]
    stride: tuple[int, int, int]
    clip_gradient: bool


SIZES = {
    "S1": Size(clip=(3, 16, 112, 112), out_channels=64, kernel=(3, 7, 7), stride=(1, 2, 2), clip_gradient=False),
    "S4": Size(clip=(64, 16, 28, 28), out_channels=192, kernel=(3, 3, 3), stride=(1, 1, 1), clip_gradient=True),
}
FORMATS = {"contiguous": torch.contiguous_format, "channels_last_3d": torch.channels_last_3d}


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What is asked on the command line.

    Args:
        out: JSON file to write.
        repeats: times that each form runs.
        batch: clips in a step.
        scale: rows and columns of the clips, as a multiple of those above; 2 is what MFST sees at 224 x 224.
        device: where to run.
        precision: of the convolution; bfloat16 by autocast.
        seed: of the order within a repeat.
    """

    out: Path
    repeats: int = 25
    batch: int = 1
    scale: int = 1
    device: Literal["cpu", "cuda"] = "cpu"
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: int = 0


class TwoConvolutions(CentralDifferenceConv3d):
    """3D-CDC-ST as its reference code computes it: a second convolution of one tap, subtracted."""

    def forward(self, clip: Tensor) -> Tensor:
        plain = F.conv3d(clip, self.weight, None, self.stride, self.padding)
        return plain - self.theta * F.conv3d(clip, self.weight.sum((2, 3, 4), keepdim=True), None, self.stride)


def main(arguments: Arguments) -> None:
    measured: dict[str, Any] = {}
    for name, size in SIZES.items():
        for layout, memory_format in FORMATS.items():
            clip = example(size, arguments).contiguous(memory_format=memory_format)
            measured[f"{name}, {layout}"] = {
                "clip": list(clip.shape),
                "largest_difference_to_two_convolutions": difference(size, clip),
                **{
                    task: summary(milliseconds(steps(size, clip, arguments), arguments), BASELINES[task])
                    for task, steps in (("training", training_steps), ("evaluation", evaluation_steps))
                },
            }
    parts = {"machine": machine(("torch",)) | {"device": device_name(arguments)}, "measured": measured}
    print_report(store(arguments.out, arguments=asdict(arguments), packages=("torch",), parts=parts, show=False))


def device_name(arguments: Arguments) -> str:
    return torch.cuda.get_device_name() if arguments.device == "cuda" else "cpu"


def example(size: Size, arguments: Arguments) -> Tensor:
    channels, frames, rows, columns = size.clip
    torch.manual_seed(arguments.seed)
    shape = (arguments.batch, channels, frames, arguments.scale * rows, arguments.scale * columns)
    return torch.randn(shape, device=arguments.device)


def convolution(
    size: Size, operator: Operator, device: torch.device, kind: type[CentralDifferenceConv3d]
) -> CentralDifferenceConv3d:
    torch.manual_seed(0)
    times, rows, columns = size.kernel
    return kind(
        size.clip[0],
        size.out_channels,
        size.kernel,
        operator=operator,
        stride=size.stride,
        padding=(times // 2, rows // 2, columns // 2),
        device=device,
    )


def vanilla(size: Size, device: torch.device) -> nn.Module:
    """Torch's own, with equal weights."""
    return convolution(size, "vanilla", device, CentralDifferenceConv3d).folded().train()


def difference(size: Size, clip: Tensor) -> float:
    """Largest difference of an output to the reference's form, as a share of the largest output."""
    with torch.no_grad():
        ours, other = (
            convolution(size, "cdc-st", clip.device, kind)(clip) for kind in (CentralDifferenceConv3d, TwoConvolutions)
        )
    return float((ours - other).abs().max() / other.abs().max())


def training_steps(size: Size, clip: Tensor, arguments: Arguments) -> dict[str, Step]:
    layers = {
        "vanilla": vanilla(size, clip.device),
        "cdc-st": convolution(size, "cdc-st", clip.device, CentralDifferenceConv3d),
        "cdc-t": convolution(size, "cdc-t", clip.device, CentralDifferenceConv3d),
        "cdc-st, two convolutions": convolution(size, "cdc-st", clip.device, TwoConvolutions),
    }
    clip = clip.detach().requires_grad_(size.clip_gradient)
    with torch.no_grad(), cast(arguments):
        gradient = torch.randn_like(layers["vanilla"](clip))

    def step_of(layer: nn.Module) -> Step:
        def step() -> None:
            clip.grad = None
            layer.zero_grad()
            with cast(arguments):
                maps = layer(clip)
            maps.backward(gradient)

        return step

    return {name: step_of(layer) for name, layer in layers.items()}


def evaluation_steps(size: Size, clip: Tensor, arguments: Arguments) -> dict[str, Step]:
    cdc = convolution(size, "cdc-st", clip.device, CentralDifferenceConv3d)
    plain = convolution(size, "vanilla", clip.device, CentralDifferenceConv3d)
    norm = nn.BatchNorm3d(size.out_channels, eps=1e-3, device=clip.device)
    units = {
        "vanilla, folded": nn.Sequential(plain.folded(norm), nn.ReLU()),
        "cdc-st, folded": nn.Sequential(cdc.folded(norm), nn.ReLU()),
        "cdc-st, not folded": nn.Sequential(cdc, norm, nn.ReLU()),
    }

    def step_of(unit: nn.Module) -> Step:
        unit.eval()

        def step() -> None:
            with torch.no_grad(), cast(arguments):
                unit(clip)

        return step

    return {name: step_of(unit) for name, unit in units.items()}


def cast(arguments: Arguments) -> Any:
    return torch.autocast(arguments.device, torch.bfloat16) if arguments.precision == "bfloat16" else nullcontext()


def milliseconds(steps: dict[str, Step], arguments: Arguments) -> dict[str, list[float]]:
    """Return the milliseconds of every form in every repeat."""
    seconds = interleave(steps, repeats=arguments.repeats, seed=arguments.seed, clock=lambda: clock(arguments))
    return {name: [1000 * second for second in taken] for name, taken in seconds.items()}


def clock(arguments: Arguments) -> float:
    if arguments.device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def summary(timings: dict[str, list[float]], baseline: str) -> dict[str, Any]:
    """Times, and each form's as a multiple of the baseline's, repeat by repeat."""
    return {
        "milliseconds": timings,
        "medians": {name: median_interval(values) for name, values in timings.items()},
        "baseline": baseline,
        "ratios": {
            name: ratio_interval(values, timings[baseline]) for name, values in timings.items() if name != baseline
        },
    }


def print_report(report: dict[str, Any]) -> None:
    table = Table(title="median ms [95 % interval]; ratio to the baseline [95 % interval]")
    for column in ("size and layout", "task", "form", "ms", "ratio"):
        table.add_column(column)
    for name, measured in report["measured"].items():
        for task in BASELINES:
            for form, value in measured[task]["medians"].items():
                ratio = measured[task]["ratios"].get(form)
                beside = "baseline" if ratio is None else interval_text(ratio, 3)
                table.add_row(name, task, form, interval_text(value, 1), beside)
    Console().print(table)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
