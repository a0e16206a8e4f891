"""The commands around data: prepare, check, pack, sampling, submit; one function a command, what is heavy inside."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from kinema.errors import UsageError
from kinema.options import pairs, parse


def prepare(words: Sequence[str]) -> None:
    """Make a manifest: of class folders, of names by a template, of a CSV or JSON, or of a public data set."""
    from tyro.conf import Positional

    @dataclass(frozen=True, kw_only=True)
    class Options:
        """Make a manifest of your own videos, or of a public data set.

        Args:
            layout: `folder` for ROOT/CLASS/video or ROOT/train/CLASS/video, or for names by --rgb and --depth; `csv` or
                `json` for a table; else the name of a public data set.
            root: the folder, or the table.
            out: the manifest to write; a JSON comes beside it.
            rgb: with `folder`, names below ROOT: '{label}/{name}_rgb.mp4'. The fields label (or label.verb, ...),
                group, subject, camera and split fill columns; all others only match; {name:d} is digits.
            depth: as --rgb. RGB and depth belong together where all fields that both name agree. May end in a folder of
                pictures.
            columns: names of the table's columns: rgb=path,group=source_video,label.verb=verb
            depth_unit: millimetres in one unit of 16-bit depth; leave it out for a sensor's own units.
            depth_range: near and far end of the depths that matter, in stored units; wanted for 16-bit depth.
            depth_coverage: masked where all but the person is 0. auto is full; with ntu it is what is there, masked
                before full.
            val_share: of each class that becomes split `val` where no split is given.
            test_share: of each class that becomes split `test` where no split is given.
            keep_together: what a split that is made never tears apart; auto is the group, else the subject.
            split: which of the corpus's official splits: 1, 2 or 3 (ucf101, hmdb51); cross_subject, cross_view (ntu60)
                or cross_setup (ntu120); the first where none is named.
            without: with ntu, a list of samples to leave out, such as the official one of missing skeletons.
            rgb_crop: with ntu, subject cuts RGB to a box about the person, whom masked depth shows; auto does so where
                there is masked depth.
            rgb_crop_size: width and height of that box, in pixels.
        """

        layout: Positional[
            Literal[
                "folder",
                "csv",
                "json",
                "ntu60",
                "ntu120",
                "isogd",
                "ucf101",
                "hmdb51",
                "diving48",
                "epic_kitchens",
                "jhmdb",
                "msr_action3d",
            ]
        ]
        root: Path
        out: Path
        rgb: str = ""
        depth: str = ""
        columns: str = ""
        depth_unit: float | None = None
        depth_range: tuple[float, float] | None = None
        depth_coverage: Literal["auto", "masked", "full"] = "auto"
        val_share: float = 0.2
        test_share: float = 0.0
        keep_together: Literal["auto", "group", "subject", "camera", "none"] = "auto"
        split: str = ""
        without: Path | None = None
        rgb_crop: Literal["auto", "subject", "none"] = "auto"
        rgb_crop_size: tuple[int, int] = (640, 480)

    official = {
        "ucf101": ("1", "2", "3"),
        "hmdb51": ("1", "2", "3"),
        "ntu60": ("cross_subject", "cross_view"),
        "ntu120": ("cross_subject", "cross_setup"),
    }
    options = parse(Options, words, "prepare")
    split = {"val_share", "test_share", "keep_together"}
    facts = {"depth_unit", "depth_range", "depth_coverage"}
    own = {"folder": {"rgb", "depth", *facts, *split}, "csv": {"columns", *facts, *split}}
    own["json"] = own["csv"]
    own |= {layout: {"split"} for layout in official}
    for layout in ("ntu60", "ntu120"):
        own[layout] |= {"depth_coverage", "without", "rgb_crop", "rgb_crop_size"}
    for option in fields(options):
        given = option.name not in ("layout", "root", "out") and getattr(options, option.name) != option.default
        if given and option.name not in own.get(options.layout, ()):
            raise UsageError(f"--{option.name.replace('_', '-')} does not go with `prepare {options.layout}`")
        if given and facts <= own[options.layout] and option.name in facts and options.depth_range is None:
            raise UsageError(f"--{option.name.replace('_', '-')} says nothing without --depth-range")
    if options.split and options.split not in official[options.layout]:
        raise UsageError(f"--split {options.split}: {options.layout} has {', '.join(official[options.layout])}")
    from kinema.datasets.diving48 import prepare_diving48
    from kinema.datasets.epic_kitchens import prepare_epic_kitchens
    from kinema.datasets.folder import prepare_folder
    from kinema.datasets.hmdb51 import prepare_hmdb51
    from kinema.datasets.isogd import prepare_isogd
    from kinema.datasets.jhmdb import prepare_jhmdb
    from kinema.datasets.msr_action3d import prepare_msr_action3d
    from kinema.datasets.ntu import Choices, prepare_ntu
    from kinema.datasets.ntu_names import NTU60, NTU120, PROTOCOLS
    from kinema.datasets.prepared import Holdout
    from kinema.datasets.table import prepare_table
    from kinema.datasets.templates import prepare_templates
    from kinema.datasets.ucf101 import prepare_ucf101
    from kinema.modality import DepthFacts

    depth = None
    if options.depth_range is not None:
        near, far = options.depth_range
        try:
            coverage = "full" if options.depth_coverage == "auto" else options.depth_coverage
            depth = DepthFacts(unit_mm=options.depth_unit, near=near, far=far, coverage=coverage)
        except ValueError as error:
            raise UsageError(f"--depth-range: {error}") from error
    root, out = options.root, options.out
    holdout = Holdout(val_share=options.val_share, test_share=options.test_share, keep_together=options.keep_together)
    match options.layout:
        case "folder" if options.rgb or options.depth:
            prepared = prepare_templates(
                root, out, rgb=options.rgb, depth=options.depth, holdout=holdout, depth_facts=depth
            )
        case "folder":
            prepared = prepare_folder(root, out, holdout=holdout, depth=depth)
        case "csv" | "json" as form:
            columns = pairs(options.columns)
            prepared = prepare_table(root, out, form=form, columns=columns, holdout=holdout, depth=depth)
        case "msr_action3d":
            prepared = prepare_msr_action3d(root, out)
        case "jhmdb":
            prepared = prepare_jhmdb(root, out)
        case "isogd":
            prepared = prepare_isogd(root, out)
        case "epic_kitchens":
            prepared = prepare_epic_kitchens(root, out)
        case "ntu60" | "ntu120" as name:
            choices = Choices(
                protocol=next((known for known in PROTOCOLS if known == options.split), "cross_subject"),
                coverage=options.depth_coverage,
                without=options.without,
                rgb_crop=options.rgb_crop,
                rgb_crop_size=options.rgb_crop_size,
            )
            prepared = prepare_ntu(root, out, collection=NTU60 if name == "ntu60" else NTU120, choices=choices)
        case "ucf101":
            prepared = prepare_ucf101(root, out, int(options.split or 1))
        case "hmdb51":
            prepared = prepare_hmdb51(root, out, int(options.split or 1))
        case "diving48":
            prepared = prepare_diving48(root, out)
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
    from kinema.video.source import open_source

    manifest = load_manifest(options.manifest)
    if not 0 <= options.index < len(manifest.entries):
        raise UsageError(f"--index {options.index}: {manifest.path} has samples 0 to {len(manifest.entries) - 1}")
    entry = manifest.entries[options.index]
    clip = load_recipe(options.recipe).clip
    source = entry.source(clip.modalities[0]) or entry.rgb or entry.depth
    with open_source(manifest.locate(source)) as opened:
        start, stop = frames_of(entry, opened)
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
    from kinema.evaluation.evaluate import load_predictions
    from kinema.evaluation.submission import Supervision, write_submission

    predictions = load_predictions(options.predictions)
    supervision = Supervision(pretraining=options.sls_pt, labels=options.sls_tl, data=options.sls_td)
    write_submission(options.out, predictions, load_manifest(options.manifest), supervision=supervision)
    print(f"{options.out}: {predictions.extent}")
