"""Sizes that are held against the memory of this machine before anything is allocated."""

import os
from collections.abc import Mapping
from pathlib import Path

from kinema.errors import ConfigError

CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
"""Limit of the container that this process runs in, in Linux."""

UNKNOWN = 2**37
"""Bytes assumed where the system does not tell its memory."""


def machine_memory() -> int:
    """Return the bytes of memory of this machine, or of the container that this process runs in."""
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        size = UNKNOWN
    try:
        return min(size, int(CGROUP_LIMIT.read_text()))
    except (OSError, ValueError):
        return size


def check_memory(what: str, size: int, limit: int, excess: Mapping[str, float]) -> None:
    """Check that something fits into memory.

    Args:
        what: Name of what is allocated, for the message.
        size: Its bytes.
        limit: Largest number of bytes.
        excess: Fields that the size depends on, each with the ratio of its value to a usual one.

    Raises:
        ConfigError: It does not fit; `field` is the one with the largest excess.
    """
    if size <= limit:
        return
    field = max(excess, key=lambda name: excess[name])
    problem = f"{what} takes {size / 2**30:,.1f} GiB; expected at most {limit / 2**30:,.1f}"
    raise ConfigError(f"{field}: {problem}. Reduce {field}.", field=field)
