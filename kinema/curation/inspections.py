"""Parallel inspection of many files, with a journal of what was found.

Each worker may read in its own process, which a bad file may crash. An interrupted inspection resumes from the journal,
and a later one decodes only files that have changed. A record is valid for one path, size and modification time; the
last record of a path counts.
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

from kinema.config import from_json
from kinema.curation.inspect import VERSION, Inspection, inspect
from kinema.errors import UnreadableVideo
from kinema.files import Journal
from kinema.modality import Modality
from kinema.video.read_options import ReadOptions
from kinema.video.remote_cache import default_cache, local_path
from kinema.video.sandbox import SandboxWorker


class MediaFile(NamedTuple):
    """File, folder or URL, and the modality it is read as."""

    path: str
    kind: Modality


@dataclass(frozen=True, kw_only=True)
class Inspected:
    """Inspections of many files.

    Args:
        found: inspection of each file, in the order requested.
        remembered: number of inspections taken from the journal.
    """

    found: Mapping[MediaFile, Inspection]
    remembered: int


def inspect_all(
    sources: Iterable[MediaFile],
    *,
    read_options: ReadOptions,
    workers: int,
    memory: Path,
    progress: Callable[[int, int], None] | None = None,
) -> Inspected:
    """Inspect every file once.

    Args:
        sources: files to inspect; duplicates are inspected once.
        read_options: limits, and whether each worker reads in its own process.
        workers: number of files inspected at the same time.
        memory: journal; created if it does not exist.
        progress: called after each file with the number done and how many of those were remembered.

    Raises:
        ValueError: `workers` is below 1.
    """
    if workers < 1:
        raise ValueError(f"workers={workers} must be at least 1")
    wanted = list(dict.fromkeys(sources))
    found: dict[MediaFile, Inspection] = {}
    remembered = 0
    with (
        _Memory(memory, read_options) as known,
        _Workers(read_options, known) as team,
        ThreadPoolExecutor(workers) as pool,
    ):
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
    """Return the journal for a manifest's files; the manifests of one folder share it."""
    place = hashlib.sha256(str(manifest.parent.resolve()).encode()).hexdigest()[:16]
    return (folder or default_cache() / "check") / f"{place}.jsonl"


class _Memory:
    """Inspections by file and state, read from and appended to a journal."""

    def __init__(self, path: Path, read_options: ReadOptions) -> None:
        limits = hashlib.sha256(json.dumps(asdict(read_options.limits)).encode()).hexdigest()[:8]
        self._version = f"{VERSION}-{limits}"  # another limit may let pass what this one refuses
        self._journal = Journal(path)
        self._known: dict[MediaFile, tuple[list[int], Inspection]] = {}
        for record in self._journal.read():
            try:
                if record["version"] == self._version:
                    source = MediaFile(record["path"], record["kind"])
                    state = [int(number) for number in record["state"]]
                    self._known[source] = state, from_json(Inspection, record["inspection"])
            except (ValueError, KeyError, TypeError):
                pass  # written by another version: inspected again

    def __enter__(self) -> "_Memory":
        return self

    def __exit__(self, *_: object) -> None:
        self._journal.close()

    def recall(self, source: MediaFile, state: list[int]) -> Inspection | None:
        there = self._known.get(source)
        return None if there is None or there[0] != state else there[1]

    def keep(self, source: MediaFile, state: list[int], inspection: Inspection) -> None:
        record = {"version": self._version, "path": source.path, "kind": source.kind, "state": state}
        self._journal.append({**record, "inspection": asdict(inspection)})


class _Workers:
    """State shared by the threads, and their reader processes."""

    def __init__(self, read_options: ReadOptions, known: _Memory) -> None:
        self._read_options = read_options
        self._known = known
        self._own = threading.local()
        self._readers: list[SandboxWorker] = []

    def __enter__(self) -> "_Workers":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Kill the reader processes."""
        for reader in self._readers:
            reader.close()

    def look_at(self, source: MediaFile) -> tuple[Inspection, bool]:
        """Return the inspection of a file, and whether it was taken from the journal."""
        try:
            file = local_path(source.path, self._read_options)
        except UnreadableVideo:
            return inspect(source.path, source.kind, self._read_options), False  # which says why
        state = state_of(file)
        known = None if state is None else self._known.recall(source, state)
        if known is not None:
            return known, True
        if self._read_options.isolation == "none":
            inspection = inspect(source.path, source.kind, self._read_options)
        else:
            try:
                answer, _ = self._reader().ask("inspect", file, kind=source.kind)
            except UnreadableVideo as error:  # the process crashed or hung; another time it may not
                reason = str(error).removeprefix(f"{file}: ")
                return Inspection(form="video", problem="unreadable", reason=reason), False
            inspection = from_json(Inspection, _said_of(answer, file, source.path))
        if state is not None:
            self._known.keep(source, state, inspection)
        return inspection, False

    def _reader(self) -> SandboxWorker:
        if not hasattr(self._own, "reader"):
            self._own.reader = SandboxWorker(self._read_options, "kinema.curation.inspect_worker")
            self._readers.append(self._own.reader)
        reader: SandboxWorker = self._own.reader
        return reader


def _said_of(answer: dict[str, Any], file: str, path: str) -> dict[str, Any]:
    return {**answer, "reason": answer["reason"].replace(file, path)}


def state_of(file: str) -> list[int] | None:
    """Return numbers that change with a file or the images of a folder, or None if it does not exist."""
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
