"""Built-in dataset `moves`: RGB-D clips of 15 captured actions x 5 bodies x 3 cameras, one or two takes each.

All variation is a pure function of (action, subject, camera, take), see `draw_params`. The dataset is meant for testing
software; docs/moves.md lists its limits.
"""

import logging
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from kinema.data.manifest import Entry, write_manifest
from kinema.modality import DepthFacts
from kinema.render.mannequin import Body, Color, Floor, Light, frame_view, outline_m, place_on_floor, render
from kinema.render.motion import ACTIONS, Poses, load_motion, smooth_noise
from kinema.render.video import write_depth, write_rgb

logger = logging.getLogger(__name__)

ASSETS = Path(__file__).parents[1] / "assets" / "moves"
VERSION = "1"
FRAMES = 32
PIXELS = 112
DEPTH = DepthFacts(unit_mm=1.0, near=1300.0, far=8300.0, coverage="masked")
JOINT_NOISE_RAD = 0.07

SUBJECTS = {
    "s1": Body(),
    "s2": Body(
        legs=1.07,
        arms=1.05,
        trunk=1.04,
        girth=0.90,
        shirt=(0.16, 0.47, 0.45),
        legwear=(0.62, 0.54, 0.42),
        shoes=(0.85, 0.84, 0.80),
        skin=(0.45, 0.30, 0.22),
        hair_color=(0.06, 0.05, 0.05),
        sleeves="long",
    ),
    "s3": Body(
        legs=0.93,
        arms=0.95,
        girth=1.18,
        shoulders=1.05,
        shirt=(0.90, 0.72, 0.22),
        legwear=(0.30, 0.32, 0.33),
        shoes=(0.55, 0.20, 0.16),
        skin=(0.93, 0.76, 0.64),
        hair_color=(0.55, 0.30, 0.14),
        trousers="short",
    ),
    "s4": Body(
        legs=0.97,
        arms=0.94,
        trunk=0.95,
        shoulders=0.86,
        hips=1.06,
        girth=0.91,
        shirt=(0.50, 0.30, 0.60),
        legwear=(0.14, 0.15, 0.20),
        shoes=(0.92, 0.92, 0.92),
        skin=(0.80, 0.58, 0.43),
        hair_color=(0.13, 0.08, 0.06),
        sleeves="long",
        hair="long",
    ),
    "s5": Body(
        legs=0.84,
        arms=0.86,
        trunk=0.90,
        shoulders=0.90,
        girth=0.94,
        head=1.06,
        shirt=(0.30, 0.55, 0.85),
        legwear=(0.45, 0.50, 0.30),
        shoes=(0.20, 0.22, 0.30),
        skin=(0.72, 0.50, 0.36),
        hair_color=(0.25, 0.16, 0.10),
        trousers="short",
        hair="cap",
    ),
}
CAMERAS = {"c1": 110.0, "c2": 155.0, "c3": 200.0}
"""Azimuth of each camera [degrees]. The person initially faces 0; c1 shows the side, c2 and c3 the front obliquely."""

FLOORS: tuple[tuple[Color, Color], ...] = (
    ((0.62, 0.52, 0.46), (0.53, 0.44, 0.39)),
    ((0.45, 0.55, 0.47), (0.38, 0.47, 0.41)),
    ((0.50, 0.54, 0.62), (0.42, 0.46, 0.54)),
    ((0.72, 0.64, 0.50), (0.63, 0.54, 0.41)),
    ((0.66, 0.66, 0.64), (0.55, 0.55, 0.55)),
    ((0.55, 0.42, 0.40), (0.48, 0.36, 0.35)),
)
SKIES: tuple[Color, ...] = ((0.72, 0.80, 0.90), (0.86, 0.82, 0.76), (0.80, 0.84, 0.84), (0.78, 0.76, 0.86))
PATTERNS: tuple[Literal["checker", "tiles", "plain"], ...] = ("checker", "tiles", "plain")

CYCLES = {"crawl": 1.0, "dance_a": 1.5, "dance_b": 1.1, "run": 1.5, "walk": 1.5}
"""Number of cycles per clip of a cyclic motion at tempo 1; all other motions are shown once."""

# two takes of training subjects and one of test subjects: 360 clips fit into 12 MB, 450 do not
TAKES = {"s1": 2, "s2": 2, "s3": 2, "s4": 1, "s5": 1}
SUBJECT_SPLIT = {"s1": "train", "s2": "train", "s3": "train", "s4": "test", "s5": "test"}
CAMERA_SPLIT = {"c1": "test", "c2": "train", "c3": "train"}


class Clip(NamedTuple):
    """Key of a clip; `take` counts from 0."""

    action: str
    subject: str
    camera: str
    take: int

    @property
    def name(self) -> str:
        """File name without suffix."""
        return f"{self.action}_{self.subject}_{self.camera}_t{self.take}"


@dataclass(frozen=True, kw_only=True)
class ClipParams:
    """Random parameters of a clip.

    Angles are those of the camera's viewing direction.

    Attributes:
        tempo: Speed relative to the capture.
        start: Start time as a fraction of the motion's duration.
        margin_m: Free space around the person in the image.
        shade: Factor on the brightness of the clothes.
    """

    tempo: float
    start: float
    side: Literal["captured", "mirrored"]
    noise_seed: int
    azimuth_degrees: float
    elevation_degrees: float
    margin_m: float
    shade: float
    floor: Floor
    light: Light


def list_clips() -> tuple[Clip, ...]:
    """Return all clips of the dataset, in the order of the manifests."""
    return tuple(
        Clip(action, subject, camera, take)
        for action in ACTIONS
        for subject in SUBJECTS
        for camera in CAMERAS
        for take in range(TAKES[subject])
    )


