"""A clip takes few nested calls and few files from disk to loss, so that one can read how it is made."""

import subprocess
import sys

import pytest

MEASURE = """
import sys
from dataclasses import replace
from pathlib import Path

import kinema
from kinema.data.dataset import VideoDataset
from kinema.data.loaders import collate, complete, to_device
from kinema.data.manifest import load_manifest
from kinema.data.samplers import Draw
from kinema.models.binding import by_head, input_binding
from kinema.training.optimizer import multi_head_loss
from kinema.training.recipe import load_recipe
from kinema.transforms.augment import RandAugment

package = str(Path(kinema.__file__).parent)
recipe, manifest = load_recipe(sys.argv[1]), load_manifest("moves_cross_subject")
preprocessing = recipe.clip.preprocessing(manifest.depth)
dataset = VideoDataset(
    manifest,
    sampling=recipe.clip.frame_sampling(),
    preprocessing=preprocessing,
    augmentation=replace(recipe.data.augmentation, mixup_alpha=0.8, randaugment=RandAugment(operations=2), erasing=0.5),
)
draw = Draw(0, (0, 0, 0))
draw = {"train": draw, "mixup": replace(draw, partner=Draw(1, (0, 0, 1))), "evaluate": Draw(0)}[sys.argv[2]]
network = recipe.model.build(
    heads=manifest.heads, channels=preprocessing.channels, frames=recipe.clip.frames, size=recipe.clip.size
)
binding = input_binding(network)
stack, deepest, files = [], [], set()


def watch(frame, event, _):
    file = Path(frame.f_code.co_filename)
    if event not in ("call", "return") or not file.is_relative_to(package):
        return
    if file.parent.name in ("models", "layers") and file.stem != "binding":
        return  # the network itself
    if event == "call":
        stack.append(f"{file.stem}.{frame.f_code.co_name}")
        files.add(str(file.relative_to(package)))
        deepest[:] = max(deepest, stack, key=len)
    else:
        stack.pop()


sys.setprofile(watch)
batch = to_device(complete(collate([dataset[draw]])), "cpu")
logits = by_head(network(**binding(preprocessing.normalize_all(batch["inputs"]))), manifest.heads)
loss = multi_head_loss(logits, batch["targets"], label_smoothing=0.1)
sys.setprofile(None)
assert loss.isfinite()
print(len(deepest), len(files), *deepest, *sorted(files))
"""


@pytest.mark.parametrize(
    ("recipe", "draw"),
    [
        pytest.param("moves_ctn_tiny", "train", marks=pytest.mark.long),
        pytest.param("moves_mfst_tiny_rgbd", "mixup", marks=pytest.mark.long),
        pytest.param("moves_mfst_tiny_rgbd", "evaluate", marks=pytest.mark.long),
    ],
)
def test_a_clip_is_at_most_eight_calls_deep_and_passes_twelve_files(recipe: str, draw: str) -> None:
    # In a process of its own, where no function is wrapped to check its types.
    command = [sys.executable, "-c", MEASURE, recipe, draw]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    depth, num_files = int(answer[0]), int(answer[1])
    assert depth <= 8, answer
    assert num_files <= 12, answer
