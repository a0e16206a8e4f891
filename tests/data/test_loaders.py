"""A script with a loader ends."""

import subprocess
import sys

import pytest

SCRIPT = """
from kinema.data.dataset import VideoDataset
from kinema.data.loaders import make_loader
from kinema.data.manifest import load_manifest
from kinema.data.samplers import evaluation_batches
from kinema.transforms.preprocessing import Preprocessing
from kinema.transforms.sampling import Sampling

manifest = load_manifest("moves_cross_subject")
dataset = VideoDataset(manifest, sampling=Sampling(frames=2), preprocessing=Preprocessing(short_side=8, size=8))
loader = make_loader(dataset, evaluation_batches([0, 1, 2, 3], 1), workers=1, pin_memory=False)
for batch in loader:
    raise ValueError("in use")
"""


@pytest.mark.long
def test_a_script_that_fails_with_a_loader_in_use_ends():
    """Python signals the workers at its exit, and waits for them."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("ValueError: in use")
