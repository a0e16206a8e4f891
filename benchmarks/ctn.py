"""Benchmark CTN against the matrix products of this machine, other networks, and itself without each fast form.

    python benchmarks/ctn.py --out results/ctn_speed.json

Each repeat runs everything once in random order: CTN-B at 8 x 224, evaluated forward and one step of SGD; matrix
products, of which the faster counts; VideoMAE-B at 16 x 224 and TimeSformer-B at 8 x 224 of `transformers`, forward.
Executed multiply-adds are counted in the same way for all networks.

The second part measures each fast form: folded BatchNorm, the three depth-wise convolutions as one, and only the class
row of the last block; for the stem, channels-last order and equivalent convolutions.
"""

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import tyro
from measuring import median_interval, ratio_interval, store
from networks import CLASSES, SIZE, Work, counted, forward, layer, square, step, timed, timesformer, videomae
from torch import Tensor, nn

from kinema.layers.conv_projection import ConvolutionalMapping, QueryKeyValue, SeparableConvolution
from kinema.layers.folding import evaluation_copy
from kinema.layers.transformer import Grid, Rows
from kinema.models.complexity import FullLastBlock
from kinema.models.ctn import CTN
from kinema.models.registry import create_model

PARTS = {"stem": "stem", "video-to-tokens": "video-to-tokens", "depth-wise": "depth-wise convolution"}
"""Baseline part of each form, by the first word of its name; the complete network for all others."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Options of the command line.

    Args:
        out: JSON file to write.
        model: Name of the model.
        frames: Number of frames per clip.
        repeats: Number of timed repeats.
        form_repeats: Number of timed repeats of the forms.
        threads: Number of torch threads.
        seed: Seed of the order within a repeat.
    """

    out: Path = Path("results/ctn_speed.json")
    model: str = "ctn_base"
    frames: int = 8
    repeats: int = 20
    form_repeats: int = 20
    threads: int = 2
    seed: int = 0


def main(arguments: Arguments) -> None:
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    store(
        arguments.out,
        arguments=asdict(arguments),
        packages=("kinema", "torch", "transformers"),
        parts={"speed": speed(arguments), "forms": forms(arguments)},
    )


def speed(arguments: Arguments) -> dict[str, Any]:
    """Return forward and training speed as shares of the machine's rate, and forward time over other networks."""
    clip = torch.randn(1, 3, arguments.frames, SIZE, SIZE)
    others = {"VideoMAE-B, 16 frames": (videomae(16), 16), "TimeSformer-B, 8 frames": (timesformer(8), 8)}
    works = {
        "forward": forward(evaluation_copy(ours(arguments)), clip),
        "step": step(ours(arguments), clip),
        "product, square": square(),
        "product, of a layer": layer(arguments.frames),
    }
    works |= {
        name: forward(network, torch.randn(1, frames, 3, SIZE, SIZE)) for name, (network, frames) in others.items()
    }
    seconds = timed(works, repeats=arguments.repeats, seed=arguments.seed)
    rates = {name: works[name].macs / seconds[name] for name in seconds}
    rate = torch.maximum(*(torch.from_numpy(rates[name]) for name in rates if name.startswith("product"))).numpy()
    return {
        "gmac": {name: work.macs / 1e9 for name, work in works.items()},
        "seconds": {name: median_interval(values.tolist()) for name, values in seconds.items()},
        "share_of_the_machines_rate": {name: ratio_interval(rates[name], rate) for name in ("forward", "step")},
        "time_over": {name: ratio_interval(seconds["forward"], seconds[name]) for name in others},
        "repeats": {name: values.tolist() for name, values in seconds.items()},
    }


