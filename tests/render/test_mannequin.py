"""Mannequin: proportions, ground contact and camera views, without rendering."""

import sys
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from kinema.render.mannequin import (
    CAPTURED,
    FIELD_OF_VIEW_DEGREES,
    Body,
    Floor,
    Light,
    View,
    frame_view,
    heights_m,
    joints_in_world,
    outline_m,
    place_on_floor,
    render,
    scene_xml,
)
from kinema.render.motion import INDEX, JOINTS, load_motion
from kinema.render.moves import SUBJECTS

FLOOR = Floor(pattern="checker", first=(0.5, 0.5, 0.5), second=(0.4, 0.4, 0.4), square_m=0.6)
LIGHT = Light(azimuth_degrees=30.0, elevation_degrees=50.0, strength=0.6, sky=(0.8, 0.8, 0.8))


def on_floor(body: Body, action: str, times_s: np.ndarray):
    captured = load_motion(action).at(times_s)
    return place_on_floor(captured, body=body, captured=captured)


def test_proportions_scale_their_bones():
    tall = Body(legs=1.1, arms=0.9, trunk=1.05, shoulders=1.2, hips=1.3)
    ratio = np.divide(tall.offsets_m, CAPTURED.offsets_m, where=CAPTURED.offsets_m != 0, out=np.ones((len(JOINTS), 3)))
    np.testing.assert_allclose(ratio[[INDEX["left_knee"], INDEX["right_ankle"]], 1], 1.1)
    np.testing.assert_allclose(ratio[[INDEX["left_elbow"], INDEX["right_elbow"]], 1], 0.9)
    np.testing.assert_allclose(ratio[[INDEX["chest"], INDEX["neck"]], 1], 1.05)
    np.testing.assert_allclose(ratio[[INDEX["left_shoulder"], INDEX["right_shoulder"]], 2], 1.2)
    np.testing.assert_allclose(ratio[[INDEX["left_hip"], INDEX["right_hip"]], 2], 1.3)


def test_no_two_subjects_have_the_same_body_or_clothes():
    assert len({body.shirt for body in SUBJECTS.values()}) == len(SUBJECTS)
    assert len({body.legwear for body in SUBJECTS.values()}) == len(SUBJECTS)
    bones = {tuple(body.offsets_m.ravel()) for body in SUBJECTS.values()}
    assert len(bones) == len(SUBJECTS)


@pytest.mark.parametrize("subject", SUBJECTS)
@pytest.mark.parametrize("action", ["walk", "getup_facedown", "roll"])
def test_every_subject_touches_the_floor_without_sinking_in(subject: str, action: str):
    body = SUBJECTS[subject]
    poses = on_floor(body, action, np.linspace(0.0, load_motion(action).duration_s, 40))
    lowest = heights_m(body, poses)
    assert lowest.min() > -1e-6
    assert np.median(lowest) < 0.02


def test_longer_legs_jump_higher_and_step_further():
    times_s = np.linspace(0.0, load_motion("jump").duration_s, 60)
    tall = Body(legs=1.2)
    usual_m, tall_m = (heights_m(body, on_floor(body, "jump", times_s)).max() for body in (CAPTURED, tall))
    assert usual_m > 0.15
    assert tall_m == pytest.approx(1.2 * usual_m)
    widths = [np.ptp(on_floor(body, "walk", times_s).root_m[:, 0]) for body in (CAPTURED, tall)]
    assert widths[1] == pytest.approx(1.2 * widths[0])


def test_the_lowest_point_of_a_standing_person_is_the_sole():
    poses = load_motion("walk").at(np.array([0.0]))
    upright = replace(poses, rotations=np.broadcast_to([1.0, 0.0, 0.0, 0.0], (1, len(JOINTS), 4)).astype(np.float64))
    ankle_m = upright.root_m[0, 1] + CAPTURED.offsets_m[[INDEX["left_knee"], INDEX["left_ankle"]], 1].sum()
    # The lower end of the sole's capsule, and its radius.
    assert heights_m(CAPTURED, upright)[0] == pytest.approx(ankle_m - 0.042 - 0.034)


