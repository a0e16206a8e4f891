"""Figures for a page: matplotlib pictures and film strips, as bytes."""

import io
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int64, UInt8
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave
from numpy import ndarray
from torch import Tensor

BLUE, ORANGE, GREY = "#2f6f9f", "#d9822b", "#8a8f98"


def learning_curve(steps: Sequence[Mapping[str, float]], metrics: Sequence[Mapping[str, float]]) -> bytes:
    """SVG: training loss of every step, smoothed over it, and the top-1 of every evaluation."""
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
    accuracy_axes.set_ylabel("held-out top-1, %", color=ORANGE)
    accuracy_axes.set_ylim(0, 100)
    for axes in (loss_axes, accuracy_axes):
        axes.spines["top"].set_visible(False)
    return _svg(figure)


def confusion_figure(counts: Int64[ndarray, "classes classes"], names: Sequence[str]) -> bytes:
    """SVG: a row for each true class, shares of its samples, counts written in."""
    side = 1.6 + 0.34 * len(names)
    figure = Figure(figsize=(side + 0.6, side), layout="constrained")
    axes = figure.subplots()
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.argwhere(counts > 0):
        colour = "white" if share[row, column] > 0.55 else "black"
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=7, color=colour)
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_xlabel("answer")
    axes.set_ylabel("truth")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return _svg(figure)


def film_strip(clip: UInt8[Tensor, "channels time height width"], frames: int = 6) -> bytes:
    """JPEG: some frames of a clip side by side, evenly taken; one channel is shown in grey."""
    chosen = np.linspace(0, clip.shape[1] - 1, min(frames, clip.shape[1])).round().astype(int)
    pictures = clip.permute(1, 2, 3, 0)[chosen].numpy()
    strip: UInt8[ndarray, "height width channels"] = np.concatenate(list(pictures), axis=1)
    if strip.shape[-1] == 1:
        strip = np.repeat(strip, 3, axis=-1)
    buffer = io.BytesIO()
    imsave(buffer, strip, format="jpg", pil_kwargs={"quality": 85})
    return buffer.getvalue()


def _svg(figure: Figure) -> bytes:
    FigureCanvasAgg(figure)  # no window, whatever the user's matplotlib is set to
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