def forms(arguments: Arguments) -> dict[str, Any]:
    """Return the time without each fast form over the time with it, and the stem alone in other forms."""
    clip = torch.randn(1, 3, arguments.frames, SIZE, SIZE)
    network = ours(arguments).eval()
    fast = evaluation_copy(network)
    separate = copy.deepcopy(network)
    for block in separate.blocks:
        block.attention.mapping = SeparateMapping(block.attention.mapping)
    works = {
        "as it is": forward(fast, clip),
        "BatchNorm not folded": forward(network, clip),
        "BatchNorm folded, three depth-wise convolutions": forward(evaluation_copy(separate), clip),
        "all rows of the last block": forward(FullLastBlock(fast), clip),
    }
    stem = fast.embedding.convolution
    as_stem = {
        "stem as it is": lambda: stem(clip.contiguous(memory_format=torch.channels_last_3d)),
        "stem, channels first": lambda: stem(clip),
        "stem, times as channels of pictures": stem_as_2d(stem, clip),
        "stem, 2 x 2 x 2 pixels as channels": stem_on_blocks(stem, clip),
    }
    macs = counted(stem, clip)
    works |= {name: Work(run=without_gradients(run), macs=macs) for name, run in as_stem.items()}
    embedding = fast.embedding
    works["video-to-tokens as it is"] = forward(embedding, clip)
    works["video-to-tokens, channels first"] = Work(
        run=without_gradients(lambda: embedding.patches(embedding.pool(stem(clip)))), macs=counted(embedding, clip)
    )
    mapping = fast.blocks[0].attention.mapping
    width, side = fast.config.width, SIZE // fast.config.token_stride[1]
    maps = torch.randn(arguments.frames // fast.config.token_stride[0], side, side, width).permute(0, 3, 1, 2)
    outputs = nn.Conv2d(width, 3 * width, 3, padding=1, groups=width).eval()
    works["depth-wise convolution as it is"] = forward(mapping.depthwise, maps.repeat(1, 3, 1, 1))
    works["depth-wise convolution of three outputs a channel"] = forward(outputs, maps)
    seconds = timed(works, repeats=arguments.form_repeats, seed=arguments.seed)
    own = {word: f"{name} as it is" for word, name in PARTS.items()}
    beside = {name: own.get(name.replace(",", " ").split()[0], "as it is") for name in seconds}
    return {
        "seconds": {name: median_interval(values.tolist()) for name, values in seconds.items()},
        "time_over_as_it_is": {
            name: ratio_interval(values, seconds[beside[name]])
            for name, values in seconds.items()
            if not name.endswith("as it is")
        },
        "repeats": {name: values.tolist() for name, values in seconds.items()},
    }


def ours(arguments: Arguments) -> CTN:
    network = create_model(arguments.model, num_classes=CLASSES, frames=arguments.frames, size=SIZE)
    assert isinstance(network, CTN)
    return network


class SeparateMapping(nn.Module):
    """Mapping of a block with its three convolutions folded separately instead of merged."""

    def __init__(self, mapping: ConvolutionalMapping) -> None:
        super().__init__()
        self.query, self.key, self.value = map(FoldedConvolution, (mapping.query, mapping.key, mapping.value))

    def forward(self, tokens: Tensor, grid: Grid, rows: Rows = "all") -> QueryKeyValue:
        query = self.query.pointwise(tokens[:, :1]) if rows == "class" else self.query(tokens, grid)
        return query, self.key(tokens, grid), self.value(tokens, grid)


class FoldedConvolution(SeparableConvolution):
    """One of the three convolutions with its BatchNorm folded into it."""

    def __init__(self, part: SeparableConvolution) -> None:
        nn.Module.__init__(self)
        self.depthwise = nn.utils.fusion.fuse_conv_bn_eval(part.depthwise.eval(), part.norm.eval())
        self.norm, self.pointwise = nn.Identity(), part.pointwise


def stem_as_2d(stem: nn.Conv3d, clip: Tensor) -> Callable[[], Tensor]:
    """Return the stem as a 2D convolution with the frames of its kernel as channels."""
    kernel, stride, edge = stem.kernel_size[0], stem.stride[0], stem.padding[0]
    weight = stem.weight.transpose(1, 2).flatten(1, 2).contiguous(memory_format=torch.channels_last)

    def run() -> Tensor:
        padded = F.pad(clip, (0, 0, 0, 0, edge, edge)).unfold(2, kernel, stride)  # b c T h w k
        frames = padded.permute(0, 2, 5, 1, 3, 4).flatten(0, 1).flatten(1, 2)
        frames = frames.contiguous(memory_format=torch.channels_last)
        return F.conv2d(frames, weight, stem.bias, stride=stem.stride[1], padding=edge)

    expected = stem(clip).transpose(1, 2).flatten(0, 1)
    torch.testing.assert_close(run(), expected, rtol=1e-4, atol=1e-4)
    return run


def stem_on_blocks(stem: nn.Conv3d, clip: Tensor) -> Callable[[], Tensor]:
    """Return the stem on 2 x 2 x 2 space-to-depth blocks: a kernel of 8 instead of 7, padded by zeros on one side."""
    weight = F.pad(stem.weight, (1, 0) * 3).unflatten(4, (4, 2)).unflatten(3, (4, 2)).unflatten(2, (4, 2))
    weight = weight.permute(0, 1, 3, 5, 7, 2, 4, 6).flatten(1, 4).contiguous(memory_format=torch.channels_last_3d)

    def run() -> Tensor:
        padded = F.pad(clip, (4, 2) * 3)
        split = padded.unflatten(4, (-1, 2)).unflatten(3, (-1, 2)).unflatten(2, (-1, 2))
        blocks = split.permute(0, 1, 3, 5, 7, 2, 4, 6).flatten(1, 4)
        return F.conv3d(blocks.contiguous(memory_format=torch.channels_last_3d), weight, stem.bias)

    torch.testing.assert_close(run(), stem(clip), rtol=1e-4, atol=1e-4)
    return run


def without_gradients(run: Callable[[], Tensor]) -> Callable[[], None]:
    def run_without_gradients() -> None:
        with torch.inference_mode():
            run()

    return run_without_gradients


if __name__ == "__main__":
    main(tyro.cli(Arguments))
