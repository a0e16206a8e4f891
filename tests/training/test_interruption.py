"""A training that is stopped, killed, or left without a disk: real processes, and results as if nothing had been.

All runs here are of one recipe. Each is ended in its way and goes on; then every loss, every evaluation, the trained
and all that the checkpoint holds equal those of a run that was left alone, to the bit.
"""

import json
import os
import pickle
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from kinema import cli
from kinema.data.manifest import class_lists, load_manifest, write_manifest
from kinema.errors import RunError
from kinema.inference.trained_model import load_model
from kinema.training.loop import train
from kinema.training.recipe import load_recipe
from kinema.training.runs import LOGS, Run

STEPS, EVALUATE_EVERY = 20, 5
RECIPE = """
from kinema.models.ctn import CTNConfig
from kinema.training.recipe import Augmentation, Checkpoint, Clip, Compute, Data, Optim, Recipe, RunSettings

RECIPE = Recipe(
    clip=Clip(frames=8, size=32, short_side=32),
    data=Data(
        manifest={manifest!r},
        evaluate="test",
        batch_size=4,
        workers=0,
        augmentation=Augmentation(short_side=(32, 40), flip=0.5, mixup_alpha=0.4),
    ),
    model=CTNConfig(stem_kernel=3, stem_channels=4, width=24, depth=1, attention_heads=3, dropout=0.1),
    optim=Optim(optimizer="adamw", lr=3e-3, epochs=8, warmup_epochs=1, max_grad_norm=1.0, ema_decay=0.8),
    checkpoint=Checkpoint(every=3, metric="coverage"),
    compute=Compute(device="cpu"),
    run=RunSettings(evaluate_every_epochs=1.5, patience=3),
)
"""
"""A pass takes 3.25 steps, so that no checkpoint that is due is of the end of one.

The coverage is always the same: the first evaluation stays the best, and patience ends the training after the fourth.
A run that forgets either when it goes on takes another trained and ends elsewhere.
"""


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe's file: thirteen clips of moves to learn from, and twenty, so that an evaluation can be met."""
    built_in, folder = load_manifest("moves_cross_subject"), tmp_path_factory.mktemp("interrupted")
    chosen = [
        replace(entry, rgb=os.path.relpath(built_in.locate(entry.rgb), folder), depth="")
        for split, counts in (("train", (3, 3, 3, 2, 2)), ("test", (4, 4, 4, 4, 4)))
        for label, count in zip(("kick", "roll", "run", "spin", "walk"), counts, strict=True)
        for entry in [e for e in built_in.entries if e.split == split and e.labels["label"] == label][:count]
    ]
    manifest = write_manifest(
        folder / "few.csv", entries=chosen, classes=class_lists(chosen), dataset="few", version="1", depth=None
    )
    file = folder / "recipe.py"
    file.write_text(RECIPE.format(manifest=str(manifest.path)))
    return file


