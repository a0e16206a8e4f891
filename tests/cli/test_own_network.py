"""A network of the user's own is trained, evaluated and used from the command line by the name of its class."""

import json
import sys
from pathlib import Path

import pytest
import torch

from kinema.cli.app import main
from kinema.errors import ModelError
from kinema.inference.recognizer import Recognizer
from kinema.inference.trained_model import load_model
from kinema.models.own import create_own_model

NETWORK = """
from torch import nn

class Mean(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.heads = nn.Linear(3, num_classes)

    def features(self, clip):
        return self.norm(clip.mean((2, 3, 4)))

    def forward(self, clip):
        return self.heads(self.features(clip))

class Broken(Mean):
    def forward(self, clip):
        raise {error}

class Fixed(Mean):
    def __init__(self):
        super().__init__(3)

class Odd(Mean):
    def __init__(self, num_classes, width):
        super().__init__(num_classes)

def free(**options):
    return Mean(**options)

ready = Mean(3)
number = 3
text = str
"""
RECIPE = """
from kinema.models.ctn import CTNConfig
from kinema.training.recipe import Clip, Compute, Data, Optim, Recipe

RECIPE = Recipe(
    clip=Clip(frames=8, size=32, short_side=32),
    data=Data(manifest="{manifest}", evaluate="test", workers=0, batch_size=3, duplicates="allow"),
    model=CTNConfig(stem_kernel=3, stem_channels=4, width=24, depth=1, attention_heads=3),
    optim=Optim(lr=0.1, epochs=1.0),
    compute=Compute(device="cpu"),
)
"""


@pytest.fixture
def folder(tmp_path: Path, data_set, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a network and a recipe."""
    (tmp_path / "mynets.py").write_text(NETWORK.replace("{error}", 'FileNotFoundError("table.csv")'))
    (tmp_path / "mine.py").write_text(RECIPE.replace("{manifest}", str(data_set.path)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "mynets", raising=False)
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main(args)
    assert stop.value.code == 2
    return capsys.readouterr().err


@pytest.mark.long
@pytest.mark.usefixtures("folder")
def test_a_network_is_resumed_and_evaluated_by_its_name(data_set, capsys) -> None:
    main(["train", "mine.py", "--model", "mynets:Mean", "--run.out", "run", "--max-steps", "1"])
    main(["train", "--resume", "run", "--model", "mynets.py:Mean"])
    main(["evaluate", "run", "--manifest", str(data_set.path), "--model", "mynets:Mean", "--workers", "0"])
    assert "coverage 100.00 %" in capsys.readouterr().out


@pytest.mark.usefixtures("folder")
def test_a_network_is_trained_and_used_by_its_name(data_set, capsys) -> None:
    main(["train", "mine.py", "--model", "mynets:Mean", "--run.out", "run", "--max-steps", "1"])
    video = data_set.locate(data_set.entries[0].rgb)
    capsys.readouterr()
    main(["predict", "run", video, "--model", "mynets:Mean", "--format", "jsonl", "--top-k", "1"])
    answer = json.loads(capsys.readouterr().out.splitlines()[0])
    predicted = Recognizer.load("run", model="mynets:Mean", device="cpu").predict(video, top_k=1)
    assert answer["predictions"]["label"][0]["label"] == predicted[0].label
    assert "--model" in refused(capsys, "predict", "run", video)
    assert "--model" in refused(capsys, "train", "--resume", "run")
    assert "'Mean'" in refused(capsys, "predict", "run", video, "--model", "mynets:Maen")


@pytest.mark.usefixtures("folder")
def test_its_first_weights_depend_on_the_seed_alone() -> None:
    """The import of its module may draw random numbers, too."""
    first, second, other = (create_own_model("mynets:Mean", heads={"label": 3}, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.heads.weight, second.heads.weight)
    assert not torch.equal(first.heads.weight, other.heads.weight)


@pytest.mark.long
@pytest.mark.usefixtures("folder")
def test_two_trainings_start_from_the_same_weights() -> None:
    weights = []
    for out in ("a", "b"):
        torch.rand(len(out) + len(weights))
        main(
            ["train", "mine.py", "--model", "mynets:Mean", "--run.out", out, "--optim.lr", "1e-30", "--max-steps", "1"]
        )
        weights.append(load_model(out, model="mynets:Mean").model.heads.weight)
    assert torch.equal(*weights)


@pytest.mark.usefixtures("folder")
def test_an_error_in_its_forward_keeps_its_traceback() -> None:
    """Also one that kinema would print as one line if it were about the user's files."""
    with pytest.raises(FileNotFoundError) as caught:
        main(["train", "mine.py", "--model", "mynets:Broken", "--run.out", "run"])
    assert any(entry.path.name == "mynets.py" for entry in caught.traceback)


@pytest.mark.parametrize("name", ["Mean", "Fixed", "free", "ready"])
def test_a_class_a_function_and_a_network_are_used(folder, name) -> None:
    assert create_own_model(f"mynets:{name}", heads={"label": 3}).heads.out_features == 3
    assert create_own_model(f"{folder / 'mynets.py'}:{name}", heads={"label": 3}).heads.out_features == 3


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    "name", ["mynets", "mynets:", ":Mean", "nets:Mean", "nets.py:Mean", "my.nets:Mean", "mynets:Odd", "mynets:number"]
)
def test_a_name_of_no_network_is_refused(raises, name) -> None:
    with raises(ModelError, field="model", **({"path": "nets.py"} if ".py" in name else {})):
        create_own_model(name, heads={"label": 3})


def test_a_missing_import_of_the_users_module_is_its_own_error(folder) -> None:
    (folder / "lacking.py").write_text("import not_installed_anywhere\n")
    with pytest.raises(ModuleNotFoundError, match="not_installed_anywhere"):
        create_own_model("lacking:Mean", heads={"label": 3})


def test_several_heads_are_a_dict(folder) -> None:
    (folder / "heads.py").write_text(
        "from torch import nn\ndef net(num_classes):\n    return nn.ModuleDict(\n"
        "        {name: nn.Linear(1, count) for name, count in num_classes.items()})\n"
    )
    assert set(create_own_model("heads.py:net", heads={"verb": 3, "noun": 4})) == {"verb", "noun"}


def test_a_file_does_not_replace_a_module_of_its_name(tmp_path):
    (tmp_path / "random.py").write_text(NETWORK.format(error="ValueError"))
    create_own_model(f"{tmp_path / 'random.py'}:Mean", heads={"label": 3}, seed=0)
    assert sys.modules["random"].random() < 1
    (tmp_path / "broken.py").write_text("raise ValueError('bug')")
    with pytest.raises(ValueError, match="bug"):
        create_own_model(f"{tmp_path / 'broken.py'}:Mean", heads={"label": 3}, seed=0)
    assert not [name for name in sys.modules if name.endswith("broken")]
