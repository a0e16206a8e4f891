"""The commands around data: prepare, check, pack, sampling, submit; one function a command, what is heavy inside."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from kinema.errors import UsageError
from kinema.options import parse


def prepare(words: Sequence[str]) -> None:
    """Write a manifest of your own videos or of a public data set."""
    from kinema.datasets.registry import DATASETS, load_dataset

    if not words or words[0].startswith("-"):
        print("usage: kinema prepare DATASET --root ROOT --out MANIFEST.csv [OPTIONS]\n")
        for name, dataset in DATASETS.items():
            print(f"  {name:<14} {dataset.summary}")
        sys.exit(0 if "--help" in words or "-h" in words else 2)
    options_class, prepare_dataset = load_dataset(words[0])
    prepared = prepare_dataset(parse(options_class, words[1:], f"prepare {words[0]}"))
    for note in prepared.notes:
        print(note)
    for reason in prepared.unreadable:
        print(f"unreadable: {reason}")
    print(prepared.summary)


def check(words: Sequence[str]) -> None:
    """Decode every file of a manifest once, and say what is broken, too short, or leaking from split to split."""
    from tyro.conf import Positional

    from kinema.curation.check import READ_OPTIONS
    from kinema.video.read_options import ReadOptions

    @dataclass(frozen=True, kw_only=True)
    class Options:
        """Decode every file of a manifest once, and say what is wrong; exit code 1 where something is.

        A check that was stopped goes on where it was, and a later one decodes only what has changed.

        Args:
            manifest: a manifest's CSV, or the name of a built-in one.
            split: which samples, one or more splits; all where none is named.
            frames: of the clip that is to be taken from each sample.
            workers: files that are read at the same time.
            out: where check.html, check.json and bad_files.txt go.
            cache: folder in which is remembered what was found; `~/.cache/kinema/check` where none is named.
            reading: where and within which limits files are read.
        """

        manifest: Positional[str]
        split: tuple[str, ...] = ()
        frames: int = 16
        workers: int = os.cpu_count() or 1
        out: Path = Path("check")
        cache: Path | None = None
        reading: ReadOptions = READ_OPTIONS

    options = parse(Options, words, "check")
    if options.frames < 1 or options.workers < 1:
        raise UsageError(f"--frames {options.frames} and --workers {options.workers} must be at least 1")
    from kinema.curation.check import check as check_manifest
    from kinema.curation.inspections import memory_of
    from kinema.data.manifest import load_manifest
    from kinema.reports.check_lines import CheckProgress, check_lines
    from kinema.reports.check_page import write_check

    manifest = load_manifest(options.manifest)
    with CheckProgress() as progress:
        checked = check_manifest(
            manifest,
            memory=memory_of(manifest.path, options.cache),
            splits=options.split,
            clip_frames=options.frames,
            reading=options.reading,
            workers=options.workers,
            progress=progress.show,
        )
    for line in check_lines(checked):
        print(line)
    written = write_check(checked, options.out, options.reading)
    print(f"page: {written.page}; all findings: {written.findings}; files to leave out: {written.bad_files}")
    if checked.faults:
        sys.exit(1)


def pack(words: Sequence[str]) -> None:
    """Encode a data set anew, once, so that reading is fast: small RGB with close keyframes, depth without loss."""
    from tyro.conf import Positional

    from kinema.video.read_options import Limits, ReadOptions

    @dataclass(frozen=True, kw_only=True)
    class Options:
        """Encode a data set anew, once, so that reading is fast; exit code 1 where a file cannot be packed.

        Each sample gets a file of its segment alone. A run that was stopped goes on where it was, and a later one packs
        only what has changed or is new.

        Args:
            manifest: a manifest's CSV, or the name of a built-in one.
            short_side: pixels of the shorter side of RGB, which is never enlarged.
            out: the folder for the files and for the same manifest of them; several manifests may share it.
            keyframe_every: frames from keyframe to keyframe of RGB.
            crf: quality of RGB, 1 to 51; the lower, the better and the larger.
            preset: of x264; a slower one makes smaller files, which are read as fast.
            depth_short_side: pixels of the shorter side of depth, of which single pixels are left out; it keeps its
                size where none is named.
            workers: files that are packed at the same time.
            cache: for copies of files behind URLs.
            limits: what a file may ask for.
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

    options = parse(Options, words, "pack")
    if options.workers < 1:
        raise UsageError(f"--workers {options.workers} must be at least 1")
    from kinema.curation.pack import pack as pack_manifest
    from kinema.data.manifest import load_manifest
    from kinema.reports.check_lines import CheckProgress
    from kinema.video.encode import Encoding

    try:
        encoding = Encoding(
            short_side=options.short_side,
            keyframe_every=options.keyframe_every,
            crf=options.crf,
            preset=options.preset,
            depth_short_side=options.depth_short_side,
        )
    except ValueError as error:
        raise UsageError(f"pack: {error}") from error
    manifest = load_manifest(options.manifest)
    with CheckProgress() as progress:
        packed = pack_manifest(
            manifest,
            options.out,
            encoding=encoding,
            reading=ReadOptions(cache=options.cache, limits=options.limits),
            workers=options.workers,
            progress=progress.show,
        )
    for note in packed.notes:
        print(note)
    for reason in packed.unreadable:
        print(f"unreadable: {reason}")
    print(packed.summary)
    if packed.unreadable:
        sys.exit(1)


