"""Captured motions: a wrong joint order looks plausible, so the movements must match the actions."""

import numpy as np
import pytest

from kinema.render.mannequin import CAPTURED
from kinema.render.motion import (
    ACTIONS,
    INDEX,
    JOINTS,
    MOTIONS,
    WRIST_OFFSET_M,
    conjugate,
    decode_poses,
    from_rotation_vectors,
    joint_positions,
    load_motion,
    multiply,
    rotate,
    slerp,
    smooth_noise,
)


def heights(action: str) -> dict[str, np.ndarray]:
    """Return the height of each joint above the floor over the whole motion [m]."""
    motion = load_motion(action)
    positions, _ = joint_positions(motion.at(np.linspace(0.0, motion.duration_s, 60)), CAPTURED.offsets_m)
    return {name: positions[:, index, 1] for name, index in INDEX.items()}


def test_every_action_has_frames_of_44_numbers():
    with np.load(MOTIONS, allow_pickle=False) as archive:
        assert sorted(archive.files) == sorted(ACTIONS)
        assert len(ACTIONS) == 15
        for name in ACTIONS:
            assert archive[name].shape[1] == 44
            assert archive[name].dtype == np.float32
            assert len(archive[name]) > 20


def test_joint_numbers_add_up_to_a_frame():
    widths = {"free": 7, "ball": 4, "hinge": 1}
    assert 1 + sum(widths[joint.kind] for joint in JOINTS) == 44


def test_parents_come_before_their_children():
    assert all(INDEX[joint.parent] < index for index, joint in enumerate(JOINTS) if index > 0)


@pytest.mark.parametrize("action", ACTIONS)
def test_rotations_are_unit_quaternions_in_the_file_and_after_decoding(action: str):
    # In the file too: numbers cut at a wrong column would be no quaternions before they are normalized. Not all are of
    # unit length there: some stretches of the capture were blended by hand.
    with np.load(MOTIONS, allow_pickle=False) as archive:
        numbers = archive[action]
    column, lengths = 4, []
    for joint in JOINTS:
        if joint.kind != "hinge":
            lengths.append(np.linalg.norm(numbers[:, column : column + 4], axis=1))
        column += 1 if joint.kind == "hinge" else 4
    assert np.mean(np.abs(np.array(lengths) - 1.0) < 2e-3) > 0.6
    np.testing.assert_allclose(np.linalg.norm(decode_poses(numbers).rotations, axis=-1), 1.0, atol=1e-12)


def test_in_walk_feet_are_below_knees_below_hips_below_neck():
    height = heights("walk")
    for side in ("right", "left"):
        assert np.all(height[f"{side}_ankle"] < height[f"{side}_knee"])
        assert np.all(height[f"{side}_knee"] < height[f"{side}_hip"])
        assert np.all(height[f"{side}_elbow"] < height[f"{side}_shoulder"])
    assert np.all(height["neck"] > height["root"] + 0.4)


@pytest.mark.parametrize("action", ["walk", "run"])
def test_knees_bend_backwards_and_elbows_forwards(action: str):
    motion = load_motion(action)
    rotations = motion.at(np.linspace(0.0, motion.duration_s, 60)).rotations
    # The axis z points right: turning about it by a negative angle takes the shin back, by a positive one the hand up.
    assert np.all(rotations[:, [INDEX["right_knee"], INDEX["left_knee"]], 3] < 0.15)
    assert np.all(rotations[:, [INDEX["right_elbow"], INDEX["left_elbow"]], 3] > -0.05)


def test_in_walk_one_foot_leads_and_then_the_other():
    motion = load_motion("walk")
    positions, _ = joint_positions(motion.at(np.linspace(0.0, motion.duration_s, 60)), CAPTURED.offsets_m)
    ahead = positions[:, INDEX["right_ankle"], 0] - positions[:, INDEX["left_ankle"], 0]
    assert ahead.max() > 0.4
    assert ahead.min() < -0.4
    # Arms swing against the legs, about a person who walks forwards.
    swing = positions[:, INDEX["right_elbow"], 0] - positions[:, INDEX["left_elbow"], 0]
    assert np.corrcoef(ahead, swing)[0, 1] < -0.8
    assert positions[-1, INDEX["root"], 0] - positions[0, INDEX["root"], 0] > 1.0


def test_the_kick_is_higher_than_the_pelvis_and_one_foot_stays_below():
    height = heights("kick")
    highest = {side: np.max(height[f"{side}_ankle"] - height["root"]) for side in ("right", "left")}
    assert max(highest.values()) > 0.1
    assert min(highest.values()) < -0.3


def test_in_a_cartwheel_elbows_go_below_the_head_and_feet_above_it():
    height = heights("cartwheel")
    assert np.min(height["right_elbow"] - height["neck"]) < -0.2
    assert np.max(height["right_ankle"] - height["neck"]) > 0.3
    assert np.max(height["left_ankle"] - height["neck"]) > 0.3


def test_in_a_backflip_the_head_goes_below_the_pelvis():
    height = heights("backflip")
    assert np.min(height["neck"] - height["root"]) < -0.2


@pytest.mark.parametrize(("action", "head_above_root"), [("getup_facedown", 0.35), ("getup_faceup", 0.35)])
def test_getting_up_ends_upright(action: str, head_above_root: float):
    height = heights(action)
    assert height["neck"][0] < 0.4
    assert height["neck"][-1] - height["root"][-1] > head_above_root
    assert height["root"][-1] > 0.7


