"""DeepMimic motion capture: loading, interpolation, mirroring, noise and forward kinematics of poses.

Source: X. B. Peng et al., DeepMimic, 2018 (arXiv:1804.02717); the 15 human clips that the PyPI package `pybullet` 3.2.7
ships in `pybullet_data/data/motions`, stored as float32 in `kinema/assets/motions/` with their notice.

A captured frame is 44 numbers: its duration, the root's position, then one rotation per joint in the order of `JOINTS`
(quaternion w x y z of a ball joint, angle of a hinge). Units are meters, seconds and radians. y is up, the person faces
+x, z is to the person's right.
"""

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Float64

MOTIONS = Path(__file__).parents[1] / "assets" / "motions" / "deepmimic.npz"

# fmt: off
ACTIONS = (
    "backflip", "cartwheel", "crawl", "dance_a", "dance_b", "getup_facedown", "getup_faceup", "jump", "kick", "punch",
    "roll", "run", "spin", "spinkick", "walk",
)
# fmt: on


class Joint(NamedTuple):
    """Joint of the skeleton.

    Attributes:
        name: Name of the joint.
        parent: Name of the parent joint; empty for the root.
        kind: Type of its rotation in the captured numbers.
        offset_m: Position in the parent's frame, for the captured skeleton.
    """

    name: str
    parent: str
    kind: Literal["free", "ball", "hinge"]
    offset_m: tuple[float, float, float]


# In the order of the captured numbers. A wrong order gives plausible poses, so tests/render checks the movements.
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
# Relative to the elbow: the capture has no wrist joint.
WRIST_OFFSET_M = (0.0, -0.2589, 0.0)

Quaternions = Float64[np.ndarray, "*batch 4"]


def multiply(first: Quaternions, second: Float64[np.ndarray, "*other 4"]) -> Float64[np.ndarray, "*both 4"]:
    """Return the Hamilton product (w x y z): the rotation `second` followed by `first`."""
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
    """Return the inverse of unit quaternions."""
    inverse: Quaternions = rotations * np.array([1.0, -1.0, -1.0, -1.0])
    return inverse


def rotate(rotations: Quaternions, vectors: Float64[np.ndarray, "*other 3"]) -> Float64[np.ndarray, "*both 3"]:
    """Rotate vectors by unit quaternions; leading axes broadcast."""
    scalar, axis = rotations[..., :1], rotations[..., 1:]
    twice = 2.0 * np.cross(axis, vectors)
    rotated: Float64[np.ndarray, "*both 3"] = vectors + scalar * twice + np.cross(axis, twice)
    return rotated


def from_rotation_vectors(vectors: Float64[np.ndarray, "*batch 3"]) -> Quaternions:
    """Return the unit quaternions of rotation vectors (axis times angle in radians)."""
    angle = np.linalg.norm(vectors, axis=-1, keepdims=True)
    # sinc is exact for the zero rotation
    return np.concatenate([np.cos(angle / 2), vectors * np.sinc(angle / (2 * np.pi)) / 2], axis=-1)


def slerp(
    first: Quaternions, second: Quaternions, fraction: Float64[np.ndarray, "*weights"] | float
) -> Float64[np.ndarray, "*batch 4"]:
    """Interpolate from `first` (fraction 0) to `second` (fraction 1) along the shorter arc at constant speed."""
    weight = np.asarray(fraction, dtype=np.float64)[..., None]
    cosine = np.sum(first * second, axis=-1, keepdims=True)
    # q and -q are the same rotation, and captured frames alternate between them; the flip selects the shorter arc
    nearer = np.where(cosine < 0, -second, second)
    angle = np.arccos(np.clip(np.abs(cosine), 0.0, 1.0))
    sine = np.sin(angle)
    # below 1e-6 rad, linear interpolation avoids 0 / 0
    close = sine < 1e-6
    safe = np.where(close, 1.0, sine)
    from_first = np.where(close, 1.0 - weight, np.sin((1.0 - weight) * angle) / safe)
    from_second = np.where(close, weight, np.sin(weight * angle) / safe)
    mixed = from_first * first + from_second * nearer
    unit: Quaternions = mixed / np.linalg.norm(mixed, axis=-1, keepdims=True)
    return unit


