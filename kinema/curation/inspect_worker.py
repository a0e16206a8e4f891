"""Sandbox worker that inspects files: `python -m kinema.curation.inspect_worker OPTIONS`."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from kinema.curation.inspect import inspect
from kinema.video.read_options import ReadOptions
from kinema.video.sandbox_worker import serve


def inspect_operation(path: str, arguments: Mapping[str, Any], options: ReadOptions) -> tuple[dict[str, Any], None]:
    """Return an inspection as JSON."""
    return asdict(inspect(path, arguments["kind"], options, arguments["encoding"])), None


if __name__ == "__main__":
    serve({"inspect": inspect_operation})
