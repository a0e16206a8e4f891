"""A sample takes few calls inside each other and few files, so that one can read how a clip is made."""

import subprocess
import sys

import pytest

MEASURE = """
import sys
from pathlib import Path
import kinema
from kinema.data.dataset import Failure, VideoDataset
from kinema.data.manifest import load_manifest
from kinema.data.samplers import Draw
from kinema.training.recipe import load_recipe

package = str(Path(kinema.__file__).parent)
recipe, manifest = load_recipe(sys.argv[1]), load_manifest("moves_cross_subject")
dataset = VideoDataset(
    manifest,
    sampling=recipe.clip.frame_sampling(),
    preprocessing=recipe.clip.preprocessing(manifest.depth),
    augmentation=recipe.data.augmentation,
)
stack, deepest, files = [], [], set()


def watch(frame, event, _):
    if event not in ("call", "return") or not frame.f_code.co_filename.startswith(package):
        return
    if event == "call":
        stack.append(f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_name}")
        files.add(frame.f_code.co_filename)
        deepest[:] = max(deepest, stack, key=len)
    else:
        stack.pop()


sys.setprofile(watch)
sample = dataset[Draw(0, (0, 0, 0))]
sys.setprofile(None)
assert not isinstance(sample, Failure), sample
print(len(deepest), len(files), *deepest, *sorted(Path(file).stem for file in files))
"""


@pytest.mark.parametrize("recipe", ["moves_ctn_tiny", "moves_mfst_tiny_rgbd"])
def test_a_sample_is_eight_calls_deep_at_most(recipe: str) -> None:
    # In a process of its own, where no function is wrapped to check its types.
    command = [sys.executable, "-c", MEASURE, recipe]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    depth, files = int(answer[0]), int(answer[1])
    assert depth <= 8, answer
    assert files <= 14, answer
