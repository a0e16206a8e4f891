"""Cache of files behind URLs, copied once to a local folder, so that every reader reads files.

URLs of the `PROTOCOLS` work, chained ones too. Others are refused: some that fsspec knows run commands or read other
files that a URL names. A copy is complete or absent: it is written under another name, compared with the size that the
server declared, and renamed last.
"""

import errno
import hashlib
import json
import os
import posixpath
import re
import time
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import fsspec
from fsspec.implementations.local import LocalFileSystem

from kinema.errors import CacheError
from kinema.files import atomic_path, is_special, read_json, remove
from kinema.video.container import reading
from kinema.video.read_options import Limits, ReadOptions
from kinema.video.streams import join_stream, split_stream
from kinema.video.unreadable import over_limit, unreadable

PROTOCOLS = frozenset(
    {"file", "local", "http", "https", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "zip", "tar", "memory"}
)
"""Protocols that only return the bytes of a file."""

FRESH_S = 3600.0
"""Seconds for which a copy is used without asking the server whether its file has changed."""

VERSION_FIELDS = ("size", "mtime", "created", "ETag", "etag", "LastModified", "last_modified", "md5Hash", "generation")
"""Fields of file systems that change with a file's content."""

CHUNK = 2**20


def local_path(path: str, read_options: ReadOptions) -> str:
    """Return a path unchanged; for a URL, return its local copy, made if it is absent or the file has changed.

    Raises:
        UnreadableVideo: The URL has another protocol, cannot be reached, exceeds the limits, or breaks off while it is
            copied.
    """
    if "://" not in path:
        return path
    url, stream = split_stream(path)
    return join_stream(_local_copy(url, read_options), stream)


def _local_copy(path: str, read_options: ReadOptions) -> str:
    """Return the local copy of a URL, which names no stream."""
    _check_protocols(path)
    if is_special(path.split("::")[-1].removeprefix("file://").removeprefix("local://")):
        raise unreadable(path, "not a regular file")
    with reading(path, "cannot open this URL"):
        system, inner = fsspec.core.url_to_fs(path)
    if type(system) is LocalFileSystem:
        return str(inner)
    try:
        folder = make_cache(read_options.cache, "files", "--read.cache")
    except CacheError as error:
        raise unreadable(path, f"cannot be copied; {error}") from error
    key = hashlib.sha256(os.fsencode(path)).hexdigest()
    note = folder / f"{key}.json"
    cached = _read_note(note)
    if cached is not None and time.time() - note.stat().st_mtime < FRESH_S:
        return str(folder / cached["copy"])
    with reading(path, "cannot be fetched"):
        info = system.info(inner)
        version = hashlib.sha256(repr([info.get(field) for field in VERSION_FIELDS]).encode()).hexdigest()[:16]
        if cached is not None and cached["version"] == version:
            os.utime(note)
            return str(folder / cached["copy"])
        copy = f"{key}-{version}{_suffix(path)}"
        with atomic_path(folder / copy) as temporary:
            if info.get("type") == "directory":
                _copy_folder(path, system, inner, temporary, read_options.limits)
            else:
                _copy_file(path, system, inner, temporary, info.get("size"), read_options.limits)
        with atomic_path(note) as temporary:
            temporary.write_text(json.dumps({"version": version, "copy": copy}), encoding="utf-8")
        if cached is not None and cached["copy"] != copy:
            remove(folder / cached["copy"])
    return str(folder / copy)


def _check_protocols(url: str) -> None:
    """Check each link of a chain; fsspec takes a link that is a word or the name of a protocol as that protocol."""
    for link in url.split("::"):
        protocol, separator, _ = link.partition("://")
        if not separator and not link.startswith("data:"):
            is_name = re.fullmatch("[a-z]+", link) or link in fsspec.available_protocols()
            protocol = link if is_name else "file"
        if protocol not in PROTOCOLS:
            expected = ", ".join(sorted(PROTOCOLS))
            problem = f"protocol {protocol!r} is not supported; expected one of {expected}. Copy the file."
            raise unreadable(url, problem)


def default_cache() -> Path:
    """Return `~/.cache/kinema`, or `kinema` in `XDG_CACHE_HOME`.

    Raises:
        CacheError: There is no home.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kinema"
    except RuntimeError as error:
        raise CacheError("the home folder is unknown. Set HOME or XDG_CACHE_HOME.", field="XDG_CACHE_HOME") from error


def make_cache(folder: Path | None, kind: str, option: str) -> Path:
    """Return a writable folder of the cache, made if it is absent.

    Args:
        folder: Folder of the user's choice; None for the default cache.
        kind: Name of the folder in the cache.
        option: Option by which the user chooses another folder; empty if there is none.

    Raises:
        CacheError: The folder cannot be made or written.
    """
    advice = f"Pass {option} DIR, or set XDG_CACHE_HOME." if option else "Set XDG_CACHE_HOME."
    path = (folder or default_cache()) / kind
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        problem = f"{path}: the cache cannot be written ({error.strerror}). {advice}"
        raise CacheError(problem, path=path, field=option or "XDG_CACHE_HOME") from error
    return path


def _copy_file(url: str, system: Any, inner: str, target: Path, size: int | None, limits: Limits) -> None:
    if size is not None and size > limits.file_bytes:
        raise over_limit(url, f"has {size:,} bytes", limits, "file_bytes")
    copied = 0
    with system.open(inner, "rb") as source, target.open("wb") as file:
        while chunk := source.read(CHUNK):
            copied += len(chunk)
            if copied > limits.file_bytes:
                raise over_limit(url, "has too many bytes", limits, "file_bytes")
            file.write(chunk)
    if size is not None and copied != size:
        raise unreadable(url, f"breaks off: expected {size:,} bytes, got {copied:,}")


def _copy_folder(url: str, system: Any, inner: str, target: Path, limits: Limits) -> None:
    """Copy the files of a folder, without its subfolders: a folder of images needs no more."""
    target.mkdir()
    free = limits.file_bytes
    for info in system.ls(inner, detail=True):
        if info["type"] != "file":
            continue
        name = posixpath.basename(info["name"].rstrip("/"))
        if name in ("", ".", ".."):
            continue
        if info.get("size") is not None and info["size"] > free:
            raise over_limit(url, "its files have too many bytes", limits, "file_bytes")
        _copy_file(url, system, info["name"], target / name, info.get("size"), limits)
        free -= (target / name).stat().st_size


def _suffix(url: str) -> str:
    """Return the suffix by which readers tell arrays from videos; that of the inner file if URLs are chained.

    A name without folders, as in `zip://clip.npz::all.zip`, is parsed as a host.
    """
    first = urlsplit(url.split("::")[0])
    return PurePosixPath(first.netloc + first.path).suffix.lower()[:8]


def _read_note(note: Path) -> dict[str, str] | None:
    """Return version and name of a copy; None if it is absent or was deleted by hand."""
    try:
        stored = read_json(note)
        copy = PurePosixPath(stored["copy"]).name
        return {"version": str(stored["version"]), "copy": copy} if (note.parent / copy).exists() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
