"""A mannequin of ellipsoids and capsules that motion capture can move, and the pictures a camera takes of it.

Drawing: motion (y up) -> `settle` on the floor for this body's proportions -> `render` with MuJoCo -> RGB and depth.
MuJoCo does no physics here: each joint's frame is placed by our own forward kinematics (`motion.joint_positions`).
The world drawn is z up, as MuJoCo wants it; everything before `render` is y up, as the capture is.
"""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float64, UInt8, UInt16

from kinema.render.motion import INDEX, JOINTS, WRIST_OFFSET_M, Poses, conjugate, joint_positions, multiply, rotate

Color = tuple[float, float, float]
Vector = tuple[float, float, float]

# Depth beyond this is the empty background, stored as 0.
FAR_M = 40.0
NEAR_M = 0.2
# Depth is rounded to this step, as a sensor's is: the last millimeters of a smooth ellipsoid say nothing, and are a
# third of a lossless file. A pixel is 20 to 40 mm wide where the person stands.
DEPTH_STEP_MM = 8
FIELD_OF_VIEW_DEGREES = 45.0
# Nobody comes nearer to the camera than this, as nobody would to a depth sensor.
NEAREST_M = 1.5
# MuJoCo draws its groups 0 to 2 by default; the depth pass leaves this one out.
FLOOR_GROUP = 2
# A quarter turn about x takes y up, z right to z up, y left.
UPRIGHT = np.array([np.sqrt(0.5), np.sqrt(0.5), 0.0, 0.0])


class Shape(NamedTuple):
    """One solid piece of a body, fixed to a joint, in that joint's frame (x forward, y up, z right; meters).

    Args:
        ends_m: a capsule's two ends, or an ellipsoid's center alone.
        size_m: a capsule's radius alone, or an ellipsoid's three half axes.
    """

    joint: str
    ends_m: tuple[Vector, ...]
    size_m: tuple[float, ...]
    color: Color

    @property
    def kind(self) -> Literal["capsule", "ellipsoid"]:
        return "capsule" if len(self.ends_m) == 2 else "ellipsoid"


