"""Files behind URLs: copied once to a local folder, so that every reader reads files.

Any URL that fsspec opens (http, s3, gs, zip, memory, ...; chained ones too). A copy is complete or it is not there: it
is written under another name, its size is compared with what the server announced, and it is renamed at last.
"""

import hashlib
import json
import os
import posixpath
import time
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import fsspec
from fsspec.implementations.local import LocalFileSystem

from kinema.errors import UnreadableVideo
from kinema.files import atomic_path, remove
from kinema.video.read_options import Limits, ReadOptions

FRESH_S = 3600.0
"""Seconds for which a copy is used without asking the server whether its file has changed."""

VERSION_FIELDS = ("size", "mtime", "created", "ETag", "etag", "LastModified", "last_modified", "md5Hash", "generation")
"""What file systems say of a file that differs when its content does."""

CHUNK = 2**20


def local_path(path: str, read_options: ReadOptions) -> str:
    """A path as it is; for a URL, the path of its local copy, made where there is none or the file has changed.

    Raises:
        UnreadableVideo: the URL cannot be reached, is larger than the limits allow, or breaks off while being copied.
    """
    if "://" not in path:
        return path
    try:
        system, inside = fsspec.core.url_to_fs(path)
    except (ImportError, ValueError, OSError) as error:
        raise UnreadableVideo(f"{path}: cannot open this URL ({error})", path=path) from error
    if type(system) is LocalFileSystem:
        return str(inside)
    folder = (read_options.cache or default_cache()) / "files"
    key = hashlib.sha256(path.encode()).hexdigest()
    note = folder / f"{key}.json"
    known = _read_note(note)
    if known is not None and time.time() - note.stat().st_mtime < FRESH_S:
        return str(folder / known["copy"])
    try:
        info = system.info(inside)
        version = hashlib.sha256(repr([info.get(field) for field in VERSION_FIELDS]).encode()).hexdigest()[:16]
        if known is not None and known["version"] == version:
            os.utime(note)
            return str(folder / known["copy"])
        folder.mkdir(parents=True, exist_ok=True)
        copy = f"{key}-{version}{_suffix(path)}"
        with atomic_path(folder / copy) as temporary:
            if info.get("type") == "directory":
                _copy_folder(system, inside, temporary, read_options.limits)
            else:
                _copy_file(system, inside, temporary, info.get("size"), read_options.limits)
        with atomic_path(note) as temporary:
            temporary.write_text(json.dumps({"version": version, "copy": copy}), encoding="utf-8")
        if known is not None and known["copy"] != copy:
            remove(folder / known["copy"])
    except UnreadableVideo as error:
        raise UnreadableVideo(f"{path}: {error}", path=path) from error
    except Exception as error:  # every file system has errors of its own
        raise UnreadableVideo(f"{path}: cannot be fetched ({_described(error)})", path=path) from error
    return str(folder / copy)


def default_cache() -> Path:
    """`~/.cache/kinema`, or where `XDG_CACHE_HOME` says."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kinema"


def _copy_file(system: Any, inside: str, target: Path, announced: int | None, limits: Limits) -> None:
    if announced is not None and announced > limits.file_bytes:
        raise UnreadableVideo(f"has {announced:,} bytes, more than the limit of {limits.file_bytes:,}")
    copied = 0
    with system.open(inside, "rb") as source, target.open("wb") as file:
        while chunk := source.read(CHUNK):
            copied += len(chunk)
            if copied > limits.file_bytes:
                raise UnreadableVideo(f"has more bytes than the limit of {limits.file_bytes:,}")
            file.write(chunk)
    if announced is not None and copied != announced:
        raise UnreadableVideo(f"breaks off: {copied:,} of {announced:,} bytes came")


def _copy_folder(system: Any, inside: str, target: Path, limits: Limits) -> None:
    """The files of a folder, not those of folders in it: a folder of pictures has no more."""
    target.mkdir()
    left = limits.file_bytes
    for info in system.ls(inside, detail=True):
        if info["type"] != "file":
            continue
        name = posixpath.basename(info["name"].rstrip("/"))
        if name in ("", ".", ".."):
            continue
        if info.get("size") is not None and info["size"] > left:
            raise UnreadableVideo(f"its files have more bytes than the limit of {limits.file_bytes:,}")
        _copy_file(system, info["name"], target / name, info.get("size"), limits)
        left -= (target / name).stat().st_size


def _suffix(url: str) -> str:
    """The ending by which readers tell arrays from videos; of the inner file where URLs are chained."""
    return PurePosixPath(urlsplit(url.split("::")[0]).path).suffix.lower()[:8]


def _read_note(note: Path) -> dict[str, str] | None:
    """What is known of a copy; None where there is none, or it was deleted by hand."""
    try:
        known = json.loads(note.read_text(encoding="utf-8"))
        copy = PurePosixPath(known["copy"]).name
        return {"version": str(known["version"]), "copy": copy} if (note.parent / copy).exists() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _described(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
