"""Draw the moving picture of README.md: held-out clips of the built-in set with a model's predictions.

    kinema demo
    python docs/make_picture.py demo/run --out docs/pictures/predictions.webp

Shows a clip of each action from the test split of `moves_cross_subject`: the first clip of the first action, the second
of the second, and so on, predicted correctly or not. Its people are rendered; the model has not seen their bodies.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from kinema import Recognizer
from kinema.data.manifest import load_manifest
from kinema.video.source import read_rgb

COLUMNS = 5
SIDE_PX, LABEL_PX, GAP_PX = 144, 32, 6
NUM_FRAMES, FRAME_MS = 32, 80
RIGHT, WRONG, BACKGROUND = "#1a7f37", "#c62828", "#ffffff"
FONT = ImageFont.load_default(size=13)


def main() -> None:
    """Predict the clips, draw them side by side and write the animation."""
    parser = argparse.ArgumentParser(description="Draw held-out clips of the built-in set with a model's predictions.")
    parser.add_argument("model", type=Path, help="run or model folder")
    parser.add_argument("--out", type=Path, default=Path("docs/pictures/predictions.webp"), help="animated WebP")
    args = parser.parse_args()

    recognizer = Recognizer.load(args.model)
    manifest = load_manifest("moves_cross_subject")
    videos: dict[str, list[str]] = {}
    for position in manifest.positions("test"):
        entry = manifest.entries[position]
        videos.setdefault(entry.labels["label"], []).append(manifest.locate(entry.rgb))
    cells = [
        draw_clip(recognizer, videos[action][number % len(videos[action])], action)
        for number, action in enumerate(sorted(videos))
    ]
    pages = [join_cells([cell[number] for cell in cells]) for number in range(NUM_FRAMES)]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    pages[0].save(
        args.out,
        save_all=True,
        append_images=pages[1:],
        duration=FRAME_MS,
        loop=0,
        quality=70,
        method=4,
        minimize_size=True,
    )
    print(f"{args.out}: {len(cells)} clips, {args.out.stat().st_size / 1e6:.2f} MB")


def draw_clip(recognizer: Recognizer, video: str, action: str) -> list[Image.Image]:
    """Return the frames of a clip above its predicted label: green if correct, red with the true label if not."""
    label, score = recognizer(video, top_k=1)[0]
    text = f"{label} {score:.0%}" if label == action else f"{label} {score:.0%}\ntrue: {action}"
    cells = []
    for picture in read_rgb(video, range(NUM_FRAMES)):
        cell = Image.new("RGB", (SIDE_PX, SIDE_PX + LABEL_PX), BACKGROUND)
        cell.paste(Image.fromarray(np.asarray(picture)).resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS))
        ImageDraw.Draw(cell).multiline_text(
            (SIDE_PX // 2, SIDE_PX + LABEL_PX // 2),
            text,
            fill=RIGHT if label == action else WRONG,
            font=FONT,
            anchor="mm",
            align="center",
            spacing=0,
        )
        cells.append(cell)
    return cells


def join_cells(cells: list[Image.Image]) -> Image.Image:
    """Return the cells in rows."""
    width, height = SIDE_PX + GAP_PX, SIDE_PX + LABEL_PX + GAP_PX
    num_rows = -(-len(cells) // COLUMNS)
    page = Image.new("RGB", (COLUMNS * width - GAP_PX, num_rows * height - GAP_PX), BACKGROUND)
    for number, cell in enumerate(cells):
        page.paste(cell, (number % COLUMNS * width, number // COLUMNS * height))
    return page


if __name__ == "__main__":
    main()
