"""A checkpoint that does not fit its run is refused before any of it is used, and the logs stay."""

import shutil
import subprocess
import sys
import zipfile

import pytest
import torch

from kinema.errors import RunError
from kinema.training.loop import train
from kinema.training.recipe import Clip, Compute, Data, Optim, Recipe, RunSettings
from kinema.training.runs import Run
from tests.training.conftest import TINY


@pytest.fixture(scope="module")
def finished(few_moves, tmp_path_factory):
    recipe = Recipe(
        clip=Clip(frames=8, size=32, short_side=32),
        data=Data(manifest=str(few_moves.path), evaluate="test", batch_size=4, workers=0),
        model=TINY,
        optim=Optim(lr=0.05, epochs=4),
        compute=Compute(device="cpu"),
        run=RunSettings(out=tmp_path_factory.mktemp("checked") / "run"),
    )
    return train(recipe, max_steps=2)


def expand(state, part):
    """Replace the largest tensor by one value that claims its shape in memory."""
    tensors = state["optimizer"]["state"][0] if part == "optimizer" else state["model"]
    name = max(tensors, key=lambda name: tensors[name].numel())
    tensors[name] = torch.zeros(1, dtype=tensors[name].dtype).expand(tensors[name].shape)


FAULTS = {
    "step": (lambda s: s.update(step=10**9), "step=1000000000"),
    "step, negative": (lambda s: s.update(step=-1), "step=-1"),
    "step, a word": (lambda s: s.update(step="2"), "step='2'"),
    "step, true": (lambda s: s.update(step=True), "step=True"),
    "best": (lambda s: s.update(best=float("nan")), "best=nan"),
    "stale": (lambda s: s.update(stale=3), "stale=3"),
    "model": (lambda s: s.update(model=[1]), "model"),
    "a tensor is missing": (lambda s: s["model"].popitem(), "missing"),
    "one tensor more": (lambda s: s["model"].update(more=torch.ones(1)), "'more'"),
    "shape": (lambda s: s["model"].update({k: v[None] for k, v in s["model"].items()}), "shape"),
    "dtype": (lambda s: s["model"].update({k: v.double() for k, v in s["model"].items()}), "float64"),
    "an expanded weight": (lambda s: expand(s, "model"), "memory"),
    "sparse": (lambda s: s["model"].update({k: v.to_sparse() for k, v in s["model"].items()}), "dense"),
    "state of another shape": (lambda s: s["optimizer"]["state"][0].update(exp_avg=torch.ones(3)), "exp_avg"),
    "a huge expanded state": (
        lambda s: s["optimizer"]["state"][0].update(exp_avg_sq=torch.zeros(1).expand(10**6, 10**6)),
        "exp_avg_sq",
    ),
    "an expanded state": (lambda s: expand(s, "optimizer"), "memory"),
    "state of no parameter": (lambda s: s["optimizer"]["state"].update({10**6: {}}), "1000000"),
    "groups": (lambda s: s["optimizer"]["param_groups"].pop(), "groups"),
    "weight decay": (lambda s: s["optimizer"]["param_groups"][0].update(weight_decay=float("nan")), "weight_decay"),
    "optimizer": (lambda s: s.update(optimizer=7), "optimizer"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_checkpoint_that_does_not_fit_is_refused(finished, tmp_path, fault, raises):
    path = shutil.copytree(finished.path, tmp_path / "run")
    file, log = path / "checkpoints" / "last.pt", path / "steps.jsonl"
    change, word = FAULTS[fault]
    state = torch.load(file, weights_only=True)
    change(state)
    file.unlink()  # a hard link to others
    torch.save(state, file)
    before = log.read_bytes()
    with raises(RunError, word, path=file):
        train(Run.open(path).recipe, Run.open(path))
    assert log.read_bytes() == before


def test_a_compressed_checkpoint_is_refused(finished, tmp_path, raises):
    """A small file could take any memory."""
    path = shutil.copytree(finished.path, tmp_path / "run")
    file = path / "checkpoints" / "last.pt"
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    file.unlink()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    with raises(RunError, "cannot be read", path=file):
        Run.open(path).load_checkpoint()


@pytest.mark.long
def test_a_run_in_which_another_process_trains_is_refused(finished, tmp_path, raises):
    path = shutil.copytree(finished.path, tmp_path / "run")
    code = (
        "import sys, time; from kinema.training.runs import Run\n"
        "run = Run.open(sys.argv[1]); run.begin(); print(1); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-uc", code, str(path)], stdout=subprocess.PIPE)
    try:
        assert other.stdout.readline() == b"1\n"
        before = (path / "steps.jsonl").read_bytes()
        with raises(RunError, "another process", path=path):
            train(Run.open(path).recipe, Run.open(path))
        assert (path / "steps.jsonl").read_bytes() == before
    finally:
        other.kill()
        other.communicate()
    train(Run.open(path).recipe, Run.open(path), max_steps=3)  # the system releases the lock
