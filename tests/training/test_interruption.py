"""Tests of trainings that are stopped, killed, or run out of disk, in real processes.

All runs use one recipe. After each is interrupted and resumed, its losses, evaluations, model and checkpoint equal
those of an uninterrupted run exactly.
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
"""An epoch takes 3.25 steps, so that no checkpoint falls on the end of one.

The metric is constant, so the first evaluation stays the best, and patience ends the training after the fourth. A
resumed run that forgets either ships another model or ends at another step.
"""


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a recipe file with 13 training clips, and 20 test clips to make evaluations long enough to interrupt."""
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
    """Return the uninterrupted run."""
    loaded = load_recipe(recipe)
    out = tmp_path_factory.mktemp("whole") / "run"
    run = train(replace(loaded, run=replace(loaded.run, out=out)))
    assert len(run.steps()) == STEPS
    return run


@dataclass(frozen=True)
class Ended:
    """Training process that has ended: run folder, exit code and stderr."""

    run: Path
    code: int
    stderr: str

    @property
    def last_line(self) -> str:
        """The only line of stderr that is not a progress message."""
        lines = [line for line in self.stderr.splitlines() if not re.match(r"run: |plan: |step \d+: ", line)]
        assert len(lines) == 1, self.stderr
        return lines[0]


def start_training(*args: str | Path, before: str = "") -> "subprocess.Popen[str]":
    """Start `kinema train` in its own process group, after executing the Python code `before` in the process."""
    command = [sys.executable, "-m", "kinema.cli", "train", *map(str, args)]
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


def wait_for(process: "subprocess.Popen[str]", run: Path) -> Ended:
    try:
        _, stderr = process.communicate(timeout=600)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return Ended(run, process.returncode, stderr)