@dataclass(frozen=True, kw_only=True)
class Body:
    """A person's proportions, relative to the captured skeleton (1.0 everywhere), and clothes (RGB in 0 to 1).

    Args:
        girth: thickness of trunk and limbs.
        sleeves, trousers: how far the clothes reach; what they leave free is skin.
    """

    legs: float = 1.0
    arms: float = 1.0
    trunk: float = 1.0
    shoulders: float = 1.0
    hips: float = 1.0
    girth: float = 1.0
    head: float = 1.0
    skin: Color = (0.87, 0.67, 0.53)
    shirt: Color = (0.75, 0.28, 0.25)
    legwear: Color = (0.20, 0.28, 0.45)
    shoes: Color = (0.12, 0.12, 0.13)
    hair_color: Color = (0.20, 0.13, 0.09)
    sleeves: Literal["short", "long"] = "short"
    trousers: Literal["short", "long"] = "long"
    hair: Literal["short", "long", "cap"] = "short"

    @cached_property
    def offsets_m(self) -> Float64[np.ndarray, "13 3"]:
        """Where each joint hangs from its parent, for these proportions."""
        scales = {
            "chest": (1.0, self.trunk, 1.0),
            "neck": (1.0, self.trunk, 1.0),
            "hip": (1.0, 1.0, self.hips),
            "knee": (1.0, self.legs, 1.0),
            "ankle": (1.0, self.legs, 1.0),
            "shoulder": (1.0, self.trunk, self.shoulders),
            "elbow": (1.0, self.arms, 1.0),
            "root": (1.0, 1.0, 1.0),
        }
        return np.array([np.multiply(j.offset_m, scales[j.name.rpartition("_")[2]]) for j in JOINTS])

    def shapes(self) -> tuple[Shape, ...]:
        """The solid pieces, of which the pictures, the ground contact and the camera's distance are made."""
        limbs = [shape for side in ("right", "left") for shape in (*self._leg(side), *self._arm(side))]
        return (*self._trunk(), *self._head(), *limbs)

    def _trunk(self) -> list[Shape]:
        g, t, w = self.girth, self.trunk, self.girth * self.shoulders
        h = self.girth * self.hips
        return [
            Shape("root", ((0.0, 0.02, 0.0),), (0.108 * g, 0.105, 0.150 * h), self.legwear),
            Shape("root", ((0.0, 0.15 * t, 0.0),), (0.100 * g, 0.135 * t, 0.128 * g), self.shirt),
            Shape("chest", ((0.0, 0.11 * t, 0.0),), (0.118 * g, 0.165 * t, 0.158 * w), self.shirt),
            Shape(
                "chest",
                ((-0.015, 0.218 * t, -0.125 * self.shoulders), (-0.015, 0.218 * t, 0.125 * self.shoulders)),
                (0.062 * g,),
                self.shirt,
            ),
            Shape("chest", ((0.0, 0.23 * t, 0.0), (0.012, 0.32 * t, 0.0)), (0.046 * g,), self.skin),
        ]

    def _head(self) -> list[Shape]:
        k = self.head
        shapes = [
            Shape("neck", ((0.018, 0.155 * k, 0.0),), (0.096 * k, 0.122 * k, 0.080 * k), self.skin),
            Shape("neck", ((0.112 * k, 0.140 * k, 0.0),), (0.020 * k, 0.024 * k, 0.015 * k), self.skin),
            Shape("neck", ((-0.018 * k, 0.190 * k, 0.0),), (0.098 * k, 0.106 * k, 0.090 * k), self.hair_color),
        ]
        if self.hair == "long":
            shapes.append(Shape("neck", ((-0.070 * k, 0.085 * k, 0.0),), (0.052, 0.150 * k, 0.088), self.hair_color))
        if self.hair == "cap":
            shapes.append(Shape("neck", ((0.0, 0.228 * k, 0.0),), (0.108 * k, 0.078 * k, 0.094 * k), self.shirt))
            shapes.append(Shape("neck", ((0.100 * k, 0.215 * k, 0.0),), (0.078 * k, 0.016 * k, 0.066 * k), self.shirt))
        return shapes

    def _leg(self, side: str) -> list[Shape]:
        g, l = self.girth, self.legs
        lower = self.legwear if self.trousers == "long" else self.skin
        knee, ankle = 0.4215 * l, 0.4099 * l
        shapes = [
            Shape(f"{side}_hip", ((0.0, -0.115 * l, 0.0),), (0.092 * g, 0.190 * l, 0.090 * g), self.legwear),
            Shape(f"{side}_hip", ((0.0, -0.02, 0.0), (0.0, -knee + 0.07, 0.0)), (0.073 * g,), self.legwear),
            Shape(f"{side}_hip", ((0.0, -knee + 0.14, 0.0), (0.0, -knee, 0.0)), (0.060 * g,), lower),
            Shape(f"{side}_knee", ((0.0, 0.0, 0.0), (0.0, -ankle + 0.02, 0.0)), (0.046 * g,), lower),
            Shape(f"{side}_knee", ((-0.022, -0.13 * l, 0.0),), (0.058 * g, 0.140 * l, 0.056 * g), lower),
        ]
        if self.trousers == "long":
            hem = ((0.0, -ankle + 0.12, 0.0), (0.0, -ankle + 0.05, 0.0))
            shapes.append(Shape(f"{side}_knee", hem, (0.054 * g,), lower))
        for across_m in (-0.016, 0.016):
            sole = ((-0.045, -0.037, across_m), (0.125, -0.042, across_m))
            shapes.append(Shape(f"{side}_ankle", sole, (0.034,), self.shoes))
        shapes.append(Shape(f"{side}_ankle", ((0.01, -0.01, 0.0),), (0.075, 0.052, 0.048), self.shoes))
        return shapes

    def _arm(self, side: str) -> list[Shape]:
        g, a = self.girth, self.arms
        outward = 1.0 if side == "right" else -1.0
        elbow, wrist = 0.2748 * a, -WRIST_OFFSET_M[1] * a
        lower = self.shirt if self.sleeves == "long" else self.skin
        return [
            Shape(f"{side}_shoulder", ((0.0, -0.02, 0.0),), (0.062 * g, 0.080, 0.060 * g), self.shirt),
            Shape(f"{side}_shoulder", ((0.0, -0.02, 0.0), (0.0, -elbow * 0.6, 0.0)), (0.052 * g,), self.shirt),
            Shape(f"{side}_shoulder", ((0.0, -elbow * 0.6, 0.0), (0.0, -elbow, 0.0)), (0.043 * g,), lower),
            Shape(f"{side}_elbow", ((0.0, 0.0, 0.0), (0.0, -wrist * 0.45, 0.0)), (0.043 * g,), lower),
            Shape(f"{side}_elbow", ((0.0, -wrist * 0.45, 0.0), (0.0, -wrist, 0.0)), (0.035 * g,), lower),
            Shape(f"{side}_elbow", ((0.0, -wrist - 0.075, 0.0),), (0.042, 0.088, 0.026), self.skin),
            Shape(
                f"{side}_elbow",
                ((0.03, -wrist - 0.03, -0.008 * outward), (0.05, -wrist - 0.075, -0.012 * outward)),
                (0.014,),
                self.skin,
            ),
        ]