def sampling(words: Sequence[str]) -> None:
    """Print which frames of a sample a recipe takes, in each view of an evaluation and in some training draws."""
    from tyro.conf import Positional

    @dataclass(frozen=True, kw_only=True)
    class Options:
        """Print which frames of a sample a recipe takes.

        Args:
            manifest: a manifest's CSV, or the name of a built-in one.
            index: position of the sample, from 0.
            recipe: whose clip section is used.
            draws: how many training draws are shown beside the evaluation's frames.
        """

        manifest: Positional[str]
        index: int = 0
        recipe: str = "ctn_tiny"
        draws: int = 3

    options = parse(Options, words, "sampling")
    import numpy as np

    from kinema.data.dataset import frames_of
    from kinema.data.manifest import load_manifest
    from kinema.training.recipe import load_recipe

    manifest = load_manifest(options.manifest)
    if not 0 <= options.index < len(manifest.entries):
        raise UsageError(f"--index {options.index}: {manifest.path} has samples 0 to {len(manifest.entries) - 1}")
    entry = manifest.entries[options.index]
    clip = load_recipe(options.recipe).clip
    source = entry.source(clip.modalities[0]) or entry.rgb or entry.depth
    start, stop = frames_of(entry, manifest.locate(source))
    rule = clip.frame_sampling()
    box = "" if entry.rgb_box is None else f", RGB cut to {entry.rgb_box}"
    where = f"{manifest.path}, line {entry.line}: {source}, frames {start} to {stop - 1}{box}"
    print(f"{where}; {rule}; crops of each clip: {clip.crops}")
    for number, view in enumerate((start + rule.views(stop - start)).tolist(), 1):
        print("evaluation:" if rule.clips == 1 else f"evaluation {number}:", *view)
    for seed in range(options.draws):
        print(f"draw {seed}:    ", *(start + rule.indices(stop - start, np.random.default_rng(seed))).tolist())


def submit(words: Sequence[str]) -> None:
    """Write stored predictions as a challenge takes them: EPIC-KITCHENS-100's action recognition."""
    from tyro.conf import Positional

    @dataclass(frozen=True, kw_only=True)
    class Options:
        """Write stored predictions as a challenge takes them.

        Args:
            challenge: whose.
            predictions: the file that `kinema evaluate` wrote, or a run that holds one.
            manifest: the manifest that they were made on, with the segments' narration ids.
            out: the file to write; a name in .zip gives the archive that the server takes.
            sls_pt: pretraining: 0 none, 1 public images, 2 public images and videos, 3 and 4 without labels on public
                data and with EPIC-KITCHENS, 5 private data (github.com/epic-kitchens/sls).
            sls_tl: training labels; 3 are start and stop of the segments.
            sls_td: training data; 3 the training split, 4 with the validation split.
        """

        challenge: Positional[Literal["epic_kitchens"]]
        predictions: Positional[Path]
        manifest: Path
        out: Path
        sls_pt: Literal[0, 1, 2, 3, 4, 5]
        sls_tl: Literal[0, 1, 2, 3, 4, 5] = 3
        sls_td: Literal[0, 1, 2, 3, 4, 5] = 3

    options = parse(Options, words, "submit")
    from kinema.data.manifest import load_manifest
    from kinema.evaluation.predictions import load_predictions
    from kinema.evaluation.submission import Supervision, write_submission

    predictions = load_predictions(options.predictions)
    supervision = Supervision(pretraining=options.sls_pt, labels=options.sls_tl, data=options.sls_td)
    write_submission(options.out, predictions, load_manifest(options.manifest), supervision=supervision)
    from kinema.reports.evaluation import samples_line

    print(f"{options.out}: {samples_line(predictions)}")
