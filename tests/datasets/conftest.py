"""Comparison of notes by their numbers and names, and training of one step on a prepared manifest."""

import json
import re
from pathlib import Path

import pytest

from kinema.cli import main


@pytest.fixture
def train_one_step():
    """Train a small network for one step, after declaring only the samples that are on disk."""

    def train(manifest, declared):
        path = Path(manifest).with_suffix(".json")
        path.write_text(json.dumps({**json.loads(path.read_text()), "declared": declared}))
        args = (
            "--data.workers 0 --data.evaluate test --data.batch-size 4 --data.augmentation.short-side 32 40 "
            "--model.width 24 --model.depth 1 --clip.size 32 --clip.short-side 32 --clip.frames 8 "
            "--compute.device cpu --run.out run --max-steps 1"
        )
        main(["train", "ctn_tiny", "--data.manifest", str(manifest), *args.split()])
        assert Path("run/steps.jsonl").read_text().count("\n") == 1

    return train


@pytest.fixture(scope="session")
def match_notes():
    """Return whether each note contains the numbers and names of its string, in this order."""

    def match(notes, *expected):
        patterns = [".*".join(rf"(?<!\w){re.escape(word)}(?!\w)" for word in words.split()) for words in expected]
        return len(notes) == len(patterns) and all(map(re.search, patterns, notes))

    return match
