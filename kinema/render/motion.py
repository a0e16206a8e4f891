"""Motion capture as numbers: the DeepMimic clips, and what may be done to them without drawing anything.

Source: X. B. Peng et al., DeepMimic, 2018 (arXiv:1804.02717); the 15 human clips that the PyPI package `pybullet` 3.2.7
ships in `pybullet_data/data/motions`, kept as float32 in `kinema/assets/motions/` with their notice.

A captured frame is 44 numbers: its duration, the root's position, then one rotation per joint in the order of `JOINTS`
(w x y z for a ball, one angle for a hinge). Meters, seconds, radians; y is up, the person faces +x, z is to the right.
"""

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Float64

MOTIONS = Path(__file__).parents[1] / "assets" / "motions" / "deepmimic.npz"

ACTIONS = (
    "backflip",
    "cartwheel",
    "crawl",
    "dance_a",
    "dance_b",
    "getup_facedown",
    "getup_faceup",
    "jump",
    "kick",
    "punch",
    "roll",
    "run",
    "spin",
    "spinkick",
    "walk",
)


class Joint(NamedTuple):
    """One joint: where it hangs, and how the capture writes its rotation.

    Args:
        offset_m: from the parent joint, in the parent's frame, for the captured skeleton.
    """

    name: str
    parent: str
    kind: Literal["free", "ball", "hinge"]
    offset_m: tuple[float, float, float]


# The order is that of the captured numbers. A wrong order gives poses that look plausible: tests/render holds it.
JOINTS = (
    Joint("root", "", "free", (0.0, 0.0, 0.0)),
    Joint("chest", "root", "ball", (0.0, 0.2362, 0.0)),
    Joint("neck", "chest", "ball", (0.0, 0.2239, 0.0)),
    Joint("right_hip", "root", "ball", (0.0, 0.0, 0.0849)),
    Joint("right_knee", "right_hip", "hinge", (0.0, -0.4215, 0.0)),
    Joint("right_ankle", "right_knee", "ball", (0.0, -0.4099, 0.0)),
    Joint("right_shoulder", "chest", "ball", (-0.024, 0.2435, 0.1831)),
    Joint("right_elbow", "right_shoulder", "hinge", (0.0, -0.2748, 0.0)),
    Joint("left_hip", "root", "ball", (0.0, 0.0, -0.0849)),
    Joint("left_knee", "left_hip", "hinge", (0.0, -0.4215, 0.0)),
    Joint("left_ankle", "left_knee", "ball", (0.0, -0.4099, 0.0)),
    Joint("left_shoulder", "chest", "ball", (-0.024, 0.2435, -0.1831)),
    Joint("left_elbow", "left_shoulder", "hinge", (0.0, -0.2748, 0.0)),
)
INDEX = {joint.name: position for position, joint in enumerate(JOINTS)}
# The capture has no wrist; the hand's place follows from the elbow.
WRIST_OFFSET_M = (0.0, -0.2589, 0.0)

Quaternions = Float64[np.ndarray, "*batch 4"]


def multiply(first: Quaternions, second: Float64[np.ndarray, "*other 4"]) -> Float64[np.ndarray, "*both 4"]:
    """Hamilton product w x y z: the rotation `second`, then `first`."""
    w1, x1, y1, z1 = np.moveaxis(first, -1, 0)
    w2, x2, y2, z2 = np.moveaxis(second, -1, 0)
    return np.stack(
        [
            w1 * w2 - x1 * x2 - y1 * y2 - z1 * z2,
            w1 * x2 + x1 * w2 + y1 * z2 - z1 * y2,
            w1 * y2 - x1 * z2 + y1 * w2 + z1 * x2,
            w1 * z2 + x1 * y2 - y1 * x2 + z1 * w2,
        ],
        axis=-1,
    )


def conjugate(rotations: Quaternions) -> Quaternions:
    """The inverse of unit quaternions."""
    inverse: Quaternions = rotations * np.array([1.0, -1.0, -1.0, -1.0])
    return inverse


def rotate(rotations: Quaternions, vectors: Float64[np.ndarray, "*other 3"]) -> Float64[np.ndarray, "*both 3"]:
    """Turn vectors by unit quaternions; leading axes broadcast."""
    scalar, axis = rotations[..., :1], rotations[..., 1:]
    twice = 2.0 * np.cross(axis, vectors)
    turned: Float64[np.ndarray, "*both 3"] = vectors + scalar * twice + np.cross(axis, twice)
    return turned


