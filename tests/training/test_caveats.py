"""What is said beside an accuracy: the split that chose the weights, and the unit of the interval."""

from dataclasses import replace

import pytest

from kinema.cli import main
from kinema.data.manifest import load_manifest, write_manifest
from kinema.evaluation.bootstrap import Bootstrap
from kinema.evaluation.compare import bootstrap_unit
from kinema.evaluation.evaluate import CHOSEN, evaluate
from kinema.evaluation.predictions import load_predictions
from kinema.training.loop import train
from kinema.training.recipe import Checkpoint


@pytest.mark.parametrize("keep", ["best", "last"])
def test_the_split_that_chose_the_weights_is_named(tiny_recipe, keep, capsys):
    run = train(replace(tiny_recipe, checkpoint=Checkpoint(keep=keep)), max_steps=2)
    split = tiny_recipe.data.evaluate
    expected = CHOSEN.format(split=split) if keep == "best" else ""
    assert load_predictions(run.predictions).caveat == expected
    assert evaluate(run.path, tiny_recipe.data.manifest, split=split).predictions.caveat == expected
    assert evaluate(run.path, tiny_recipe.data.manifest, split=tiny_recipe.data.train).predictions.caveat == ""
    main(["runs", str(run.path.parent)])
    assert (CHOSEN.format(split=split) in capsys.readouterr().out) == (keep == "best")


def test_intervals_of_own_data_are_drawn_over_groups(tiny_recipe, tmp_path, capsys):
    run = train(tiny_recipe, max_steps=1)
    manifest = load_manifest(tiny_recipe.data.manifest)
    entries = [replace(entry, group=f"g{number // 2}") for number, entry in enumerate(manifest.entries)]
    entries = [
        replace(entry, **{m: str(manifest.path.parent / entry.source(m)) for m in ("rgb", "depth") if entry.source(m)})
        for entry in entries
    ]
    for version, unit in (("own", "group"), ("1", "clip")):
        own = write_manifest(
            tmp_path / f"{version}.csv",
            entries=entries,
            classes=manifest.classes,
            dataset="x",
            version=version,
            depth=manifest.depth,
        )
        found = evaluate(run.path, own, split=tiny_recipe.data.evaluate).predictions
        assert bootstrap_unit(found, Bootstrap()) == unit
        assert bootstrap_unit(found, Bootstrap(over="clip")) == "clip"
        main(["evaluate", str(run.path), "--manifest", str(own.path), "--split", tiny_recipe.data.evaluate,
              "--out", str(tmp_path / "p.safetensors")])  # fmt: skip
        assert (f"groups of {len(found.index)} clips" in capsys.readouterr().out) == (unit == "group")