@pytest.mark.parametrize(
    ("action", "limb", "limit_m_per_s"),
    [
        ("cartwheel", "ankle", 0.1),
        ("spinkick", "ankle", 0.15),
        ("crawl", "elbow", 0.35),
        ("getup_facedown", "elbow", 0.3),
    ],
)
def test_a_foot_or_hand_on_the_floor_does_not_slide(action: str, limb: str, limit_m_per_s: float):
    # Only the true order does this: left exchanged with right, or neck with chest, makes planted limbs slide.
    motion = load_motion(action)
    poses = motion.at(np.arange(0.0, motion.duration_s, 1 / 60))
    positions, turns = joint_positions(poses, CAPTURED.offsets_m)
    sides = [INDEX[f"right_{limb}"], INDEX[f"left_{limb}"]]
    end_m = np.array(WRIST_OFFSET_M if limb == "elbow" else (0.0, 0.0, 0.0))
    ends = positions[:, sides] + rotate(turns[:, sides], end_m)
    speeds = 60 * np.linalg.norm(np.diff(ends, axis=0), axis=-1)
    low = ends[:-1, :, 1] < np.percentile(ends[..., 1], 15)
    assert np.median(speeds[low]) < limit_m_per_s


def test_slerp_reaches_both_ends_at_constant_speed_along_the_shorter_arc():
    start = from_rotation_vectors(np.array([0.0, 0.0, 0.2]))
    end = from_rotation_vectors(np.array([0.0, 0.0, 1.4]))
    for other in (end, -end):
        for fraction in (0.0, 0.25, 0.5, 1.0):
            expected = from_rotation_vectors(np.array([0.0, 0.0, 0.2 + 1.2 * fraction]))
            mixed = slerp(start, other, fraction)
            assert abs(abs(float(mixed @ expected)) - 1.0) < 1e-12
    np.testing.assert_allclose(slerp(start, start, 0.3), start, atol=1e-12)


def test_quaternions_compose_as_rotations_do():
    rng = np.random.default_rng(0)
    first, second = from_rotation_vectors(rng.normal(size=(2, 3)))
    vector = rng.normal(size=3)
    np.testing.assert_allclose(rotate(multiply(first, second), vector), rotate(first, rotate(second, vector)))
    np.testing.assert_allclose(rotate(conjugate(first), rotate(first, vector)), vector)
    quarter = from_rotation_vectors(np.array([0.0, np.pi / 2, 0.0]))
    np.testing.assert_allclose(rotate(quarter, np.array([1.0, 0.0, 0.0])), [0.0, 0.0, -1.0], atol=1e-12)


@pytest.mark.parametrize("action", ["walk", "run", "crawl"])
def test_a_cycle_continues_without_a_jump(action: str):
    motion = load_motion(action)
    period_s = motion.duration_s
    first, second = motion.at(np.array([0.3 * period_s])), motion.at(np.array([1.3 * period_s]))
    np.testing.assert_allclose(np.abs(np.sum(first.rotations * second.rotations, axis=-1)), 1.0, atol=1e-9)
    traveled_m = second.root_m - first.root_m
    assert traveled_m[0, 0] > 0.5
    assert abs(traveled_m[0, 1]) < 1e-9
    # No jerk at the seam: the step across it is no longer than twice the longest elsewhere.
    times_s = np.arange(0.8 * period_s, 1.2 * period_s, 1 / 120)
    positions, _ = joint_positions(motion.at(times_s), CAPTURED.offsets_m)
    steps_m = np.linalg.norm(np.diff(positions, axis=0), axis=-1).max(axis=1)
    seam = int(np.searchsorted(times_s, period_s)) - 1
    assert steps_m[seam] < 2 * np.delete(steps_m, seam).max()


def test_a_single_motion_stands_still_before_and_after():
    motion = load_motion("kick")
    poses = motion.at(np.array([-1.0, 0.0, motion.duration_s, motion.duration_s + 1.0]))
    np.testing.assert_array_equal(poses.root_m[0], poses.root_m[1])
    np.testing.assert_array_equal(poses.rotations[2], poses.rotations[3])


def test_a_mirrored_motion_is_the_reflection():
    motion = load_motion("kick")
    poses = motion.at(np.linspace(0.0, motion.duration_s, 9))
    positions, _ = joint_positions(poses, CAPTURED.offsets_m)
    mirrored, _ = joint_positions(poses.mirror(), CAPTURED.offsets_m)
    for name, index in INDEX.items():
        other = name.replace("right", "LEFT").replace("left", "right").replace("LEFT", "left")
        np.testing.assert_allclose(mirrored[:, INDEX[other]], positions[:, index] * [1.0, 1.0, -1.0], atol=1e-9)


def test_noise_is_smooth_without_root_and_along_hinge_axes():
    noise = smooth_noise(np.random.default_rng(3), phases=np.arange(32) / 32, sigma_rad=0.07)
    assert not np.any(noise[:, INDEX["root"]])
    assert not np.any(noise[:, INDEX["left_knee"], :2])
    balls = [index for index, joint in enumerate(JOINTS) if joint.kind == "ball"]
    assert 0.05 < noise[:, balls].std() < 0.09
    assert np.abs(np.diff(noise, axis=0)).max() < 0.08


def test_an_unknown_motion_is_refused_by_name():
    with pytest.raises(ValueError, match="swim"):
        load_motion("swim")
