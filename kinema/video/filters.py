"""FFmpeg's filters for frames: tone mapping of HDR video (PQ and HLG), and deinterlacing."""

import functools
from fractions import Fraction
from typing import cast

import av
import numpy as np
from av.filter import Graph
from av.filter.context import FilterContext
from av.video.reformatter import ColorPrimaries, ColorRange, ColorTrc
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image, ImageFilter

TRANSFERS = {ColorTrc.SMPTE2084.value: "PQ", ColorTrc.ARIB_STD_B67.value: "HLG"}
"""Names of the transfer characteristics of HDR."""

GAMUTS = {
    ColorPrimaries.BT2020.value: "BT.2020",
    ColorPrimaries.SMPTE431.value: "DCI-P3",
    ColorPrimaries.SMPTE432.value: "Display P3",
}
"""Names of the primaries that are wider than BT.709."""

GRID = 65
"""Number of levels per channel in a table of colors, the most that Pillow takes. Colors between them are interpolated,
which differs from swscale's own by 1 level in the mean."""


def tone_map(rgb: UInt8[ndarray, "height width 3"], transfer: int, primaries: int) -> UInt8[ndarray, "height width 3"]:
    """Return a picture with the colors that ordinary video of the scene would have.

    Colors up to the white of a page (203 cd/m2) are reproduced, and brighter ones are clipped.

    Args:
        rgb: Picture with HDR levels.
        transfer: Transfer characteristic, a key of `TRANSFERS`.
        primaries: Primaries by FFmpeg's number; those of BT.2020 if unspecified.
    """
    primaries = ColorPrimaries.BT2020.value if primaries == ColorPrimaries.UNSPECIFIED.value else primaries
    return np.asarray(Image.fromarray(np.ascontiguousarray(rgb)).filter(_table(transfer, primaries)))


@functools.cache
def _table(transfer: int, primaries: int) -> ImageFilter.Color3DLUT:
    """Return the table of colors.

    swscale computes its own for seconds, and again for every picture of another size. Made once per process, from a
    picture of all colors, this one serves all files.
    """
    levels = np.rint(np.linspace(0, 65535, GRID)).astype(np.uint16)
    blue, green, red = np.meshgrid(levels, levels, levels, indexing="ij")
    frame = av.VideoFrame.from_ndarray(np.stack([red, green, blue], -1).reshape(-1, GRID, 3), format="rgb48le")
    frame.color_trc, frame.color_primaries, frame.color_range = transfer, primaries, ColorRange.JPEG.value
    mapping = "out_transfer=bt709:out_primaries=bt709:intent=relative_colorimetric"
    _, source, sink = _graph(frame, ("scale", mapping), ("format", "rgb48le"))
    source.push(frame)
    mapped = cast(av.VideoFrame, sink.pull())
    return ImageFilter.Color3DLUT(GRID, mapped.to_ndarray().ravel() / 65535)


def _graph(frame: av.VideoFrame, *filters: tuple[str, str]) -> tuple[Graph, FilterContext, FilterContext]:
    """Return a chain of FFmpeg's filters for frames like this one, with its entrance and exit."""
    graph = Graph()
    if hasattr(graph, "threads"):  # PyAV 17.0 has no such setting
        graph.threads = 1
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 25))
    sink = graph.add("buffersink")
    graph.link_nodes(source, *(graph.add(name, options) for name, options in filters), sink).configure()
    return graph, source, sink


class Deinterlacer:
    """Deinterlacing by FFmpeg's `estdif`, which keeps the lines of the first field and interpolates the others.

    It uses the frame alone: the result is the same whether a frame is reached by seeking or in order, unlike that of
    filters that use the frames before and after.
    """

    def __init__(self) -> None:
        self._form: tuple[int, int, str] | None = None
        self._graph: tuple[Graph, FilterContext, FilterContext] | None = None

    def __call__(self, frame: av.VideoFrame) -> av.VideoFrame:
        """Return the frame deinterlaced, or unchanged if it is not marked as interlaced."""
        if not frame.interlaced_frame:
            return frame
        form = (frame.width, frame.height, frame.format.name)
        if self._graph is None or form != self._form:
            self._form, self._graph = form, _graph(frame, ("estdif", "mode=frame:deint=interlaced"))
        _, source, sink = self._graph
        # The filter returns a frame when it gets the next. It gets the same once more, which it returns a call later.
        source.push(frame)
        source.push(frame)
        result = frame
        while True:
            try:
                result = sink.pull()  # type: ignore[assignment]  # frames of video alone
            except (av.BlockingIOError, av.EOFError):
                return result
