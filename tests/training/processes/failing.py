"""Fail in `kinema ARGS` with worker processes, one of them busy for a minute: `python failing.py FAULT FOLDER ARGS`.

Prints the time of the fault.
"""

import multiprocessing
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

from kinema.cli.app import main
from kinema.data.dataset import VideoDataset
from kinema.inference.engine import Engine
from kinema.training.learner import Learner

READ = VideoDataset.__getitem__


def mark_time() -> None:
    print(time.time(), flush=True)


def fail(fault: str, folder: Path) -> None:
    workers = multiprocessing.active_children()
    mark_time()
    match fault:
        case "bug":
            raise RuntimeError("bug in a user's network")
        case "stopped":
            for worker in workers:
                os.kill(worker.pid or 0, signal.SIGSTOP)
            raise RuntimeError("bug in a user's network")
        case "killed":
            os.kill(workers[0].pid or 0, signal.SIGKILL)
            time.sleep(60)
        case "deleted":
            shutil.rmtree(folder)


def read(self: VideoDataset, draw: Any) -> Any:
    """Read a sample, and hang in the second batch of the first worker, and fail in the second worker."""
    name = multiprocessing.current_process().name
    if FAULT == "worker" and name.endswith("2"):
        mark_time()
        raise RuntimeError("bug in a user's transform")
    if name.endswith("1") and next(COUNTS) > LAST:
        time.sleep(60)
    return READ(self, draw)


STEP, LOGITS = Learner.step, Engine.logits


def failing_step(self: Learner) -> None:
    STEP(self)
    fail(FAULT, FOLDER)


def failing_logits(self: Engine, inputs: Any) -> Any:
    if multiprocessing.active_children():  # not while the model is loaded
        fail(FAULT, FOLDER)
    return LOGITS(self, inputs)


if __name__ == "__main__":
    FAULT, FOLDER = sys.argv[1], Path(sys.argv[2])
    COUNTS, LAST = iter(range(10**6)), 4
    VideoDataset.__getitem__ = read  # type: ignore[method-assign]  # forked workers inherit it
    Learner.step = failing_step  # type: ignore[method-assign]
    Engine.logits = failing_logits  # type: ignore[method-assign,assignment]
    main(sys.argv[3:])