CAPTURED = Body()
"""Proportions of the captured skeleton."""


def heights_m(body: Body, poses: Poses) -> Float64[np.ndarray, " frames"]:
    """Height of the body's lowest point at each instant."""
    positions, turns = joint_positions(poses, body.offsets_m)
    lowest = np.full(len(positions), np.inf)
    for shape in body.shapes():
        joint = INDEX[shape.joint]
        centers = np.stack(
            [positions[:, joint] + rotate(turns[:, joint], np.array(end)) for end in shape.ends_m], axis=1
        )
        # The world's up in the joint's frame tells how far the ellipsoid reaches down.
        up = rotate(conjugate(turns[:, joint]), np.array([0.0, 1.0, 0.0]))
        size = np.array(shape.size_m * (3 // len(shape.size_m)))
        reach = np.linalg.norm(up * size, axis=-1)
        lowest = np.minimum(lowest, centers[..., 1].min(axis=1) - reach)
    return lowest


def settle(poses: Poses, *, body: Body, captured: Poses) -> Poses:
    """Put a body on the floor: its lowest point is as high as the captured person's is at the same instant.

    Longer legs take longer steps; what the capture leaves in the air (a flip, a jump) stays there, and what it sinks
    into its soft floor (a person who lies, up to 0.2 m) is lifted out.

    Args:
        poses: what the body does, before anything is known of its proportions.
        captured: the same instants as captured, without noise or mirror, for `CAPTURED`.
    """
    middle_m = (poses.root_m.min(axis=0) + poses.root_m.max(axis=0)) / 2
    root_m = (poses.root_m - middle_m) * np.array([body.legs, 1.0, body.legs])
    clearance_m = np.maximum(heights_m(CAPTURED, captured), 0.0)
    excess_m = heights_m(body, replace(poses, root_m=root_m)) - clearance_m * body.legs
    root_m[:, 1] -= excess_m
    return replace(poses, root_m=root_m)


@dataclass(frozen=True, kw_only=True)
class Floor:
    """What the person stands on: squares or tiles of two colors, or one color."""

    pattern: Literal["checker", "tiles", "plain"]
    first: Color
    second: Color
    square_m: float


@dataclass(frozen=True, kw_only=True)
class Light:
    """A lamp far away, and the light of the sky.

    Args:
        azimuth_degrees, elevation_degrees: where the lamp stands, seen from the person.
        strength: 0 to 1.
    """

    azimuth_degrees: float
    elevation_degrees: float
    strength: float
    sky: Color


@dataclass(frozen=True, kw_only=True)
class View:
    """Where the camera stands: `distance_m` from `target_m` (z up), from above if the elevation is negative."""

    azimuth_degrees: float
    elevation_degrees: float
    distance_m: float
    target_m: Vector


@dataclass(frozen=True, kw_only=True, eq=False)
class Footage:
    """What a camera took: color, and depth in millimeters that is 0 wherever there is no person."""

    rgb: UInt8[np.ndarray, "frames height width 3"]
    depth_mm: UInt16[np.ndarray, "frames height width"]


def joints_in_world(
    body: Body, poses: Poses
) -> tuple[Float64[np.ndarray, "frames 13 3"], Float64[np.ndarray, "frames 13 4"]]:
    """Joint positions and rotations with z up."""
    positions, turns = joint_positions(poses, body.offsets_m)
    return rotate(UPRIGHT, positions), multiply(UPRIGHT, turns)


def outline_m(body: Body, poses: Poses) -> Float64[np.ndarray, "points 3"]:
    """Points of the body over the whole movement, z up: the camera must see them all."""
    positions, turns = joints_in_world(body, poses)
    points = []
    for shape in body.shapes():
        joint = INDEX[shape.joint]
        points += [positions[:, joint] + rotate(turns[:, joint], np.array(end)) for end in shape.ends_m]
    return np.concatenate(points)


def frame_view(
    points_m: Float64[np.ndarray, "points 3"], *, azimuth_degrees: float, elevation_degrees: float, margin_m: float
) -> View:
    """The nearest camera on the given side, but for `NEAREST_M`, that has all points in its picture.

    Args:
        points_m: z up.
        margin_m: free space around the points, at their distance.
    """
    azimuth, elevation = np.radians(azimuth_degrees), np.radians(elevation_degrees)
    forward = np.array([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)])
    right = np.array([np.sin(azimuth), -np.cos(azimuth), 0.0])
    axes = np.stack([right, np.cross(right, forward), forward])
    local = points_m @ axes.T
    slope = np.tan(np.radians(FIELD_OF_VIEW_DEGREES / 2))
    target = (local.min(axis=0) + local.max(axis=0)) / 2
    # Near points look larger, so the middle of the extent is not the middle of the picture; a few steps find it.
    for _ in range(8):
        aside = local[:, :2] - target[:2]
        distance_m = float(np.max((np.abs(aside).max(axis=1) + margin_m) / slope - (local[:, 2] - target[2])))
        distance_m = max(distance_m, NEAREST_M - float(np.min(local[:, 2] - target[2])))
        picture = aside / (local[:, 2:] - target[2] + distance_m)
        middle = (picture.min(axis=0) + picture.max(axis=0)) / 2
        target = target + np.append(middle * distance_m, 0.0)
    x, y, z = (float(value) for value in target @ axes)
    return View(
        azimuth_degrees=azimuth_degrees,
        elevation_degrees=elevation_degrees,
        distance_m=distance_m,
        target_m=(x, y, z),
    )


def render(poses: Poses, *, body: Body, floor: Floor, light: Light, view: View, pixels: int) -> Footage:
    """Take the pictures, `pixels` high and wide; needs no screen, but the extra `render` and (Linux) EGL."""
    mujoco = _load_mujoco()
    positions, turns = joints_in_world(body, poses)
    model = mujoco.MjModel.from_xml_string(scene_xml(body, floor=floor, light=light, pixels=pixels))
    data = mujoco.MjData(model)
    camera = mujoco.MjvCamera()
    camera.azimuth, camera.elevation = view.azimuth_degrees, view.elevation_degrees
    camera.distance, camera.lookat = view.distance_m, np.array(view.target_m)
    people = mujoco.MjvOption()
    people.geomgroup[FLOOR_GROUP] = 0
    rgb = np.empty((len(positions), pixels, pixels, 3), dtype=np.uint8)
    depth_mm = np.empty((len(positions), pixels, pixels), dtype=np.uint16)
    with mujoco.Renderer(model, pixels, pixels) as color:
        # Smoothed edges would be depths between the person and nothing.
        model.vis.quality.offsamples = 0
        with mujoco.Renderer(model, pixels, pixels) as ranging:
            ranging.enable_depth_rendering()
            for index in range(len(positions)):
                data.mocap_pos[:], data.mocap_quat[:] = positions[index], turns[index]
                mujoco.mj_kinematics(model, data)
                mujoco.mj_camlight(model, data)
                color.update_scene(data, camera)
                rgb[index] = color.render()
                ranging.update_scene(data, camera, people)
                depth_mm[index] = _millimeters(ranging.render())
    return Footage(rgb=rgb, depth_mm=depth_mm)


def scene_xml(body: Body, *, floor: Floor, light: Light, pixels: int) -> str:
    """The MuJoCo model: floor, sky, lamp, and one free-floating frame per joint that carries the body's shapes."""
    frames = "\n".join(
        f'<body name="{joint.name}" mocap="true">'
        + "".join(_geom_xml(shape) for shape in body.shapes() if shape.joint == joint.name)
        + "</body>"
        for joint in JOINTS
    )
    azimuth, elevation = np.radians(light.azimuth_degrees), np.radians(light.elevation_degrees)
    lamp = (np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation))
    dark = tuple(0.68 * value for value in light.sky)
    texture = {
        "checker": f'builtin="checker" rgb1="{_numbers(floor.first)}" rgb2="{_numbers(floor.second)}"',
        "tiles": f'builtin="flat" mark="edge" rgb1="{_numbers(floor.first)}" markrgb="{_numbers(floor.second)}"',
        "plain": f'builtin="flat" rgb1="{_numbers(floor.first)}"',
    }[floor.pattern]
    return f"""
<mujoco model="mannequin">
  <compiler angle="degree"/>
  <statistic extent="1" center="0 0 0"/>
  <visual>
    <global fovy="{FIELD_OF_VIEW_DEGREES}" offwidth="{pixels}" offheight="{pixels}"/>
    <quality shadowsize="2048" offsamples="4"/>
    <map znear="{NEAR_M}" zfar="{FAR_M}" shadowclip="3.5" haze="0.5"/>
    <headlight ambient="0.42 0.42 0.44" diffuse="0.26 0.26 0.26" specular="0 0 0"/>
    <rgba haze="{_numbers(light.sky)} 1"/>
  </visual>
  <asset>
    <texture name="sky" type="skybox" builtin="gradient" rgb1="{_numbers(dark)}" rgb2="{_numbers(light.sky)}"
      width="64" height="64"/>
    <texture name="floor" type="2d" {texture} width="128" height="128"/>
    <material name="floor" texture="floor" texuniform="true" specular="0.1"
      texrepeat="{0.5 / floor.square_m:.4f} {0.5 / floor.square_m:.4f}"/>
  </asset>
  <worldbody>
    <light name="lamp" type="directional" castshadow="true" pos="{_numbers(np.multiply(lamp, 6.0))}"
      dir="{_numbers(np.multiply(lamp, -1.0))}" diffuse="{_numbers((light.strength,) * 3)}" specular="0.15 0.15 0.15"/>
    <geom name="floor" type="plane" size="0 0 0.05" material="floor" group="{FLOOR_GROUP}"/>
    {frames}
  </worldbody>
</mujoco>
"""


