"""Tests of overriding recipe fields on the command line."""

from dataclasses import replace
from pathlib import Path

import pytest

from kinema.cli.train import override
from kinema.errors import KinemaError
from kinema.training.recipe import load_recipe

RECIPE = load_recipe("moves_ctn_tiny")


def test_every_section_can_be_overridden() -> None:
    args = (
        "--clip.frames 8 --data.batch-size 4 --data.augmentation.flip 0 --data.read-options.limits.frames 9 "
        "--model.depth 2 --optim.lr 1 --optim.max-grad-norm None --init.weights w.pt --init.freeze backbone blocks.0 "
        "--checkpoint.every 3 --compute.device cpu --compute.activation-checkpointing --run.out here --run.seed 7"
    )
    changed = override(RECIPE, args.split(), "train")
    assert changed == replace(
        RECIPE,
        clip=replace(RECIPE.clip, frames=8),
        data=replace(
            RECIPE.data,
            batch_size=4,
            augmentation=replace(RECIPE.data.augmentation, flip=0.0),
            read_options=replace(RECIPE.data.read_options, limits=replace(RECIPE.data.read_options.limits, frames=9)),
        ),
        model=replace(RECIPE.model, depth=2),
        optim=replace(RECIPE.optim, lr=1.0, max_grad_norm=None),
        init=replace(RECIPE.init, weights="w.pt", freeze=("backbone", "blocks.0")),
        checkpoint=replace(RECIPE.checkpoint, every=3),
        compute=replace(RECIPE.compute, device="cpu", activation_checkpointing=True),
        run=replace(RECIPE.run, out=Path("here"), seed=7),
    )


@pytest.mark.parametrize(
    ("args", "word"),
    [
        ("--run.seed true", "true"),
        ("--run.seed -1", "seed=-1"),
        ("--optim.lr 0", "lr=0"),
        ("--model.depth 0", "depth=0"),
        ("--data.augmentation.flip 2", "flip=2"),
        ("--checkpoint.every 0", "every=0"),
        ("--compute.device xpu", "xpu"),
        ("--init.blocks 0 -1", "-1"),
        ("--clip.frames 12", "12"),
        ("--init.wieghts w.pt", "'--init.weights'"),
        ("--run.precision bfloat16", "'--compute.precision'"),
    ],
)
def test_a_wrong_override_is_refused_in_one_line(args: str, word: str) -> None:
    with pytest.raises(KinemaError) as refusal:
        override(RECIPE, args.split(), "train")
    assert word in str(refusal.value)
    assert "\n" not in str(refusal.value)
