"""Command line: typed options in, one library call, one report out."""

from kinema.cli.app import main

__all__ = ["main"]