@pytest.fixture(scope="session")
def whole(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run that is left alone."""
    loaded = load_recipe(recipe)
    out = tmp_path_factory.mktemp("whole") / "run"
    run = train(replace(loaded, run=replace(loaded.run, out=out)))
    assert len(run.steps()) == STEPS
    return run


@dataclass(frozen=True)
class Ended:
    """A training that has ended: its folder, its exit code, and what it said on the standard error."""

    run: Path
    code: int
    said: str

    @property
    def last_line(self) -> str:
        """The only line that is not of the progress."""
        lines = [line for line in self.said.splitlines() if not re.match(r"run: |plan: |step \d+: ", line)]
        assert len(lines) == 1, self.said
        return lines[0]


def started(*words: str | Path, before: str = "") -> "subprocess.Popen[str]":
    """`kinema train` in a process and a group of its own.

    Args:
        before: Python that the process executes first; what it changes outlives the start of the command.
    """
    command = [sys.executable, "-m", "kinema.cli", "train", *map(str, words)]
    if before:
        command = [sys.executable, "-c", f"import os\n{before}\nos.execv({command[0]!r}, {command!r})"]
    return subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def ended(process: "subprocess.Popen[str]", run: Path) -> Ended:
    try:
        _, said = process.communicate(timeout=600)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return Ended(run, process.returncode, said)


def wait_until(reached: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 600
    while not reached():
        assert process.poll() is None, f"ended before it was to be met: {process.communicate()[1]}"
        assert time.monotonic() < deadline
        time.sleep(0.001)


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def evaluating(run: Path, process: "subprocess.Popen[str]") -> bool:
    """Whether it is in an evaluation that is not its first, and the workers that read for it are there."""
    steps, metrics = lines(run / "steps.jsonl"), lines(run / "metrics.jsonl")
    return metrics > 0 and steps == EVALUATE_EVERY * (metrics + 1) and len(group(process.pid)) == 3


def group(number: int) -> list[int]:
    """The processes of a group that live, as Linux tells it."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:  # gone by now
            continue
        if int(its_group) == number and state != "Z":
            found.append(int(stat.parent.name))
    return found


def checkpoint(run: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(run / "checkpoints" / "last.pt", weights_only=True)
    return state


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return bool(one == other)


def assert_as_if_nothing_had_been(path: Path, whole: Run) -> None:
    run = Run.open(path)
    for name in ("step", "loss", "lr"):
        assert [line[name] for line in run.steps()] == [line[name] for line in whole.steps()]
    assert run.metrics() == whole.metrics()
    assert load_model(path).digest == load_model(whole.path).digest
    assert run.predictions.read_bytes() == whole.predictions.read_bytes()
    assert same(checkpoint(path), checkpoint(whole.path))
    kept = {file.name for file in (path / "checkpoints").iterdir()}
    assert kept == {file.name for file in (whole.path / "checkpoints").iterdir()}
    assert list(path.rglob("*.unfinished")) == []


def go_on(path: Path) -> None:
    cli.main(["train", "--resume", str(path)])


@pytest.fixture(scope="session")
def stopped(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """A training after Ctrl-C in its second evaluation or a little before; it reads by itself."""
    run = tmp_path_factory.mktemp("stopped") / "run"
    process = started(recipe, "--run.out", run)
    wait_until(lambda: lines(run / "steps.jsonl") >= EVALUATE_EVERY + 2, process)
    os.killpg(process.pid, signal.SIGINT)
    return ended(process, run)


@pytest.fixture
def parted(stopped: Ended, tmp_path: Path) -> Path:
    """A copy of the stopped training's folder, to go on in."""
    return Path(shutil.copytree(stopped.run, tmp_path / "parted"))


def assert_stopped(training: Ended, number: int) -> int:
    """It has said where to go on, and its checkpoint is of the last step that it logged; that step."""
    assert training.code == 128 + number, training.said
    step = checkpoint(training.run)["step"]
    assert training.last_line == f"kinema: stopped at step {step}; resume with: kinema train --resume {training.run}"
    assert EVALUATE_EVERY < step < STEPS
    assert Run.open(training.run).steps()[-1]["step"] == step
    return int(step)


def test_a_training_after_ctrl_c_goes_on_as_if_nothing_had_been(stopped: Ended, parted: Path, whole: Run) -> None:
    assert_stopped(stopped, signal.SIGINT)
    go_on(parted)
    assert_as_if_nothing_had_been(parted, whole)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks Linux which processes there are")
@pytest.mark.parametrize(
    ("number", "isolation", "send"),
    [
        (signal.SIGTERM, "none", os.killpg),
        pytest.param(signal.SIGUSR1, "none", os.killpg, marks=pytest.mark.long),
        pytest.param(signal.SIGINT, "none", os.killpg, marks=pytest.mark.long),
        pytest.param(signal.SIGTERM, "process", os.killpg, marks=pytest.mark.long),
        pytest.param(signal.SIGTERM, "none", os.kill, marks=pytest.mark.long),
    ],
)
def test_a_scheduler_stops_trainer_and_workers_in_an_evaluation(
    recipe: Path,
    whole: Run,
    tmp_path: Path,
    number: signal.Signals,
    isolation: str,
    send: Callable[[int, int], None],
) -> None:
    """The signal comes to all of them, and those who read must go on, since the evaluation is not over.

    They must also go when it is, whether the signal came to them or to the trainer alone.
    """
    run = tmp_path / "run"
    process = started(recipe, "--run.out", run, "--data.workers", "1", "--data.read-options.isolation", isolation)
    wait_until(lambda: evaluating(run, process) if isolation == "none" else lines(run / "steps.jsonl") > 6, process)
    send(process.pid, number)
    training = ended(process, run)
    assert_stopped(training, number)
    assert group(process.pid) == []
    go_on(run)
    assert_as_if_nothing_had_been(run, whole)


def killed(recipe: Path, run: Path, *words: str, after: Callable[[], bool]) -> None:
    process = started(recipe, "--run.out", run, "--existing", "resume", *words)
    wait_until(after, process)
    os.killpg(process.pid, signal.SIGKILL)
    assert ended(process, run).code == -signal.SIGKILL


def test_a_killed_training_that_is_started_again_goes_on(recipe: Path, whole: Run, tmp_path: Path) -> None:
    """As a scheduler does it: the same command again."""
    run = tmp_path / "run"
    killed(recipe, run, after=lambda: lines(run / "steps.jsonl") > EVALUATE_EVERY + 2)
    step = checkpoint(run)["step"]
    assert step in range(EVALUATE_EVERY, STEPS)
    cli.main(["train", str(recipe), "--run.out", str(run), "--existing", "resume"])
    assert_as_if_nothing_had_been(run, whole)


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks Linux which processes there are")
def test_the_workers_of_a_trainer_that_is_killed_alone_leave(recipe: Path, tmp_path: Path) -> None:
    """As the system does it when memory runs out; torch's workers look after their parent every five seconds."""
    process = started(recipe, "--run.out", tmp_path / "run", "--data.workers", "1")
    wait_until(lambda: evaluating(tmp_path / "run", process), process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 60
    while group(process.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert group(process.pid) == []
    ended(process, tmp_path / "run")


@pytest.mark.long
def test_a_training_killed_before_its_first_checkpoint_begins_anew(recipe: Path, whole: Run, tmp_path: Path) -> None:
    for attempt in range(5):  # a busy machine may be too late for it
        run = tmp_path / f"run {attempt}"
        killed(recipe, run, after=lambda run=run: lines(run / "steps.jsonl") > 0)
        if not (run / "checkpoints" / "last.pt").exists():
            break
    assert not (run / "checkpoints" / "last.pt").exists()
    again = ["train", str(recipe), "--run.out", str(run), "--existing", "resume"]
    killed(recipe, run, after=lambda: (run / "checkpoints" / "last.pt").exists())
    cli.main(again)
    assert_as_if_nothing_had_been(run, whole)


@pytest.mark.long
def test_the_last_weights_of_a_killed_training_are_those_of_one_left_alone(
    recipe: Path, whole: Run, tmp_path: Path
) -> None:
    """Killed three times, and its trained is of the end; that of the other tests is of the first evaluation."""
    run = tmp_path / "run"
    last = ("--checkpoint.keep", "last", "--data.workers", "1")
    for step in (4, 9, 14):
        killed(recipe, run, *last, after=lambda step=step: lines(run / "steps.jsonl") > step)
    cli.main(["train", str(recipe), "--run.out", str(run), "--existing", "resume", *last])
    weights = load_model(run).model.state_dict()
    averaged = {
        name.removeprefix("module."): value
        for name, value in checkpoint(whole.path)["averaged"].items()
        if name != "n_averaged"
    }
    assert same(weights, averaged)
    assert same(checkpoint(run), checkpoint(whole.path))


# -- a disk that takes no more -------------------------------------------------------------------------------------


def limited(size: int) -> str:
    """Python for a process whose files end at so many bytes; Python itself ignores the signal that comes with it."""
    return f"import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))"


def test_a_disk_that_is_full_in_the_middle_of_a_checkpoint_leaves_the_one_before(parted: Path, whole: Run) -> None:
    before = (parted / "checkpoints" / "last.pt").read_bytes()
    step = checkpoint(parted)["step"]
    training = ended(started("--resume", parted, before=limited(len(before) // 2)), parted)
    assert training.code == 2
    assert re.fullmatch(
        rf"kinema: {re.escape(str(parted))}/checkpoints/last\.pt: cannot be written \(.+\); "
        "what was saved before is intact",
        training.last_line,
    )
    assert (parted / "checkpoints" / "last.pt").read_bytes() == before
    assert list(parted.rglob("*.unfinished")) == []  # what takes space on a full disk is gone
    assert Run.open(parted).steps()[-1]["step"] > step  # lines that are to be cut back
    go_on(parted)
    assert_as_if_nothing_had_been(parted, whole)


@pytest.mark.long
def test_a_disk_that_is_full_in_the_middle_of_a_line_leaves_all_lines_before(parted: Path, whole: Run) -> None:
    log = parted / "steps.jsonl"
    before = log.read_bytes()
    training = ended(started("--resume", parted, before=limited(len(before) + 20)), parted)
    assert training.code == 2
    assert training.last_line.startswith(f"kinema: {log}: cannot be written (")
    assert log.read_bytes().startswith(before + b'{"step": ')
    assert len(log.read_bytes()) == len(before) + 20
    go_on(parted)
    assert_as_if_nothing_had_been(parted, whole)


@pytest.mark.long
def test_a_disk_that_is_full_in_the_middle_of_a_model_is_named(recipe: Path, whole: Run, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = (recipe, "--run.out", run, "--checkpoint.every", "None")
    size = next(whole.model.glob("*.safetensors")).stat().st_size
    training = ended(started(*words, before=limited(size // 2)), run)
    assert training.code == 2
    assert re.fullmatch(
        rf"kinema: {re.escape(str(run))}/model/model-\w+\.safetensors: cannot be written \(.+\)[^\n]*",
        training.last_line,
    )
    assert list(run.rglob("*.unfinished")) == []
    go_on(run)
    assert_as_if_nothing_had_been(run, whole)


@pytest.mark.long
def test_a_disk_that_is_full_at_the_beginning_leaves_no_run(recipe: Path, whole: Run, tmp_path: Path) -> None:
    """A folder with half a recipe could neither be gone on with nor be begun in."""
    run = tmp_path / "run"
    training = ended(started(recipe, "--run.out", run, before=limited(1000)), run)
    assert training.code == 2
    assert training.last_line.startswith(f"kinema: {run}: cannot be written (")
    cli.main(["train", str(recipe), "--run.out", str(run)])
    assert_as_if_nothing_had_been(run, whole)


def unprivileged() -> str:
    """Python for a process that file modes bind: those who run the tests as root have the right to pass over them."""
    if os.geteuid() != 0:
        return ""
    if not sys.platform.startswith("linux"):
        pytest.skip("file modes do not bind root, and only Linux can take that right away")
    # PR_CAPBSET_DROP of CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: what is executed next comes up without them.
    return "import ctypes\nfor right in (1, 2):\n    assert ctypes.CDLL(None).prctl(24, right, 0, 0, 0) == 0"


@pytest.mark.parametrize(
    ("closed", "named"),
    [("checkpoints", "checkpoints/last.pt"), pytest.param(".", "steps.jsonl", marks=pytest.mark.long)],
)
def test_a_folder_that_cannot_be_written_to_is_named(parted: Path, whole: Run, closed: str, named: str) -> None:
    before = (parted / "checkpoints" / "last.pt").read_bytes()
    with (parted / "steps.jsonl").open("a") as file:
        file.write('{"step": 21, "lo')  # there is something to cut back
    modes = {path: path.stat().st_mode for path in (parted / closed, *(parted / closed).rglob("*"))}
    for path, mode in modes.items():
        path.chmod(mode & ~0o222)
    training = ended(started("--resume", parted, before=unprivileged()), parted)
    for path, mode in modes.items():
        path.chmod(mode)
    assert training.code == 2
    assert re.fullmatch(
        rf"kinema: {re.escape(str(parted))}/{named}: cannot be written \(.*Permission denied.*\); "
        "what was saved before is intact",
        training.last_line,
    )
    assert (parted / "checkpoints" / "last.pt").read_bytes() == before
    go_on(parted)
    assert_as_if_nothing_had_been(parted, whole)


@pytest.mark.long
def test_a_checkpoint_that_may_not_be_read_is_not_called_damaged(parted: Path) -> None:
    file = parted / "checkpoints" / "last.pt"
    file.chmod(0)
    training = ended(started("--resume", parted, before=unprivileged()), parted)
    assert training.code == 2
    assert training.last_line == f"kinema: [Errno 13] Permission denied: '{file}'"


def test_a_folder_that_cannot_be_made_is_named(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert refusal(capsys, recipe, "--run.out", tmp_path / "file" / "run").startswith(
        f"kinema: {tmp_path}/file/run: cannot be written ("
    )


def test_what_is_kept_is_on_the_disk_before_it_takes_the_name(parted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut cannot be tried here; it keeps what was synchronized, in this order."""
    did: list[str] = []
    sync, move = os.fsync, Path.replace

    def name_of(number: int) -> str:
        return next(
            path.name for path in (parted, *parted.rglob("*")) if os.path.samestat(path.stat(), os.fstat(number))
        )

    def fsync(number: int) -> None:
        did.append(f"sync {name_of(number)}")
        sync(number)

    def replaced(self: Path, target: Path) -> Path:
        did.append(f"{self.name} -> {target.name}")
        return move(self, target)

    state = checkpoint(parted)
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replaced)
    Run.open(parted).save_checkpoint(state, also=["best"])
    assert did == [
        *(f"sync {name}" for name in LOGS if (parted / name).exists()),
        "sync last.unfinished",
        "best.unfinished -> best.pt",  # first: who is killed here comes by again, and who has moved on does not
        "last.unfinished -> last.pt",
        "sync checkpoints",
    ]


# -- a folder that is not what it was ------------------------------------------------------------------------------


def refusal(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    """The one line that a command is refused with."""
    with pytest.raises(SystemExit) as exit:
        cli.main(["train", *map(str, words)])
    assert exit.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if not re.match("run: |plan: |step ", line)]
    assert len(lines) == 1
    return lines[0]


def test_a_folder_of_another_recipe_is_refused_by_the_first_field(
    recipe: Path, parted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in parted.rglob("*") if path.is_file()}
    words = [recipe, "--run.out", parted, "--existing", "resume"]
    for others, field in (
        (["--run.seed", "1"], "run.seed"),
        (["--run.seed", "1", "--optim.lr", "1e-2"], "optim.lr"),
        (["--data.augmentation.flip", "0", "--data.workers", "1"], "data.workers"),
        (["--model.width", "48"], "model.width"),
    ):
        said = f"holds a run of another recipe ({field} differs); name another --run.out"
        assert refusal(capsys, *words, *others) == f"kinema: {parted}: {said}"
    assert before == {path: path.read_bytes() for path in parted.rglob("*") if path.is_file()}


def test_a_folder_that_holds_a_run_is_refused_without_the_word(
    recipe: Path, parted: Path, whole: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spaced = parted.rename(tmp_path / "a run's folder")
    said = refusal(capsys, recipe, "--run.out", spaced)
    assert said.startswith(f"kinema: {spaced}: holds a run already; go on with --resume ")
    words = said.removeprefix(f"kinema: {spaced}: holds a run already; go on with ").split(", or name another")[0]
    cli.main(["train", *shlex.split(words)])
    assert_as_if_nothing_had_been(spaced, whole)


@pytest.mark.parametrize("written", [0.0, 0.0001, 0.1, 0.5, 0.93, 0.99, 0.9999])
def test_a_checkpoint_that_was_cut_off_is_refused(parted: Path, written: float) -> None:
    """A part of what torch would answer to these: EOFError, RuntimeError, UnpicklingError, OSError without a name."""
    file = parted / "checkpoints" / "last.pt"
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * written)])
    with pytest.raises(RunError) as refused:
        Run.open(parted).load_checkpoint()
    assert str(refused.value).startswith(f"{file}: cannot be read as a checkpoint of tensors and numbers; copy ")


def test_a_checkpoint_with_another_bit_is_refused(parted: Path) -> None:
    """torch would load it, and the training would go on with another weight."""
    file = parted / "checkpoints" / "last.pt"
    before = checkpoint(parted)["model"]
    name = max(before, key=lambda name: before[name].numel())
    content = bytearray(file.read_bytes())
    content[content.index(before[name].numpy().tobytes()) + 2] ^= 1
    file.write_bytes(content)
    assert not torch.equal(checkpoint(parted)["model"][name], before[name])
    with pytest.raises(RunError, match=r"last\.pt: cannot be read as a checkpoint of tensors and numbers; copy "):
        Run.open(parted).load_checkpoint()


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("form", ["checkpoint", "bare pickle"])
def test_a_checkpoint_that_holds_code_is_refused_and_executes_none(
    parted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    file, trap = parted / "checkpoints" / "last.pt", Trap(tmp_path / "executed")
    if form == "checkpoint":
        torch.save({**checkpoint(parted), "further": trap}, file)
    else:
        file.write_bytes(pickle.dumps(trap))
    said = "cannot be read as a checkpoint of tensors and numbers; copy best.pt over it to go on from there, or remove"
    assert refusal(capsys, "--resume", parted) == f"kinema: {file}: {said} it to begin anew"
    assert not trap.path.exists()


@pytest.mark.parametrize("advice", ["copy", "remove"])
def test_a_run_whose_checkpoint_was_lost_goes_on_as_it_was_told(
    parted: Path, whole: Run, capsys: pytest.CaptureFixture[str], advice: str
) -> None:
    file = parted / "checkpoints" / "last.pt"
    file.write_bytes(b"")
    said = refusal(capsys, "--resume", parted)
    if advice == "copy":
        name = re.search(r"copy (\S+) over it to go on from there", said)
        assert name is not None
        shutil.copy(file.with_name(name[1]), file)
        assert checkpoint(parted)["step"] == EVALUATE_EVERY
    else:
        assert said.endswith("remove it to begin anew")
        file.unlink()
    go_on(parted)
    assert_as_if_nothing_had_been(parted, whole)


def test_a_damaged_best_checkpoint_is_not_offered(parted: Path) -> None:
    """Where the last is the best, both names are one file."""
    last, best = (parted / "checkpoints" / f"{name}.pt" for name in ("last", "best"))
    last.unlink()
    os.link(best, last)
    last.write_bytes(b"")
    with pytest.raises(RunError, match=r"of tensors and numbers; remove it to begin anew$"):
        Run.open(parted).load_checkpoint()


def test_lines_of_a_log_that_a_power_cut_left_as_noise_are_dropped(parted: Path) -> None:
    log = parted / "steps.jsonl"
    whole_lines = log.read_bytes()
    log.write_bytes(whole_lines + b'{"step": 9\x00\x00\xff\xfe\n"step"\n{"loss": 1.0}\n' + b"\x00" * 100)
    assert json.loads(whole_lines.splitlines()[-1])["step"] == checkpoint(parted)["step"]
    Run.open(parted).load_checkpoint()
    assert log.read_bytes() == whole_lines
