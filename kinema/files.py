"""Files that take another's place at once: whenever a machine stops, the old one or the new one is whole."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def replacing(path: Path, *, also: Sequence[Path] = ()) -> Iterator[IO[bytes]]:
    """A file to write, which then takes the path's place; where writing fails, nothing half of it is left.

    Args:
        path: of the file.
        also: further names for it. They come first, so that what is killed between them has not gone past its step,
            and gives all names again.

    Raises:
        OSError: it cannot be written.
    """
    unfinished = path.with_suffix(".unfinished")
    made = [unfinished]
    try:
        with unfinished.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        for name in also:
            link = name.with_suffix(".unfinished")
            link.unlink(missing_ok=True)
            made.append(link)
            try:
                os.link(unfinished, link)
            except OSError:  # a file system without links
                shutil.copyfile(unfinished, link)
                flush(link)
            link.replace(name)
        unfinished.replace(path)
    finally:
        for half in made:
            half.unlink(missing_ok=True)
    flush(path.parent)


def flush(path: Path) -> None:
    """Have the system put a file, or a folder's names, on the disk."""
    if not path.exists():
        return
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
