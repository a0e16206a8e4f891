"""Tests of training on several processes: same losses and weights as on one, and everything written once.

The processes are started by torchrun and joined by gloo. For SLURM, the tests set its environment variables.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from processes.trainings import Small, job, run_job
from torch.distributed import TCPStore

from kinema.data.manifest import Entry, Manifest, class_lists, load_manifest, write_manifest
from kinema.data.samplers import TrainingBatches
from kinema.errors import RecipeError
from kinema.evaluation.evaluate import evaluate
from kinema.evaluation.predictions import load_predictions
from kinema.inference.trained_model import load_model
from kinema.training.distributed import RankBatches, make_fabric, num_nodes, rank, renew_store, world_size
from kinema.training.recipe import Augmentation, Recipe
from kinema.training.runs import Run

TRAININGS = Path(__file__).parent / "processes" / "trainings.py"
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
Start = Callable[..., "subprocess.Popen[str]"]

LONGEST_S = 300
"""Time limit of processes that may wait for each other."""

CLOSE = 1e-5
"""Relative tolerance for float32 sums in another order."""


def environment(**more: str) -> dict[str, str]:
    """Return an environment with one thread and without variables of SLURM or torchrun."""
    kept = {name: value for name, value in os.environ.items() if not re.match("SLURM|RANK|WORLD|LOCAL|MASTER", name)}
    return {**kept, "OMP_NUM_THREADS": "1", **more}


@pytest.fixture
def start() -> Iterator[Start]:
    """Return a function that starts a process, which ends with the test."""
    started = []

    def begin(*args: str, **more: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            args, env=environment(**more), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.terminate()  # torchrun terminates its processes, and kills them after half a minute
        try:
            process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def wait_for(process: "subprocess.Popen[str]", *, well: bool = True) -> str:
    """Wait for the end of a process, check its exit code and return its stderr."""
    stderr = process.communicate(timeout=LONGEST_S)[1]
    assert (process.returncode == 0) == well, stderr[-20000:]
    return stderr


def run_on_two(start: Start, jobs: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Run jobs one after the other, each on two processes."""
    jobs_file = folder / "jobs.json"
    jobs_file.write_text(json.dumps(list(jobs)))
    wait_for(start(*TORCHRUN, str(TRAININGS), str(jobs_file)))


def losses(run: Run) -> list[tuple[float, float]]:
    return [(line["step"], line["loss"]) for line in run.steps()]


def checkpoint(run: Run) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(run.path / "checkpoints" / "last.pt", weights_only=True)
    return state


def held(run: Run, process: int) -> dict[str, torch.Tensor]:
    """Return the weights that a process evaluates at the end of a run."""
    tensors: dict[str, torch.Tensor] = torch.load(run.path / f"held-{process}.pt", weights_only=True)
    return tensors


def seeds(run: Run, process: int) -> list[int]:
    """Return the seeds of a process in the steps of the last part of a run."""
    found: list[int] = json.loads((run.path / f"seeds-{process}.json").read_text())
    return found


def assert_close(run: Run, other: Run) -> None:
    """Check that losses and weights of two runs agree up to rounding."""
    assert [step for step, _ in losses(run)] == [step for step, _ in losses(other)]
    torch.testing.assert_close([s[1] for s in losses(run)], [s[1] for s in losses(other)], rtol=CLOSE, atol=0)
    one, two = held(run, 0), held(other, 0)
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        assert (tensor - two[name]).norm() <= CLOSE * tensor.norm(), name