def from_rotation_vectors(vectors: Float64[np.ndarray, "*batch 3"]) -> Quaternions:
    """Unit quaternions of rotations given as axis times angle in radians."""
    angle = np.linalg.norm(vectors, axis=-1, keepdims=True)
    # sinc keeps the zero rotation exact.
    return np.concatenate([np.cos(angle / 2), vectors * np.sinc(angle / (2 * np.pi)) / 2], axis=-1)


def slerp(
    first: Quaternions, second: Quaternions, fraction: Float64[np.ndarray, "*weights"] | float
) -> Float64[np.ndarray, "*batch 4"]:
    """Turn from `first` (fraction 0) to `second` (fraction 1) along the shorter arc, at constant speed."""
    weight = np.asarray(fraction, dtype=np.float64)[..., None]
    cosine = np.sum(first * second, axis=-1, keepdims=True)
    # q and -q are one rotation, and captured frames switch between them: without the flip a limb takes the long way.
    nearer = np.where(cosine < 0, -second, second)
    angle = np.arccos(np.clip(np.abs(cosine), 0.0, 1.0))
    sine = np.sin(angle)
    # Closer than 1e-6 rad the sine divides nothing by nothing; the straight line is the arc there.
    close = sine < 1e-6
    safe = np.where(close, 1.0, sine)
    from_first = np.where(close, 1.0 - weight, np.sin((1.0 - weight) * angle) / safe)
    from_second = np.where(close, weight, np.sin(weight * angle) / safe)
    mixed = from_first * first + from_second * nearer
    unit: Quaternions = mixed / np.linalg.norm(mixed, axis=-1, keepdims=True)
    return unit


@dataclass(frozen=True, kw_only=True, eq=False)
class Poses:
    """A person's pose at some instants: what a body is bent to.

    Args:
        root_m: position of the pelvis, y up.
        rotations: of each joint in the order of `JOINTS`, relative to its parent; the root's is relative to the world.
    """

    root_m: Float64[np.ndarray, "frames 3"]
    rotations: Float64[np.ndarray, "frames 13 4"]

    def mirrored(self) -> "Poses":
        """The same movement with left and right exchanged: a reflection in the plane z = 0."""
        partner = [INDEX[_other_side(joint.name)] for joint in JOINTS]
        # A reflection turns an axial vector the other way, except along its normal.
        rotations = self.rotations[:, partner] * np.array([1.0, -1.0, -1.0, 1.0])
        return Poses(root_m=self.root_m * np.array([1.0, 1.0, -1.0]), rotations=rotations)

    def turned(self, vectors: Float64[np.ndarray, "frames 13 3"]) -> "Poses":
        """Every joint turned further by a rotation vector (radians) in its own frame."""
        return replace(self, rotations=multiply(self.rotations, from_rotation_vectors(vectors)))


@dataclass(frozen=True, kw_only=True, eq=False)
class Motion:
    """One captured performance.

    Args:
        kind: `cyclic` motions go on after their end, each cycle from where the last one stopped; `single` ones stand
            still before their start and after their end.
        times_s: when each captured frame is reached, from 0, never falling.
    """

    name: str
    kind: Literal["cyclic", "single"]
    times_s: Float64[np.ndarray, " frames"]
    poses: Poses

    @property
    def duration_s(self) -> float:
        return float(self.times_s[-1])

    def at(self, times_s: Float64[np.ndarray, " instants"]) -> Poses:
        """The pose at any instants: positions in between are linear, rotations are turned evenly."""
        if self.kind == "cyclic":
            cycle, local_s = np.divmod(times_s, self.duration_s)
        else:
            cycle, local_s = np.zeros_like(times_s), np.clip(times_s, 0.0, self.duration_s)
        before = np.clip(np.searchsorted(self.times_s, local_s, side="right") - 1, 0, len(self.times_s) - 2)
        step_s = self.times_s[before + 1] - self.times_s[before]
        fraction = np.where(step_s > 0, (local_s - self.times_s[before]) / np.where(step_s > 0, step_s, 1.0), 1.0)
        root_m, rotations = self.poses.root_m, self.poses.rotations
        traveled_m = (root_m[-1] - root_m[0]) * np.array([1.0, 0.0, 1.0])
        mixed_m = root_m[before] + fraction[:, None] * (root_m[before + 1] - root_m[before])
        return Poses(
            root_m=mixed_m + cycle[:, None] * traveled_m,
            rotations=slerp(rotations[before], rotations[before + 1], fraction[:, None]),
        )


