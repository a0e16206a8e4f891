"""Contact sheets: what the clips look like, to be looked at before anything is committed."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import Image, ImageDraw, ImageFont

from kinema.render.motion import ACTIONS
from kinema.render.moves import ASSETS, CAMERAS, SUBJECTS, Clip
from kinema.render.video import read_depth, read_rgb

Picture = UInt8[np.ndarray, "height width 3"]


def draw_overview(folder: Path = ASSETS) -> Image.Image:
    """Draw one clip of every action, subjects and cameras in turn: the picture in docs/moves.md."""
    subjects, cameras = list(SUBJECTS), list(CAMERAS)
    clips = [
        Clip(action, subjects[index % len(subjects)], cameras[(index + index // len(subjects)) % len(cameras)], 0)
        for index, action in enumerate(ACTIONS)
    ]
    return draw_sheet(folder, clips, frames=6, columns=3)


def draw_sheet(folder: Path, clips: Sequence[Clip], *, frames: int, columns: int) -> Image.Image:
    """Draw clips as strips, each of `frames` frames with depth under color, `columns` strips beside each other.

    Args:
        folder: where `rgb/` and `depth/` lie.
    """
    strips = [_strip(folder, clip, frames) for clip in clips]
    title_px, gap_px = 22, 12
    height, width = strips[0].shape[0] + title_px + gap_px, strips[0].shape[1] + gap_px
    rows = -(-len(strips) // columns)
    sheet = Image.new("RGB", (columns * width + gap_px, rows * height + gap_px), (255, 255, 255))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=14)
    for index, (clip, strip) in enumerate(zip(clips, strips, strict=True)):
        left, top = gap_px + index % columns * width, gap_px + index // columns * height
        pen.text((left, top), clip.action, fill=(20, 20, 20), font=font)
        pen.text(
            (left + strip.shape[1], top), f"{clip.subject}  {clip.camera}", fill=(130, 130, 130), font=font, anchor="ra"
        )
        sheet.paste(Image.fromarray(strip), (left, top + title_px))
    return sheet


def color_depth(depth_mm: UInt16[np.ndarray, "*batch height width"]) -> UInt8[np.ndarray, "*batch height width 3"]:
    """Depth as colors from yellow (near) to violet (far) over the range that occurs; no person is black."""
    from matplotlib import colormaps

    seen = depth_mm[depth_mm > 0]
    near, far = (float(seen.min()), float(seen.max())) if seen.size else (0.0, 1.0)
    share = (far - depth_mm.astype(np.float64)) / max(far - near, 1.0)
    colors = colormaps["plasma"](0.12 + 0.85 * np.clip(share, 0.0, 1.0))[..., :3]
    return np.where((depth_mm > 0)[..., None], np.rint(255 * colors), 12).astype(np.uint8)


def _strip(folder: Path, clip: Clip, frames: int) -> Picture:
    rgb = read_rgb(folder / "rgb" / f"{clip.name}.mp4")
    depth = color_depth(read_depth(folder / "depth" / f"{clip.name}.mkv"))
    chosen = np.linspace(0, len(rgb) - 1, frames).round().astype(int)
    return np.concatenate([np.concatenate(list(pictures[chosen]), axis=1) for pictures in (rgb, depth)], axis=0)
