"""A training starts from other weights: what fits is loaded, heads of other classes start anew, nothing goes unsaid."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from kinema.inference.artefact import load_artefact, save_artefact
from kinema.training.loop import train
from kinema.training.recipe import Recipe
from kinema.training.start import StartError, freeze, start_from, still_parts

CLASSES = {"label": ("dim", "grey", "bright")}


@pytest.fixture
def other(tiny_ctn):
    torch.manual_seed(5)
    model = tiny_ctn()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    return model


def test_an_artefact_of_the_same_classes_is_loaded_whole(tmp_path, tiny_ctn, other, make_artefact):
    save_artefact(tmp_path, make_artefact(other))
    model = tiny_ctn()
    started = start_from(model, tmp_path, classes=CLASSES)
    assert set(started.loaded) == set(model.state_dict())
    assert not started.rebuilt
    assert not started.missing
    assert not started.left_over
    for name, weight in other.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight)


@pytest.mark.parametrize(
    "classes", [("a", "b", "c"), ("grey", "dim", "bright"), ("a", "b")], ids=["others", "another order", "fewer"]
)
def test_a_head_of_other_classes_starts_anew_though_it_may_fit(tmp_path, tiny_ctn, other, make_artefact, classes):
    save_artefact(tmp_path, make_artefact(other))
    model = tiny_ctn(num_classes=len(classes))
    fresh = {name: weight.clone() for name, weight in model.state_dict().items()}
    started = start_from(model, tmp_path, classes={"label": classes})
    assert set(started.rebuilt) == {name for name in fresh if name.startswith("heads.")}
    for name in started.rebuilt:
        assert torch.equal(model.state_dict()[name], fresh[name])
    assert set(started.loaded) == set(fresh) - set(started.rebuilt)
    assert any("starts anew: heads" in line for line in started.lines())


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_file_of_weights_is_loaded_by_names(tmp_path, tiny_ctn, other, suffix, wrapped):
    path = tmp_path / f"weights.{suffix}"
    if suffix == "safetensors":
        save_file(other.state_dict(), path)
    else:
        torch.save({"state_dict": other.state_dict()} if wrapped else other.state_dict(), path)
    model = tiny_ctn()
    assert len(start_from(model, path, classes=CLASSES).loaded) == len(model.state_dict())


def test_what_is_missing_or_left_over_is_refused_unless_allowed_and_then_said(tmp_path, tiny_ctn, other):
    weights = other.state_dict()
    gone = "blocks.0.mlp.expand.weight"
    changed = {name: weight for name, weight in weights.items() if name != gone} | {"extra": torch.zeros(2)}
    save_file(changed, tmp_path / "w.safetensors")
    with pytest.raises(StartError, match=rf"w\.safetensors: lacks {gone} \(and 1 more\); .*init-unmatched allow"):
        start_from(tiny_ctn(), tmp_path / "w.safetensors", classes=CLASSES)
    started = start_from(tiny_ctn(), tmp_path / "w.safetensors", classes=CLASSES, unmatched="allow")
    assert started.missing == (gone,)
    assert started.left_over == ("extra",)
    assert [line.strip() for line in started.lines()[-2:]] == [
        f"not in the file: {gone}",
        "left over in the file: extra",
    ]


def test_weights_of_another_shape_are_missing_and_named_with_both_shapes(tmp_path, tiny_ctn, other):
    weights = other.state_dict() | {"norm.weight": torch.zeros(7)}
    save_file(weights, tmp_path / "w.safetensors")
    started = start_from(tiny_ctn(), tmp_path / "w.safetensors", classes=CLASSES, unmatched="allow")
    assert started.missing == ("norm.weight: [7] there, [24] here",)


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


def test_nothing_that_is_loaded_is_executed(tmp_path, tiny_ctn, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Evil()}, "evil.pt")
    with pytest.raises(StartError, match=r"evil\.pt: cannot be read as weights"):
        start_from(tiny_ctn(), "evil.pt", classes=CLASSES)
    assert not Path("executed").exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "neither a run, an artefact, nor a file"), (b"no weights", "cannot be read as weights")],
)
def test_what_is_no_file_of_weights_is_named(tmp_path, tiny_ctn, content, reason):
    path = tmp_path / "w.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StartError, match=rf"w\.safetensors: {reason}"):
        start_from(tiny_ctn(), path, classes=CLASSES)


def test_a_file_of_which_nothing_fits_is_refused_even_where_unmatched_ones_are_allowed(tmp_path, tiny_ctn):
    save_file({"other.weight": torch.zeros(3)}, tmp_path / "w.safetensors")
    with pytest.raises(StartError, match=r"nothing of it fits the network; it holds 1 tensors, such as other\.weight"):
        start_from(tiny_ctn(), tmp_path / "w.safetensors", classes=CLASSES, unmatched="allow")


def test_a_frozen_backbone_leaves_the_heads_alone_to_learn(tiny_ctn):
    model = tiny_ctn()
    freeze(model, ["backbone"])
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learning == {name for name, _ in model.named_parameters() if name.startswith("heads.")}
    still = still_parts(model)
    assert model.blocks in still
    assert model.heads not in still
    assert model not in still


def test_parts_are_frozen_by_whole_names(tiny_ctn):
    model = tiny_ctn()
    names = freeze(model, ["embedding", "blocks.0"])
    assert {name.split(".")[0] for name in names} == {"embedding", "blocks"}
    assert all(name.startswith(("embedding.", "blocks.0.")) for name in names)


@pytest.mark.parametrize(
    ("parts", "reason"),
    [(["blocs"], "has no part 'blocs'; there are backbone, embedding"), (["backbone", "heads"], "nothing to learn")],
)
def test_parts_that_are_not_there_and_nothing_left_are_refused(tiny_ctn, parts, reason):
    with pytest.raises(StartError, match=reason):
        freeze(tiny_ctn(), parts)


def test_a_probe_moves_the_heads_alone_statistics_included(tiny_recipe: Recipe, tmp_path: Path) -> None:
    first = train(tiny_recipe, max_steps=3)
    settings = replace(tiny_recipe.run, out=tmp_path / "probe", init=str(first.path), freeze=("backbone",), keep="last")
    probe = train(replace(tiny_recipe, run=settings), max_steps=3)
    one, other = (load_artefact(run.path).model.state_dict() for run in (first, probe))
    moved = {name for name in one if not torch.equal(one[name], other[name])}
    assert moved
    assert all(name.startswith("heads.") for name in moved)


def test_where_a_training_started_is_part_of_what_it_ships(tiny_recipe: Recipe, tmp_path: Path, capsys) -> None:
    first = train(tiny_recipe, max_steps=2)
    settings = replace(tiny_recipe.run, out=tmp_path / "second", init=str(first.path))
    second = train(replace(tiny_recipe, run=settings), max_steps=1)
    said = json.loads((second.artefact / "artefact.json").read_text())["provenance"]
    assert said["init_digest"] == load_artefact(first.path).digest
    assert "tensors loaded" in capsys.readouterr().err
