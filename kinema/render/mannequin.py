"""Mannequin of ellipsoids and capsules that motion capture animates, and its RGB-D rendering with MuJoCo.

Steps: motion (y up) -> `place_on_floor` for the proportions of the body -> `render` -> RGB and depth. MuJoCo only
draws: forward kinematics (`motion.joint_positions`) place each joint. The rendered world is z up, as in MuJoCo;
everything before `render` is y up, as in the capture.
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

FAR_M = 40.0
"""Depth of the background, stored as 0."""
NEAR_M = 0.2
DEPTH_STEP_MM = 8
"""Rounding step of depth, as in a sensor. Finer steps make a lossless file 50 % larger without more information, since
a pixel is 20 to 40 mm wide at the distance of the person."""
FIELD_OF_VIEW_DEGREES = 45.0
NEAREST_M = 1.5
"""Smallest distance between camera and person, as for a depth sensor."""
FLOOR_GROUP = 2
"""MuJoCo group of the floor, which is hidden in the depth pass; MuJoCo draws groups 0 to 2 by default."""
UPRIGHT = np.array([np.sqrt(0.5), np.sqrt(0.5), 0.0, 0.0])
"""Rotation from y up, z right to z up, y left: a quarter turn about x."""


class Shape(NamedTuple):
    """Solid piece of a body in the frame of a joint (x forward, y up, z right).

    Attributes:
        joint: Name of the joint.
        ends_m: Two ends of a capsule, or the center of an ellipsoid.
        size_m: Radius of a capsule, or three half axes of an ellipsoid.
        color: RGB in 0 to 1.
    """

    joint: str
    ends_m: tuple[Vector, ...]
    size_m: tuple[float, ...]
    color: Color

    @property
    def kind(self) -> Literal["capsule", "ellipsoid"]:
        """MuJoCo type of the shape."""
        return "capsule" if len(self.ends_m) == 2 else "ellipsoid"


@dataclass(frozen=True, kw_only=True)
class Body:
    """Proportions of a person relative to the captured skeleton (1.0), and clothes (RGB in 0 to 1).

    `girth` is the thickness of trunk and limbs. Skin shows where `sleeves` or `trousers` are short.
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
        """Position of each joint in its parent's frame, for these proportions."""
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
        """Return the solid pieces, which determine the images, the ground contact and the camera distance."""
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
    """Return the height of the body's lowest point in each frame."""
    positions, rotations = joint_positions(poses, body.offsets_m)
    lowest = np.full(len(positions), np.inf)
    for shape in body.shapes():
        joint = INDEX[shape.joint]
        centers = _end_positions(shape, positions, rotations)
        # the norm of the scaled up axis, in the joint's frame, is the extent below the center
        up = rotate(conjugate(rotations[:, joint]), np.array([0.0, 1.0, 0.0]))
        size = np.array(shape.size_m * (3 // len(shape.size_m)))
        reach = np.linalg.norm(up * size, axis=-1)
        lowest = np.minimum(lowest, centers[..., 1].min(axis=0) - reach)
    return lowest


def place_on_floor(poses: Poses, *, body: Body, captured: Poses) -> Poses:
    """Place a body so that its lowest point is as high as that of the captured person in the same frame.

    Heights and steps scale with the length of the legs. Flips and jumps stay in the air. A lying person, who sinks up
    to 0.2 m into the soft floor of the capture, is raised to the floor. `captured` has the same frames as `poses`,
    without noise and mirroring.
    """
    middle_m = (poses.root_m.min(axis=0) + poses.root_m.max(axis=0)) / 2
    root_m = (poses.root_m - middle_m) * np.array([body.legs, 1.0, body.legs])
    clearance_m = np.maximum(heights_m(CAPTURED, captured), 0.0)
    excess_m = heights_m(body, replace(poses, root_m=root_m)) - clearance_m * body.legs
    root_m[:, 1] -= excess_m
    return replace(poses, root_m=root_m)


@dataclass(frozen=True, kw_only=True)
class Floor:
    """Floor with squares or tiles of two colors, or of one color."""

    pattern: Literal["checker", "tiles", "plain"]
    first: Color
    second: Color
    square_m: float


@dataclass(frozen=True, kw_only=True)
class Light:
    """Directional lamp, in a direction from the person and with a strength from 0 to 1, and color of the sky."""

    azimuth_degrees: float
    elevation_degrees: float
    strength: float
    sky: Color


@dataclass(frozen=True, kw_only=True)
class View:
    """Camera at `distance_m` from `target_m` (z up); it looks down if the elevation is negative."""

    azimuth_degrees: float
    elevation_degrees: float
    distance_m: float
    target_m: Vector


@dataclass(frozen=True, kw_only=True, eq=False)
class Footage:
    """Rendered color, and depth in millimeters that is 0 outside the person."""

    rgb: UInt8[np.ndarray, "frames height width 3"]
    depth_mm: UInt16[np.ndarray, "frames height width"]


def joints_in_world(
    body: Body, poses: Poses
) -> tuple[Float64[np.ndarray, "frames 13 3"], Float64[np.ndarray, "frames 13 4"]]:
    """Return joint positions and rotations with z up."""
    positions, rotations = joint_positions(poses, body.offsets_m)
    return rotate(UPRIGHT, positions), multiply(UPRIGHT, rotations)


def outline_m(body: Body, poses: Poses) -> Float64[np.ndarray, "points 3"]:
    """Return points of the body over the whole motion, z up, which the camera must show."""
    positions, rotations = joints_in_world(body, poses)
    return np.concatenate([end for s in body.shapes() for end in _end_positions(s, positions, rotations)])


def _end_positions(
    shape: Shape, positions: Float64[np.ndarray, "frames 13 3"], rotations: Float64[np.ndarray, "frames 13 4"]
) -> Float64[np.ndarray, "ends frames 3"]:
    joint = INDEX[shape.joint]
    return np.stack([positions[:, joint] + rotate(rotations[:, joint], np.array(end)) for end in shape.ends_m])


def frame_view(
    points_m: Float64[np.ndarray, "points 3"], *, azimuth_degrees: float, elevation_degrees: float, margin_m: float
) -> View:
    """Return the nearest view in a direction that shows all points (z up), from at least `NEAREST_M` away.

    `margin_m` is the free space around the points, at their distance.
    """
    azimuth, elevation = np.radians(azimuth_degrees), np.radians(elevation_degrees)
    forward = np.array([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)])
    right = np.array([np.sin(azimuth), -np.cos(azimuth), 0.0])
    axes = np.stack([right, np.cross(right, forward), forward])
    local = points_m @ axes.T
    slope = np.tan(np.radians(FIELD_OF_VIEW_DEGREES / 2))
    target = (local.min(axis=0) + local.max(axis=0)) / 2
    # perspective shifts the center of the image away from that of the points; a few iterations correct it
    for _ in range(8):
        aside = local[:, :2] - target[:2]
        distance_m = float(np.max((np.abs(aside).max(axis=1) + margin_m) / slope - (local[:, 2] - target[2])))
        distance_m = max(distance_m, NEAREST_M - float(np.min(local[:, 2] - target[2])))
        image = aside / (local[:, 2:] - target[2] + distance_m)
        middle = (image.min(axis=0) + image.max(axis=0)) / 2
        target = target + np.append(middle * distance_m, 0.0)
    x, y, z = (float(value) for value in target @ axes)
    return View(
        azimuth_degrees=azimuth_degrees,
        elevation_degrees=elevation_degrees,
        distance_m=distance_m,
        target_m=(x, y, z),
    )


def render(poses: Poses, *, body: Body, floor: Floor, light: Light, view: View, pixels: int) -> Footage:
    """Render square frames of `pixels` x `pixels`; needs the extra `render` and, on Linux, EGL, but no screen."""
    mujoco = _load_mujoco()
    positions, rotations = joints_in_world(body, poses)
    model = mujoco.MjModel.from_xml_string(scene_xml(body, floor=floor, light=light, pixels=pixels))
    data = mujoco.MjData(model)
    camera = mujoco.MjvCamera()
    camera.azimuth, camera.elevation = view.azimuth_degrees, view.elevation_degrees
    camera.distance, camera.lookat = view.distance_m, np.array(view.target_m)
    without_floor = mujoco.MjvOption()
    without_floor.geomgroup[FLOOR_GROUP] = 0
    rgb = np.empty((len(positions), pixels, pixels, 3), dtype=np.uint8)
    depth_mm = np.empty((len(positions), pixels, pixels), dtype=np.uint16)
    with mujoco.Renderer(model, pixels, pixels) as rgb_renderer:
        model.vis.quality.offsamples = 0  # antialiased edges would mix the depths of person and background
        with mujoco.Renderer(model, pixels, pixels) as depth_renderer:
            depth_renderer.enable_depth_rendering()
            for index in range(len(positions)):
                data.mocap_pos[:], data.mocap_quat[:] = positions[index], rotations[index]
                mujoco.mj_kinematics(model, data)
                mujoco.mj_camlight(model, data)
                rgb_renderer.update_scene(data, camera)
                rgb[index] = rgb_renderer.render()
                depth_renderer.update_scene(data, camera, without_floor)
                depth_mm[index] = _to_millimeters(depth_renderer.render())
    return Footage(rgb=rgb, depth_mm=depth_mm)


def scene_xml(body: Body, *, floor: Floor, light: Light, pixels: int) -> str:
    """Return the MuJoCo model: floor, sky, lamp, and a mocap body per joint with the shapes of the person."""
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


def _to_millimeters(distances_m: np.ndarray) -> UInt16[np.ndarray, "height width"]:
    is_person = distances_m < 0.99 * FAR_M
    return np.where(is_person, np.rint(distances_m * 1000.0 / DEPTH_STEP_MM) * DEPTH_STEP_MM, 0).astype(np.uint16)


def _load_mujoco() -> Any:
    if platform.system() == "Linux":  # MuJoCo reads it on import; macOS needs no setting
        os.environ.setdefault("MUJOCO_GL", "egl")
    try:
        import mujoco

        mujoco.GLContext(8, 8).free()  # without EGL, the import may succeed and the first context fail
    except (ImportError, AttributeError, OSError, RuntimeError) as error:
        raise RuntimeError(
            f'cannot render ({error}): pip install "kinema[render]", and on Debian apt install libegl1 libgl1-mesa-dri'
        ) from error
    return mujoco
