"""Reference implementations of `kinema.layers`: the equations, element by element."""

import math
from itertools import product
from typing import assert_never

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int64
from torch import Tensor, nn

from kinema.layers.central_difference import CentralDifferenceConv3d
from kinema.layers.conv_projection import ConvolutionalMapping, QueryKeyValue, SeparableConvolution
from kinema.layers.knn_attention import num_kept_keys
from kinema.layers.multiscale_temporal import MultiScaleTemporalTransformer
from kinema.layers.relative_position import RelativePosition
from kinema.layers.transformer import Grid


def reference_central_difference(
    operator: CentralDifferenceConv3d, clip: Float[Tensor, "b c t h w"]
) -> Float[Tensor, "b d times rows columns"]:
    """Return `forward` as a sum over the kernel taps at each location."""
    t, h, w = operator.padding
    seen = rearrange(F.pad(clip, (w, w, h, h, t, t)), "b (groups c) t h w -> t h w groups b c", groups=operator.groups)
    weight = rearrange(operator.weight, "(groups d) c t h w -> t h w groups c d", groups=operator.groups)
    reach = [gap * (extent - 1) + 1 for gap, extent in zip(operator.dilation, operator.kernel_size, strict=True)]
    starts = [range(0, n - r + 1, step) for n, r, step in zip(seen.shape[:3], reach, operator.stride, strict=True)]
    center = tuple(extent // 2 for extent in operator.kernel_size)
    maps = []
    for start in product(*starts):
        sides = zip(start, reach, operator.dilation, strict=True)
        cube = seen[tuple(slice(first, first + r, gap) for first, r, gap in sides)]  # the thesis's Z
        x_0 = cube[center]
        total = torch.zeros_like(x_0 @ weight[center])
        for tap in product(*map(range, operator.kernel_size)):
            x_n, w_n = cube[tap], weight[tap]
            match operator.operator:
                case "vanilla":
                    total = total + x_n @ w_n  # eq. 2.3
                case "cdc-st":
                    difference = (x_n - x_0) @ w_n  # eq. 2.4
                    total = total + operator.theta * difference + (1 - operator.theta) * (x_n @ w_n)  # eq. 2.5
                case "cdc-t":
                    total = total + x_n @ w_n
                    if tap[0] != center[0]:
                        total = total - operator.theta * (x_0 @ w_n)  # eq. 2.6
                case _:
                    assert_never(operator.operator)
        total = rearrange(total, "groups b d -> b (groups d)")
        maps.append(total if operator.bias is None else total + operator.bias)
    times, rows, columns = map(len, starts)
    return rearrange(torch.stack(maps), "(t h w) b d -> b d t h w", t=times, h=rows, w=columns)


def reference_separable(
    part: SeparableConvolution, tokens: Float[Tensor, "batch n dim"], grid: Grid
) -> Float[Tensor, "batch n dim"]:
    """Return `forward` in evaluation as a sum over the kernel taps at each location of each frame."""
    side = part.depthwise.kernel_size[0]
    _, rows, columns = grid
    mapped = [tokens[:, 0]]
    for place in range(tokens.shape[1] - 1):
        time, row, column = place // (rows * columns), place // columns % rows, place % columns
        total = torch.zeros_like(tokens[:, 0])
        for tap_row in range(side):
            for tap_column in range(side):
                y, x = row + tap_row - side // 2, column + tap_column - side // 2
                if part.depthwise.padding_mode == "circular":
                    y, x = y % rows, x % columns
                if 0 <= y < rows and 0 <= x < columns:
                    neighbor = tokens[:, 1 + (time * rows + y) * columns + x]
                    total = total + part.depthwise.weight[:, 0, tap_row, tap_column] * neighbor
        if part.depthwise.bias is not None:
            total = total + part.depthwise.bias
        if isinstance(part.norm, nn.BatchNorm2d):
            assert part.norm.running_mean is not None
            assert part.norm.running_var is not None
            centered = total - part.norm.running_mean
            total = centered / (part.norm.running_var + part.norm.eps).sqrt() * part.norm.weight + part.norm.bias
        mapped.append(total)
    weight, bias = part.pointwise.weight, part.pointwise.bias
    return torch.stack([token @ weight.T + bias for token in mapped], dim=1)


def reference_mapping(mapping: ConvolutionalMapping, tokens: Float[Tensor, "batch n dim"], grid: Grid) -> QueryKeyValue:
    """Return `forward` in evaluation, tap by tap."""
    return (
        reference_separable(mapping.query, tokens, grid),
        reference_separable(mapping.key, tokens, grid),
        reference_separable(mapping.value, tokens, grid),
    )


def reference_knn_attention(
    query: Float[Tensor, "b h n d"], key: Float[Tensor, "b h n d"], value: Float[Tensor, "b h n c"], *, share: float
) -> Float[Tensor, "b h n c"]:
    """Return `knn_attention` row by row: sort the logits stably, softmax over the k first."""
    logits = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
    attended = torch.zeros_like(value)
    for sequence, head, row in np.ndindex(*logits.shape[:-1]):
        order = logits[sequence, head, row].argsort(descending=True, stable=True)
        nearest = order[: num_kept_keys(len(order), share)]
        weights = logits[sequence, head, row, nearest].softmax(-1)
        attended[sequence, head, row] = weights @ value[sequence, head, nearest]
    return attended


def reference_multiscale(
    transformer: MultiScaleTemporalTransformer, tokens: Float[Tensor, "b t d"]
) -> Float[Tensor, "b t d"]:
    """Return `forward` scale by scale, time by time."""
    length, dim = tokens.shape[1:]
    total = torch.zeros_like(tokens)
    for number, scale in enumerate(transformer.scales):
        times = []
        for position, start in enumerate(range(0, length, scale)):
            token = tokens[:, start : start + scale].mean(1)
            if transformer.position == "sinusoidal":
                angles = [position / 10000 ** (channel // 2 * 2 / dim) for channel in range(dim)]
                waves = [math.cos(a) if channel % 2 else math.sin(a) for channel, a in enumerate(angles)]
                token = token + tokens.new_tensor(waves)  # eq. 2.10, eq. 2.9
            times.append(token)
        answer = torch.stack(times, dim=1)
        first = number * transformer.depth if transformer.branches == "unshared" else 0
        for layer in list(transformer.layers)[first : first + transformer.depth]:
            answer = layer(answer)
        total = total + torch.stack([answer[:, time // scale] for time in range(length)], dim=1)
    return total / len(transformer.scales)


def reference_relative_attention(
    position: RelativePosition,
    query: Float[Tensor, "b h m d"],
    key: Float[Tensor, "b h n d"],
    value: Float[Tensor, "b h n d"],
    ids: Int64[Tensor, "b h m n"],
) -> Float[Tensor, "b h m d"]:
    """Return the attention of eq. 3.5 and 3.6, pair by pair."""
    attended = torch.zeros_like(query)
    for sample in range(query.shape[0]):
        for head in range(query.shape[1]):

            def vector(table: Tensor | None, row: int, column: int, sample: int = sample, head: int = head) -> Tensor:
                if table is None:
                    return query.new_zeros(query.shape[-1])
                return table[head if len(table) > 1 else 0, ids[sample, head, row, column]]

            for i in range(query.shape[2]):
                logits = [
                    (query[sample, head, i] + vector(position.table_on_key, i, j))
                    @ (key[sample, head, j] + vector(position.table_on_query, i, j))
                    / math.sqrt(query.shape[-1])
                    for j in range(key.shape[2])
                ]
                weights = torch.stack(logits).softmax(0)
                for j in range(key.shape[2]):
                    shifted = value[sample, head, j] + vector(position.table_on_value, i, j)
                    attended[sample, head, i] += weights[j] * shifted
    return attended