@cache
def load_motion(name: str) -> Motion:
    """One of the 15 captured performances in `ACTIONS`."""
    if name not in ACTIONS:
        raise ValueError(f"no motion named {name!r}; there are {', '.join(ACTIONS)}")
    with np.load(MOTIONS, allow_pickle=False) as archive:
        numbers = archive[name]
    # The capture files call most clips "wrap"; these five are the ones whose last pose leads into their first.
    kind: Literal["cyclic", "single"] = "cyclic" if name in {"crawl", "dance_a", "dance_b", "run", "walk"} else "single"
    poses = decode_poses(numbers)
    if kind == "cyclic":
        poses = _closed(poses)
    # A frame's duration is the way to the next one, so the last frame's leads nowhere.
    times_s = np.concatenate([[0.0], np.cumsum(numbers[:-1, 0], dtype=np.float64)])
    return Motion(name=name, kind=kind, times_s=times_s, poses=poses)


def decode_poses(numbers: Float32[np.ndarray, "frames 44"]) -> Poses:
    """Captured frames as positions and unit quaternions; hinges turn about z."""
    rotations = np.empty((len(numbers), len(JOINTS), 4))
    column = 4
    for position, joint in enumerate(JOINTS):
        if joint.kind == "hinge":
            angle = numbers[:, column].astype(np.float64)
            rotations[:, position] = from_rotation_vectors(angle[:, None] * np.array([0.0, 0.0, 1.0]))
            column += 1
        else:
            ball = numbers[:, column : column + 4].astype(np.float64)
            rotations[:, position] = ball / np.linalg.norm(ball, axis=-1, keepdims=True)
            column += 4
    return Poses(root_m=numbers[:, 1:4].astype(np.float64), rotations=rotations)


def smooth_noise(
    rng: np.random.Generator, *, phases: Float64[np.ndarray, " frames"], sigma_rad: float
) -> Float64[np.ndarray, "frames 13 3"]:
    """How one performance departs from the capture: per joint a constant offset and two slow waves, root excepted.

    Args:
        phases: time as a fraction of the clip.
        sigma_rad: standard deviation of the whole, per axis.
    """
    shape = (len(JOINTS), 3)
    weights = rng.normal(0.0, sigma_rad / np.sqrt(2.0), size=(3, *shape))
    offsets = rng.uniform(0.0, 2 * np.pi, size=(2, *shape))
    waves = [np.sin(2 * np.pi * (turn + 1) * phases[:, None, None] + offsets[turn]) for turn in range(2)]
    noise = weights[0] + weights[1] * waves[0] + weights[2] * waves[1] / 2
    free: Float64[np.ndarray, "frames 13 3"] = noise * np.array([_noise_axes(joint) for joint in JOINTS])
    return free


def _noise_axes(joint: Joint) -> tuple[float, float, float]:
    if joint.kind == "free":
        return (0.0, 0.0, 0.0)
    return (0.0, 0.0, 1.0) if joint.kind == "hinge" else (1.0, 1.0, 1.0)


def _other_side(name: str) -> str:
    side, _, rest = name.partition("_")
    return {"right": f"left_{rest}", "left": f"right_{rest}"}.get(side, name)


def _closed(poses: Poses) -> Poses:
    """Spread the gap between a cycle's end and its beginning over the cycle, so that it repeats without a jerk."""
    share = np.linspace(0.0, 1.0, len(poses.rotations))
    gap = multiply(conjugate(poses.rotations[-1]), poses.rotations[0])
    gaps = np.broadcast_to(gap, poses.rotations.shape)
    still = np.broadcast_to(np.array([1.0, 0.0, 0.0, 0.0]), poses.rotations.shape)
    correction = slerp(still, gaps, share[:, None])
    height_gap_m = poses.root_m[0, 1] - poses.root_m[-1, 1]
    root_m = poses.root_m + share[:, None] * np.array([0.0, height_gap_m, 0.0])
    return Poses(root_m=root_m, rotations=multiply(poses.rotations, correction))


def joint_positions(
    poses: Poses, offsets_m: Float[np.ndarray, "13 3"]
) -> tuple[Float64[np.ndarray, "frames 13 3"], Float64[np.ndarray, "frames 13 4"]]:
    """Forward kinematics: where each joint is in the world and how it is turned there (still y up)."""
    positions = np.empty((len(poses.root_m), len(JOINTS), 3))
    turns = np.empty((len(poses.root_m), len(JOINTS), 4))
    positions[:, 0], turns[:, 0] = poses.root_m, poses.rotations[:, 0]
    for index, joint in enumerate(JOINTS[1:], start=1):
        parent = INDEX[joint.parent]
        positions[:, index] = positions[:, parent] + rotate(turns[:, parent], offsets_m[index])
        turns[:, index] = multiply(turns[:, parent], poses.rotations[:, index])
    return positions, turns
