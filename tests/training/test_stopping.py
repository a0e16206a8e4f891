"""Tests of signals that stop a training."""

import signal
import subprocess
import sys
import threading

import pytest

from kinema.training.stopping import SIGNALS, StopRequests


def test_signals_are_as_before_when_a_training_is_over() -> None:
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


def test_a_scheduler_may_ask_twice() -> None:
    with StopRequests() as requests:
        signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGTERM)
    assert requests.signal == signal.SIGTERM


def test_a_training_in_another_thread_leaves_signals_alone() -> None:
    handlers: list[object] = []
    before = signal.getsignal(signal.SIGTERM)

    def enter() -> None:
        with StopRequests():
            handlers.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert handlers == [before]


@pytest.mark.long
def test_a_worker_passes_over_the_first_sigterm_and_leaves_at_the_second() -> None:
    """The first signal comes from a scheduler, the second from the loader to a worker that hangs."""
    code = (
        "import time\nfrom kinema.data.loaders import _outlive_signals\n_outlive_signals(0)\n"
        "print('ready', flush=True)\nwhile True:\n    time.sleep(0.05)\n    print('alive', flush=True)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as worker:
        try:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
            for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGTERM):
                worker.send_signal(number)
            assert [worker.stdout.readline() for _ in range(3)] == ["alive\n"] * 3
            worker.terminate()
            assert worker.wait(timeout=600) == -signal.SIGTERM
        finally:
            worker.kill()