def wait_until(reached: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 600
    while not reached():
        assert process.poll() is None, f"ended too early: {process.communicate()[1]}"
        assert time.monotonic() < deadline
        time.sleep(0.001)


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def evaluating(run: Path, process: "subprocess.Popen[str]") -> bool:
    """Return whether the run is in its second or a later evaluation, with its workers running."""
    steps, metrics = lines(run / "steps.jsonl"), lines(run / "metrics.jsonl")
    return metrics > 0 and steps == EVALUATE_EVERY * (metrics + 1) and len(processes_of(process.pid)) == 3


def processes_of(number: int) -> list[int]:
    """Return the running processes of a process group (Linux)."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:  # the process has ended
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


def assert_uninterrupted(path: Path, whole: Run) -> None:
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


def resume(path: Path) -> None:
    cli.main(["train", "--resume", str(path)])


@pytest.fixture(scope="session")
def stopped(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """Return a training without workers, stopped by Ctrl-C around its second evaluation."""
    run = tmp_path_factory.mktemp("stopped") / "run"
    process = start_training(recipe, "--run.out", run)
    wait_until(lambda: lines(run / "steps.jsonl") >= EVALUATE_EVERY + 2, process)
    os.killpg(process.pid, signal.SIGINT)
    return wait_for(process, run)


@pytest.fixture
def parted(stopped: Ended, tmp_path: Path) -> Path:
    """Return a copy of the stopped training's run folder."""
    return Path(shutil.copytree(stopped.run, tmp_path / "parted"))


def assert_stopped(training: Ended, number: int) -> int:
    """Check that a stopped training saved its last step and told how to resume, and return the step."""
    assert training.code == 128 + number, training.stderr
    step = checkpoint(training.run)["step"]
    assert f"stopped at step {step}." in training.last_line
    assert training.last_line.endswith(f"kinema train --resume {training.run}")
    assert EVALUATE_EVERY < step < STEPS
    assert Run.open(training.run).steps()[-1]["step"] == step
    return int(step)


@pytest.mark.long
def test_a_training_stopped_by_ctrl_c_resumes(stopped: Ended, parted: Path, whole: Run) -> None:
    assert_stopped(stopped, signal.SIGINT)
    resume(parted)
    assert_uninterrupted(parted, whole)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize(
    ("number", "isolation", "send"),
    [
        pytest.param(signal.SIGTERM, "none", os.killpg, marks=pytest.mark.long),
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
    """Workers must survive the signal until the evaluation is over, and end with it.

    The signal goes to all processes or only to the trainer.
    """
    run = tmp_path / "run"
    process = start_training(
        recipe, "--run.out", run, "--data.workers", "1", "--data.read-options.isolation", isolation
    )
    wait_until(lambda: evaluating(run, process) if isolation == "none" else lines(run / "steps.jsonl") > 6, process)
    send(process.pid, number)
    training = wait_for(process, run)
    assert_stopped(training, number)
    assert processes_of(process.pid) == []
    resume(run)
    assert_uninterrupted(run, whole)


def train_and_kill(recipe: Path, run: Path, *args: str, after: Callable[[], bool]) -> None:
    process = start_training(recipe, "--run.out", run, "--existing", "resume", *args)
    wait_until(after, process)
    os.killpg(process.pid, signal.SIGKILL)
    assert wait_for(process, run).code == -signal.SIGKILL


@pytest.mark.long
def test_a_killed_training_resumes_when_restarted(recipe: Path, whole: Run, tmp_path: Path) -> None:
    """A scheduler runs the same command again."""
    run = tmp_path / "run"
    train_and_kill(recipe, run, after=lambda: lines(run / "steps.jsonl") > EVALUATE_EVERY + 2)
    step = checkpoint(run)["step"]
    assert step in range(EVALUATE_EVERY, STEPS)
    cli.main(["train", str(recipe), "--run.out", str(run), "--existing", "resume"])
    assert_uninterrupted(run, whole)


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_workers_end_after_their_trainer_is_killed(recipe: Path, tmp_path: Path) -> None:
    """The system kills a trainer if memory runs out. Workers of torch check for their parent every five seconds."""
    process = start_training(recipe, "--run.out", tmp_path / "run", "--data.workers", "1")
    wait_until(lambda: evaluating(tmp_path / "run", process), process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 60
    while processes_of(process.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert processes_of(process.pid) == []
    wait_for(process, tmp_path / "run")


@pytest.mark.long
def test_a_run_killed_before_its_first_checkpoint_starts_over(recipe: Path, whole: Run, tmp_path: Path) -> None:
    for attempt in range(5):  # on a busy machine, the kill may come too late
        run = tmp_path / f"run {attempt}"
        train_and_kill(recipe, run, after=lambda run=run: lines(run / "steps.jsonl") > 0)
        if not (run / "checkpoints" / "last.pt").exists():
            break
    assert not (run / "checkpoints" / "last.pt").exists()
    again = ["train", str(recipe), "--run.out", str(run), "--existing", "resume"]
    train_and_kill(recipe, run, after=lambda: (run / "checkpoints" / "last.pt").exists())
    cli.main(again)
    assert_uninterrupted(run, whole)


@pytest.mark.long
def test_the_last_weights_of_a_killed_training_are_those_of_an_uninterrupted_one(
    recipe: Path, whole: Run, tmp_path: Path
) -> None:
    """Killed three times, with the last weights shipped instead of the best."""
    run = tmp_path / "run"
    last = ("--checkpoint.keep", "last", "--data.workers", "1")
    for step in (4, 9, 14):
        train_and_kill(recipe, run, *last, after=lambda step=step: lines(run / "steps.jsonl") > step)
    cli.main(["train", str(recipe), "--run.out", str(run), "--existing", "resume", *last])
    weights = load_model(run).model.state_dict()
    averaged = {
        name.removeprefix("module."): value
        for name, value in checkpoint(whole.path)["averaged"].items()
        if name != "n_averaged"
    }
    assert same(weights, averaged)
    assert same(checkpoint(run), checkpoint(whole.path))


# -- full disks and read-only folders --------------------------------------------------------------------------------


def limit_file_size(size: int) -> str:
    """Return Python code that limits the size of files. Python ignores the signal that comes with the limit."""
    return f"import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))"


@pytest.mark.long
def test_a_full_disk_during_a_checkpoint_keeps_the_previous_one(parted: Path, whole: Run) -> None:
    before = (parted / "checkpoints" / "last.pt").read_bytes()
    step = checkpoint(parted)["step"]
    training = wait_for(start_training("--resume", parted, before=limit_file_size(len(before) // 2)), parted)
    assert training.code == 2
    assert training.last_line.startswith(f"kinema: {parted}/checkpoints/last.pt: cannot be written (")
    assert (parted / "checkpoints" / "last.pt").read_bytes() == before
    assert list(parted.rglob("*.unfinished")) == []  # partial files are removed from the full disk
    assert Run.open(parted).steps()[-1]["step"] > step  # lines to be truncated
    resume(parted)
    assert_uninterrupted(parted, whole)


@pytest.mark.long
def test_a_full_disk_during_logging_keeps_all_earlier_lines(parted: Path, whole: Run) -> None:
    log = parted / "steps.jsonl"
    before = log.read_bytes()
    training = wait_for(start_training("--resume", parted, before=limit_file_size(len(before) + 20)), parted)
    assert training.code == 2
    assert training.last_line.startswith(f"kinema: {log}: cannot be written (")
    assert log.read_bytes().startswith(before + b'{"step": ')
    assert len(log.read_bytes()) == len(before) + 20
    resume(parted)
    assert_uninterrupted(parted, whole)


@pytest.mark.long
def test_a_full_disk_while_saving_a_model_is_reported(recipe: Path, whole: Run, tmp_path: Path) -> None:
    run = tmp_path / "run"
    args = (recipe, "--run.out", run, "--checkpoint.every", "None")
    size = next(whole.model.glob("*.safetensors")).stat().st_size
    training = wait_for(start_training(*args, before=limit_file_size(size // 2)), run)
    assert training.code == 2
    assert re.fullmatch(
        rf"kinema: {re.escape(str(run))}/model/model-\w+\.safetensors: cannot be written \(.+\)[^\n]*",
        training.last_line,
    )
    assert list(run.rglob("*.unfinished")) == []
    resume(run)
    assert_uninterrupted(run, whole)


@pytest.mark.long
def test_a_full_disk_at_the_start_leaves_no_run(recipe: Path, whole: Run, tmp_path: Path) -> None:
    """A folder with a partial recipe could neither be resumed nor started in."""
    run = tmp_path / "run"
    training = wait_for(start_training(recipe, "--run.out", run, before=limit_file_size(1000)), run)
    assert training.code == 2
    assert training.last_line.startswith(f"kinema: {run}: cannot be written (")
    cli.main(["train", str(recipe), "--run.out", str(run)])
    assert_uninterrupted(run, whole)


def drop_file_privileges() -> str:
    """Return Python code that makes file modes apply to root as well."""
    if os.geteuid() != 0:
        return ""
    if not sys.platform.startswith("linux"):
        pytest.skip("file modes do not apply to root, except without capabilities on Linux")
    # PR_CAPBSET_DROP of CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH for the next executed program.
    return "import ctypes\nfor right in (1, 2):\n    assert ctypes.CDLL(None).prctl(24, right, 0, 0, 0) == 0"


@pytest.mark.parametrize(
    ("closed", "named"),
    [
        pytest.param("checkpoints", "checkpoints/last.pt", marks=pytest.mark.long),
        pytest.param(".", "run.lock", marks=pytest.mark.long),
    ],
)
def test_an_unwritable_folder_is_named(parted: Path, whole: Run, closed: str, named: str) -> None:
    before = (parted / "checkpoints" / "last.pt").read_bytes()
    with (parted / "steps.jsonl").open("a") as file:
        file.write('{"step": 21, "lo')  # a line to be truncated
    modes = {path: path.stat().st_mode for path in (parted / closed, *(parted / closed).rglob("*"))}
    for path, mode in modes.items():
        path.chmod(mode & ~0o222)
    training = wait_for(start_training("--resume", parted, before=drop_file_privileges()), parted)
    for path, mode in modes.items():
        path.chmod(mode)
    assert training.code == 2
    assert training.last_line.startswith(f"kinema: {parted}/{named}: cannot be written (")
    assert "Permission denied" in training.last_line
    assert (parted / "checkpoints" / "last.pt").read_bytes() == before
    resume(parted)
    assert_uninterrupted(parted, whole)


@pytest.mark.long
def test_a_checkpoint_without_read_permission_is_not_called_damaged(parted: Path) -> None:
    file = parted / "checkpoints" / "last.pt"
    file.chmod(0)
    training = wait_for(start_training("--resume", parted, before=drop_file_privileges()), parted)
    assert training.code == 2
    assert training.last_line == f"kinema: [Errno 13] Permission denied: '{file}'"


def test_a_folder_that_cannot_be_created_is_named(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert refusal(capsys, recipe, "--run.out", tmp_path / "file" / "run").startswith(
        f"kinema: {tmp_path}/file/run: cannot be written ("
    )


def test_a_checkpoint_is_synced_before_it_is_renamed(parted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a power cut, the disk holds what was synced, in this order."""
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
        "sync last.pt.unfinished",
        "best.pt.unfinished -> best.pt",  # first: a process killed in between repeats this write
        "last.pt.unfinished -> last.pt",
        "sync checkpoints",
    ]


# -- damaged and foreign run folders ------------------------------------------------------------------------------


def refusal(capsys: pytest.CaptureFixture[str], *args: str | Path) -> str:
    """Return the single line of error of a refused command."""
    with pytest.raises(SystemExit) as exit:
        cli.main(["train", *map(str, args)])
    assert exit.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if not re.match("run: |plan: |step ", line)]
    assert len(lines) == 1
    return lines[0]


def test_a_folder_of_another_recipe_is_refused_by_the_first_field(
    recipe: Path, parted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in parted.rglob("*") if path.is_file()}
    args = [recipe, "--run.out", parted, "--existing", "resume"]
    for others, field in (
        (["--run.seed", "1"], "run.seed"),
        (["--run.seed", "1", "--optim.lr", "1e-2"], "optim.lr"),
        (["--data.augmentation.flip", "0", "--data.workers", "1"], "data.workers"),
        (["--model.width", "48"], "model.width"),
    ):
        assert refusal(capsys, *args, *others).startswith(f"kinema: {parted}: holds a run of another recipe; {field} ")
    assert before == {path: path.read_bytes() for path in parted.rglob("*") if path.is_file()}


def test_a_folder_that_holds_a_run_is_refused_by_default(
    recipe: Path, parted: Path, whole: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spaced = parted.rename(tmp_path / "a run's folder")
    stderr = refusal(capsys, recipe, "--run.out", spaced)
    assert stderr.startswith(f"kinema: {spaced}: ")
    args = re.search(r"--resume .*?(?=, or )", stderr)
    assert args is not None
    cli.main(["train", *shlex.split(args[0])])
    assert_uninterrupted(spaced, whole)


@pytest.mark.parametrize("written", [0.0, 0.0001, 0.1, 0.5, 0.93, 0.99, 0.9999])
def test_a_truncated_checkpoint_is_refused(parted: Path, written: float, raises) -> None:
    """torch raises EOFError, RuntimeError, UnpicklingError or OSError for these."""
    file = parted / "checkpoints" / "last.pt"
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * written)])
    with raises(RunError, "best.pt", path=file):
        Run.open(parted).load_checkpoint()


def test_a_checkpoint_with_a_flipped_bit_is_refused(parted: Path, raises) -> None:
    """torch would load it with a changed weight."""
    file = parted / "checkpoints" / "last.pt"
    before = checkpoint(parted)["model"]
    name = max(before, key=lambda name: before[name].numel())
    content = bytearray(file.read_bytes())
    content[content.index(before[name].numpy().tobytes()) + 2] ^= 1
    file.write_bytes(content)
    assert not torch.equal(checkpoint(parted)["model"][name], before[name])
    with raises(RunError, "best.pt", path=file):
        Run.open(parted).load_checkpoint()


class Trap:
    """Object that makes a file when it is unpickled."""

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
    stderr = refusal(capsys, "--resume", parted)
    assert stderr.startswith(f"kinema: {file}: cannot be read ")
    assert "best.pt" in stderr
    assert not trap.path.exists()


@pytest.mark.parametrize("advice", ["copy", pytest.param("remove", marks=pytest.mark.long)])
def test_a_run_whose_checkpoint_was_lost_resumes_as_advised(
    parted: Path, whole: Run, capsys: pytest.CaptureFixture[str], advice: str
) -> None:
    file = parted / "checkpoints" / "last.pt"
    file.write_bytes(b"")
    stderr = refusal(capsys, "--resume", parted)
    if advice == "copy":
        name = re.search(r"Copy (\S+) over it", stderr)
        assert name is not None
        shutil.copy(file.with_name(name[1]), file)
        assert checkpoint(parted)["step"] == EVALUATE_EVERY
    else:
        assert "remove it" in stderr
        file.unlink()
    resume(parted)
    assert_uninterrupted(parted, whole)


def test_a_damaged_best_checkpoint_is_not_offered(parted: Path, raises) -> None:
    """Both names are one file if the last checkpoint is the best."""
    last, best = (parted / "checkpoints" / f"{name}.pt" for name in ("last", "best"))
    last.unlink()
    os.link(best, last)
    last.write_bytes(b"")
    with raises(RunError, "numbers. Remove it", path=last):
        Run.open(parted).load_checkpoint()


def test_damaged_lines_of_a_log_are_dropped(parted: Path) -> None:
    log = parted / "steps.jsonl"
    whole_lines = log.read_bytes()
    log.write_bytes(whole_lines + b'{"step": 9\x00\x00\xff\xfe\n"step"\n{"loss": 1.0}\n' + b"\x00" * 100)
    assert json.loads(whole_lines.splitlines()[-1])["step"] == checkpoint(parted)["step"]
    Run.open(parted).truncate_logs(checkpoint(parted)["step"])
    assert log.read_bytes() == whole_lines
