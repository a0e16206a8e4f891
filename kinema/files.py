"""Files that survive a kill at any moment: atomic replacement, and append-only journals."""

import json
import os
import shutil
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


@contextmanager
def atomic_write(path: Path, *, also: Sequence[Path] = ()) -> Iterator[IO[bytes]]:
    """Write a file that replaces `path` in one step; the old or the new content is whole at any moment.

    The temporary file has a fixed name, so that what a killed process leaves is overwritten by the next write. Use
    `atomic_path` where several processes may write the same path.

    Args:
        path: file to replace.
        also: further names for the same content. They are replaced first: a process killed in between resumes
            before this write, and repeats all of them.

    Raises:
        OSError: the file cannot be written. Nothing of the new content is left.
    """
    temporary = path.with_suffix(".unfinished")
    created = [temporary]
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        for name in also:
            link = name.with_suffix(".unfinished")
            link.unlink(missing_ok=True)
            created.append(link)
            try:
                os.link(temporary, link)
            except OSError:  # a file system without links
                shutil.copyfile(temporary, link)
                sync(link)
            link.replace(name)
        temporary.replace(path)
    finally:
        for leftover in created:
            leftover.unlink(missing_ok=True)
    sync(path.parent)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a unique temporary path; the file or folder written there replaces `path` in one step.

    An existing folder is not replaced: another process has written it in the meantime.

    Raises:
        OSError: the content cannot be written. Nothing of it is left.
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
            if not path.exists():
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


class Journal:
    """Append-only file of JSON objects, one per line.

    Every record is written at once, so that a killed process loses at most the line it was writing. Threads may share
    a journal.

    Args:
        path: file to append to; created with its folders.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._lock = threading.Lock()
        self._file = path.open("ab")
        self._end_torn_line()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self) -> Iterator[dict[str, Any]]:
        """Yield the records in the order of their lines; a line that is torn or not a JSON object is skipped."""
        with self._path.open("rb") as lines:
            for line in lines:
                try:
                    record = json.loads(line)
                except ValueError:
                    continue
                if isinstance(record, dict):
                    yield record

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a record."""
        line = json.dumps(record).encode() + b"\n"
        with self._lock:
            self._file.write(line)
            self._file.flush()

    def _end_torn_line(self) -> None:
        """Keep a line that a killed process left unfinished from spoiling the next record."""
        with self._path.open("rb") as file:
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                if file.read() != b"\n":
                    self._file.write(b"\n")
                    self._file.flush()