def _geom_xml(shape: Shape) -> str:
    place = "fromto" if shape.kind == "capsule" else "pos"
    ends = " ".join(_numbers(end) for end in shape.ends_m)
    size, color = _numbers(shape.size_m), _numbers(shape.color)
    return f'<geom type="{shape.kind}" {place}="{ends}" size="{size}" rgba="{color} 1"/>'


def _numbers(values: Sequence[float] | Float64[np.ndarray, " n"]) -> str:
    return " ".join(f"{value:.5f}" for value in values)


def _millimeters(distances_m: np.ndarray) -> UInt16[np.ndarray, "height width"]:
    there = distances_m < 0.99 * FAR_M
    return np.where(there, np.rint(distances_m * 1000.0 / DEPTH_STEP_MM) * DEPTH_STEP_MM, 0).astype(np.uint16)


def _load_mujoco() -> Any:
    # Read by MuJoCo when it is imported; on a Mac its own default draws without a screen.
    if platform.system() == "Linux":
        os.environ.setdefault("MUJOCO_GL", "egl")
    try:
        import mujoco

        # Without EGL the import may pass, and only the first context fail.
        mujoco.GLContext(8, 8).free()
    except (ImportError, AttributeError, OSError, RuntimeError) as error:
        raise RuntimeError(
            f'cannot render ({error}): pip install "kinema[render]", and on Debian apt install libegl1 libgl1-mesa-dri'
        ) from error
    return mujoco