def test_the_world_is_z_up_and_right_handed():
    poses = load_motion("walk").at(np.array([0.0]))
    positions, turns = joints_in_world(CAPTURED, poses)
    assert positions[0, INDEX["neck"], 2] > positions[0, INDEX["root"], 2] + 0.4
    # Who faces +x with z up has the right hand towards -y.
    assert positions[0, INDEX["right_shoulder"], 1] < positions[0, INDEX["left_shoulder"], 1]
    np.testing.assert_allclose(np.linalg.norm(turns, axis=-1), 1.0)


def project(points_m: np.ndarray, view: View) -> np.ndarray:
    """Project points to the image, whose edges are at -1 and 1."""
    azimuth, elevation = np.radians(view.azimuth_degrees), np.radians(view.elevation_degrees)
    forward = np.array([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)])
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    from_eye = points_m - (np.array(view.target_m) - view.distance_m * forward)
    ahead = from_eye @ forward
    assert ahead.min() > 0.5
    plane = np.stack([from_eye @ right, from_eye @ np.cross(right, forward)], axis=-1)
    return plane / ahead[:, None] / np.tan(np.radians(FIELD_OF_VIEW_DEGREES / 2))


@pytest.mark.parametrize("action", ["run", "cartwheel", "crawl"])
@pytest.mark.parametrize("azimuth_degrees", [0.0, 110.0, 155.0, 200.0])
def test_the_view_contains_the_whole_motion_from_nearby(action: str, azimuth_degrees: float):
    poses = on_floor(CAPTURED, action, np.linspace(0.0, load_motion(action).duration_s, 30))
    points = outline_m(CAPTURED, poses)
    view = frame_view(points, azimuth_degrees=azimuth_degrees, elevation_degrees=-12.0, margin_m=0.2)
    seen = project(points, view)
    assert np.abs(seen).max() < 1.0
    assert np.abs(seen).max() > 0.65
    # Centered: as much is free on one side as on the other.
    np.testing.assert_allclose(seen.min(axis=0), -seen.max(axis=0), atol=0.05)


def test_the_scene_has_every_joint_and_a_floor_group():
    scene = ElementTree.fromstring(scene_xml(CAPTURED, floor=FLOOR, light=LIGHT, pixels=64))
    bodies = scene.findall("worldbody/body")
    assert [body.get("name") for body in bodies] == [joint.name for joint in JOINTS]
    assert sum(len(body.findall("geom")) for body in bodies) == len(CAPTURED.shapes())
    grouped = [geom.get("name") for geom in scene.iter("geom") if geom.get("group")]
    assert grouped == ["floor"]


@pytest.mark.parametrize(
    ("part", "color"),
    [
        ("right_knee", Body(trousers="short").skin),
        ("left_elbow", Body(sleeves="short").skin),
    ],
)
def test_short_clothes_show_skin(part: str, color: tuple[float, float, float]):
    short = Body(trousers="short", sleeves="short")
    long = Body(trousers="long", sleeves="long")
    assert {shape.color for shape in short.shapes() if shape.joint == part} == {color}
    assert {shape.color for shape in long.shapes() if shape.joint == part} != {color}


def test_without_mujoco_the_error_names_the_package(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.setitem(sys.modules, "mujoco", None)
    poses = on_floor(CAPTURED, "walk", np.array([0.0]))
    view = View(azimuth_degrees=0.0, elevation_degrees=-10.0, distance_m=3.0, target_m=(0.0, 0.0, 1.0))
    with pytest.raises(RuntimeError, match=r"kinema\[render\]"):
        render(poses, body=CAPTURED, floor=FLOOR, light=LIGHT, view=view, pixels=32)
