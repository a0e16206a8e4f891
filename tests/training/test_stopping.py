"""Tests of signals that stop a training."""

import multiprocessing
import signal
import subprocess
import threading
import time
from multiprocessing.connection import Connection

import pytest

from kinema.data.loaders import _outlive_signals
from kinema.training.stopping import SIGNALS, StopRequests


def test_signal_handlers_are_restored() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with StopRequests() as requests:
        for number in SIGNALS:
            signal.raise_signal(number)
            assert requests.signal == number
            requests.signal = 0
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_after_a_first_request_interrupts_at_once(first: signal.Signals) -> None:
    with StopRequests():
        signal.raise_signal(first)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_scheduler_may_signal_twice() -> None:
    with StopRequests() as requests:
        signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGTERM)
    assert requests.signal == signal.SIGTERM


def test_training_in_another_thread_ignores_signals() -> None:
    handlers: list[object] = []
    before = signal.getsignal(signal.SIGTERM)

    def enter() -> None:
        with StopRequests():
            handlers.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert handlers == [before]


def read_on(pipe: Connection) -> None:
    _outlive_signals(0)
    while True:
        pipe.send("alive")
        time.sleep(0.02)


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="the sender of a signal is unknown here")
def test_a_worker_ignores_signals_of_a_scheduler_and_ends_with_its_loader() -> None:
    receiver, sender = multiprocessing.Pipe(duplex=False)
    worker = multiprocessing.get_context("fork").Process(target=read_on, args=(sender,), daemon=True)
    worker.start()
    try:
        receiver.recv()
        for name in ("INT", "USR1", "TERM", "TERM"):
            subprocess.run(["kill", f"-{name}", str(worker.pid)], check=True)
        time.sleep(0.2)
        while receiver.poll():
            receiver.recv()
        assert receiver.poll(10)
        worker.terminate()
        worker.join(10)
        assert worker.exitcode == 0
    finally:
        worker.kill()
