"""Many files looked at: in parallel, each in a process that a bad file may crash, and remembered from run to run.

What was found is kept in a file of JSON lines, one for each file looked at, written as they come: a run that was
stopped goes on where it was, and a later one looks only at files that have changed. A line holds for a path, its size
and its time of change; the last line of a path wins; lines that cannot be read are ignored.
"""

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cattrs

from kinema.curation.inspect import VERSION, Inspection, inspect
from kinema.errors import UnreadableVideo
from kinema.modality import Modality
from kinema.video.read_options import ReadOptions
from kinema.video.remote_cache import default_cache, local_path
from kinema.video.sandbox import SandboxWorker


class Source(NamedTuple):
    """A file, folder or URL, and what it is read as."""

    path: str
    kind: Modality


@dataclass(frozen=True, kw_only=True)
class Inspected:
    """What was found.

    Args:
        found: for every source that was asked for.
        remembered: how many of them were not looked at again.
    """

    found: Mapping[Source, Inspection]
    remembered: int


def inspect_all(
    sources: Iterable[Source],
    *,
    reading: ReadOptions,
    workers: int,
    memory: Path,
    progress: Callable[[int, int], None] | None = None,
) -> Inspected:
    """Look at every file once.

    Args:
        sources: what to look at; what stands twice is looked at once.
        reading: the limits, and whether each worker has a process of its own to read in.
        workers: files that are looked at at the same time.
        memory: the file of JSON lines; made where there is none.
        progress: told after each file how many are done, and how many of these were remembered.

    Raises:
        ValueError: there is no worker.
    """
    if workers < 1:
        raise ValueError(f"workers={workers} must be at least 1")
    wanted = list(dict.fromkeys(sources))
    found: dict[Source, Inspection] = {}
    remembered = 0
    with _Memory(memory, reading) as known, _Workers(reading, known) as team, ThreadPoolExecutor(workers) as pool:
        jobs = {pool.submit(team.look_at, source): source for source in wanted}
        try:
            for job in as_completed(jobs):
                found[jobs[job]], was_known = job.result()
                remembered += was_known
                if progress is not None:
                    progress(len(found), remembered)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            team.stop()
            raise
    return Inspected(found={source: found[source] for source in wanted}, remembered=remembered)


def memory_of(manifest: Path, folder: Path | None) -> Path:
    """Where is remembered what is known of a manifest's files; the manifests of one folder share it."""
    place = hashlib.sha256(str(manifest.parent.resolve()).encode()).hexdigest()[:16]
    return (folder or default_cache() / "check") / f"{place}.jsonl"


class _Memory:
    """The file of JSON lines."""

    def __init__(self, path: Path, reading: ReadOptions) -> None:
        limits = hashlib.sha256(json.dumps(asdict(reading.limits)).encode()).hexdigest()[:8]
        self._version = f"{VERSION}-{limits}"  # another limit may let pass what this one refuses
        self._path = path
        self._lock = threading.Lock()
        self._known: dict[Source, tuple[list[int], Inspection]] = {}

    def __enter__(self) -> "_Memory":
        self._path.parent.mkdir(parents=True, exist_ok=True)
        content = self._path.read_bytes() if self._path.exists() else b""
        for line in content.splitlines():
            self._recall(line)
        self._file = self._path.open("ab")
        if content and not content.endswith(b"\n"):
            self._file.write(b"\n")  # what was torn off must not spoil the next line
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def recall(self, source: Source, state: list[int]) -> Inspection | None:
        there = self._known.get(source)
        return None if there is None or there[0] != state else there[1]

    def keep(self, source: Source, state: list[int], inspection: Inspection) -> None:
        record = {"version": self._version, "path": source.path, "kind": source.kind, "state": state}
        line = json.dumps({**record, "inspection": asdict(inspection)}).encode() + b"\n"
        with self._lock:
            self._file.write(line)
            self._file.flush()

    def _recall(self, line: bytes) -> None:
        try:
            record = json.loads(line)
            if record["version"] == self._version:
                source, state = Source(record["path"], record["kind"]), [int(number) for number in record["state"]]
                self._known[source] = state, cattrs.structure(record["inspection"], Inspection)
        except (ValueError, KeyError, TypeError, cattrs.BaseValidationError):
            pass  # torn, or of another make: looked at again


class _Workers:
    """What the threads share, and the processes in which they read."""

    def __init__(self, reading: ReadOptions, known: _Memory) -> None:
        self._reading = reading
        self._known = known
        self._own = threading.local()
        self._readers: list[SandboxWorker] = []

    def __enter__(self) -> "_Workers":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the processes, whatever they are reading."""
        for reader in self._readers:
            reader.close()

    def look_at(self, source: Source) -> tuple[Inspection, bool]:
        """What is known of a file, and whether it was known before."""
        try:
            file = local_path(source.path, self._reading)
        except UnreadableVideo:
            return inspect(source.path, source.kind, self._reading), False  # which says why
        state = state_of(file)
        known = None if state is None else self._known.recall(source, state)
        if known is not None:
            return known, True
        if self._reading.isolation == "none":
            inspection = inspect(source.path, source.kind, self._reading)
        else:
            try:
                answer, _ = self._reader().ask("inspect", file, kind=source.kind)
            except UnreadableVideo as error:  # the process crashed or hung; another time it may not
                reason = str(error).removeprefix(f"{file}: ")
                return Inspection(form="video", problem="unreadable", reason=reason), False
            inspection = cattrs.structure(_said_of(answer, file, source.path), Inspection)
        if state is not None:
            self._known.keep(source, state, inspection)
        return inspection, False

    def _reader(self) -> SandboxWorker:
        if not hasattr(self._own, "reader"):
            self._own.reader = SandboxWorker(self._reading, "kinema.curation.inspect_worker")
            self._readers.append(self._own.reader)
        reader: SandboxWorker = self._own.reader
        return reader


def _said_of(answer: dict[str, Any], file: str, path: str) -> dict[str, Any]:
    return {**answer, "reason": answer["reason"].replace(file, path)}


def state_of(file: str) -> list[int] | None:
    """Numbers that differ when a file or the pictures of a folder do; None where there is nothing."""
    try:
        about = os.stat(file)
        if not os.path.isdir(file):
            return [about.st_size, about.st_mtime_ns]
        with os.scandir(file) as items:
            within = [item.stat() for item in items if item.is_file()]
    except (OSError, ValueError):
        return None
    newest = max((item.st_mtime_ns for item in within), default=0)
    return [len(within), sum(item.st_size for item in within), newest, about.st_mtime_ns]
