"""Figures for pages: matplotlib figures as SVG, film strips as JPEG."""

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int64, UInt8
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave
from matplotlib.ticker import MaxNLocator
from numpy import ndarray
from PIL import Image
from torch import Tensor

from kinema.terminal import printable

BLUE, ORANGE, GRAY = "#2f6f9f", "#d9822b", "#8a8f98"
COLORS = (BLUE, ORANGE, "#4b9b6e", "#8a5a9e", GRAY)
MAX_NAMES = 60
"""Number of classes above which a figure shows sorted counts without names."""
STRIP_HEIGHT = 96


def learning_curve(steps: Sequence[Mapping[str, float]], metrics: Sequence[Mapping[str, float]]) -> bytes:
    """Draw the training loss per step, its moving average, and the top-1 of every evaluation, as SVG."""
    figure = Figure(figsize=(7.2, 3.2), layout="constrained")
    loss_axes = figure.subplots()
    numbers = [line["step"] for line in steps]
    losses = np.array([line["loss"] for line in steps])
    window = max(1, len(losses) // 40)
    smooth = np.convolve(losses, np.ones(window) / window, mode="valid")
    loss_axes.plot(numbers, losses, color=BLUE, alpha=0.25, linewidth=0.8)
    loss_axes.plot(numbers[window - 1 :], smooth, color=BLUE, linewidth=1.6)
    loss_axes.set_xlabel("step")
    loss_axes.set_ylabel("training loss", color=BLUE)
    loss_axes.set_ylim(bottom=0)
    accuracy_axes = loss_axes.twinx()
    accuracy_axes.plot([m["step"] for m in metrics], [m["top1"] for m in metrics], color=ORANGE, marker="o")
    accuracy_axes.set_ylabel("evaluation top-1 [%]", color=ORANGE)
    accuracy_axes.set_ylim(0, 100)
    for axes in (loss_axes, accuracy_axes):
        axes.spines["top"].set_visible(False)
    return _svg(figure)


def confusion_figure(counts: Int64[ndarray, "classes classes"], names: Sequence[str]) -> bytes:
    """Draw a confusion matrix with counts, colored by share of the true class, as SVG."""
    side = 1.6 + 0.34 * len(names)
    figure = Figure(figsize=(side + 0.6, side), layout="constrained")
    axes = figure.subplots()
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.argwhere(counts > 0):
        color = "white" if share[row, column] > 0.55 else "black"
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=7, color=color)
    labels = [printable(name) for name in names]
    axes.set_xticks(range(len(names)), labels, rotation=90, fontsize=8, parse_math=False)
    axes.set_yticks(range(len(names)), labels, fontsize=8, parse_math=False)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return _svg(figure)


def balance_figure(counts: Mapping[str, Sequence[int]], names: Sequence[str]) -> bytes:
    """Draw the number of samples per class and split as SVG; for many classes, sorted counts without names."""
    positions = np.arange(len(names))
    if len(names) > MAX_NAMES:
        figure = Figure(figsize=(7.2, 3.2), layout="constrained")
        axes = figure.subplots()
        for numbers, color in zip(counts.values(), COLORS * len(counts), strict=False):
            axes.step(positions + 1, sorted(numbers, reverse=True), where="mid", color=color)
        axes.set_xlabel("classes, largest first")
        axes.set_ylabel("samples")
        axes.set_ylim(bottom=0)
    else:
        figure = Figure(figsize=(7.2, 1.1 + 0.24 * len(names)), layout="constrained")
        axes = figure.subplots()
        thick = 0.8 / max(len(counts), 1)
        for position, (numbers, color) in enumerate(zip(counts.values(), COLORS * len(counts), strict=False)):
            axes.barh(positions + (position + 0.5) * thick - 0.4, numbers, thick, color=color)
        axes.set_yticks(positions, [printable(name) for name in names], fontsize=8, parse_math=False)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlabel("samples")
    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_label_text():  # counts, not names
            axis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    _legend(axes, counts, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(counts))
    return _svg(figure)


def histograms_figure(numbers: Mapping[str, Sequence[float]]) -> bytes:
    """Draw one histogram per row of numbers, side by side, as SVG; equal values give one bar."""
    figure = Figure(figsize=(7.2, 2.4), layout="constrained")
    for axes, (name, row) in zip(figure.subplots(1, len(numbers), squeeze=False)[0], numbers.items(), strict=True):
        values = np.asarray(row, np.float64)
        same = np.ptp(values) < 1e-6 * max(abs(values).max(), 1e-9)
        middle = float(values[0])
        axes.hist(values, bins=[middle - 0.5, middle + 0.5] if same else 24, color=BLUE)
        if same:
            axes.set_xlim(middle - 3, middle + 3)
            axes.set_xticks([middle], [f"{middle:g}"])
        axes.set_xlabel(name)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
    return _svg(figure)


