"""Saved models give the trained network's logits, or are refused."""

import dataclasses
import hashlib
import json
import pickle
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from kinema.errors import ModelError
from kinema.inference import trained_model as trained_model_module
from kinema.inference.trained_model import load_model, save_model
from kinema.training.runs import Run

STORED = Path(__file__).parents[1] / "stored"


def clip(channels=3):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (2, channels, 8, 32, 32), dtype=torch.uint8, generator=generator)


def logits_of(trained, inputs):
    return trained.engine(torch.device("cpu")).logits(inputs)


def edit(folder, change):
    """Edit the description in place."""
    path = folder / "model.json"
    description = json.loads(path.read_text())
    change(description)
    path.write_text(json.dumps(description))


@pytest.fixture
def saved(tmp_path, make_trained_model, tiny_ctn):
    trained = make_trained_model(tiny_ctn())
    save_model(tmp_path / "model", trained)
    return tmp_path / "model"


def test_a_loaded_network_gives_exactly_the_logits_of_the_saved_one(saved, make_trained_model, tiny_ctn):
    trained, loaded = make_trained_model(tiny_ctn()), load_model(saved)
    assert torch.equal(logits_of(trained, {"rgb": clip()})["label"], logits_of(loaded, {"rgb": clip()})["label"])
    for field in dataclasses.fields(trained):
        if field.name not in ("model", "digest", "config"):
            assert getattr(loaded, field.name) == getattr(trained, field.name)
    assert loaded.model.config == trained.model.config
    state, other = trained.model.state_dict(), loaded.model.state_dict()
    assert state.keys() == other.keys()
    assert all(torch.equal(state[name], other[name]) for name in state)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_depth_several_heads_and_precision_are_saved(tmp_path, make_trained_model, tiny_ctn, depth_facts, precision):
    trained = make_trained_model(
        tiny_ctn({"verb": 2, "noun": 4}, channels=1),
        modalities=("depth",),
        classes={"verb": ("a", "b"), "noun": ("é", "d, e", "f", "g")},
        depth=depth_facts,
        precision=precision,
    )
    save_model(tmp_path, trained)
    loaded = load_model(tmp_path)
    assert loaded.preprocessing == trained.preprocessing
    assert loaded.classes == trained.classes
    assert loaded.precision == precision
    for head, logits in logits_of(trained, {"depth": clip(1)}).items():
        assert torch.equal(logits, logits_of(loaded, {"depth": clip(1)})[head])


@pytest.fixture
def of_jet(tmp_path, make_trained_model, tiny_ctn, depth_facts):
    """A saved network of colored depth."""
    plain = make_trained_model(tiny_ctn(), modalities=("depth",), depth=depth_facts)
    colors = dataclasses.replace(plain.preprocessing, depth_channels=3, depth_colors="jet")
    save_model(tmp_path / "model", dataclasses.replace(plain, preprocessing=colors))
    return tmp_path / "model"


def test_depth_colors_are_saved(of_jet):
    assert load_model(of_jet).preprocessing.depth_colors == "jet"


def test_a_model_stored_without_depth_colors_has_gray_depth(of_jet):
    edit(of_jet, lambda description: description["preprocessing"].pop("depth_colors"))
    loaded = load_model(of_jet).preprocessing
    assert (loaded.depth_channels, loaded.depth_colors) == (3, "gray")


def test_the_digest_is_that_of_the_weights_file(saved):
    (weights,) = saved.glob("*.safetensors")
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert load_model(saved).digest == digest
    assert weights.name == f"model-{digest[:12]}.safetensors"


