"""A data set encoded anew, once, so that reading is fast: the same samples, frames and labels in files of their own.

Each sample gets a file of its segment alone, and of RGB of its box alone; samples that show the same part of the same
file share one. A folder holds the packed files of any number of manifests, by what they were made of: a second manifest
of the same videos packs only what is new to it. What is finished is noted in `pack.jsonl`, a line a file, so that a run
that was stopped goes on.
"""

import fcntl
import json
import os
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kinema.curation.pack_source import PackSource, Part, Record, Stopped, write_part
from kinema.data.manifest import Entry, Manifest, load_manifest, write_manifest
from kinema.errors import ManifestError, PackError, UnreadableVideo
from kinema.files import Journal, atomic_write, sync
from kinema.modality import MODALITIES, Modality
from kinema.video.container import reason_of
from kinema.video.encode import Encoding
from kinema.video.read_options import READ_OPTIONS, ReadOptions

VERSION = 1
"""Of what is written; what another version has written is not gone on with."""


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A packed manifest, and what a user should know about it.

    Args:
        unreadable: sources that cannot be packed, each with the reason; samples that need them keep their old files.
        unpacked: samples that keep them.
        notes: what was decided or found, a sentence each.
        files: that the manifest names; `remembered` of them were there already.
        bytes_before, bytes_after: of the sources that were packed, and of the packed files.
    """

    manifest: Manifest
    unreadable: tuple[str, ...]
    unpacked: int
    notes: tuple[str, ...]
    files: int
    remembered: int
    bytes_before: int
    bytes_after: int

    @property
    def summary(self) -> str:
        there = f", {self.remembered:,} of them packed before" if self.remembered else ""
        return (
            f"{self.manifest.path}: {len(self.manifest.entries):,} samples, {self.files:,} packed files{there}; "
            f"{_megabytes(self.bytes_before)} before, {_megabytes(self.bytes_after)} after; "
            f"{len(self.unreadable):,} files cannot be packed, and {self.unpacked:,} samples keep their own"
        )


def pack(
    manifest: Manifest,
    out: Path,
    *,
    encoding: Encoding,
    read_options: ReadOptions = READ_OPTIONS,
    workers: int = 1,
    progress: Callable[[int, int, int], None] | None = None,
) -> Packed:
    """Encode every sample's part of its files anew, and write the same manifest of them.

    Args:
        out: the folder; made where there is none. The manifest in it has the name that it has now.
        read_options: limits, and where copies of URLs lie.
        workers: sources that are packed at the same time, by threads.
        progress: told how many files are done, of how many, and how many of these were there already.

    Raises:
        PackError: the folder holds a source, a manifest of other origin or files of another encoding, is being packed
            into by another run, or cannot be written, as where the disk is full. What is finished stays.
        ManifestError: a split declares fewer samples than it has.
    """
    if workers < 1:
        raise ValueError(f"workers={workers} must be at least 1")
    samples = [_parts(manifest, entry) for entry in manifest.entries]
    wanted = list(dict.fromkeys(part for parts in samples for part in parts.values()))
    _check_apart(manifest, out, wanted)
    _check_declared(manifest)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with _alone(out):
            _claim(out, manifest, encoding)
            for half in out.glob("*/*.unfinished"):  # of a run that was killed
                half.unlink()
            with _Run(out, encoding, read_options, wanted, progress) as run:
                run.pack_all(wanted, workers)
            return _finish(manifest, out, encoding, samples, run)
    except OSError as error:
        raise PackError(
            f"{out}: cannot be written ({reason_of(error)}); finished files are kept. Run the same command to resume.",
            path=out,
        ) from error


def _parts(manifest: Manifest, entry: Entry) -> dict[Modality, Part]:
    """What is to be packed of a sample."""
    parts: dict[Modality, Part] = {}
    for kind in MODALITIES:
        if entry.source(kind):
            path = manifest.locate(entry.source(kind))
            box = str(entry.rgb_box) if kind == "rgb" and entry.rgb_box is not None else ""
            if entry.start_s is not None:
                timed_by = manifest.locate(entry.rgb or entry.depth)
                parts[kind] = Part(kind, path, entry.start_s, entry.stop_s, timed_by, box)
            else:
                parts[kind] = Part(kind, path, entry.start_frame, entry.stop_frame, box=box)
    return parts


# -- the folder --------------------------------------------------------------------------------------------------------


def _check_apart(manifest: Manifest, out: Path, parts: Iterable[Part]) -> None:
    """Packing never writes beside, or around, what it reads."""
    folder = out.resolve()
    for path in (str(manifest.path), *(part.path for part in parts)):
        if "://" not in path and Path(path).resolve().is_relative_to(folder):
            raise PackError(f"{path}: lies in the output folder {out}. Choose another folder.", path=path, field="out")


def _check_declared(manifest: Manifest) -> None:
    """What writing the manifest would refuse, hours later."""
    for split, count in Counter(entry.split for entry in manifest.entries).items():
        if manifest.declared.get(split, 0) < count:
            facts = manifest.path.with_suffix(".json")
            raise ManifestError(
                f"{facts}: split {split!r} has {count} samples, but {manifest.declared.get(split, 0)} are declared. "
                "Correct the declared count.",
                path=facts,
                field="declared",
            )


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """One run at a time; the system lets go of the lock however a run ends."""
    with (out / "pack.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise PackError(
                f"{out}: another `kinema pack` is writing to this folder. Wait for it, or choose another folder.",
                path=out,
            ) from error
        yield


def _claim(out: Path, manifest: Manifest, encoding: Encoding) -> None:
    """Note down the encoding and where the manifest is from; refuse where the folder says otherwise."""
    note, target = out / "pack.json", out / manifest.path.name
    origin = str(manifest.path.resolve())
    known: dict[str, Any] = {"version": VERSION, "encoding": asdict(encoding), "manifests": {}}
    if note.exists():
        try:
            there = json.loads(note.read_text(encoding="utf-8"))
            version, encoded, manifests = there["version"], there["encoding"], dict(there["manifests"])
        except (ValueError, KeyError, TypeError) as error:
            raise PackError(
                f"{note}: cannot be read ({error}). Choose another folder, or delete this one.", path=note
            ) from error
        if (version, encoded) != (VERSION, known["encoding"]):
            other = {name: encoded.get(name) for name, value in known["encoding"].items() if encoded.get(name) != value}
            listed = ", ".join(f"{name}={value}" for name, value in other.items()) or f"version {version}"
            raise PackError(
                f"{out}: packed with other options ({listed}). Use the same, or choose another folder.",
                path=out,
                field=next(iter(other), "version"),
            )
        known["manifests"] = manifests
    claimed = known["manifests"].get(target.name)
    if claimed not in (None, origin) or (claimed is None and (target.exists() or target.with_suffix(".json").exists())):
        problem = f"packed from {claimed}" if claimed else "not a packed manifest"
        raise PackError(f"{target}: {problem}. Choose another folder.", path=target)
    known["manifests"][target.name] = origin
    with atomic_write(note) as file:
        file.write((json.dumps(known, indent=2, ensure_ascii=False) + "\n").encode())


# -- the work ----------------------------------------------------------------------------------------------------------


class _Run:
    """What the workers share: what is finished, what cannot be, and the way to stop."""

    def __init__(
        self,
        out: Path,
        encoding: Encoding,
        read_options: ReadOptions,
        wanted: Sequence[Part],
        progress: Callable[[int, int, int], None] | None,
    ) -> None:
        self.records: dict[str, Record] = {}
        self.failures: dict[Part, str] = {}
        self.sizes: dict[str, int] = {}
        self.remembered = 0
        self._out = out
        self._encoding = encoding
        self._read_options = read_options
        self._total = len(wanted)
        self._progress = progress
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._done = 0

    def __enter__(self) -> "_Run":
        self._journal = Journal(self._out / "pack.jsonl")
        for line in self._journal.read():
            try:
                record = Record(**{**line, "state": tuple(line["state"])})
            except (KeyError, TypeError):
                continue  # written by another version: packed again
            self.records[record.key] = record
        for kind in MODALITIES:
            (self._out / kind).mkdir(exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._journal.close()

    def pack_all(self, wanted: Iterable[Part], workers: int) -> None:
        """All parts, source by source, so that a file of many segments is looked through once."""
        sources: dict[tuple[Modality, str], list[Part]] = defaultdict(list)
        for part in wanted:
            sources[part.kind, part.path].append(part)
        with ThreadPoolExecutor(workers) as pool:
            jobs = [pool.submit(self._pack_source, path, parts) for (_, path), parts in sources.items()]
            try:
                for job in as_completed(jobs):
                    job.result()
            except BaseException:
                self._stopping.set()
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def _pack_source(self, path: str, parts: Sequence[Part]) -> None:
        try:
            source = PackSource(path, self._read_options)
        except UnreadableVideo as error:
            for part in parts:
                self._settle(part, failure=str(error))
            return
        with closing(source):
            self._pack_parts(path, source, parts)

    def _pack_parts(self, path: str, source: PackSource, parts: Sequence[Part]) -> None:
        self.sizes[path] = source.bytes
        for part in parts:
            if self._stopping.is_set():
                return
            try:
                state = source.state(part)
                known = self.records.get(part.key)
                # A source that is gone since it was packed is none that has changed.
                if known is not None and state in ((), known.state) and self._is_whole(known):
                    self._settle(part, remembered=True)
                    continue
                self._settle(
                    part, record=write_part(part, source, state, self._out, self._encoding, self._stopping.is_set)
                )
            except UnreadableVideo as error:
                self._settle(part, failure=source.said(error))
            except Stopped:
                return

    def _is_whole(self, record: Record) -> bool:
        file = self._out / record.file
        return file.is_file() and file.stat().st_size == record.bytes

    def _settle(self, part: Part, *, record: Record | None = None, failure: str = "", remembered: bool = False) -> None:
        with self._lock:
            if record is not None:
                self.records[part.key] = record
                self._journal.append(asdict(record))
            if failure:
                self.failures[part] = failure
            self._done += 1
            self.remembered += remembered
            if self._progress is not None:
                self._progress(self._done, self._total, self.remembered)


# -- the manifest ------------------------------------------------------------------------------------------------------


def _finish(
    manifest: Manifest, out: Path, encoding: Encoding, samples: Sequence[Mapping[Modality, Part]], run: _Run
) -> Packed:
    target = out / manifest.path.name
    packed = [_entry(entry, out, parts, run) for entry, parts in zip(manifest.entries, samples, strict=True)]
    words = f"packed {encoding.short_side}"
    # Written apart, since a manifest is two files, and renamed at once.
    apart = out / "manifest.unfinished"
    apart.mkdir(exist_ok=True)
    write_manifest(
        apart / target.name,
        entries=packed,
        classes=manifest.classes,
        dataset=manifest.dataset,
        version=f"{manifest.version}, {words}" if manifest.version else words,
        depth=manifest.depth,
        declared=manifest.declared,
    )
    for name in (target.with_suffix(".json").name, target.name):
        sync(apart / name)
        (apart / name).replace(out / name)
    apart.rmdir()
    sync(out)
    used = {part.key: part for parts in samples for part in parts.values() if part not in run.failures}
    records = [run.records[key] for key in used]
    return Packed(
        manifest=load_manifest(target),
        unreadable=tuple(dict.fromkeys(run.failures.values())),
        unpacked=sum(any(part in run.failures for part in parts.values()) for parts in samples),
        notes=tuple(_notes(manifest, samples, run)),
        files=len(records),
        remembered=run.remembered,
        bytes_before=sum(run.sizes[path] for path in {part.path for part in used.values()}),
        bytes_after=sum(record.bytes for record in records),
    )


def _entry(entry: Entry, out: Path, parts: Mapping[Modality, Part], run: _Run) -> Entry:
    """The sample with its packed files, without its segment and its box.

    Where one of its files cannot be packed, it keeps its own files, as `prepare` leaves what it cannot read: the number
    of frames is open.
    """
    if any(part in run.failures for part in parts.values()):
        files = {kind: _relative(part.path, out) for kind, part in parts.items()}
        return replace(entry, **files, frames=None)  # type: ignore[arg-type]  # paths alone
    records = {kind: run.records[part.key] for kind, part in parts.items()}
    files = {kind: record.file for kind, record in records.items()}
    whole = entry.start_s is None and entry.start_frame is None
    frames = records["rgb" if "rgb" in records else "depth"].frames
    return replace(
        entry,
        **files,  # type: ignore[arg-type]  # paths alone
        rgb_box=None,
        start_s=None,
        stop_s=None,
        start_frame=None,
        stop_frame=None,
        frames=entry.frames if whole and entry.frames is not None else frames,
    )


def _relative(path: str, out: Path) -> str:
    return path if "://" in path else Path(os.path.relpath(path, out.resolve())).as_posix()


def _notes(manifest: Manifest, samples: Sequence[Mapping[Modality, Part]], run: _Run) -> Iterator[str]:
    used = {part.key for parts in samples for part in parts.values() if part not in run.failures}
    copied = sum(run.records[key].form == "copied" for key in used)
    if copied:
        yield f"{copied:,} files were copied as they are: small RGB with close keyframes, or depth of 8 bits in a video"
    unequal = sum(run.records[key].unequal_times for key in used)
    if unequal:
        yield f"{unequal:,} depth files have other time stamps than their RGB, by whose frame numbers both were cut"
    other = [
        entry.line
        for entry, parts in zip(manifest.entries, samples, strict=True)
        if entry.frames is not None
        and (part := parts.get("rgb") or parts["depth"]) not in run.failures
        and part.start is None
        and run.records[part.key].frames != entry.frames
    ]
    if other:
        yield (
            f"{len(other):,} lines say another number of frames than their file holds, and still do, "
            f"e.g. line {other[0]}; `kinema check` says more"
        )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
