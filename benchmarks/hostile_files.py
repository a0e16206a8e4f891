"""Read mutated files of every format, and count those that end in anything but frames or a clear error.

    python benchmarks/hostile_files.py --count 20000 --work /tmp/hostile --out results/hostile_files.json

Each file is a seed of `seed_files.py` after a seeded mutation of `mutations.py`. A worker process opens it as RGB and
as depth, counts its frames, reads the first, middle and last ones, and inspects it as `kinema check` does. A file is
`read` if frames come out, and `refused` if an error of kinema names its path in one line. A file at which the worker
crashes or hangs is `contained` if `isolation="process"` gives one of these. Every other file has `failed`, and is kept
in the work folder. A run that is stopped continues where it was.
"""

import argparse
import multiprocessing
import resource
import shutil
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from measuring import store
from mutations import mutate
from seed_files import SeedFile, write_seeds

from kinema.curation.inspect import inspect
from kinema.errors import KinemaError
from kinema.files import Journal
from kinema.modality import Modality
from kinema.video.read_options import Limits, ReadOptions
from kinema.video.source import open_source

Outcome = Literal["read", "refused", "contained", "failed"]

LIMITS = Limits(file_bytes=2**27, frames=100_000, seconds=3600.0, pixels=2**20, clip_bytes=2**26)
"""Limits of the campaign, so small that a file past them is seen."""

TIMEOUT_S = 30.0
MAX_GROWTH = 2**29
"""Bytes by which reading one file may grow the resident memory of a worker: a frame of LIMITS and its conversions."""

ADDRESS_SPACE = 2**32
"""Bytes of address space that a worker may add to its own."""

FILES_PER_WORKER = 3000


@dataclass(frozen=True, kw_only=True)
class Result:
    """Outcome of reading one file, and what happened: an error, a signal, or a limit."""

    outcome: Outcome
    detail: str = ""


def read_file(path: str, options: ReadOptions) -> Result:
    """Read a file in every way and return the outcome."""
    outcomes = []
    kinds: tuple[Modality, Modality] = ("rgb", "depth")
    for kind in kinds:
        try:
            outcomes.append(_read_frames(path, kind, options))
            inspect(path, kind, options)
        except KinemaError as error:
            problem = _problem(error)
            if problem:
                return Result(outcome="failed", detail=f"{problem}: {error!r}"[:300])
            outcomes.append("refused")
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            detail = f"{type(error).__name__} in {Path(place.filename).name}:{place.name}: {error}"
            return Result(outcome="failed", detail=detail[:300])
    return Result(outcome="read" if "read" in outcomes else "refused")


