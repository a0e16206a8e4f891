"""Commands about data sets: check, pack, sampling, render."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from kinema.cli.command import Command
from kinema.errors import UsageError
from kinema.video.read_options import Limits, ReadOptions


def _check_read_options() -> ReadOptions:
    from kinema.curation.check import READ_OPTIONS

    return READ_OPTIONS


@dataclass(frozen=True, kw_only=True)
class Check(Command):
    """Decode every file of a manifest once and report what is wrong.

    The exit code is 1 if something is. An interrupted check continues where it stopped, and a later one decodes only
    what has changed.

    Args:
        manifest: CSV of a manifest, or the name of a built-in one.
        split: One or more splits to check; all if none is named.
        frames: Number of frames per clip.
        workers: Number of files that are read at the same time.
        out: Folder for check.html, check.json and bad_files.txt.
        cache: Folder that remembers what was found; `~/.cache/kinema/check` if omitted.
        read_options: Where and within which limits files are read.
    """

    manifest: Positional[str]
    split: tuple[str, ...] = ()
    frames: int = 16
    workers: int = os.cpu_count() or 1
    out: Path = Path("check")
    cache: Path | None = None
    read_options: ReadOptions = field(default_factory=_check_read_options)

    def run(self) -> int:
        """Check the manifest, and write a page and lists of what was found."""
        for name in ("frames", "workers"):
            if getattr(self, name) < 1:
                raise UsageError(f"--{name} {getattr(self, name)}; expected at least 1", field=f"--{name}")
        from kinema.curation.check import check
        from kinema.curation.inspections import memory_of
        from kinema.data.manifest import load_manifest
        from kinema.reports.check_lines import CheckProgress, check_lines
        from kinema.reports.check_page import write_check

        manifest = load_manifest(self.manifest)
        with CheckProgress() as progress:
            checked = check(
                manifest,
                memory=memory_of(manifest.path, self.cache),
                splits=self.split,
                clip_frames=self.frames,
                read_options=self.read_options,
                workers=self.workers,
                progress=progress.show,
            )
        for line in check_lines(checked):
            print(line)
        written = write_check(checked, self.out, self.read_options)
        print(f"page: {written.page}; all findings: {written.findings}; files to leave out: {written.bad_files}")
        return 1 if checked.faults else 0


@dataclass(frozen=True, kw_only=True)
class Pack(Command):
    """Re-encode a data set once for fast reading.

    RGB becomes small, with frequent keyframes; depth stays lossless. Each sample gets a file of its segment alone. The
    exit code is 1 if a file cannot be packed. An interrupted run continues where it stopped, and a later one packs only
    what is new or has changed.

    Args:
        manifest: CSV of a manifest, or the name of a built-in one.
        short_side: Shorter side of RGB [pixels]; frames are never enlarged.
        out: Folder for the files and their manifest; several manifests may share it.
        keyframe_every: Number of frames from keyframe to keyframe of RGB.
        crf: Quality of RGB, 1 to 51; lower is better and larger.
        preset: Preset of x264; a slower one makes smaller files that are read as fast.
        depth_short_side: Shorter side of depth [pixels], reduced by omitting pixels; unchanged if omitted.
        workers: Number of files that are packed at the same time.
        cache: Folder for copies of files behind URLs.
        limits: Limits of a file.
    """

    manifest: Positional[str]
    short_side: int
    out: Path
    keyframe_every: int = 8
    crf: int = 18
    preset: Literal["ultrafast", "veryfast", "fast", "medium", "slow"] = "veryfast"
    depth_short_side: int | None = None
    workers: int = os.cpu_count() or 1
    cache: Path | None = None
    limits: Limits = field(default_factory=Limits)

    def run(self) -> int:
        """Pack the manifest and print what could not be packed."""
        if self.workers < 1:
            raise UsageError(f"--workers {self.workers}; expected at least 1", field="--workers")
        from kinema.curation.pack import pack
        from kinema.data.manifest import load_manifest
        from kinema.reports.check_lines import CheckProgress
        from kinema.video.encode import Encoding

        try:
            encoding = Encoding(
                short_side=self.short_side,
                keyframe_every=self.keyframe_every,
                crf=self.crf,
                preset=self.preset,
                depth_short_side=self.depth_short_side,
            )
        except ValueError as error:
            raise UsageError(f"pack: {error}") from error
        manifest = load_manifest(self.manifest)
        with CheckProgress() as progress:
            packed = pack(
                manifest,
                self.out,
                encoding=encoding,
                read_options=ReadOptions(cache=self.cache, limits=self.limits),
                workers=self.workers,
                progress=progress.show,
            )
        for note in packed.notes:
            print(note)
        for reason in packed.unreadable:
            print(f"unreadable: {reason}")
        print(packed.summary)
        return 1 if packed.unreadable else 0


@dataclass(frozen=True, kw_only=True)
class Sampling(Command):
    """Print the frames that a recipe samples from a video.

    Args:
        manifest: CSV of a manifest, or the name of a built-in one.
        index: Position of the sample, from 0.
        recipe: Recipe whose clip section is used.
        draws: Number of training draws to print beside the frames of an evaluation.
    """

    manifest: Positional[str]
    index: int = 0
    recipe: str = "ctn_tiny"
    draws: int = 3

    def run(self) -> int:
        """Print a line per view and draw."""
        from kinema.data.manifest import load_manifest
        from kinema.reports.sampling import sampling_lines
        from kinema.training.recipe import load_recipe

        clip = load_recipe(self.recipe).clip
        for line in sampling_lines(load_manifest(self.manifest), self.index, clip, draws=self.draws):
            print(line)
        return 0


@dataclass(frozen=True, kw_only=True)
class Render(Command):
    """Render RGB-D clips of people in motion; needs the extra [render].

    Args:
        what: Set to render.
        out: Folder to write to.
    """

    what: Positional[Literal["moves"]]
    out: Path

    def run(self) -> int:
        """Render the set."""
        from kinema.render.moves import render_moves

        render_moves(self.out)
        return 0
