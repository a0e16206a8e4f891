"""Tests of torch.compile: equal results, one graph for all batch sizes, and a clear error without a compiler."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from kinema.errors import RecipeError
from kinema.training.distributed import make_fabric
from kinema.training.learner import Learner
from kinema.training.loop import train
from kinema.training.recipe import Recipe


@pytest.mark.usefixtures("unchecked")
def test_a_partial_batch_is_not_compiled_again(tiny_recipe: Recipe, monkeypatch) -> None:
    """Graphs are counted with a backend that runs them as they are."""
    graphs = []

    def count(graph: torch.fx.GraphModule, _: list[Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    compile_with = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, **_: compile_with(model, backend=count))
    torch.compiler.reset()
    recipe = replace(tiny_recipe, compute=replace(tiny_recipe.compute, compile="default"))
    model = nn.Sequential(nn.Conv3d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 3))
    learner = Learner(make_fabric(recipe), model, recipe)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for size in (4, 4, 3, 1, 2, 4, 1):
            clip = torch.randn(size, 3, 8, 16, 16)
            logits = learner.forward({"input": clip})
            assert torch.equal(logits, model(clip))
            logits.sum().backward()
    assert len(graphs) == 1


def test_compiling_without_a_compiler_is_refused(tiny_recipe: Recipe, monkeypatch, raises) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with raises(RecipeError, "no-such-compiler", field="compute.compile"):
        train(replace(tiny_recipe, compute=replace(tiny_recipe.compute, compile="default")))
    assert tiny_recipe.run.out is not None
    assert not tiny_recipe.run.out.exists()


COMPILED_MODELS = """
import torch
from kinema.models.registry import create_model
from kinema.recipes.ctn_tiny import RECIPE
from kinema.training.distributed import make_fabric
from kinema.training.learner import Learner
from dataclasses import replace

recipe = replace(RECIPE, compute=replace(RECIPE.compute, compile="default", device="cpu"))
torch._dynamo.config.error_on_recompile = True
for name, patch in (("ctn_tiny", {}), ("rpe_stdt_tiny", {"patch": 8}), ("mfst_tiny", {})):
    torch.compiler.reset()
    torch.manual_seed(0)
    model = create_model(name, num_classes=5, frames=8, size=32, **patch)
    learner = Learner(make_fabric(recipe), model, recipe)
    model.eval()
    for size in (4, 3, 1, 4):
        clip = torch.randn(size, 3, 8, 32, 32)
        with torch.no_grad():
            compiled, eager = learner.forward({"clip": clip}), model(clip)
        difference = (compiled - eager).abs().max().item()
        print(name, size, difference, flush=True)
        assert difference < (0.02 if name == "mfst_tiny" else 1e-4), (name, size, difference)  # of k-NN
        assert torch.equal(compiled.argmax(1), eager.argmax(1))
"""


@pytest.mark.long
def test_compiled_models_equal_eager_ones_in_batches_of_every_size(tmp_path: Path) -> None:
    """Runs in a separate process without jaxtyping checks, which torch.compile does not support."""
    if not shutil.which(os.environ.get("CXX", "g++")):
        pytest.skip("no C++ compiler for torch.compile")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", COMPILED_MODELS], env=environment, capture_output=True, text=True, timeout=1500
    )
    assert done.returncode == 0, done.stdout + done.stderr
