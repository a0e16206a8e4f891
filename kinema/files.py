"""Crash-safe files: atomic replacement, and append-only journals."""

import errno
import json
import os
import shutil
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import IO, Any

MAX_TABLE = 2**30
"""Largest number of bytes of a table or a JSON file."""


@contextmanager
def atomic_write(path: Path, *, also: Sequence[Path] = ()) -> Iterator[IO[bytes]]:
    """Open a temporary file that atomically replaces `path` when it is closed.

    A device or a pipe, such as `/dev/stdout`, is written into instead. The temporary file has a fixed name, so that the
    next write overwrites the leftover of a killed process. Use `atomic_path` if several processes may write the same
    path.

    Args:
        path: File to replace.
        also: Further paths for the same content. They are replaced first, so that a process that is killed in between
            repeats the complete write after it resumes.

    Raises:
        OSError: The file cannot be written. The old content is kept and the temporary file removed.
    """
    if path.is_symlink():
        path = Path(os.path.realpath(path))  # `Path.resolve` raises for a link to itself
    is_open = path.parts[:2] in (("/", "dev"), ("/", "proc"))  # as `/dev/stdout`, which another process reads
    if path.exists() and (is_open or not path.is_file()):
        with path.open("wb") as file:  # raises for a folder
            yield file
        return
    temporary = _temporary(path)
    created = [temporary]
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        for name in also:
            link = _temporary(name)
            link.unlink(missing_ok=True)
            created.append(link)
            try:
                os.link(temporary, link)
            except OSError:  # file system without hard links
                shutil.copyfile(temporary, link)
                sync(link)
            link.replace(name)
        temporary.replace(path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT) and error.filename is None:
            error.filename = str(path)  # the message of a full disk names the file
        raise
    finally:
        for leftover in created:
            leftover.unlink(missing_ok=True)
    sync(path.parent)


def parse_json(text: str | bytes) -> Any:
    """Parse JSON of unknown origin.

    Raises:
        ValueError: The text is not JSON, or is nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_json(path: Path) -> Any:
    """Parse a JSON file of unknown origin.

    Raises:
        OSError: The file cannot be read, is not a regular file, or is too large.
        ValueError: The file is not JSON in UTF-8, or is nested too deeply.
    """
    return parse_json(read_bytes(path).decode())


def read_bytes(path: Path, limit: int = MAX_TABLE) -> bytes:
    """Return the content of a file of unknown origin.

    Raises:
        OSError: The file cannot be read, is not a regular file, or has more bytes than `limit`.
    """
    require_regular(path)
    size = path.stat().st_size
    if size > limit:
        raise OSError(errno.EFBIG, f"has {size:,} bytes; expected at most {limit:,}", str(path))
    return path.read_bytes()


def require_regular(path: str | Path) -> None:
    """Raise OSError for a pipe, a socket or a device, which may block or never end."""
    if is_special(path):
        raise OSError(errno.EINVAL, "not a regular file", str(path))


def is_special(path: str | Path) -> bool:
    """Return whether a path is a pipe, a socket or a device, or a link to one."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return not S_ISREG(mode) and not S_ISDIR(mode)


def write_texts(contents: Mapping[Path, str]) -> None:
    """Write text files, with their folders; none is replaced before all are written.

    Raises:
        OSError: A file cannot be written. The old content of all is kept.
    """
    with ExitStack() as replacements:
        for path, text in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            file = replacements.enter_context(atomic_write(path))
            file.write(text.encode(errors="backslashreplace"))  # `\\udce9` of a name in another encoding
            file.flush()


def _temporary(path: Path) -> Path:
    return path.with_name(f"{path.name}.unfinished")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a unique temporary path; the file or folder written there atomically replaces `path`.

    A folder that another process wrote in the meantime is kept.

    Raises:
        OSError: The content cannot be written. The temporary path is removed.
    """
    temporary = path.with_name(f"{uuid.uuid4().hex}.unfinished")
    try:
        yield temporary
        for file in temporary.iterdir() if temporary.is_dir() else ():
            sync(file)
        sync(temporary)
        try:
            temporary.replace(path)
        except OSError:
            if not path.is_dir():
                raise
    finally:
        remove(temporary)
    sync(path.parent)


def sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to disk."""
    if not path.exists():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Delete a file or a folder, if it exists."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def state_of(path: str) -> list[int] | None:
    """Return sizes and modification times of a file or of the images of a folder; None if it does not exist."""
    try:
        stat = os.stat(path)
        if not os.path.isdir(path):
            return [stat.st_size, stat.st_mtime_ns]
        with os.scandir(path) as items:
            files = [item.stat() for item in items if item.is_file()]
    except (OSError, ValueError):
        return None
    newest = max((file.st_mtime_ns for file in files), default=0)
    return [len(files), sum(file.st_size for file in files), newest, stat.st_mtime_ns]


class Journal:
    """Append-only file of JSON objects, one per line; created with its folders.

    Records are flushed one by one, so that a killed process loses at most one line. Threads may share a journal.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._lock = threading.Lock()
        self._file = path.open("ab")
        with path.open("rb") as file:  # a killed process may have left an incomplete line
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                if file.read() != b"\n":
                    self._file.write(b"\n")
                    self._file.flush()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self) -> Iterator[dict[str, Any]]:
        """Yield all records in order; skip lines that are incomplete or not JSON objects."""
        with self._path.open("rb") as lines:
            for line in lines:
                try:
                    record = parse_json(line)
                except ValueError:
                    continue
                if isinstance(record, dict):
                    yield record

    def append(self, record: Mapping[str, Any]) -> None:
        """Append a record."""
        line = json.dumps(record).encode() + b"\n"
        with self._lock:
            self._file.write(line)
            self._file.flush()
