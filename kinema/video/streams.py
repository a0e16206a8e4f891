"""Video streams of a container: their names in paths, and the choice of the one to read as RGB or as depth.

A path may name a stream after `#`, by its title or by its index in the container: `rec.mkv#depth`, `rec.mkv#1`.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.stream import Disposition

from kinema.errors import UnreadableVideo
from kinema.modality import Modality
from kinema.video.unreadable import unreadable

STILL = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
"""Marks of streams that are pictures beside the video, such as cover art."""

IMAGE_CODECS = frozenset({"mjpeg", "png", "bmp", "gif", "webp", "tiff", "apng", "jpegls", "jpeg2000", "ljpeg", "qoi"})
"""Codecs of single pictures, some of which also store videos."""

DEPTH_TITLE = re.compile(r"depth|tiefe|profond|profund|glubin|глубин|深度|깊이|z16", re.IGNORECASE)
OTHER_TITLE = re.compile(r"(?<![a-z])(ir|infra\w*|nir|thermal|confidence|amplitude|mask)(?![a-z])", re.IGNORECASE)
COLOR_TITLE = re.compile(r"(?<![a-z])(colou?r|rgb|farbe|couleur|main)(?![a-z])|彩色|颜色", re.IGNORECASE)
"""Titles of streams that sensors write; a stream of infrared light or confidence is neither color nor depth."""

GENERIC_TITLES = frozenset({"videohandler", "video", "video media handler", "core media video", "mainconcept"})
"""Handler names that MP4 writers give to every video stream."""

MEDIA_SUFFIX = re.compile(
    r"\.(mp4|avi|mkv|mov|webm|m4v|mpe?g|wmv|flv|3gp|ts|mts|m2ts|mxf|npz|mat|png|jpe?g)$", re.IGNORECASE
)
"""Ends of file names, which may contain `#` themselves."""


def split_stream(path: str) -> tuple[str, str | None]:
    """Return a path or URL without the name of a stream, and the name; None if the path names no stream.

    A file whose own name contains `#` wins. A URL names a stream after the last `#` of its first link, or at its end.
    """
    if "#" not in path or _exists(path):
        return path, None
    if "://" in path:
        first, chain, rest = path.partition("::")
        for link, others in ((path, ""), (first, chain + rest)):
            file, _, name = link.rpartition("#")
            if file and "/" not in name and "::" not in name and not MEDIA_SUFFIX.search(name):
                return file + others, name
        return path, None
    places = [match.start() for match in re.finditer("#", path)]
    place = next((place for place in places if _exists(path[:place])), places[-1])
    file, name = path[:place], path[place + 1 :]
    is_name = bool(file) and (_exists(file) or ("/" not in name and not MEDIA_SUFFIX.search(name)))
    return (file, name) if is_name else (path, None)


def join_stream(file: str, name: str | None) -> str:
    """Return a path that names a stream."""
    return file if name is None else f"{file}#{name}"


def choose_stream(path: str, container: InputContainer, name: str | None, kind: Modality) -> av.VideoStream:
    """Return the stream that a path names or, without a name, the one to read as RGB or as depth.

    Pictures beside the video are never chosen without a name. RGB is the default track, or one with a title such as
    `color`; depth is the stream with a title such as `depth`, else the only one in gray.

    Raises:
        UnreadableVideo: The container has no such stream, no video stream, or several that may be the depth.
    """
    streams = list(container.streams.video)
    if name is not None:
        chosen = [_named(path, streams, name)]
    else:
        candidates = _candidates(streams)
        if not candidates:
            raise unreadable(path, "has no video stream")
        chosen = _rgb_streams(candidates) if kind == "rgb" else _depth_streams(candidates)
        if kind == "depth" and len(chosen) > 1:
            raise _ambiguous(path, "several streams may be the depth", chosen)
    return chosen[0]


def equal_streams(container: InputContainer, kind: Modality) -> list[str]:
    """Return a description of each stream that may be read as RGB or as depth; empty if there is only one."""
    candidates = _candidates(list(container.streams.video))
    if kind == "rgb":
        equal = [s for s in candidates if _is_color(s)]
    else:
        equal = [] if any(_is_titled(DEPTH_TITLE, s) for s in candidates) else _prefer(candidates, *DEPTH_RULES)
    return [describe_stream(s) for s in equal] if len(equal) > 1 else []


def describe_stream(stream: av.VideoStream) -> str:
    """Return index, codec, pixel format, size, title and default mark: `#1 (ffv1 gray16le 640 x 576, depth)`."""
    context = stream.codec_context
    if context is None:
        return f"#{stream.index} (unknown codec)"
    form = "" if context.format is None else f" {context.format.name}"
    facts = [f"{context.name}{form} {context.width} x {context.height}", stream_title(stream)]
    facts.append("default" if stream.disposition & Disposition.default else "")
    return f"#{stream.index} ({', '.join(filter(None, facts))})"


def stream_title(stream: av.VideoStream) -> str:
    """Return the title of a stream; empty without one."""
    tags = {key.lower(): value for key, value in stream.metadata.items()}
    names = (tags.get(key, "").strip() for key in ("title", "name", "track_name", "handler_name"))
    return next((name for name in names if name and _folded(name) not in GENERIC_TITLES), "")


def is_still(stream: Any) -> bool:
    """Return whether a stream is a picture or thumbnails beside the video, by its mark or by its number of frames."""
    if stream.disposition & STILL:
        return True
    context = stream.codec_context
    return (
        stream.type == "video" and context is not None and context.name in IMAGE_CODECS and _num_announced(stream) == 1
    )


def _candidates(streams: Sequence[av.VideoStream]) -> list[av.VideoStream]:
    """Return the streams that may be the video; a video of a single picture may be, if there is no other."""
    known = [s for s in streams if s.codec_context is not None] or list(streams)
    return [s for s in known if not is_still(s)] or [s for s in known if not s.disposition & STILL]


def _rgb_streams(candidates: Sequence[av.VideoStream]) -> list[av.VideoStream]:
    return _prefer(
        candidates,
        _is_color,
        lambda s: _is_titled(COLOR_TITLE, s),
        _is_default,
        lambda s: s.codec_context is not None and s.codec_context.name not in IMAGE_CODECS,
    )


def _depth_streams(candidates: Sequence[av.VideoStream]) -> list[av.VideoStream]:
    titled = [s for s in candidates if _is_titled(DEPTH_TITLE, s)]
    return _prefer(titled, *DEPTH_RULES) if titled else _prefer(candidates, *DEPTH_RULES, _is_default)


def _prefer(streams: Sequence[av.VideoStream], *rules: Callable[[av.VideoStream], bool]) -> list[av.VideoStream]:
    """Return the streams that satisfy as many of the rules as possible, the first rule first."""
    left = list(streams)
    for rule in rules:
        left = [s for s in left if rule(s)] or left
    return left


def _is_titled(pattern: re.Pattern[str], stream: av.VideoStream) -> bool:
    return bool(pattern.search(unicodedata.normalize("NFC", stream_title(stream))))


def _is_gray(stream: av.VideoStream, deep: bool = False) -> bool:
    stored = None if stream.codec_context is None else stream.codec_context.format
    return stored is not None and is_gray_format(stored) and (not deep or stored.components[0].bits > 8)


def _is_default(stream: av.VideoStream) -> bool:
    return bool(stream.disposition & Disposition.default)


def _is_color(stream: av.VideoStream) -> bool:
    return not (_is_gray(stream) or _is_titled(DEPTH_TITLE, stream) or _is_titled(OTHER_TITLE, stream))


def is_gray_format(stored: av.VideoFormat) -> bool:
    """Return whether a pixel format has one channel, apart from transparency."""
    return sum(not c.is_alpha for c in stored.components) == 1 and not stored.has_palette and not stored.is_bayer


def _named(path: str, streams: Sequence[av.VideoStream], name: str) -> av.VideoStream:
    found = [s for s in streams if _folded(name) == _folded(stream_title(s)) != ""]
    if name.isascii() and name.isdecimal():
        found += [s for s in streams if s.index == int(name) and s not in found]
    if not found and _folded(name) == "depth":
        found = [s for s in _depth_streams(_candidates(streams)) if _is_titled(DEPTH_TITLE, s) or _is_gray(s)]
    if not found and _folded(name) in ("rgb", "color"):
        found = [s for s in _rgb_streams(_candidates(streams)) if _is_color(s)]
    if len(found) > 1:
        raise _ambiguous(path, f"several video streams are named {name!r}", found)
    if not found:
        known = "; ".join(map(describe_stream, streams)) or "none"
        raise unreadable(path, f"no video stream is named {name!r}; expected a title or an index of {known}")
    return found[0]


def _ambiguous(path: str, problem: str, streams: Sequence[av.VideoStream]) -> UnreadableVideo:
    listed = "; ".join(map(describe_stream, streams))
    example = f"{Path(path).name.partition('#')[0]}#{streams[0].index}"
    return unreadable(path, f"{problem}: {listed}. Name one in the path, for example {example}.")


def _num_announced(stream: av.VideoStream) -> int:
    """Return the number of frames in the header or tags of a stream; 0 if unknown."""
    if stream.frames:
        return stream.frames
    tags = {key.lower().partition("-")[0]: value for key, value in stream.metadata.items()}
    if tags.get("number_of_frames", "").isdecimal():
        return int(tags["number_of_frames"])
    hours, _, rest = tags.get("duration", "").partition(":")
    minutes, _, seconds = rest.partition(":")
    try:
        duration = 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    except ValueError:
        return 0
    return round(duration * float(stream.average_rate)) if stream.average_rate else 0


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", text.strip()).casefold()


def _exists(path: str) -> bool:
    try:
        return "://" not in path and Path(path).exists()
    except (OSError, ValueError):  # a name that no file can have
        return False


DEPTH_RULES: tuple[Callable[[av.VideoStream], bool], ...] = (
    lambda s: not _is_titled(OTHER_TITLE, s),
    lambda s: not _is_titled(COLOR_TITLE, s),
    partial(_is_gray, deep=True),
    _is_gray,
)
"""Rules that tell depth from other streams without a mark, the most important one first."""
