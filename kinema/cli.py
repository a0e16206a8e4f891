"""The command line: one function a command, without logic; what is heavy is imported inside."""

import difflib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from kinema import __version__
from kinema.options import UsageError, nearest, option_names, pairs, parse, read

if TYPE_CHECKING:
    from kinema.training.recipe import Recipe


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; exit code 0 when all is well, 2 when the input is at fault."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
        return
    if words[0] == "--version":
        print(f"kinema {__version__}")
        return
    try:
        if words[0] not in COMMANDS:
            near = difflib.get_close_matches(words[0], COMMANDS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "`kinema --help` lists them"
            raise UsageError(f"unknown command {words[0]!r}; {hint}")
        COMMANDS[words[0]](words[1:])
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `kinema predict ... | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:
        if debug or not isinstance(error, (UsageError, *_input_errors())):
            raise
        print(f"kinema: {error}", file=sys.stderr)
        sys.exit(2)


# -- commands ------------------------------------------------------------------------------------------------------


def demo(words: Sequence[str]) -> None:
    """Train, evaluate, predict and report on the built-in set, in minutes on a laptop."""

    @dataclass(frozen=True, kw_only=True)
    class Options:
        """Train, evaluate, predict and report on the built-in set.

        Args:
            out: where summary.json, report.html and the run go.
            seed: of the weights and of all draws.
        """

        out: Path = Path("demo")
        seed: int = 0

    options = parse(Options, words, "demo")
    from kinema.demo import run_demo

    run_demo(options.out, seed=options.seed)


def models(words: Sequence[str]) -> None:
    """List the models, or show one: parameters and multiply-adds, part by part."""
    from tyro.conf import Positional

    @dataclass(frozen=True, kw_only=True)
    class Options:
        """List the models, or show one.

        Args:
            name: of a model; all are listed without it.
            classes: that the network is built for.
        """

        name: Positional[str] = ""
        classes: int = 400

    options = parse(Options, words, "models")
    if options.classes < 1:
        raise UsageError(f"--classes {options.classes} must be at least 1")
    import torch
    from rich.console import Console
    from rich.table import Table

    from kinema.models.complexity import complexity_table, macs, parameter_count
    from kinema.models.zoo import MODELS, create_model, list_models

    table = Table(
        "part" if options.name else "model", "parameters", "GMAC a clip", *([] if options.name else ["clip", ""])
    )
    for name in [options.name] if options.name else list_models():
        with torch.device("meta"):
            model = create_model(name, num_classes=options.classes)
        frames, size = MODELS[name].frames, MODELS[name].size
        if options.name:
            for row in complexity_table(model, channels=3, frames=frames, size=size):
                table.add_row(row.name, f"{row.parameters:,}", f"{row.macs / 1e9:.3f}")
        total = macs(model, channels=3, frames=frames, size=size) / 1e9
        summary = [] if options.name else [f"{frames} x {size}", MODELS[name].summary]
        table.add_row(name, f"{parameter_count(model):,}", f"{total:.3f}", *summary)
    Console().print(table)


def prepare(words: Sequence[str]) -> None:
    """Make a manifest of your own videos: a folder of class folders, or a CSV."""
    from tyro.conf import Positional

    @dataclass(frozen=True, kw_only=True)
    class Options:
        """Make a manifest of your own videos.

        Args:
            layout: `folder` for ROOT/CLASS/video or ROOT/train/CLASS/video; `csv` for a table.
            root: the folder, or the table.
            out: the manifest to write; a JSON comes beside it.
            columns: names of the table's columns: rgb=path,group=source_video
            depth_unit: millimetres in one unit of 16-bit depth; leave it out for a sensor's own units.
            depth_range: near and far end of the depths that matter, in stored units; wanted for 16-bit depth.
            depth_coverage: masked where all but the person is 0.
            held_out_share: of each class that becomes split `val` where no split is given.
        """

        layout: Positional[Literal["folder", "csv"]]
        root: Path
        out: Path
        columns: str = ""
        depth_unit: float | None = None
        depth_range: tuple[float, float] | None = None
        depth_coverage: Literal["masked", "full"] = "full"
        held_out_share: float = 0.2

    options = parse(Options, words, "prepare")
    from kinema.data.corpora.folder import prepare_folder, prepare_table
    from kinema.data.manifest import DepthFacts

    if options.layout == "folder":
        if options.columns or options.depth_range or options.depth_unit:
            raise UsageError("--columns and --depth-... go with `prepare csv`; a folder has class folders of videos")
        prepared = prepare_folder(options.root, options.out, held_out_share=options.held_out_share)
    else:
        columns = pairs(options.columns)
        depth = None
        if options.depth_range is not None:
            near, far = options.depth_range
            try:
                depth = DepthFacts(unit_mm=options.depth_unit, near=near, far=far, coverage=options.depth_coverage)
            except ValueError as error:
                raise UsageError(f"--depth-range: {error}") from error
        prepared = prepare_table(
            options.root, options.out, columns=columns, held_out_share=options.held_out_share, depth=depth
        )
    for note in prepared.notes:
        print(note)
    for reason in prepared.unreadable:
        print(f"unreadable: {reason}")
    manifest = prepared.manifest
    splits = ", ".join(f"{count} {split or '(no split)'}" for split, count in manifest.declared.items())
    heads = ", ".join(f"{count} classes" if h == "label" else f"{count} of {h}" for h, count in manifest.heads.items())
    print(f"{manifest.path}: {splits}; {heads}; {len(prepared.unreadable)} files cannot be read")


def sampling(words: Sequence[str]) -> None:
    """Print which frames of a sample a recipe takes, in evaluation and in some training draws."""
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
    print(f"{manifest.path}, line {entry.line}: {source}, frames {start} to {stop - 1}; {rule}")
    print("evaluation:", *(start + rule.indices(stop - start, None)).tolist())
    for seed in range(options.draws):
        print(f"draw {seed}:    ", *(start + rule.indices(stop - start, np.random.default_rng(seed))).tolist())


def train(words: Sequence[str]) -> None:
    """Train by a recipe: a shipped one's name or a file, with typed overrides."""
    from tyro.conf import Positional

    @dataclass(frozen=True, kw_only=True)
    class Options:
        """Train by a recipe; `kinema train RECIPE --help` lists its numbers, each of which can be overridden.

        Args:
            recipe: a shipped recipe's name (`kinema train` alone lists them), or a Python file that holds RECIPE.
            resume: a run folder to go on with; its own recipe is used.
            max_steps: stop after this many steps.
        """

        recipe: Positional[str] = ""
        resume: Path | None = None
        max_steps: int | None = None

    help_wanted = any(word in ("-h", "--help") for word in words)
    quiet = [word for word in words if word not in ("-h", "--help")]
    options, overrides = read(Options, None, quiet, "kinema train")
    if help_wanted and not options.recipe:
        parse(Options, words, "train")
    from kinema.training.loop import train as train_by
    from kinema.training.recipe import load_recipe, recipe_names
    from kinema.training.runs import Run

    if options.resume is not None:
        if options.recipe or overrides:
            raise UsageError("--resume goes on with the run's own recipe; leave the recipe and its overrides away")
        run = Run.open(options.resume)
        recipe = run.recipe
    elif not options.recipe:
        raise UsageError(f"which recipe? There are {', '.join(recipe_names())}, or give a .py file")
    else:
        recipe = _override(load_recipe(options.recipe), overrides + (["--help"] if help_wanted else []), options.recipe)
        run = Run.create(recipe, name=Path(options.recipe).stem)
    train_by(recipe, run, max_steps=options.max_steps)
    print(f"artefact: {run.artefact}")


def evaluate(words: Sequence[str]) -> None:
    """Evaluate a run or an artefact on a manifest: predictions to a file, numbers from that file."""
    from tyro.conf import Positional

    @dataclass(frozen=True, kw_only=True)
    class Options:
        """Evaluate a run or an artefact.

        Args:
            artefact: a run or an artefact folder.
            manifest: a manifest's CSV, or the name of a built-in one.
            split: which samples.
            batch_size: clips in a batch.
            workers: processes that read.
            device: where to compute.
            allow_missing: go on where a sample cannot be read; every number then carries the coverage.
            out: where the predictions go.
        """

        artefact: Positional[Path]
        manifest: str
        split: str = "test"
        batch_size: int = 16
        workers: int = 1
        device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
        allow_missing: bool = False
        out: Path = Path("predictions.safetensors")

    options = parse(Options, words, "evaluate")
    from kinema.evaluation.evaluate import evaluate as evaluate_on
    from kinema.evaluation.evaluate import load_predictions, measure, mistakes

    evaluate_on(
        options.artefact,
        options.manifest,
        split=options.split,
        batch_size=options.batch_size,
        workers=options.workers,
        device=options.device,
        missing="allow" if options.allow_missing else "stop",
        out=options.out,
    )
    predictions = load_predictions(options.out)
    for reason in predictions.missing:
        print(f"missing: {reason}")
    for name, value in measure(predictions):
        covered = f"  (coverage {predictions.coverage:.2f} %)" if predictions.coverage < 100 else ""
        print(f"{name:>12} {value:6.2f} %{'' if name == 'coverage' else covered}")
    for head in predictions.classes:
        wrong = ", ".join(f"{true} for {said} ({count})" for true, said, count in mistakes(predictions, head)[:5])
        if wrong:
            print(f"{'' if head == 'label' else head + ', '}most often mistaken: {wrong}")
    print(f"{len(predictions.index)} samples of split {options.split!r}; predictions: {options.out}")


def predict(words: Sequence[str]) -> None:
    """Name the action in videos: ranked labels as text, JSON or CSV."""
    from tyro.conf import Positional

    @dataclass(frozen=True, kw_only=True)
    class Options:
        """Name the action in videos.

        Args:
            artefact: a run or an artefact folder.
            videos: files, URLs, or folders of videos.
            depth: depth files beside the videos, in the same order, for a model that sees both.
            top_k: how many classes.
            format: of the answer.
            device: where to compute.
        """

        artefact: Positional[Path]
        videos: Positional[tuple[str, ...]]
        depth: tuple[str, ...] = ()
        top_k: int = 5
        format: Literal["text", "json", "csv"] = "text"
        device: Literal["auto", "cpu", "cuda", "mps"] = "auto"

    options = parse(Options, words, "predict")
    from kinema.inference.bulk import name_all

    failed = name_all(
        options.artefact,
        options.videos,
        depth=options.depth,
        top_k=options.top_k,
        form=options.format,
        device=options.device,
    )
    if failed:
        sys.exit(2)


def render(words: Sequence[str]) -> None:
    """Render RGB-D clips of people in motion; needs the extra [render]."""
    from tyro.conf import Positional

    @dataclass(frozen=True, kw_only=True)
    class Options:
        """Render RGB-D clips of people in motion.

        Args:
            what: the built-in set.
            out: the folder to write to.
        """

        what: Positional[Literal["moves"]]
        out: Path

    options = parse(Options, words, "render")
    from kinema.render.moves import render_moves

    render_moves(options.out)


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    command.__name__: command for command in (demo, models, prepare, sampling, train, evaluate, predict, render)
}


# -- what the commands share ---------------------------------------------------------------------------------------


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {(command.__doc__ or '').splitlines()[0]}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "kinema: recognise human actions in video, in colour, depth, or both",
            "",
            "usage: kinema COMMAND [OPTIONS]    (kinema COMMAND --help says more; --debug shows where an error arose)",
            "",
            *lines,
        ]
    )


def _override(recipe: "Recipe", words: Sequence[str], name: str) -> "Recipe":
    """The recipe with the typed overrides of a command line; all are applied at once, then checked."""
    from kinema.training.recipe import Recipe

    changed, unknown = read(Recipe, recipe, words, f"kinema train {name}")
    if unknown:
        raise UsageError(f"{name}: unknown recipe field {unknown[0]!r}; {nearest(unknown[0], option_names(recipe))}")
    return changed


def _input_errors() -> tuple[type[Exception], ...]:
    """What a user's input can be at fault for; all else is ours and shows its traceback."""
    from kinema.data.dataset import UnreadableSample
    from kinema.data.decode import UnreadableVideo
    from kinema.data.manifest import ManifestError
    from kinema.evaluation.evaluate import NonFiniteLogits, PredictionsError
    from kinema.inference.artefact import ArtefactError
    from kinema.inference.engine import DeviceError
    from kinema.inference.recognizer import VideoError
    from kinema.models.zoo import UnknownField, UnknownModel
    from kinema.training.loop import NonFiniteLoss
    from kinema.training.recipe import RecipeError
    from kinema.training.runs import RunError

    return (
        ArtefactError,
        DeviceError,
        ManifestError,
        NonFiniteLogits,
        NonFiniteLoss,
        OSError,
        PredictionsError,
        RecipeError,
        RunError,
        UnknownField,
        UnknownModel,
        UnreadableSample,
        UnreadableVideo,
        VideoError,
    )


if __name__ == "__main__":
    main()
