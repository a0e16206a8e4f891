"""Packing: re-encode a dataset once for fast reading; same samples, frames and labels.

Each sample gets its own file, cut to its segment and, for RGB, to its box; samples of the same part share one file.
Several manifests may share an output folder: a second manifest of the same videos packs only new parts. `pack.jsonl`
has a line per finished file, so that an interrupted run can be resumed.
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

from kinema.curation.pack_source import Cancelled, PackSource, Part, Record, write_part
from kinema.data.manifest import Entry, Manifest, load_manifest, write_manifest
from kinema.errors import ManifestError, PackError, UnreadableVideo
from kinema.files import Journal, read_json, sync, write_texts
from kinema.modality import MODALITIES, Modality
from kinema.video.container import reason_of
from kinema.video.encode import Encoding
from kinema.video.read_options import READ_OPTIONS, ReadOptions
from kinema.video.streams import join_stream, split_stream

VERSION = 1
"""Version of the packed files. A folder of another version is refused."""


@dataclass(frozen=True, kw_only=True)
class PackResult:
    """Result of packing a manifest.

    Attributes:
        manifest: Manifest of the packed files.
        unreadable: Sources that cannot be packed, each with the reason. Their samples keep the original files.
        unpacked: Number of such samples.
        notes: Observations for the user.
        files: Number of packed files in the manifest.
        num_cached: Number of those that existed before.
        bytes_before: Size of the packed sources.
        bytes_after: Size of the packed files.
    """

    manifest: Manifest
    unreadable: tuple[str, ...]
    unpacked: int
    notes: tuple[str, ...]
    files: int
    num_cached: int
    bytes_before: int
    bytes_after: int

    @property
    def summary(self) -> str:
        """One line with counts and sizes."""
        unchanged = f" ({self.num_cached:,} unchanged)" if self.num_cached else ""
        return (
            f"{self.manifest.path}: {len(self.manifest.entries):,} samples in {self.files:,} packed files{unchanged}; "
            f"{self.bytes_before / 1e6:,.1f} MB before, {self.bytes_after / 1e6:,.1f} MB after; "
            f"{len(self.unreadable):,} files cannot be packed, {self.unpacked:,} samples keep their original files"
        )


def pack(
    manifest: Manifest,
    out: Path,
    *,
    encoding: Encoding,
    read_options: ReadOptions = READ_OPTIONS,
    workers: int = 1,
    progress: Callable[[int, int, int], None] | None = None,
) -> PackResult:
    """Re-encode the files of a manifest, and write a manifest of the packed files.

    Args:
        manifest: Manifest to pack.
        out: Output folder, created if missing. The new manifest in it has the name of the old one.
        encoding: Encoding of RGB and depth.
        read_options: Limits, and cache of remote files.
        workers: Number of threads; each packs one source at a time.
        progress: Called with the number of files done, their total, and how many of those done existed before.

    Raises:
        PackError: The folder contains a source, a manifest of other origin or files of another encoding, is in use by
            another run, or cannot be written, e.g. because the disk is full. Finished files are kept.
        ManifestError: A split declares fewer samples than it has.
    """
    if workers < 1:
        raise ValueError(f"workers={workers}; expected at least 1")
    samples = [_parts(manifest, entry) for entry in manifest.entries]
    parts = list(dict.fromkeys(part for sample in samples for part in sample.values()))
    _check_sources_outside(manifest, out, parts)
    _check_declared(manifest)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with _lock(out):
            _claim(out, manifest, encoding)
            for leftover in out.glob("*/*.unfinished"):
                leftover.unlink()
            with closing(_PackRun(out, encoding, read_options, len(parts), progress)) as run:
                run.pack_all(parts, workers)
            return _finish(manifest, out, encoding, samples, run)
    except OSError as error:
        raise PackError(
            f"{out}: cannot be written ({reason_of(error)}). Finished files are kept; run the same command to resume.",
            path=out,
        ) from error


def _parts(manifest: Manifest, entry: Entry) -> dict[Modality, Part]:
    """Return the part of a sample to pack, per modality."""
    parts: dict[Modality, Part] = {}
    for kind in MODALITIES:
        if entry.source(kind):
            path = manifest.locate(entry.source(kind))
            box = str(entry.rgb_box) if kind == "rgb" and entry.rgb_box is not None else ""
            encoding = (manifest.depth_encoding or "") if kind == "depth" else ""
            # With a rate of 0, frames are counted, and pairs belong together by number.
            beside = manifest.locate(entry.rgb) if kind == "depth" and entry.rgb and entry.rate != 0 else ""
            if beside and entry.rgb == entry.depth:  # two streams of one file
                beside = join_stream(beside, "rgb")
            if entry.start_s is not None:
                timed_by = manifest.locate(entry.rgb or entry.depth)
                if kind == "depth" and entry.rgb == entry.depth:
                    timed_by = join_stream(timed_by, "rgb")
                parts[kind] = Part(kind, path, entry.start_s, entry.stop_s, timed_by, box, encoding, beside)
            else:
                start, stop = entry.start_frame, entry.stop_frame
                parts[kind] = Part(kind, path, start, stop, box=box, encoding=encoding, beside=beside)
    return parts


# -- output folder -----------------------------------------------------------------------------------------------------


def _check_sources_outside(manifest: Manifest, out: Path, parts: Iterable[Part]) -> None:
    """Refuse an output folder that contains the manifest or a source."""
    folder = out.resolve()
    for path in (str(manifest.path), *(part.path for part in parts)):
        if "://" not in path and Path(os.path.realpath(split_stream(path)[0])).is_relative_to(folder):
            raise PackError(f"{path}: lies in the output folder {out}. Choose another folder.", path=path, field="out")


def _check_declared(manifest: Manifest) -> None:
    """Refuse a manifest with too small declared counts early, since writing it would fail only after packing."""
    for split, count in Counter(entry.split for entry in manifest.entries).items():
        declared = manifest.declared.get(split, 0)
        if declared < count:
            facts = manifest.path.with_suffix(".json")
            raise ManifestError(
                f"{facts}: declares {declared} samples of split {split!r}; expected at least the {count} listed. "
                "Correct the declared count.",
                path=facts,
                field="declared",
            )


@contextmanager
def _lock(out: Path) -> Iterator[None]:
    """Hold a file lock that allows one run at a time; the system releases it when the process ends."""
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
    """Store the encoding and the origin of the manifest; refuse a folder of another encoding or origin."""
    path, target = out / "pack.json", out / manifest.path.name
    origin, options, manifests = str(manifest.path.resolve()), asdict(encoding), dict[str, str]()
    if path.exists():
        try:
            stored = read_json(path)
            version, manifests = stored["version"], dict(stored["manifests"])
            stored_options = {"deinterlace": "none"} | stored["encoding"]
        except (ValueError, KeyError, TypeError) as error:
            raise PackError(
                f"{path}: cannot be read ({error}). Choose another folder, or delete this one.", path=path
            ) from error
        if (version, stored_options) != (VERSION, options):
            other = {name: stored_options.get(name) for name in options if stored_options.get(name) != options[name]}
            listed = ", ".join(f"{name}={value}" for name, value in other.items()) or f"version {version}"
            raise PackError(
                f"{out}: packed with other options ({listed}). Use the same, or choose another folder.",
                path=out,
                field=next(iter(other), "version"),
            )
    claimed = manifests.get(target.name)
    if claimed not in (None, origin) or (claimed is None and (target.exists() or target.with_suffix(".json").exists())):
        problem = f"packed from {claimed}" if claimed else "not a packed manifest"
        raise PackError(f"{target}: {problem}. Choose another folder.", path=target)
    content = {"version": VERSION, "encoding": options, "manifests": {**manifests, target.name: origin}}
    write_texts({path: json.dumps(content, indent=2, ensure_ascii=False) + "\n"})


# -- work --------------------------------------------------------------------------------------------------------------


class _PackRun:
    """State shared by the workers of one run: finished files, failures, and cancellation."""

    def __init__(
        self,
        out: Path,
        encoding: Encoding,
        read_options: ReadOptions,
        total: int,
        progress: Callable[[int, int, int], None] | None,
    ) -> None:
        self.records: dict[str, Record] = {}
        self.failures: dict[Part, str] = {}
        self.sizes: dict[str, int] = {}
        self.num_cached = 0
        self._out = out
        self._encoding = encoding
        self._read_options = read_options
        self._total = total
        self._progress = progress
        self._lock = threading.Lock()
        self._cancelled = threading.Event()
        self._done = 0
        self._journal = Journal(self._out / "pack.jsonl")
        for line in self._journal.read():
            try:
                record = Record(**{**line, "state": tuple(line["state"])})
            except (KeyError, TypeError):
                continue  # written by another version: packed again
            self.records[record.key] = record
        for kind in MODALITIES:
            (self._out / kind).mkdir(exist_ok=True)

    def close(self) -> None:
        self._journal.close()

    def pack_all(self, parts: Iterable[Part], workers: int) -> None:
        """Pack all parts, grouped by source, so that a file of many segments is scanned once."""
        sources: dict[tuple[Modality, str], list[Part]] = defaultdict(list)
        for part in parts:
            sources[part.kind, part.path].append(part)
        with ThreadPoolExecutor(workers) as pool:
            jobs = [pool.submit(self._pack_source, path, group) for (_, path), group in sources.items()]
            try:
                for job in as_completed(jobs):
                    job.result()
            except BaseException:
                self._cancelled.set()
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def _pack_source(self, path: str, parts: Sequence[Part]) -> None:
        try:
            options = replace(self._read_options, deinterlace=self._encoding.deinterlace)
            source = PackSource(path, options, parts[0].read_as)
        except UnreadableVideo as error:
            for part in parts:
                self._finish_part(part, failure=str(error))
            return
        with closing(source):
            self.sizes[path] = source.bytes
            for part in parts:
                if self._cancelled.is_set():
                    return
                try:
                    state = source.state(part)
                    record = self.records.get(part.key)
                    # A source that was deleted after packing has not changed.
                    if record is not None and self._is_current(record, source, state):
                        self._finish_part(part)
                        continue
                    record = write_part(part, source, state, self._out, self._encoding, self._cancelled.is_set)
                    self._finish_part(part, record=record)
                except UnreadableVideo as error:
                    self._finish_part(part, failure=str(error).replace(source.file, path))
                except Cancelled:
                    return

    def _is_current(self, record: Record, source: PackSource, state: tuple[int, ...]) -> bool:
        file = self._out / record.file
        if state not in ((), record.state) or not file.is_file() or file.stat().st_size != record.bytes:
            return False
        return state == () or not source.is_outdated(record)

    def _finish_part(self, part: Part, *, record: Record | None = None, failure: str = "") -> None:
        """Count a part as done, and store its new record or failure; without either, it was packed before."""
        with self._lock:
            if record is not None:
                self.records[part.key] = record
                self._journal.append(asdict(record))
            elif failure:
                self.failures[part] = failure
            else:
                self.num_cached += 1
            self._done += 1
            if self._progress is not None:
                self._progress(self._done, self._total, self.num_cached)


# -- new manifest ------------------------------------------------------------------------------------------------------


def _finish(
    manifest: Manifest, out: Path, encoding: Encoding, samples: Sequence[Mapping[Modality, Part]], run: _PackRun
) -> PackResult:
    """Write the new manifest and return the result."""
    target = out / manifest.path.name
    suffix = f"packed {encoding.short_side}"
    # A manifest is two files: write both to a temporary folder, then rename them.
    temporary = out / "manifest.unfinished"
    temporary.mkdir(exist_ok=True)
    write_manifest(
        temporary / target.name,
        entries=[_entry(entry, out, parts, run) for entry, parts in zip(manifest.entries, samples, strict=True)],
        classes=manifest.classes,
        dataset=manifest.dataset,
        version=f"{manifest.version}, {suffix}" if manifest.version else suffix,
        depth=manifest.depth,
        depth_encoding=manifest.depth_encoding,
        declared=manifest.declared,
        mirrored=manifest.mirrored,
    )
    for name in (target.with_suffix(".json").name, target.name):
        sync(temporary / name)
        (temporary / name).replace(out / name)
    temporary.rmdir()
    sync(out)
    packed = {part.key: part for parts in samples for part in parts.values() if part not in run.failures}
    records = [run.records[key] for key in packed]
    return PackResult(
        manifest=load_manifest(target),
        unreadable=tuple(dict.fromkeys(run.failures.values())),
        unpacked=sum(any(part in run.failures for part in parts.values()) for parts in samples),
        notes=tuple(_notes(manifest, samples, run, records)),
        files=len(records),
        num_cached=run.num_cached,
        bytes_before=sum(run.sizes[path] for path in {part.path for part in packed.values()}),
        bytes_after=sum(record.bytes for record in records),
    )


def _entry(entry: Entry, out: Path, parts: Mapping[Modality, Part], run: _PackRun) -> Entry:
    """Return the sample with its packed files, without segment and box.

    A sample with a file that cannot be packed keeps all original files, with an unknown number of frames.
    """
    if any(part in run.failures for part in parts.values()):
        files = {kind: _relative(part.path, out) for kind, part in parts.items()}
        return replace(entry, **files, frames=None)  # type: ignore[arg-type]  # paths alone
    records = {kind: run.records[part.key] for kind, part in parts.items()}
    files = {kind: record.file for kind, record in records.items()}
    is_complete_video = entry.start_s is None and entry.start_frame is None
    counted = records["rgb" if "rgb" in records else "depth"]
    frames = counted.frames
    return replace(
        entry,
        **files,  # type: ignore[arg-type]  # paths alone
        rgb_box=None,
        start_s=None,
        stop_s=None,
        start_frame=None,
        stop_frame=None,
        frames=entry.frames if is_complete_video and entry.frames is not None else frames,
        # The packed frames of images without times have times by number, which mean nothing.
        rate=0.0 if entry.rate is None and counted is records.get("rgb") and not counted.timed else entry.rate,
    )


def _relative(path: str, out: Path) -> str:
    if "://" in path:
        return path
    file, stream = split_stream(path)
    return join_stream(Path(os.path.relpath(file, out.resolve())).as_posix(), stream)


def _notes(
    manifest: Manifest, samples: Sequence[Mapping[Modality, Part]], run: _PackRun, records: Sequence[Record]
) -> Iterator[str]:
    copied = sum(record.form == "copied" for record in records)
    if copied:
        yield f"{copied:,} files copied unchanged: small RGB with frequent keyframes, or 8-bit depth in a video"
    interlaced = sum(record.interlaced for record in records)
    if interlaced:
        yield f"{interlaced:,} interlaced files stay combed, and are no longer marked. Use --deinterlace spatial."
    unequal = sum(record.unequal_times for record in records)
    if unequal:
        yield f"{unequal:,} depth files have other time stamps than their RGB; both are cut by the frames of RGB"
    lines = [
        entry.line
        for entry, parts in zip(manifest.entries, samples, strict=True)
        if entry.frames is not None
        and (part := parts.get("rgb") or parts["depth"]) not in run.failures
        and part.start is None
        and run.records[part.key].frames != entry.frames
    ]
    if lines:
        yield (
            f"{len(lines):,} lines of the manifest have a wrong number of frames, e.g. line {lines[0]}; "
            "it is copied unchanged. Run `kinema check` for details."
        )
