"""Parallel inspection of many files, with a journal of the results.

Each worker may read in its own process, which a bad file may crash. An interrupted inspection resumes from the journal,
and a later one decodes only files that have changed. A record is valid for one path, size and modification time; the
last record of a path counts.
"""

import hashlib
import json
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from kinema.config import from_json
from kinema.curation.inspect import VERSION, Inspection, inspect
from kinema.errors import UnreadableVideo
from kinema.files import Journal, state_of
from kinema.modality import DepthEncoding, Modality
from kinema.video.read_options import ReadOptions
from kinema.video.remote_cache import default_cache, local_path
from kinema.video.sandbox import SandboxWorker
from kinema.video.source import is_isolated
from kinema.video.streams import split_stream


class MediaFile(NamedTuple):
    """File, folder or URL, and the modality that it is read as."""

    path: str
    kind: Modality


def inspect_all(
    files: Iterable[MediaFile],
    *,
    read_options: ReadOptions,
    workers: int,
    journal: Path,
    depth_encoding: DepthEncoding | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[dict[MediaFile, Inspection], int]:
    """Inspect every file once; return the inspections in the order of the files, and how many were in the journal.

    Args:
        files: Files to inspect; duplicates are inspected once.
        read_options: Limits, and whether each worker reads in its own process.
        workers: Number of files inspected in parallel.
        journal: Journal; created if it does not exist.
        depth_encoding: Encoding of depth in color formats.
        progress: Called after each file with the number of files done and how many of those were in the journal.

    Raises:
        ValueError: `workers` is below 1.
    """
    if workers < 1:
        raise ValueError(f"workers={workers}; expected at least 1")
    unique = list(dict.fromkeys(files))
    inspections: dict[MediaFile, Inspection] = {}
    num_cached = 0
    with (
        closing(_InspectionCache(journal, read_options, depth_encoding)) as cache,
        closing(_Readers(read_options, cache, depth_encoding)) as readers,
        ThreadPoolExecutor(workers) as pool,
    ):
        jobs = {pool.submit(readers.inspect, file): file for file in unique}
        try:
            for job in as_completed(jobs):
                inspections[jobs[job]], is_cached = job.result()
                num_cached += is_cached
                if progress is not None:
                    progress(len(inspections), num_cached)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            readers.close()
            raise
    return {file: inspections[file] for file in unique}, num_cached


def journal_path(manifest: Path, folder: Path | None) -> Path:
    """Return the journal for the files of a manifest, in kinema's cache if `folder` is None.

    Manifests in the same folder share a journal.
    """
    name = hashlib.sha256(str(manifest.parent.resolve()).encode()).hexdigest()[:16]
    return (folder or default_cache() / "check") / f"{name}.jsonl"


class _InspectionCache:
    """Inspections by file and state, read from and appended to a journal."""

    def __init__(self, path: Path, read_options: ReadOptions, depth_encoding: DepthEncoding | None) -> None:
        limits = hashlib.sha256(json.dumps(asdict(read_options.limits)).encode()).hexdigest()[:8]
        # Other limits may give another result, and so may another encoding.
        self._version = "-".join(filter(None, (str(VERSION), limits, depth_encoding)))
        self._journal = Journal(path)
        self._records: dict[MediaFile, tuple[list[int], Inspection]] = {}
        for record in self._journal.read():
            try:
                if record["version"] == self._version:
                    file = MediaFile(record["path"], record["kind"])
                    state = [int(number) for number in record["state"]]
                    self._records[file] = state, from_json(Inspection, record["inspection"])
            except (ValueError, KeyError, TypeError):
                pass  # written by another version: inspected again

    def close(self) -> None:
        self._journal.close()

    def get(self, file: MediaFile, state: list[int]) -> Inspection | None:
        record = self._records.get(file)
        return None if record is None or record[0] != state else record[1]

    def put(self, file: MediaFile, state: list[int], inspection: Inspection) -> None:
        record = {"version": self._version, "path": file.path, "kind": file.kind, "state": state}
        self._journal.append({**record, "inspection": asdict(inspection)})


class _Readers:
    """Reader processes, one per thread, and the cache that the threads share."""

    def __init__(
        self, read_options: ReadOptions, cache: _InspectionCache, depth_encoding: DepthEncoding | None
    ) -> None:
        self._read_options = read_options
        self._depth_encoding = depth_encoding
        self._cache = cache
        self._thread = threading.local()
        self._readers: list[SandboxWorker] = []

    def close(self) -> None:
        """Kill the reader processes."""
        for reader in self._readers:
            reader.close()

    def inspect(self, file: MediaFile) -> tuple[Inspection, bool]:
        """Return the inspection of a file, and whether it was taken from the journal."""
        try:
            path = local_path(file.path, self._read_options)
        except UnreadableVideo:
            return self._inspect_here(file), False  # contains the reason
        state = state_of(split_stream(path)[0])
        cached = None if state is None else self._cache.get(file, state)
        if cached is not None:
            return cached, True
        if not is_isolated(split_stream(path)[0], self._read_options):
            inspection = self._inspect_here(file)
        else:
            try:
                answer, _ = self._reader().ask("inspect", path, kind=file.kind, encoding=self._depth_encoding)
            except UnreadableVideo as error:  # the process crashed or timed out, which may not happen again
                reason = str(error).removeprefix(f"{path}: ")
                return Inspection(form="video", problem="unreadable", reason=reason), False
            inspection = from_json(Inspection, {**answer, "reason": answer["reason"].replace(path, file.path)})
        if state is not None:
            self._cache.put(file, state, inspection)
        return inspection, False

    def _inspect_here(self, file: MediaFile) -> Inspection:
        return inspect(file.path, file.kind, self._read_options, self._depth_encoding)

    def _reader(self) -> SandboxWorker:
        if not hasattr(self._thread, "reader"):
            self._thread.reader = SandboxWorker(self._read_options, "kinema.curation.inspect_worker")
            self._readers.append(self._thread.reader)
        reader: SandboxWorker = self._thread.reader
        return reader
