"""One recognizer in many threads, in forked and spawned processes and in a loader's workers. Nothing hangs.

Each case runs in a process of its own with a timeout, on two threads: after a fork, OpenMP would wait for threads that
do not exist in the child.
"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from kinema.errors import DeviceError
from kinema.inference.recognizer import Recognizer
from kinema.inference.trained_model import save_model

THREADS = """
import itertools, json, sys
from concurrent.futures import ThreadPoolExecutor
from kinema.inference.recognizer import Recognizer

model, reads, *videos = sys.argv[1:]
recognizer = Recognizer.load(model, device="cpu")
expected = {video: recognizer(video) for video in videos}
with ThreadPoolExecutor(8) as pool:
    tasks = list(itertools.islice(itertools.cycle(videos), int(reads)))
    answers = list(pool.map(recognizer, tasks))
print(json.dumps([len(answers), sum(answer != expected[video] for video, answer in zip(tasks, answers))]))
"""

PROCESSES = """
import json, multiprocessing, sys
import torch
from torch.utils.data import DataLoader
from kinema.inference.recognizer import Recognizer


class Answers(torch.utils.data.Dataset):
    def __init__(self, recognizer, videos):
        self.recognizer, self.videos = recognizer, videos

    def __len__(self):
        return len(self.videos)

    def __getitem__(self, index):
        return recognize(self.recognizer, self.videos[index])


def recognize(recognizer, video):
    recognizer = Recognizer.load(recognizer, device="cpu") if isinstance(recognizer, str) else recognizer
    return [[p.label, p.score] for p in recognizer(video)]


def put(answers, *arguments):
    answers.put(recognize(*arguments))


if __name__ == "__main__":
    model, place, method, *videos = sys.argv[1:]
    recognizer = Recognizer.load(model, device="cpu")
    expected = [recognize(recognizer, video) for video in videos]
    context = multiprocessing.get_context(method)
    shared = recognizer if method == "fork" else model
    if place == "loader":
        loader = DataLoader(
            Answers(shared, videos), batch_size=None, num_workers=2, multiprocessing_context=context
        )
        found = [[list(pair) for pair in answer] for answer in loader]
    else:
        found = []
        for video in videos:
            answers = context.Queue()
            process = context.Process(target=put, args=(answers, shared, video))
            process.start()
            found.append(answers.get(timeout=60))
            process.join()
    print(json.dumps([expected, found]))
"""


PLACES = ("process", "loader")


@pytest.fixture
def model(tmp_path, make_trained_model, tiny_ctn):
    save_model(tmp_path / "model", make_trained_model(tiny_ctn()))
    return tmp_path / "model"


@pytest.fixture
def write_pair(tmp_path, write_video):
    """Return a function that writes a moving box of a size as H.264 and as MJPEG."""

    def write(height, width):
        pictures = np.zeros((12, height, width, 3), np.uint8)
        pictures[..., 0] = np.linspace(0, 255, width)
        for number, picture in enumerate(pictures):
            picture[number * 2 : number * 2 + height // 2, : width // 2] = 20 * number
        mjpeg = {"codec": "mjpeg", "pixel_format": "yuvj420p", "options": {}}
        return write_video(tmp_path / "a.mp4", pictures), write_video(tmp_path / "b.avi", pictures, **mjpeg)

    return write


def run(tmp_path, source, *arguments, timeout=60):
    """Run a script on two threads, and return what it prints."""
    script = tmp_path / "script.py"
    script.write_text(source)
    command = [sys.executable, str(script), *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("reads", "size"), [(24, (72, 96)), pytest.param(1000, (720, 1280), marks=pytest.mark.long)], ids=str
)
def test_eight_threads_share_a_recognizer(tmp_path, model, write_pair, reads, size):
    timeout = 150 if reads < 100 else 1500
    assert run(tmp_path, THREADS, model, reads, *write_pair(*size), timeout=timeout) == [reads, 0]


@pytest.mark.long
@pytest.mark.parametrize("place", ["process", "loader"])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_other_processes_recognize_the_same(tmp_path, model, write_pair, method, place):
    """With `fork` they use their parent's recognizer, which was used before; else they load the model."""
    expected, found = run(tmp_path, PROCESSES, model, place, method, *write_pair(72, 96), timeout=150)
    for before, after in zip(expected, found, strict=True):
        assert [label for label, _ in before] == [label for label, _ in after]
        assert [score for _, score in after] == pytest.approx([score for _, score in before], abs=1e-5)


def test_a_forked_process_cannot_use_a_model_on_cuda(make_trained_model, tiny_ctn, raises):
    engine = Recognizer(make_trained_model(tiny_ctn()), device="cpu").engine
    engine.owner, engine.device = os.getppid(), type("Device", (), {"type": "cuda"})()
    with raises(DeviceError, "spawn", field="device"):
        engine.logits({})