def leaves(state: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of a nested state by name, tensors as lists."""
    if isinstance(state, Mapping | list | tuple):
        for key, value in state.items() if isinstance(state, Mapping) else enumerate(state):
            yield from leaves(value, f"{name}/{key}")
    else:
        yield name, state.tolist() if isinstance(state, torch.Tensor) else state


def assert_same(run: Run, other: Run) -> None:
    """Check that losses, evaluation and checkpoint of two runs are identical."""
    assert losses(run) == losses(other)
    assert run.metrics()[-1] == other.metrics()[-1]
    one, two = checkpoint(run), checkpoint(other)
    for part in ("model", "optimizer", "averaged"):
        assert dict(leaves(one[part])) == dict(leaves(two[part]))


def assert_whole(run: Run, manifest: Manifest, model: torch.nn.Module | None = None) -> None:
    """Check that both processes hold the shipped weights, and that their predictions are those of one process."""
    shipped = load_model(run.path, model=model)
    for process in (0, 1):
        torch.testing.assert_close(held(run, process), shipped.model.state_dict(), rtol=0, atol=0)
    recipe, stderr = run.recipe, load_predictions(run.predictions)
    alone = evaluate(shipped, manifest, split=recipe.data.evaluate, batch_size=recipe.data.batch_size).predictions
    assert stderr.index.tolist() == alone.index.tolist() == manifest.positions(recipe.data.evaluate)
    assert (stderr.targets["label"] == alone.targets["label"]).all()
    np.testing.assert_allclose(stderr.logits["label"], alone.logits["label"], rtol=CLOSE, atol=CLOSE)
    assert stderr.weights_digest == shipped.digest
    assert not [*run.path.rglob("*.unfinished"), *run.path.rglob("*.part")]


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Return a shuffled manifest of ten training clips and of evaluation splits with four, five and one clip."""
    built_in = load_manifest("moves_cross_subject")
    found = {
        label: [e for e in built_in.entries if e.labels["label"] == label and e.split == "train"]
        for label in ("kick", "run", "walk")
    }
    splits = np.random.default_rng(0).permutation(["train"] * 10 + ["even"] * 4 + ["odd"] * 5 + ["one"])
    entries = [
        replace(found[label].pop(), split=str(split))
        for split, label in zip(splits, ("kick", "run", "walk") * 7, strict=False)
    ]
    return write_clips(
        [replace(e, rgb=built_in.locate(e.rgb), depth="") for e in entries], tmp_path_factory.mktemp("clips")
    )


def write_clips(entries: Sequence[Entry], folder: Path) -> Manifest:
    return write_manifest(
        folder / "clips.csv",
        entries=entries,
        classes=class_lists(list(entries)),
        dataset="clips",
        version="1",
        depth=None,
    )


@pytest.fixture
def broken(clips: Manifest, tmp_path: Path) -> tuple[Manifest, int]:
    """Return the clips with one training file missing, and its position.

    The second process reads it first, before it has waited for the first process.
    """
    place = TrainingBatches(clips.positions("train"), batch_size=2, steps=1, seed=0).batch(0)[1].index
    entries = [replace(e, rgb="gone.mp4") if i == place else e for i, e in enumerate(clips.entries)]
    return write_clips(entries, tmp_path), place


@pytest.fixture
def recipe(tiny_recipe: Recipe, clips: Manifest, tmp_path: Path) -> Recipe:
    """Return a recipe of 20 steps with micro-batches, MixUp, label smoothing and gradient clipping."""
    return replace(
        tiny_recipe,
        data=replace(
            tiny_recipe.data,
            manifest=str(clips.path),
            evaluate="even",
            batch_size=8,
            augmentation=replace(tiny_recipe.data.augmentation, mixup_alpha=0.4),
        ),
        optim=replace(tiny_recipe.optim, lr=0.1, epochs=16, grad_accum_steps=2, max_grad_norm=0.5),
        checkpoint=replace(tiny_recipe.checkpoint, keep="last"),
        run=replace(tiny_recipe.run, out=tmp_path / "any", evaluate_every_epochs=8),
    )


def with_out(recipe: Recipe, name: str) -> Recipe:
    """Return the recipe with another run folder."""
    assert recipe.run.out is not None
    return replace(recipe, run=replace(recipe.run, out=recipe.run.out.with_name(name)))


def draws(recipe: Recipe, manifest: Manifest, steps: int) -> list[list[int]]:
    """Return the samples of each step of a run without MixUp."""
    batches = TrainingBatches(
        manifest.positions("train"), batch_size=recipe.data.batch_size, steps=steps, seed=recipe.run.seed
    )
    return [[draw.index for draw in batch] for batch in batches]


@pytest.mark.long
def test_two_processes_give_the_results_of_one(
    recipe: Recipe, broken: tuple[Manifest, int], start: Start, tmp_path: Path
) -> None:
    without, place = broken
    plain = replace(recipe, data=replace(recipe.data, augmentation=Augmentation(short_side=(32, 40))))
    skips = replace(plain.data, manifest=str(without.path), unreadable="skip")
    recipes = {
        "sgd": recipe,
        "adamw": replace(
            recipe,
            data=replace(recipe.data, evaluate="odd"),
            optim=replace(recipe.optim, optimizer="adamw", lr=3e-3, weight_decay=0.05, ema_decay=0.9),
        ),
        # Gradient clipping would hide a gradient of the wrong scale.
        "skips": replace(
            plain,
            data=replace(skips, evaluate="one"),
            optim=replace(recipe.optim, lr=0.05, max_grad_norm=None, epochs=8),
        ),
    }
    pairs = replace(plain, data=replace(skips, batch_size=2), optim=replace(plain.optim, epochs=2, grad_accum_steps=1))
    run_on_two(
        start,
        [
            *(job(with_out(chosen, f"two {name}"), small=True) for name, chosen in recipes.items()),
            job(with_out(pairs, "pairs"), small=True),
            job(with_out(recipe, "begun"), small=True, steps=8),
            job(with_out(recipe, "stopped"), small=True, stop_after=5),
            job(with_out(recipe, "stopped"), small=True, resumed=True),
        ],
        tmp_path,
    )
    for name, chosen in recipes.items():
        one, two = run_job(job(with_out(chosen, f"one {name}"), small=True)), Run.open(tmp_path / f"two {name}")
        assert_close(two, one)
        assert_whole(two, load_manifest(chosen.data.manifest), Small())
        assert [line["step"] for line in two.metrics()] == [line["step"] for line in one.metrics()]
        assert sorted(two.skipped(), key=str) == sorted(one.skipped(), key=str)
    skipped = [line.get("skipped", 0) for line in Run.open(tmp_path / "two skips").steps()]
    assert skipped == [batch.count(place) for batch in draws(recipes["skips"], without, 10)]
    assert 1 in skipped  # a batch of seven: four for one process and three for the other

    # A step in which one process has no sample is skipped by both.
    taken = [step for step, batch in enumerate(draws(pairs, without, 10), 1) if place not in batch]
    assert [step for step, _ in losses(Run.open(tmp_path / "pairs"))] == taken != list(range(1, 11))

    # A run of two processes resumes on one, and on two after a signal to one of them.
    assert_close(run_job(job(with_out(recipe, "begun"), small=True, resumed=True)), Run.open(tmp_path / "one sgd"))
    assert_same(Run.open(tmp_path / "stopped"), Run.open(tmp_path / "two sgd"))
    assert [len(seeds(Run.open(tmp_path / "stopped"), process)) for process in (0, 1)] == [14, 14]

    # Random draws depend on the step and differ between processes.
    one, two = (Run.open(tmp_path / f"{name} sgd") for name in ("one", "two"))
    assert seeds(two, 0) == seeds(one, 0)
    assert not set(seeds(two, 0)) & set(seeds(two, 1))


@pytest.mark.long
def test_all_processes_hold_the_same_weights_and_resume_exactly(
    recipe: Recipe, tiny_recipe: Recipe, clips: Manifest, broken: tuple[Manifest, int], start: Start, tmp_path: Path
) -> None:
    """The network has dropout, and BatchNorm over the share of each process."""
    plain = replace(
        tiny_recipe, data=replace(tiny_recipe.data, manifest=recipe.data.manifest, evaluate="odd"), run=recipe.run
    )
    adamw = replace(plain.optim, optimizer="adamw", lr=3e-3, weight_decay=0.05)
    sharded = replace(plain, optim=adamw, compute=replace(plain.compute, strategy="fsdp"))
    resumed = {
        "plain": plain,
        "averaged": replace(plain, optim=replace(adamw, ema_decay=0.8)),
        "sharded": sharded,
    }
    others = {
        "frozen": replace(plain, init=replace(plain.init, freeze=("embedding",))),
        "recomputed plain": replace(plain, compute=replace(plain.compute, activation_checkpointing=True)),
        "recomputed sharded": replace(sharded, compute=replace(sharded.compute, activation_checkpointing=True)),
    }
    skips = replace(recipe.data, manifest=str(broken[0].path), unreadable="skip", augmentation=plain.data.augmentation)
    small = replace(recipe, compute=replace(recipe.compute, strategy="fsdp"))
    # With a skipped sample, a process has only one, which cannot be split into two micro-batches.
    without = replace(small, data=replace(skips, batch_size=4), optim=replace(recipe.optim, epochs=4))
    run_job(job(with_out(small, "begun by one"), small=True, steps=8))
    run_on_two(
        start,
        [
            *(job(with_out(chosen, name), small=False) for name, chosen in {**resumed, **others}.items()),
            *(job(with_out(chosen, f"parted {name}"), small=False, steps=3) for name, chosen in resumed.items()),
            *(job(with_out(chosen, f"parted {name}"), small=False, resumed=True) for name, chosen in resumed.items()),
            job(with_out(small, "two"), small=True),
            job(with_out(without, "two without"), small=True),
            job(with_out(small, "begun by two"), small=True, steps=8),
            job(with_out(small, "begun by one"), small=True, resumed=True),
        ],
        tmp_path,
    )
    for name in {**resumed, **others}:
        run = Run.open(tmp_path / name)
        assert len(losses(run)) == 10
        assert_whole(run, clips)
    for name in resumed:
        assert_same(Run.open(tmp_path / f"parted {name}"), Run.open(tmp_path / name))
    for name in ("plain", "sharded"):
        assert_same(Run.open(tmp_path / f"recomputed {name}"), Run.open(tmp_path / name))

    # FSDP gives the same result on one or two processes, also if a run resumes with the other number.
    two = Run.open(tmp_path / "two")
    assert_close(two, run_job(job(with_out(small, "one"), small=True)))
    assert_whole(two, clips, Small())
    assert_close(Run.open(tmp_path / "begun by one"), two)
    assert_close(run_job(job(with_out(small, "begun by two"), small=True, resumed=True)), two)
    assert_close(Run.open(tmp_path / "two without"), run_job(job(with_out(without, "one without"), small=True)))


RECIPE = """
import os
from pathlib import Path

from kinema.models.ctn import CTNConfig
from kinema.training.recipe import Augmentation, Checkpoint, Clip, Compute, Data, Optim, Recipe, RunSettings

RECIPE = Recipe(
    clip=Clip(frames=8, size=32, short_side=32),
    data=Data(
        manifest="{manifest}",
        evaluate="odd",
        batch_size=4,
        workers=1,
        augmentation=Augmentation(short_side=(32, 40), flip=0.5, mixup_alpha=0.4),
    ),
    model=CTNConfig(stem_kernel=3, stem_channels=4, width=24, depth=1, attention_heads=3, dropout=0.1),
    optim=Optim(optimizer="adamw", lr=1e-3, epochs=24, warmup_epochs=1, max_grad_norm=1.0),
    checkpoint=Checkpoint(every=7), compute=Compute(device="cpu"), run=RunSettings(evaluate_every_epochs=8),
)
(Path(__file__).parent / f"process-{{os.environ['RANK']}}").write_text(str(os.getpid()))  # read by the test
"""


def wait_for_steps(run: Path, steps: int) -> int:
    """Wait until a run has logged a number of steps, and return the number of logged steps."""
    log, longest = run / "steps.jsonl", time.monotonic() + LONGEST_S
    while time.monotonic() < longest:
        if log.exists() and (found := log.read_bytes().count(b"\n")) >= steps:
            return found
        time.sleep(0.01)
    pytest.fail(f"no {steps} steps in {LONGEST_S} s")


@pytest.mark.long
def test_killed_and_stopped_processes_resume_exactly(clips: Manifest, start: Start, tmp_path: Path) -> None:
    """A killed process is restarted by torchrun; a run that is stopped by a signal to torchrun is resumed."""
    recipe = tmp_path / "recipe.py"
    recipe.write_text(RECIPE.format(manifest=clips.path))
    paths = [tmp_path / name for name in ("whole", "killed", "stopped")]
    whole, killed, stopped = (
        [*TORCHRUN, "--max-restarts", "1", "-m", "kinema.cli", "train", str(recipe), "--run.out", str(path)]
        for path in paths
    )
    wait_for(start(*whole))

    process = start(*killed, "--existing", "resume")
    reached = wait_for_steps(paths[1], 10)
    victim = int((tmp_path / "process-1").read_text())
    os.kill(victim, signal.SIGKILL)
    wait_for(process)
    assert int((tmp_path / "process-1").read_text()) != victim  # restarted
    assert reached < 60
    assert_same(Run.open(paths[1]), Run.open(paths[0]))

    process = start(*stopped)
    reached = wait_for_steps(paths[2], 10)
    process.send_signal(signal.SIGTERM)
    stderr = wait_for(process, well=False)
    (step, other) = re.findall(r"stopped at step (\d+)\. Resume with", stderr)
    assert step == other
    assert reached <= int(step) < 60
    assert checkpoint(Run.open(paths[2]))["step"] == int(step) == losses(Run.open(paths[2]))[-1][0]
    wait_for(start(*TORCHRUN, "-m", "kinema.cli", "train", "--resume", str(paths[2])))
    assert_same(Run.open(paths[2]), Run.open(paths[0]))


@pytest.mark.long
@pytest.mark.parametrize("machines", [1, 2])
def test_processes_started_by_slurm_connect(recipe: Recipe, start: Start, tmp_path: Path, machines: int) -> None:
    """Two processes get the environment variables that SLURM would set."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    jobs_file = tmp_path / "jobs.json"
    jobs_file.write_text(json.dumps([job(with_out(recipe, "two"), small=True, steps=3)]))
    stderr = {
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NAME": "training",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": str(2 // machines),
        "SLURM_NNODES": str(machines),
        "SLURM_NODELIST": "localhost",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,  # derived from the job id by default
    }
    both = []
    for number in ("0", "1"):
        place = (
            {"SLURM_NODEID": "0", "SLURM_LOCALID": number}
            if machines == 1
            else {"SLURM_NODEID": number, "SLURM_LOCALID": "0"}
        )
        both.append(start(sys.executable, str(TRAININGS), str(jobs_file), SLURM_PROCID=number, **place, **stderr))
    for process in both:
        wait_for(process)
    assert_close(Run.open(tmp_path / "two"), run_job(job(with_out(recipe, "one"), small=True, steps=3)))
    assert held(Run.open(tmp_path / "two"), 1).keys() == Small().state_dict().keys()


@pytest.mark.parametrize(
    ("stderr", "number", "count", "machines"),
    [
        ({}, 0, 1, 1),
        ({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}, 5, 8, 2),
        ({"SLURM_NTASKS": "6", "SLURM_PROCID": "4", "SLURM_NNODES": "3"}, 4, 6, 3),
        # torchrun, started by SLURM on each machine
        (
            {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "SLURM_NTASKS": "2", "SLURM_PROCID": "1"},
            3,
            4,
            2,
        ),
        # one process in an interactive shell of SLURM
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_JOB_NAME": "interactive", "SLURM_NNODES": "2"}, 0, 1, 1),
    ],
)
def test_rank_and_world_size_are_read_from_the_environment(
    stderr: dict[str, str], number: int, count: int, machines: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in set(os.environ) - set(environment()):
        monkeypatch.delenv(name)
    for name, value in stderr.items():
        monkeypatch.setenv(name, value)
    assert (rank(), world_size(), num_nodes()) == (number, count, machines)


def test_restarted_processes_use_another_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    """Collisions with the previous processes are random, so the test checks the prefix itself."""
    kept = TCPStore("127.0.0.1", 0, is_master=True)  # like the store of torchrun
    jobs_file = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_USE_AGENT_STORE": "True"}
    for name, value in {**jobs_file, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(kept.port)}.items():
        monkeypatch.setenv(name, value)
    joined: list[dict[str, Any]] = []
    monkeypatch.setattr(
        torch.distributed, "init_process_group", lambda backend, **how: joined.append({**how, "by": backend})
    )
    for starts in ("0", "1", "2"):
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", starts)
        renew_store(torch.device("cpu"))
    assert [(how["by"], how["rank"], how["world_size"]) for how in joined] == [("gloo", 1, 2)] * 2
    for how in joined:
        assert not how["store"].check(["address"])
        how["store"].set("address", "of this start")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")  # two machines, which count restarts separately
    renew_store(torch.device("cpu"))
    assert len(joined) == 2


def test_a_batch_size_that_is_not_divisible_is_refused(recipe: Recipe, monkeypatch: pytest.MonkeyPatch, raises) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with raises(RecipeError, "batch_size=8", "6 (3 processes", "=2)", field="data.batch_size"):
        make_fabric(recipe)


def test_the_shares_of_all_processes_make_up_the_batch() -> None:
    batches = TrainingBatches(range(10), batch_size=6, steps=3, seed=0)
    shares = [list(RankBatches(batches, rank=number, world_size=3)) for number in range(3)]
    for whole, *parts in zip(batches, *shares, strict=True):
        assert [len(part) for part in parts] == [2, 2, 2]
        assert sorted((draw for part in parts for draw in part), key=str) == sorted(whole, key=str)