def test_saving_does_not_change_the_network(tmp_path, make_trained_model, tiny_ctn):
    model = tiny_ctn().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save_model(tmp_path, make_trained_model(model))
    assert all(module.training for module in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_model_stored_by_kinema_0_1_gives_the_same_logits(tmp_path):
    shutil.copytree(STORED / "ctn_artefact", tmp_path / "artefact")
    old = load_model(tmp_path)  # the fingerprint is checked
    assert (old.config.kind, old.config.width, old.classes) == ("ctn", 12, {"label": ("dim", "grey", "bright")})
    save_model(tmp_path / "again", old)
    assert (
        load_model(tmp_path / "again").digest
        == old.digest
        == json.loads((STORED / "ctn_artefact" / "artefact.json").read_text())["digest"]
    )


def test_a_run_with_an_old_model_folder_keeps_one_model(tmp_path):
    """A resumed run of kinema 0.1 replaces the model in its old folder."""
    shutil.copytree(STORED / "ctn_artefact", tmp_path / "artefact")
    trained = load_model(tmp_path)
    torch.nn.init.normal_(next(trained.model.parameters()))
    digest = save_model(Run(tmp_path).model, trained)
    assert load_model(tmp_path).digest == load_model(tmp_path / "artefact").digest == digest
    assert sorted(path.name for path in (tmp_path / "artefact").iterdir()) == [
        f"model-{digest[:12]}.safetensors",
        "model.json",
    ]


@pytest.mark.parametrize("damaged", [{}, {"preprocessing": None}, {"preprocessing": []}])
def test_a_damaged_description_of_an_old_model_is_refused(raises, tmp_path, damaged):
    shutil.copytree(STORED / "ctn_artefact", tmp_path / "model")
    path = tmp_path / "model" / "artefact.json"
    description = json.loads(path.read_text())
    del description["preprocessing"]
    path.write_text(json.dumps(description | damaged))
    with raises(ModelError, "preprocessing", path=path):
        load_model(tmp_path / "model")


def test_a_model_inside_a_run_loads_the_same(saved):
    inside, direct = load_model(saved.parent), load_model(saved)
    assert inside.digest == direct.digest
    assert torch.equal(logits_of(inside, {"rgb": clip()})["label"], logits_of(direct, {"rgb": clip()})["label"])


def test_replacing_a_model_leaves_one_weights_file(saved, make_trained_model, tiny_ctn):
    (old,) = saved.glob("*.safetensors")
    model = tiny_ctn()
    nn.init.zeros_(next(iter(model.heads.parameters())))
    digest = save_model(saved, make_trained_model(model))
    assert sorted(path.name for path in saved.iterdir()) == [f"model-{digest[:12]}.safetensors", "model.json"]
    assert not old.exists()
    assert load_model(saved).digest == digest
    save_model(saved, make_trained_model(model))  # the same once more
    assert load_model(saved).digest == digest


def test_an_interrupted_save_keeps_the_old_model(saved, make_trained_model, tiny_ctn, monkeypatch):
    before = load_model(saved).digest
    model = tiny_ctn()
    nn.init.zeros_(next(iter(model.heads.parameters())))
    plain = trained_model_module._write

    def stops_at_the_description(path, content):
        if path.suffix == ".json":
            raise KeyboardInterrupt
        plain(path, content)

    monkeypatch.setattr(trained_model_module, "_write", stops_at_the_description)
    with pytest.raises(KeyboardInterrupt):
        save_model(saved, make_trained_model(model))
    assert load_model(saved).digest == before


def test_modified_weights_are_refused(raises, saved):
    (weights,) = saved.glob("*.safetensors")
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(content)
    with raises(ModelError, path=weights.name, field="digest"):
        load_model(saved)


def test_other_weights_with_their_own_checksum_are_refused_by_the_fingerprint(raises, saved):
    (weights,) = saved.glob("*.safetensors")
    tensors = load_file(weights)
    save_file({name: t * 1.5 if t.is_floating_point() else t for name, t in tensors.items()}, weights)
    edit(saved, lambda description: description.update(digest=hashlib.sha256(weights.read_bytes()).hexdigest()))
    with raises(ModelError, field="fingerprint"):
        load_model(saved)
    assert load_model(saved, check="digest").config.kind == "ctn"


def test_a_network_whose_code_has_changed_is_refused(raises, tmp_path, make_trained_model, brightness):
    save_model(tmp_path, make_trained_model(brightness()))

    class Changed(brightness):
        def forward(self, video):
            return super().forward(video + 0.5)

    with raises(ModelError, field="fingerprint"):
        load_model(tmp_path, model=Changed())


TOUCHED = {
    "mean": (lambda s: s["preprocessing"].update(mean=[0.4, 0.4, 0.4]), "fingerprint"),
    "std": (lambda s: s["preprocessing"].update(std=[0.5, 0.6, 0.5]), "fingerprint"),
    "size above the short side": (lambda s: s["preprocessing"].update(size=64), "preprocessing"),
    "modality": (lambda s: s["preprocessing"].update(modalities=["sound"]), "preprocessing.modalities.0"),
    "colors without their channels": (
        lambda s: s["preprocessing"].update(depth_colors="jet"),
        "preprocessing",
    ),
    "colors of another map": (
        lambda s: s["preprocessing"].update(depth_colors="turbo"),
        "preprocessing.depth_colors",
    ),
    "unknown field": (lambda s: s["preprocessing"].update(crop=3), "preprocessing.crop"),
    "frames": (lambda s: s["sampling"].update(frames=0), "sampling.frames"),
    "frames that do not fit": (lambda s: s["sampling"].update(frames=9), "frames"),
    "rule": (lambda s: s["sampling"].update(rule="random"), "sampling.rule"),
    "precision": (lambda s: s.update(precision="float8"), "precision"),
    "a class more": (lambda s: s["classes"]["label"].append("more"), None),
    "another width": (lambda s: s["model"].update(width=48), None),
    "unknown config field": (lambda s: s["model"].update(widht=48), "widht"),
    "unknown kind": (lambda s: s["model"].update(kind="ctnn"), ""),
    "head": (lambda s: s["fingerprint"].update(label=[0.0, 0.0, 0.0]), "fingerprint"),
    "no fingerprint": (lambda s: s.pop("fingerprint"), "fingerprint"),
    "no provenance": (lambda s: s.pop("provenance"), "provenance"),
    "no classes": (lambda s: s.pop("classes"), "classes"),
    "no head": (lambda s: s.update(classes={}), "classes"),
    "format": (lambda s: s.update(format=99), "format"),
    "weights gone": (lambda s: s.update(weights="model-0.safetensors"), None),
    "no digest": (lambda s: s.pop("digest"), "digest"),
    "a fingerprint of words": (lambda s: s["fingerprint"].update(label=["a"]), "fingerprint.label.0"),
    "a fingerprint that is a number": (lambda s: s.update(fingerprint=3), "fingerprint"),
    "provenance that is a number": (lambda s: s.update(provenance=1), "provenance"),
    "a class twice": (lambda s: s.update(classes={"label": ["a", "a", "b"]}), "classes"),
    "weights elsewhere": (lambda s: s.update(weights="../../model.safetensors"), None),
    "digest": (lambda s: s.update(digest="0"), "digest"),
}


@pytest.mark.parametrize("touched", TOUCHED)
def test_a_modified_description_is_refused(raises, saved, touched):
    change, field = TOUCHED[touched]
    edit(saved, change)
    with raises(ModelError, field=field):
        load_model(saved)


def test_other_folders_are_refused(raises, tmp_path, saved):
    with raises(ModelError, path="gone"):
        load_model(tmp_path / "gone")
    (saved / "model.json").write_text("{")
    with raises(ModelError, "JSON", path="model.json"):
        load_model(saved)


def test_a_users_own_network_must_be_passed(raises, tmp_path, make_trained_model, brightness):
    network = brightness()
    network.levels.data += 0.125
    save_model(tmp_path, make_trained_model(network))
    with raises(ModelError, "model=", path=tmp_path):
        load_model(tmp_path)
    loaded = load_model(tmp_path, model=brightness())
    assert loaded.config is None
    assert torch.equal(loaded.model.levels, network.levels)
    assert torch.equal(
        logits_of(loaded, {"rgb": clip()})["label"], logits_of(make_trained_model(network), {"rgb": clip()})["label"]
    )
    with raises(ModelError, "fit"):
        load_model(tmp_path, model=nn.Linear(2, 2))


def test_a_network_with_shared_weights_can_be_saved(tmp_path, make_trained_model):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
            self.second.weight = self.first.weight

        def forward(self, video):
            return self.second(self.first(video.mean((2, 3, 4))))

    trained = make_trained_model(Tied())
    save_model(tmp_path, trained)
    loaded = load_model(tmp_path, model=Tied())
    assert loaded.model.first.weight is loaded.model.second.weight
    assert torch.equal(logits_of(trained, {"rgb": clip()})["label"], logits_of(loaded, {"rgb": clip()})["label"])


def test_nothing_is_ever_unpickled(saved, monkeypatch, make_trained_model, tiny_ctn):
    def refuse(*_, **__):
        raise AssertionError("an trained is no pickle")

    expected = logits_of(make_trained_model(tiny_ctn()), {"rgb": clip()})["label"]
    for owner, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load")):
        monkeypatch.setattr(owner, name, refuse)
    loaded = load_model(saved)
    monkeypatch.undo()
    assert torch.equal(logits_of(loaded, {"rgb": clip()})["label"], expected)
    content = b"".join(path.read_bytes() for path in saved.iterdir())
    assert not re.search(rb"\x80[\x02-\x05]c(torch|builtins)|PK\x03\x04", content)
