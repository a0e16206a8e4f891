"""Extreme numbers in every numeric field of every config: refused with the field, or usable at once."""

import contextlib
import dataclasses
import math
import re
import signal
import typing
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import numpy as np
import pytest
import torch

from kinema.errors import KinemaError, NonFiniteLogits, NonFiniteLoss, UnreadableSample
from kinema.evaluation.bootstrap import Bootstrap
from kinema.modality import DepthFacts
from kinema.models.registry import MODELS
from kinema.training.loop import train
from kinema.training.recipe import Recipe, load_recipe, recipe_names
from kinema.training.recipe_json import recipe_from_json, recipe_to_json
from kinema.training.schedule import Schedule
from kinema.transforms.augment import RandAugment, augment, draw_params
from kinema.transforms.clip_memory import check_clips
from kinema.transforms.geometry import FULL_FRAME
from kinema.transforms.preprocessing import SubjectCrop, depth_to_uint8, subject_box
from kinema.transforms.sampling import FrameTimes
from kinema.video.pixels import SQUARE

VALUES = (
    0,
    -1,
    0.0,
    -1.0,
    math.nan,
    math.inf,
    1e30,
    -1e30,
    1e-30,
    2**63,
    -(2**63),
    10**30,
    2**63 - 1,
    2**31,
    1.5,
    True,
)
SECONDS = 60
"""Time that a value may take."""
ROOM = 4 * 2**30
"""Bytes that a value may take."""
SAMPLES = 10
FRAMES = 30
pytestmark = pytest.mark.usefixtures("alarm")


@pytest.fixture(autouse=True)
def little_room(memory_limit: Callable[[int], None]) -> None:
    memory_limit(ROOM)


def is_numeric(annotation: Any) -> bool:
    if get_origin(annotation) is Literal:
        return type(get_args(annotation)[0]) is int
    return annotation in (int, float) or any(is_numeric(member) for member in get_args(annotation))


def numeric_fields(config: Any, parents: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the names of all fields of a config, and of the configs in it, that take numbers."""
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from numeric_fields(value, (*parents, field.name))
        elif is_numeric(hints[field.name]):
            yield (*parents, field.name)


def changed(config: Any, path: tuple[str, ...], value: Any) -> Any:
    """Return the config with another value of a field; a field of several numbers gets it as the last one."""
    name, *rest = path
    old = getattr(config, name)
    if rest:
        return replace(config, **{name: changed(old, tuple(rest), value)})
    if isinstance(old, tuple):
        value = (*old[:-1], value)
    elif old is None and name == "short_side":
        value = (value, value)
    return replace(config, **{name: value})


def accepted(config: Any) -> Iterator[Any]:
    """Yield the config with each extreme value that it accepts; all others have to be refused with a field."""
    paths = list(numeric_fields(config))
    assert paths
    for path in paths:
        for value in VALUES:
            signal.alarm(SECONDS)
            try:
                yield changed(config, path, value)
            except KinemaError as error:
                check_error(error, f"{'.'.join(path)}={value!r}")


def prepare(recipe: Recipe) -> None:
    """Do what a training does before its first batch, but for the files and the network."""
    schedule = Schedule.from_recipe(recipe, samples=SAMPLES, max_steps=None)
    assert 0 < schedule.last <= 10**9
    assert recipe_from_json(recipe_to_json(recipe)) == recipe or recipe.optim.max_grad_norm == math.inf
    preprocessing = recipe.clip.preprocessing(None)
    sampling = recipe.clip.frame_sampling([25.0])
    check_clips(sampling, preprocessing, batch_size=recipe.data.batch_size)
    rng = np.random.default_rng(0)
    rule, grid = sampling.on(FrameTimes(first=0, num_frames=FRAMES, rate=25.0))
    numbers = grid.frames(rule.indices(grid.num_places, rng))
    assert 0 <= numbers.min() <= numbers.max() < FRAMES
    assert rule.views(grid.num_places).shape == (sampling.clips, sampling.frames)
    params = draw_params(recipe.data.augmentation, preprocessing, rng)
    if params.geometry.short_side <= 1024:
        frames = torch.zeros(2, 24, 32, 3, dtype=torch.uint8)
        clip = augment(frames, params, preprocessing.size, FULL_FRAME, SQUARE)
        preprocessing.normalize("rgb", clip[None])


def checked(configs: Iterator[Any], use: Any) -> int:
    """Use each accepted config; what it raises has to be an error with a field. Return their number."""
    number = 0
    for number, config in enumerate(configs, start=1):  # noqa: B007  # the last one counts
        try:
            use(config)
        except KinemaError as error:
            check_error(error, repr(config))
    return number


def check_error(error: KinemaError, cause: str) -> None:
    """Check that an error names its field, or, for a rule about several fields, one of them with its value."""
    assert error.field or re.search(r"\w+=", str(error)), f"{cause}: {error}"
    assert "\n" not in str(error)


def test_every_number_of_a_recipe() -> None:
    recipe = load_recipe("moves_ctn_tiny")
    recipe = replace(recipe, clip=replace(recipe.clip, frames=8, size=32, short_side=40))
    assert checked(accepted(recipe), prepare) > 100
    dense = replace(recipe, clip=replace(recipe.clip, sampling="dense", interval=2))
    in_seconds = replace(recipe, clip=replace(recipe.clip, sampling="uniform", interval_s=0.1))
    for clip in (dense.clip, in_seconds.clip):
        assert checked(accepted(clip), lambda clip: prepare(replace(recipe, clip=clip))) > 10


def test_every_number_of_depth_and_others() -> None:
    facts = DepthFacts(unit_mm=1.0, near=500, far=4500, coverage="masked")
    depth = np.arange(48, dtype=np.uint16).reshape(2, 4, 6) * 1000
    with np.errstate(all="raise"):
        assert checked(accepted(facts), lambda facts: depth_to_uint8(depth, facts)) > 5
    assert checked(accepted(SubjectCrop()), lambda crop: subject_box(depth, crop)) > 3
    for config in (RandAugment(), Bootstrap()):
        assert checked(accepted(config), repr)


@pytest.mark.long
@pytest.mark.parametrize("name", recipe_names())
def test_every_number_of_every_recipe(name: str) -> None:
    checked(accepted(load_recipe(name)), prepare)


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in MODELS if "tiny" in name])
def test_every_number_of_every_network(name: str) -> None:
    model = MODELS[name]

    def build(config: Any) -> None:
        config.build(heads={"label": 3}, channels=model.channels, frames=model.frames, size=model.size)

    assert checked(accepted(model.config), build)


@pytest.mark.long
@pytest.mark.parametrize("section", ["clip", "data", "model", "optim", "init", "checkpoint", "compute", "run"])
def test_a_training_step_with_every_number(tiny_recipe: Recipe, tmp_path: Path, section: str) -> None:
    numbers = count()

    def step(changed: Any) -> None:
        recipe = replace(tiny_recipe, **{section: changed})
        run = replace(recipe.run, out=tmp_path / str(next(numbers)))
        with contextlib.suppress(UnreadableSample, NonFiniteLoss, NonFiniteLogits):
            train(replace(recipe, run=run), max_steps=1)

    checked(accepted(getattr(tiny_recipe, section)), step)