def projection_figure(
    points: Float[ndarray, "videos 2"], targets: Int64[ndarray, " videos"], names: Sequence[str]
) -> bytes:
    """Draw the places of videos in a plane as stars colored by class (figures 3.6 and 3.7), as SVG."""
    figure = Figure(figsize=(7.2, 5.4), layout="constrained")
    axes = figure.subplots()
    colors = colormaps["tab10" if len(names) <= 10 else "turbo"].resampled(max(len(names), 1))
    for number in range(len(names)):
        x, y = points[targets == number].T
        axes.scatter(x, y, marker="*", s=40, color=colors(number))
    _legend(axes, names, loc="center left", bbox_to_anchor=(1, 0.5))
    axes.set_xticks([])
    axes.set_yticks([])
    return _svg(figure)


def cluster_figure(clusters: Int64[ndarray, "rows columns"], reference: tuple[int, int]) -> bytes:
    """Draw the clusters of positions relative to one patch (figure 3.5) as SVG.

    `clusters` is from `Clusters.map_from`. The reference patch (row, column) is marked by a flag.
    """
    rows, columns = clusters.shape
    figure = Figure(figsize=(0.8 + 0.32 * columns, 0.7 + 0.32 * rows), layout="constrained")
    axes = figure.subplots()
    names, number = np.unique(clusters, return_inverse=True)
    shuffled = np.random.default_rng(0).permutation(len(names))[number]  # different colors for neighbors
    axes.imshow(shuffled.reshape(clusters.shape), cmap="nipy_spectral", alpha=0.55)
    for (row, column), cluster in np.ndenumerate(clusters):
        if (row, column) != reference:
            axes.text(column, row, str(cluster), ha="center", va="center", fontsize=6)
    axes.plot(reference[1], reference[0], marker=">", color="red", markersize=9)
    axes.set_xlabel("column")
    axes.set_ylabel("row")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return _svg(figure)


def strips(videos: Sequence[UInt8[ndarray, "_ _ _ 3"]], shapes: Sequence[float] = ()) -> bytes:
    """Draw one row of frames per RGB video of any length and size, all of the same height, as JPEG.

    Args:
        videos: Frames of each video.
        shapes: Displayed width over height of each video; that of its frames if empty.
    """
    rows = []
    for video, shape in zip(videos, shapes or [video.shape[2] / video.shape[1] for video in videos], strict=True):
        size = (max(1, round(STRIP_HEIGHT * shape)), STRIP_HEIGHT)
        images = [np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX)) for image in video]
        rows.append(np.concatenate(images, axis=1))
    widest = max(row.shape[1] for row in rows)
    image = np.full((len(rows) * (STRIP_HEIGHT + 4) - 4, widest, 3), 255, np.uint8)
    for position, row in enumerate(rows):
        image[position * (STRIP_HEIGHT + 4) :][:STRIP_HEIGHT, : row.shape[1]] = row
    return _jpeg(image)


def film_strip(clip: UInt8[Tensor, "channels time height width"], frames: int = 6) -> bytes:
    """Draw evenly spaced frames of a clip side by side, as JPEG; a single channel is drawn in gray."""
    chosen = np.linspace(0, clip.shape[1] - 1, min(frames, clip.shape[1])).round().astype(int)
    images = clip.permute(1, 2, 3, 0)[chosen].numpy()
    strip: UInt8[ndarray, "height width channels"] = np.concatenate(list(images), axis=1)
    if strip.shape[-1] == 1:
        strip = np.repeat(strip, 3, axis=-1)
    return _jpeg(strip)


def _legend(
    axes: Axes,
    names: Iterable[str],
    *,
    loc: Literal["lower left", "center left"],
    bbox_to_anchor: tuple[float, float],
    ncols: int = 1,
) -> None:
    """Add the legend of all that is drawn, in the order of the names; `$` is no mathematics, `_` hides nothing."""
    handles: list[Any] = [*axes.containers, *axes.collections, *axes.lines]
    labels = [printable(name) for name in names]
    legend = axes.legend(
        handles,
        [str(number) for number in range(len(labels))],
        frameon=False,
        fontsize=8,
        loc=loc,
        bbox_to_anchor=bbox_to_anchor,
        ncols=ncols,
    )
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set_parse_math(False)
        text.set_text(label)


def _jpeg(image: UInt8[ndarray, "height width 3"]) -> bytes:
    buffer = io.BytesIO()
    imsave(buffer, image, format="jpg", pil_kwargs={"quality": 85})
    return buffer.getvalue()


def _svg(figure: Figure) -> bytes:
    FigureCanvasAgg(figure)  # independent of the user's matplotlib backend
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