@dataclass(frozen=True, kw_only=True, eq=False)
class Poses:
    """Sequence of poses of a person.

    Attributes:
        root_m: Position of the pelvis, y up.
        rotations: Rotation of each joint in the order of `JOINTS`, relative to its parent; the root's is relative to
            the world.
    """

    root_m: Float64[np.ndarray, "frames 3"]
    rotations: Float64[np.ndarray, "frames 13 4"]

    def mirror(self) -> "Poses":
        """Return the motion mirrored left to right (reflection in the plane z = 0)."""
        partner = [INDEX[_other_side(joint.name)] for joint in JOINTS]
        # a reflection flips an axial vector, except its component along the normal
        rotations = self.rotations[:, partner] * np.array([1.0, -1.0, -1.0, 1.0])
        return Poses(root_m=self.root_m * np.array([1.0, 1.0, -1.0]), rotations=rotations)

    def rotate_joints(self, vectors: Float64[np.ndarray, "frames 13 3"]) -> "Poses":
        """Return the poses with each joint rotated by a rotation vector (radians) in its own frame."""
        return replace(self, rotations=multiply(self.rotations, from_rotation_vectors(vectors)))


@dataclass(frozen=True, kw_only=True, eq=False)
class Motion:
    """Captured motion.

    Attributes:
        name: Name of the action.
        kind: `cyclic` motions repeat, each cycle from where the last one ended; `single` ones hold the first pose
            before the start and the last pose after the end.
        times_s: Time of each captured frame, from 0, never decreasing.
        poses: Captured poses.
    """

    name: str
    kind: Literal["cyclic", "single"]
    times_s: Float64[np.ndarray, " frames"]
    poses: Poses

    @property
    def duration_s(self) -> float:
        """Time of the last frame."""
        return float(self.times_s[-1])

    def at(self, times_s: Float64[np.ndarray, " instants"]) -> Poses:
        """Return the poses at the given times; positions are interpolated linearly, rotations by slerp."""
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
    """Return one of the 15 captured motions in `ACTIONS`.

    Raises:
        ValueError: No motion has this name.
    """
    if name not in ACTIONS:
        raise ValueError(f"unknown motion {name!r}; expected one of {', '.join(ACTIONS)}")
    with np.load(MOTIONS, allow_pickle=False) as archive:
        numbers = archive[name]
    # most capture files are marked "wrap", but only these five repeat smoothly
    kind: Literal["cyclic", "single"] = "cyclic" if name in {"crawl", "dance_a", "dance_b", "run", "walk"} else "single"
    poses = decode_poses(numbers)
    if kind == "cyclic":
        poses = _close_cycle(poses)
    # a duration is the time to the next frame; that of the last frame is unused
    times_s = np.concatenate([[0.0], np.cumsum(numbers[:-1, 0], dtype=np.float64)])
    return Motion(name=name, kind=kind, times_s=times_s, poses=poses)


def decode_poses(numbers: Float32[np.ndarray, "frames 44"]) -> Poses:
    """Return captured frames as positions and unit quaternions; hinges rotate about z."""
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
    """Return joint noise as rotation vectors: a constant offset and two slow waves per joint; the root has none.

    `phases` are times as fractions of the clip; `sigma_rad` is the standard deviation per axis.
    """
    shape = (len(JOINTS), 3)
    weights = rng.normal(0.0, sigma_rad / np.sqrt(2.0), size=(3, *shape))
    offsets = rng.uniform(0.0, 2 * np.pi, size=(2, *shape))
    waves = [np.sin(2 * np.pi * (wave + 1) * phases[:, None, None] + offsets[wave]) for wave in range(2)]
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


def _close_cycle(poses: Poses) -> Poses:
    """Distribute the gap between the last and the first pose over the cycle, so that it repeats smoothly."""
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
    """Return positions and rotations of the joints in the world (y up) by forward kinematics."""
    positions = np.empty((len(poses.root_m), len(JOINTS), 3))
    rotations = np.empty((len(poses.root_m), len(JOINTS), 4))
    positions[:, 0], rotations[:, 0] = poses.root_m, poses.rotations[:, 0]
    for index, joint in enumerate(JOINTS[1:], start=1):
        parent = INDEX[joint.parent]
        positions[:, index] = positions[:, parent] + rotate(rotations[:, parent], offsets_m[index])
        rotations[:, index] = multiply(rotations[:, parent], poses.rotations[:, index])
    return positions, rotations
