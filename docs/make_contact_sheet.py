"""Draw the image of moves.md: a clip of every action as a strip of frames, depth below color.

python docs/make_contact_sheet.py docs/pictures/moves.jpg

Subjects and cameras alternate from action to action.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import Image, ImageDraw, ImageFont

from kinema.render.motion import ACTIONS
from kinema.render.moves import ASSETS, CAMERAS, SUBJECTS, Clip
from kinema.render.video import read_depth, read_rgb


def main() -> None:
    """Draw one clip of every action, with alternating subjects and cameras."""
    parser = argparse.ArgumentParser(description="Draw a contact sheet of the built-in dataset.")
    parser.add_argument("out", type=Path, help="image to write")
    args = parser.parse_args()
    subjects, cameras = list(SUBJECTS), list(CAMERAS)
    clips = [
        Clip(action, subjects[index % len(subjects)], cameras[(index + index // len(subjects)) % len(cameras)], 0)
        for index, action in enumerate(ACTIONS)
    ]
    draw_sheet(ASSETS, clips, frames=6, columns=3).save(args.out)


def draw_sheet(folder: Path, clips: Sequence[Clip], *, frames: int, columns: int) -> Image.Image:
    """Return an image of clips as strips, each with depth below color.

    Args:
        folder: Folder that contains `rgb/` and `depth/`.
        clips: Clips to draw.
        frames: Number of frames per strip, equally spaced.
        columns: Number of strips beside each other.
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
    """Return depth as colors from yellow (nearest pixel) to violet (farthest); pixels without a person are black."""
    from matplotlib import colormaps

    person = depth_mm[depth_mm > 0]
    near, far = (float(person.min()), float(person.max())) if person.size else (0.0, 1.0)
    share = (far - depth_mm.astype(np.float64)) / max(far - near, 1.0)
    colors = colormaps["plasma"](0.12 + 0.85 * np.clip(share, 0.0, 1.0))[..., :3]
    return np.where((depth_mm > 0)[..., None], np.rint(255 * colors), 12).astype(np.uint8)


def _strip(folder: Path, clip: Clip, frames: int) -> UInt8[np.ndarray, "height width 3"]:
    rgb = read_rgb(folder / "rgb" / f"{clip.name}.mp4")
    depth = color_depth(read_depth(folder / "depth" / f"{clip.name}.mkv"))
    indices = np.linspace(0, len(rgb) - 1, frames).round().astype(int)
    return np.concatenate([np.concatenate(list(images[indices]), axis=1) for images in (rgb, depth)], axis=0)


if __name__ == "__main__":
    main()
