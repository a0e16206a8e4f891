"""Several processes train as one does: the same losses and weights from the same batches, and everything written once.

The processes are real ones on this machine, joined by gloo, as torchrun starts them; one process with the same batches
is what they are held against. SLURM cannot be here: what it tells its processes, the test tells them.
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
from processes.trainings import Small, do, job
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
"""After which processes that wait for one another are ended."""

CLOSE = 1e-5
"""Sums of float32 in another order."""


def environment(**more: str) -> dict[str, str]:
    """Of a process as its user starts it: one thread, and nothing that says that it is one of several."""
    kept = {name: value for name, value in os.environ.items() if not re.match("SLURM|RANK|WORLD|LOCAL|MASTER", name)}
    return {**kept, "OMP_NUM_THREADS": "1", **more}


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a program, which does not outlive the test."""
    started = []

    def begin(*words: str, **more: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            words, env=environment(**more), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.terminate()  # torchrun ends its processes, and after half a minute kills them
        try:
            process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def ended(process: "subprocess.Popen[str]", *, well: bool = True) -> str:
    """What a process said, once it is over, as it should be after less than `LONGEST_S`."""
    said = process.communicate(timeout=LONGEST_S)[1]
    assert (process.returncode == 0) == well, said[-20000:]
    return said


def by_two(start: Start, jobs: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Trainings one after the other, each by two processes."""
    told = folder / "jobs.json"
    told.write_text(json.dumps(list(jobs)))
    ended(start(*TORCHRUN, str(TRAININGS), str(told)))


def losses(run: Run) -> list[tuple[float, float]]:
    return [(line["step"], line["loss"]) for line in run.steps()]


def checkpoint(run: Run) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(run.path / "checkpoints" / "last.pt", weights_only=True)
    return state


def held(run: Run, process: int) -> dict[str, torch.Tensor]:
    """What a process would have shipped at the end of the run."""
    tensors: dict[str, torch.Tensor] = torch.load(run.path / f"held-{process}.pt", weights_only=True)
    return tensors


def seeds(run: Run, process: int) -> list[int]:
    """What a process drew from in the steps of the last part of a run."""
    found: list[int] = json.loads((run.path / f"seeds-{process}.json").read_text())
    return found


def assert_close(run: Run, other: Run) -> None:
    """Losses and weights of a run by two processes and of one by one."""
    assert [step for step, _ in losses(run)] == [step for step, _ in losses(other)]
    torch.testing.assert_close([s[1] for s in losses(run)], [s[1] for s in losses(other)], rtol=CLOSE, atol=0)
    one, two = held(run, 0), held(other, 0)
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        assert (tensor - two[name]).norm() <= CLOSE * tensor.norm(), name


def leaves(state: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """What tables within tables hold, tensors as numbers."""
    if isinstance(state, Mapping | list | tuple):
        for key, value in state.items() if isinstance(state, Mapping) else enumerate(state):
            yield from leaves(value, f"{name}/{key}")
    else:
        yield name, state.tolist() if isinstance(state, torch.Tensor) else state


def assert_same(run: Run, other: Run) -> None:
    """Losses, evaluation, and what a checkpoint holds that moves, to the bit."""
    assert losses(run) == losses(other)
    assert run.metrics()[-1] == other.metrics()[-1]
    one, two = checkpoint(run), checkpoint(other)
    for part in ("model", "optimizer", "averaged"):
        assert dict(leaves(one[part])) == dict(leaves(two[part]))


def assert_whole(run: Run, manifest: Manifest, model: torch.nn.Module | None = None) -> None:
    """A run by two processes is as one by one: both hold what was shipped, and say of every sample what it says."""
    shipped = load_model(run.path, model=model)
    for process in (0, 1):
        torch.testing.assert_close(held(run, process), shipped.model.state_dict(), rtol=0, atol=0)
    recipe, said = run.recipe, load_predictions(run.predictions)
    alone = evaluate(shipped, manifest, split=recipe.data.evaluate, batch_size=recipe.data.batch_size).predictions
    assert said.index.tolist() == alone.index.tolist() == manifest.positions(recipe.data.evaluate)
    assert (said.targets["label"] == alone.targets["label"]).all()
    np.testing.assert_allclose(said.logits["label"], alone.logits["label"], rtol=CLOSE, atol=CLOSE)
    assert said.weights_digest == shipped.digest
    assert not [*run.path.rglob("*.unfinished"), *run.path.rglob("*.part")]


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Ten clips to learn from; to be asked about an even number of others, an odd one, and one; in no order."""
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
    return written(
        [replace(e, rgb=built_in.locate(e.rgb), depth="") for e in entries], tmp_path_factory.mktemp("clips")
    )


def written(entries: Sequence[Entry], folder: Path) -> Manifest:
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
    """The same clips without the file of one to learn from, and that one's place.

    It is what the second process reads first: before that it has not waited for the first one.
    """
    place = TrainingBatches(clips.positions("train"), batch_size=2, steps=1, seed=0).batch(0)[1].index
    entries = [replace(e, rgb="gone.mp4") if i == place else e for i, e in enumerate(clips.entries)]
    return written(entries, tmp_path), place


@pytest.fixture
def recipe(tiny_recipe: Recipe, clips: Manifest, tmp_path: Path) -> Recipe:
    """Twenty steps with all that a step can have: parts, mixtures, smoothed labels, a limit on the gradient."""
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


def out(recipe: Recipe, name: str) -> Recipe:
    """The same, into another folder."""
    assert recipe.run.out is not None
    return replace(recipe, run=replace(recipe.run, out=recipe.run.out.with_name(name)))


def draws(recipe: Recipe, manifest: Manifest, steps: int) -> list[list[int]]:
    """The samples of each step of a run without mixtures."""
    batches = TrainingBatches(
        manifest.positions("train"), batch_size=recipe.data.batch_size, steps=steps, seed=recipe.run.seed
    )
    return [[draw.index for draw in batch] for batch in batches]


def test_two_processes_train_and_evaluate_as_one_does(
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
        # Without a limit: it would hide that a gradient is too large.
        "skips": replace(
            plain,
            data=replace(skips, evaluate="one"),
            optim=replace(recipe.optim, lr=0.05, max_grad_norm=None, epochs=8),
        ),
    }
    pairs = replace(plain, data=replace(skips, batch_size=2), optim=replace(plain.optim, epochs=2, grad_accum_steps=1))
    by_two(
        start,
        [
            *(job(out(chosen, f"two {name}"), small=True) for name, chosen in recipes.items()),
            job(out(pairs, "pairs"), small=True),
            job(out(recipe, "begun"), small=True, steps=8),
            job(out(recipe, "stopped"), small=True, stop_after=5),
            job(out(recipe, "stopped"), small=True, resumed=True),
        ],
        tmp_path,
    )
    for name, chosen in recipes.items():
        one, two = do(job(out(chosen, f"one {name}"), small=True)), Run.open(tmp_path / f"two {name}")
        assert_close(two, one)
        assert_whole(two, load_manifest(chosen.data.manifest), Small())
        assert [line["step"] for line in two.metrics()] == [line["step"] for line in one.metrics()]
        assert sorted(two.skipped(), key=str) == sorted(one.skipped(), key=str)
    skipped = [line.get("skipped", 0) for line in Run.open(tmp_path / "two skips").steps()]
    assert skipped == [batch.count(place) for batch in draws(recipes["skips"], without, 10)]
    assert 1 in skipped  # a batch of seven: four for one process and three for the other

    # Of a batch of two each process has one; where that is gone nobody takes the step.
    taken = [step for step, batch in enumerate(draws(pairs, without, 10), 1) if place not in batch]
    assert [step for step, _ in losses(Run.open(tmp_path / "pairs"))] == taken != list(range(1, 11))

    # What two have begun, one finishes; and both, where one of them was told to stop.
    assert_close(do(job(out(recipe, "begun"), small=True, resumed=True)), Run.open(tmp_path / "one sgd"))
    assert_same(Run.open(tmp_path / "stopped"), Run.open(tmp_path / "two sgd"))
    assert [len(seeds(Run.open(tmp_path / "stopped"), process)) for process in (0, 1)] == [14, 14]

    # What a network draws follows the step, and is another thing in each process.
    one, two = (Run.open(tmp_path / f"{name} sgd") for name in ("one", "two"))
    assert seeds(two, 0) == seeds(one, 0)
    assert not set(seeds(two, 0)) & set(seeds(two, 1))


@pytest.mark.long
def test_what_several_processes_hold_is_the_first_ones_and_a_resumed_run_is_the_same(
    recipe: Recipe, tiny_recipe: Recipe, clips: Manifest, broken: tuple[Manifest, int], start: Start, tmp_path: Path
) -> None:
    """With BatchNorm, whose statistics are those of each process's own part of a batch, and with dropout."""
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
    # Where one is skipped, a process has a single sample, of which no two parts can be made.
    without = replace(small, data=replace(skips, batch_size=4), optim=replace(recipe.optim, epochs=4))
    do(job(out(small, "begun by one"), small=True, steps=8))
    by_two(
        start,
        [
            *(job(out(chosen, name), small=False) for name, chosen in {**resumed, **others}.items()),
            *(job(out(chosen, f"parted {name}"), small=False, steps=3) for name, chosen in resumed.items()),
            *(job(out(chosen, f"parted {name}"), small=False, resumed=True) for name, chosen in resumed.items()),
            job(out(small, "two"), small=True),
            job(out(without, "two without"), small=True),
            job(out(small, "begun by two"), small=True, steps=8),
            job(out(small, "begun by one"), small=True, resumed=True),
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

    # FSDP, where nothing depends on the parts of a batch: what one process gives, whoever begins and whoever goes on.
    two = Run.open(tmp_path / "two")
    assert_close(two, do(job(out(small, "one"), small=True)))
    assert_whole(two, clips, Small())
    assert_close(Run.open(tmp_path / "begun by one"), two)
    assert_close(do(job(out(small, "begun by two"), small=True, resumed=True)), two)
    assert_close(Run.open(tmp_path / "two without"), do(job(out(without, "one without"), small=True)))


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
(Path(__file__).parent / f"process-{{os.environ['RANK']}}").write_text(str(os.getpid()))  # to be found by
"""


def begun(run: Path, steps: int) -> int:
    """Wait until a run has logged so many steps; returns how many it has."""
    log, longest = run / "steps.jsonl", time.monotonic() + LONGEST_S
    while time.monotonic() < longest:
        if log.exists() and (found := log.read_bytes().count(b"\n")) >= steps:
            return found
        time.sleep(0.01)
    pytest.fail(f"no {steps} steps in {LONGEST_S} s")


@pytest.mark.long
def test_what_is_killed_or_stopped_ends_as_if_it_had_not_been(clips: Manifest, start: Start, tmp_path: Path) -> None:
    """One of two is killed, and torchrun starts both again; torchrun is asked to stop, and its run is resumed."""
    recipe = tmp_path / "recipe.py"
    recipe.write_text(RECIPE.format(manifest=clips.path))
    paths = [tmp_path / name for name in ("whole", "killed", "stopped")]
    whole, killed, stopped = (
        [*TORCHRUN, "--max-restarts", "1", "-m", "kinema.cli", "train", str(recipe), "--run.out", str(path)]
        for path in paths
    )
    ended(start(*whole))

    process = start(*killed, "--existing", "resume")
    reached = begun(paths[1], 10)
    victim = int((tmp_path / "process-1").read_text())
    os.kill(victim, signal.SIGKILL)
    ended(process)
    assert int((tmp_path / "process-1").read_text()) != victim  # it was started again
    assert reached < 60
    assert_same(Run.open(paths[1]), Run.open(paths[0]))

    process = start(*stopped)
    reached = begun(paths[2], 10)
    process.send_signal(signal.SIGTERM)
    said = ended(process, well=False)
    (step, other) = re.findall(r"stopped at step (\d+); resume with", said)
    assert step == other
    assert reached <= int(step) < 60
    assert checkpoint(Run.open(paths[2]))["step"] == int(step) == losses(Run.open(paths[2]))[-1][0]
    ended(start(*TORCHRUN, "-m", "kinema.cli", "train", "--resume", str(paths[2])))
    assert_same(Run.open(paths[2]), Run.open(paths[0]))


@pytest.mark.long
@pytest.mark.parametrize("machines", [1, 2])
def test_processes_that_slurm_starts_find_each_other(
    recipe: Recipe, start: Start, tmp_path: Path, machines: int
) -> None:
    """SLURM itself is not here: two programs find the variables that it would set."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    told = tmp_path / "jobs.json"
    told.write_text(json.dumps([job(out(recipe, "two"), small=True, steps=3)]))
    said = {
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NAME": "training",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": str(2 // machines),
        "SLURM_NNODES": str(machines),
        "SLURM_NODELIST": "localhost",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,  # else made of the job's number
    }
    both = []
    for number in ("0", "1"):
        place = (
            {"SLURM_NODEID": "0", "SLURM_LOCALID": number}
            if machines == 1
            else {"SLURM_NODEID": number, "SLURM_LOCALID": "0"}
        )
        both.append(start(sys.executable, str(TRAININGS), str(told), SLURM_PROCID=number, **place, **said))
    for process in both:
        ended(process)
    assert_close(Run.open(tmp_path / "two"), do(job(out(recipe, "one"), small=True, steps=3)))
    assert held(Run.open(tmp_path / "two"), 1).keys() == Small().state_dict().keys()


@pytest.mark.parametrize(
    ("said", "number", "count", "machines"),
    [
        ({}, 0, 1, 1),
        ({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}, 5, 8, 2),
        ({"SLURM_NTASKS": "6", "SLURM_PROCID": "4", "SLURM_NNODES": "3"}, 4, 6, 3),
        # torchrun, of which SLURM starts one on each machine
        (
            {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "SLURM_NTASKS": "2", "SLURM_PROCID": "1"},
            3,
            4,
            2,
        ),
        # a shell that SLURM gave, in which one process is started
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_JOB_NAME": "interactive", "SLURM_NNODES": "2"}, 0, 1, 1),
    ],
)
def test_a_process_knows_its_number(
    said: dict[str, str], number: int, count: int, machines: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in set(os.environ) - set(environment()):
        monkeypatch.delenv(name)
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    assert (rank(), world_size(), num_nodes()) == (number, count, machines)


def test_processes_that_torchrun_starts_again_meet_under_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether they would find the addresses of those before them is chance; so look at the name itself."""
    kept = TCPStore("127.0.0.1", 0, is_master=True)  # as torchrun keeps it
    told = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_USE_AGENT_STORE": "True"}
    for name, value in {**told, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(kept.port)}.items():
        monkeypatch.setenv(name, value)
    met: list[dict[str, Any]] = []
    monkeypatch.setattr(
        torch.distributed, "init_process_group", lambda backend, **how: met.append({**how, "by": backend})
    )
    for starts in ("0", "1", "2"):
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", starts)
        renew_store(torch.device("cpu"))
    assert [(how["by"], how["rank"], how["world_size"]) for how in met] == [("gloo", 1, 2)] * 2
    for how in met:
        assert not how["store"].check(["address"])
        how["store"].set("address", "of this start")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")  # two machines, which count their starts apart
    renew_store(torch.device("cpu"))
    assert len(met) == 2


def test_a_batch_that_does_not_divide_is_refused(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(RecipeError, match=r"batch_size=8 .* 6 \(3 processes, .*=2\)"):
        make_fabric(recipe)


def test_the_shares_of_a_batch_are_the_batch() -> None:
    batches = TrainingBatches(range(10), batch_size=6, steps=3, seed=0)
    shares = [list(RankBatches(batches, rank=number, world_size=3)) for number in range(3)]
    for whole, *parts in zip(batches, *shares, strict=True):
        assert [len(part) for part in parts] == [2, 2, 2]
        assert sorted((draw for part in parts for draw in part), key=str) == sorted(whole, key=str)
