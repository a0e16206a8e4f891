"""Commands for datasets: check, pack, sampling, render."""

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from tyro.conf import Positional

from kinema.cli.command import Command, at_least_one
from kinema.errors import UsageError
from kinema.terminal import echo
from kinema.video.read_options import Deinterlace, Limits, ReadOptions

logger = logging.getLogger(__name__)

MAX_DRAWS = 1000
"""Largest number of draws that `kinema sampling` prints."""


def _check_read_options() -> ReadOptions:
    from kinema.curation.check import READ_OPTIONS

    return READ_OPTIONS


@dataclass(frozen=True, kw_only=True)
class Check(Command):
    """Decode every file of a manifest once and report what is wrong.

    The exit code is 1 if the check finds a fault. Run the same command again to resume an interrupted check; files that
    have not changed are not decoded again.

    Attributes:
        manifest: Manifest CSV, or the name of a built-in manifest.
        split: Splits to check. All if omitted.
        frames: Number of frames per clip.
        workers: Number of files read in parallel.
        out: Folder for check.html, check.json and bad_files.txt. MANIFEST-check beside the manifest if omitted.
        cache: Folder that stores results between checks. `~/.cache/kinema/check` if omitted.
        read_options: Reading of files. Each worker reads in its own process by default.
    """

    EXAMPLE: ClassVar = "mine.csv --split train val"
    GROUPS: ClassVar = {"Samples": ("split", "frames"), "Output and speed": ("out", "workers", "cache")}

    manifest: Positional[str]
    split: tuple[str, ...] = ()
    frames: int = 16
    workers: int = os.cpu_count() or 1
    out: Path | None = None
    cache: Path | None = None
    read_options: ReadOptions = field(default_factory=_check_read_options)

    def run(self) -> int:
        """Check the manifest, print all faults, and write the report."""
        at_least_one("--frames", self.frames)
        at_least_one("--workers", self.workers)
        from kinema.curation.check import check
        from kinema.curation.inspections import journal_path
        from kinema.data.manifest import BUILT_IN, load_manifest
        from kinema.reports.check_lines import check_lines, check_progress
        from kinema.reports.check_page import write_check

        manifest = load_manifest(self.manifest)
        with check_progress() as progress:
            checked = check(
                manifest,
                journal=journal_path(manifest.path, self.cache),
                splits=self.split,
                clip_frames=self.frames,
                read_options=self.read_options,
                workers=self.workers,
                progress=progress,
            )
        for line in check_lines(checked):
            echo(line)
        folder = Path() if self.manifest in BUILT_IN else manifest.path.parent
        out = self.out or folder / f"{manifest.path.stem}-check"
        write_check(checked, out, self.read_options)
        names = ("check.html", "check.json", "bad_files.txt")
        echo("report: {}; all findings: {}; bad files: {}".format(*(out / name for name in names)))
        if checked.bad_files:
            logger.info("To leave the bad files out, prepare again with --exclude %s", out / names[-1])
        return 1 if checked.faults else 0


@dataclass(frozen=True, kw_only=True)
class Pack(Command):
    """Re-encode a dataset once for fast reading.

    RGB is resized and gets frequent keyframes; depth stays lossless. Each sample gets its own file, cut to its segment.
    The exit code is 1 if a file cannot be packed. Run the same command again to resume an interrupted run; files that
    have not changed are not packed again.

    Attributes:
        manifest: Manifest CSV, or the name of a built-in manifest.
        short_side: Shorter side of RGB frames [px]. Frames are never enlarged.
        out: Folder for the packed files and their manifest. Several manifests may share it.
        keyframe_every: Keyframe interval of RGB [frames].
        crf: Constant rate factor of x264, 1 to 51. Lower values give better quality and larger files.
        preset: Preset of x264. Slower presets give smaller files that decode equally fast.
        depth_short_side: Shorter side of depth frames [px], reduced by dropping rows and columns. Unchanged if omitted.
        deinterlace: Treatment of interlaced RGB. `spatial` interpolates every second line from the others.
        workers: Number of files packed in parallel.
        cache: Folder for copies of remote files. `~/.cache/kinema` if omitted.
        limits: Limits per source file.
    """

    EXAMPLE: ClassVar = "mine.csv --short-side 256 --out packed"
    GROUPS: ClassVar = {
        "Encoding": ("short_side", "crf", "preset", "keyframe_every", "depth_short_side", "deinterlace"),
        "Output and speed": ("out", "workers", "cache"),
    }

    manifest: Positional[str]
    short_side: int
    out: Path
    keyframe_every: int = 8
    crf: int = 18
    preset: Literal["ultrafast", "veryfast", "fast", "medium", "slow"] = "veryfast"
    depth_short_side: int | None = None
    deinterlace: Deinterlace = "none"
    workers: int = os.cpu_count() or 1
    cache: Path | None = None
    limits: Limits = field(default_factory=Limits)

    def run(self) -> int:
        """Pack the manifest, and print all files that cannot be packed."""
        at_least_one("--workers", self.workers)
        from kinema.curation.pack import pack
        from kinema.data.manifest import load_manifest
        from kinema.reports.check_lines import check_progress
        from kinema.video.encode import Encoding

        try:
            encoding = Encoding(
                short_side=self.short_side,
                keyframe_every=self.keyframe_every,
                crf=self.crf,
                preset=self.preset,
                depth_short_side=self.depth_short_side,
                deinterlace=self.deinterlace,
            )
        except ValueError as error:
            raise UsageError(f"pack: {error}", field=getattr(error, "field", None)) from error
        manifest = load_manifest(self.manifest)
        with check_progress() as progress:
            packed = pack(
                manifest,
                self.out,
                encoding=encoding,
                read_options=ReadOptions(cache=self.cache, limits=self.limits),
                workers=self.workers,
                progress=progress,
            )
        for note in packed.notes:
            logger.info("%s", note)
        for reason in packed.unreadable:
            logger.warning("unreadable: %s", reason)
        echo(packed.summary)
        return 1 if packed.unreadable else 0


@dataclass(frozen=True, kw_only=True)
class Sampling(Command):
    """Print the frames that a recipe samples from a video.

    Attributes:
        manifest: Manifest CSV, or the name of a built-in manifest.
        index: Position of the sample, from 0.
        recipe: Recipe whose clip settings are used.
        draws: Number of random training clips to print after the evaluation clips.
    """

    EXAMPLE: ClassVar = "moves_cross_subject --index 2 --recipe moves_ctn_tiny"

    manifest: Positional[str]
    index: int = 0
    recipe: str = "ctn_tiny"
    draws: int = 3

    def run(self) -> int:
        """Print a line per view and draw."""
        from kinema.data.manifest import load_manifest
        from kinema.reports.sampling import sampling_lines
        from kinema.training.recipe import load_recipe

        if not 0 <= self.draws <= MAX_DRAWS:
            raise UsageError(f"--draws {self.draws}; expected 0 to {MAX_DRAWS}", field="--draws")
        clip = load_recipe(self.recipe).clip
        for line in sampling_lines(load_manifest(self.manifest), self.index, clip, draws=self.draws):
            echo(line)
        return 0


@dataclass(frozen=True, kw_only=True)
class Render(Command):
    """Render RGB-D clips of people in motion; needs the extra [render].

    Attributes:
        what: Dataset to render.
        out: Output folder.
    """

    EXAMPLE: ClassVar = "moves --out moves"

    what: Positional[Literal["moves"]]
    out: Path

    def run(self) -> int:
        """Render the dataset."""
        from kinema.render.moves import render_moves

        render_moves(self.out)
        return 0