def draw_params(clip: Clip) -> ClipParams:
    """Return the random parameters of a clip, a pure function of its key."""
    rng = np.random.default_rng(
        (ACTIONS.index(clip.action), list(SUBJECTS).index(clip.subject), list(CAMERAS).index(clip.camera), clip.take)
    )
    cyclic = load_motion(clip.action).kind == "cyclic"
    first, second = FLOORS[rng.integers(len(FLOORS))]
    floor = Floor(
        pattern=PATTERNS[rng.integers(len(PATTERNS))],
        first=_shade(first, float(rng.uniform(0.85, 1.1))),
        second=_shade(second, float(rng.uniform(0.85, 1.1))),
        square_m=float(rng.uniform(0.5, 0.9)),
    )
    azimuth_degrees = CAMERAS[clip.camera] + float(rng.uniform(-8.0, 8.0))
    light = Light(
        # never from behind the person, which would show a silhouette
        azimuth_degrees=azimuth_degrees + 180.0 + float(rng.uniform(-75.0, 75.0)),
        elevation_degrees=float(rng.uniform(40.0, 70.0)),
        strength=float(rng.uniform(0.45, 0.75)),
        sky=SKIES[rng.integers(len(SKIES))],
    )
    return ClipParams(
        tempo=float(rng.uniform(0.8, 1.25)) if cyclic else float(rng.uniform(0.88, 1.2)),
        start=float(rng.uniform(0.0, 1.0)) if cyclic else float(rng.uniform(-0.07, 0.06)),
        side="mirrored" if rng.random() < 0.5 else "captured",
        noise_seed=int(rng.integers(2**31)),
        azimuth_degrees=azimuth_degrees,
        elevation_degrees=float(rng.uniform(-17.0, -8.0)),
        margin_m=float(rng.uniform(0.16, 0.32)),
        shade=float(rng.uniform(0.9, 1.08)),
        floor=floor,
        light=light,
    )


def rate_fps(action: str) -> Fraction:
    """Return the frame rate at which `FRAMES` frames of an action last as long as its motion at tempo 1."""
    duration_s = load_motion(action).duration_s * CYCLES.get(action, 1.0)
    return Fraction(round(2 * FRAMES / duration_s), 2)


def animate(clip: Clip) -> tuple[Poses, Body]:
    """Return the poses of the clip's subject on the floor, and its body with the clothes of this take."""
    params = draw_params(clip)
    motion = load_motion(clip.action)
    frames = np.arange(FRAMES)
    times_s = params.start * motion.duration_s + params.tempo * frames / float(rate_fps(clip.action))
    captured = motion.at(times_s)
    noise = smooth_noise(np.random.default_rng(params.noise_seed), phases=frames / FRAMES, sigma_rad=JOINT_NOISE_RAD)
    noisy = captured.rotate_joints(noise)
    poses = noisy if params.side == "captured" else noisy.mirror()
    subject, shade = SUBJECTS[clip.subject], params.shade
    body = replace(subject, shirt=_shade(subject.shirt, shade), legwear=_shade(subject.legwear, shade))
    return place_on_floor(poses, body=body, captured=captured), body


def write_manifests(out: Path, clips: Sequence[Clip] | None = None) -> None:
    """Write the manifests of both protocols for clips below `out`; renders nothing."""
    clips = list_clips() if clips is None else clips
    for protocol in ("cross_subject", "cross_view"):
        entries = [
            Entry(
                rgb=f"rgb/{clip.name}.mp4",
                depth=f"depth/{clip.name}.mkv",
                frames=FRAMES,
                split=SUBJECT_SPLIT[clip.subject] if protocol == "cross_subject" else CAMERA_SPLIT[clip.camera],
                group=f"humanoid3d_{clip.action}",
                subject=clip.subject,
                camera=clip.camera,
                labels={"label": clip.action},
            )
            for clip in clips
        ]
        write_manifest(
            out / f"moves_{protocol}.csv",
            entries=entries,
            classes={"label": ACTIONS},
            dataset="moves",
            version=VERSION,
            depth=DEPTH,
        )


def render_moves(out: Path, *, clips: Sequence[Clip] | None = None, workers: int | None = None) -> None:
    """Render all or some clips into `out`: `rgb/*.mp4`, `depth/*.mkv` and the manifests.

    The number of processes (by default one per core) does not change the pixels.
    """
    clips = list_clips() if clips is None else clips
    for folder in ("rgb", "depth"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")  # a forked process inherits threads of numpy in an unknown state
    with ProcessPoolExecutor(max_workers=workers or os.cpu_count(), mp_context=context) as pool:
        done = pool.map(_render_files, [out] * len(clips), clips, chunksize=1)
        for count, name in enumerate(done, start=1):
            logger.info("%d/%d %s", count, len(clips), name)
    write_manifests(out, clips)


def _render_files(out: Path, clip: Clip) -> str:
    poses, body = animate(clip)
    params = draw_params(clip)
    view = frame_view(
        outline_m(body, poses),
        azimuth_degrees=params.azimuth_degrees,
        elevation_degrees=params.elevation_degrees,
        margin_m=params.margin_m,
    )
    footage = render(poses, body=body, floor=params.floor, light=params.light, view=view, pixels=PIXELS)
    rate = rate_fps(clip.action)
    write_rgb(out / "rgb" / f"{clip.name}.mp4", footage.rgb, rate_fps=rate)
    write_depth(out / "depth" / f"{clip.name}.mkv", footage.depth_mm, rate_fps=rate)
    return clip.name


def _shade(color: Color, factor: float) -> Color:
    red, green, blue = (min(1.0, value * factor) for value in color)
    return (red, green, blue)