def _read_frames(path: str, kind: Modality, options: ReadOptions) -> str:
    with open_source(path, options, kind) as source:
        count = source.num_frames
        indices = [0, count // 2, count - 1]
        frames = source.read_rgb(indices) if kind == "rgb" else source.read_gray(indices)
        assert source.size is not None
        assert isinstance(source.remarks, tuple)
        assert source.timeline is None or source.timeline.second > 0
        shape = (3, *frames.shape[1:3], *((3,) if kind == "rgb" else ()))
        assert frames.shape == shape, f"{frames.shape} is not {shape}"
        assert frames.dtype in (np.uint8,) if kind == "rgb" else frames.dtype in (np.uint8, np.uint16)
    return "read"


def _problem(error: KinemaError) -> str:
    """Return what is wrong with an error; empty for a good one."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError) and not isinstance(
            cause, av.FFmpegError
        ):  # FFmpeg refuses without allocating
            return "out of memory"
        cause = cause.__cause__ or cause.__context__
    if not str(error).strip() or "\n" in str(error) or "\r" in str(error):
        return "not one line"
    return "" if error.path else "no path"


# -- worker processes -------------------------------------------------------------------------------------------------


class Worker:
    """Process that calls a function for one request after the other, and may crash or hang.

    Args:
        answer: Function from a request to an answer; both are pickled.
        address_space: Bytes of address space that the process may add to its own.
    """

    def __init__(self, answer: Callable[[Any], Any], address_space: int = ADDRESS_SPACE) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["kinema.curation.inspect"])
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, answer, address_space), daemon=False)
        self._process.start()
        other.close()
        self.answered = 0

    def ask(self, request: Any, timeout_s: float) -> tuple[Any, str]:
        """Return the answer and an empty text, or None and why there is none."""
        self._connection.send(request)
        try:
            if self._connection.poll(timeout_s):
                self.answered += 1
                return self._connection.recv(), ""
            self.close()
            return None, f"no answer in {timeout_s:g} s"
        except (EOFError, ConnectionResetError):
            self._process.join()
            code = self._process.exitcode or 0
            return None, signal.Signals(-code).name if code < 0 else f"exit code {code}"

    def close(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.join()


def _serve(connection: Connection, answer: Callable[[Any], Any], address_space: int) -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + address_space, used + address_space))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while True:
        try:
            request = connection.recv()
        except EOFError:
            return
        connection.send(answer(request))


def _read_within_memory(request: tuple[str, ReadOptions]) -> Result:
    """Read a file, and return a failure if the resident memory grows too much."""
    path, options = request
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = _resident("VmRSS")
    result = read_file(path, options)
    growth = _resident("VmHWM") - before
    if growth > MAX_GROWTH:
        return Result(outcome="failed", detail=f"memory grows by {growth / 2**20:.0f} MiB")
    return result


def _resident(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


# -- campaign ---------------------------------------------------------------------------------------------------------


def run_campaign(
    work: Path, *, seed: int, numbers: Sequence[int], timeout_s: float = TIMEOUT_S
) -> Iterator[dict[str, Any]]:
    """Read the mutated files with these numbers and yield a record of each; those in the journal are not read again.

    Args:
        work: Folder of the journal and of the files that failed.
        seed: Seed of the mutations.
        numbers: Numbers of the files; a number determines seed file and mutation.
        timeout_s: Seconds per file.
    """
    work.mkdir(parents=True, exist_ok=True)
    journal = Journal(work / f"files_{seed}.jsonl")
    known = {record["number"]: record for record in journal.read()}
    seeds: list[SeedFile] = []
    worker: Worker | None = None
    with tempfile.TemporaryDirectory(dir=work) as folder:
        for number in numbers:
            if number not in known:
                seeds = seeds or write_seeds(Path(folder))
                if worker is None or worker.answered >= FILES_PER_WORKER:
                    if worker is not None:
                        worker.close()
                    worker = Worker(_read_within_memory)
                record, worker = _try_file(Path(folder), work, seeds, seed, number, worker, timeout_s)
                journal.append(record)
                known[number] = record
            yield known[number]
    if worker is not None:
        worker.close()
    journal.close()


def mutated(seeds: Sequence[SeedFile], seed: int, number: int) -> tuple[SeedFile, str, dict[str, bytes]]:
    """Return the seed file of a number, the names of the mutations, and the mutated contents."""
    chosen = seeds[number % len(seeds)]
    applied, files = mutate(chosen.files, np.random.default_rng([seed, number]))
    return chosen, applied, files


def _try_file(
    folder: Path, work: Path, seeds: Sequence[SeedFile], seed: int, number: int, worker: Worker, timeout_s: float
) -> tuple[dict[str, Any], Worker | None]:
    chosen, applied, files = mutated(seeds, seed, number)
    path = folder / f"{number}{chosen.suffix}"
    cache = folder / "cache"
    url = chosen.write(path, files)
    options = ReadOptions(limits=LIMITS, cache=cache)
    result, reason = worker.ask((url, options), timeout_s)
    left: Worker | None = worker
    if result is None:
        left = None
        isolated = replace(options, isolation="process", timeout_s=timeout_s)
        second = Worker(_read_within_memory)
        result, again = second.ask((url, isolated), 10 * timeout_s)
        second.close()
        if result is None or result.outcome == "failed":
            result = Result(outcome="failed", detail=f"{reason}; isolated: {again or result.detail}")
        else:
            result = Result(outcome="contained", detail=reason)
    if result.outcome in ("contained", "failed"):
        kept = work / result.outcome / f"{seed}_{path.name}"
        kept.parent.mkdir(exist_ok=True)
        shutil.rmtree(kept, ignore_errors=True)
        path.rename(kept)
    else:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.rmtree(cache, ignore_errors=True)
    detail = result.detail.replace(str(path), path.name)
    facts = {"form": chosen.form, "name": chosen.name, "mutation": applied}
    return {"number": number, **facts, "outcome": result.outcome, "detail": detail}, left


def summary(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the counts by format and by mutation, and the files that failed or were contained."""

    def counts(chosen: Sequence[dict[str, Any]]) -> dict[str, int]:
        outcomes = Counter(record["outcome"] for record in chosen)
        return {"tried": len(chosen), **{name: outcomes[name] for name in ("read", "refused", "contained", "failed")}}

    forms = sorted({record["form"] for record in records})
    mutations = sorted({name for record in records for name in record["mutation"].split(", ")})
    return {
        "total": counts(records),
        "formats": {form: counts([r for r in records if r["form"] == form]) for form in forms},
        "codecs": {form: len({r["name"] for r in records if r["form"] == form}) for form in forms},
        "mutations": {name: counts([r for r in records if name in r["mutation"].split(", ")]) for name in mutations},
        "contained": [record for record in records if record["outcome"] == "contained"],
        "failed": [record for record in records if record["outcome"] == "failed"],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000, help="number of files")
    parser.add_argument("--seed", type=int, default=0, help="seed of the mutations")
    parser.add_argument("--work", type=Path, required=True, help="folder of the journal and of files that failed")
    parser.add_argument("--out", type=Path, required=True, help="JSON of the counts")
    args = parser.parse_args()
    start = time.monotonic()
    records = []
    for record in run_campaign(args.work, seed=args.seed, numbers=range(args.count)):
        records.append(record)
        if record["outcome"] in ("contained", "failed"):
            print(record, flush=True)
        if len(records) % 1000 == 0:
            print(f"{len(records)} files, {time.monotonic() - start:.0f} s", flush=True)
    arguments = {"count": args.count, "seed": args.seed}
    packages = ("av", "numpy", "pillow", "scipy", "fsspec")
    store(args.out, arguments=arguments, packages=packages, parts=summary(records), show=False)
    total = summary(records)["total"]
    print(total)
    return int(total["failed"] > 0)


if __name__ == "__main__":
    raise SystemExit(main())
