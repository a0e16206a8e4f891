"""The command line: one function a command, without logic; what is heavy is imported inside."""

import difflib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from kinema import __version__
from kinema.cli_data import check, pack, prepare, sampling, submit
from kinema.errors import KinemaError, TrainingStopped, UsageError
from kinema.options import nearest, option_names, parse, read

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
    except TrainingStopped as stopped:
        print(f"kinema: {stopped}", file=sys.stderr)
        sys.exit(128 + stopped.signal)
    except Exception as error:
        if debug or not isinstance(error, (KinemaError, OSError)):
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
    from kinema.models.registry import MODELS, create_model, list_models

    table = Table(
        "part" if options.name else "model", "parameters", "GMAC a clip", *([] if options.name else ["clip", ""])
    )
    for name in [options.name] if options.name else list_models():
        with torch.device("meta"):
            model = create_model(name, num_classes=options.classes)
        channels, frames, size = MODELS[name].channels, MODELS[name].frames, MODELS[name].size
        if options.name:
            for row in complexity_table(model, channels=channels, frames=frames, size=size):
                table.add_row(row.name, f"{row.parameters:,}", f"{row.macs / 1e9:.3f}")
        total = macs(model, channels=channels, frames=frames, size=size) / 1e9
        summary = [] if options.name else [f"{frames} x {size}", MODELS[name].summary]
        table.add_row(name, f"{parameter_count(model):,}", f"{total:.3f}", *summary)
    Console().print(table)


def train(words: Sequence[str]) -> None:
    """Train by a recipe: a shipped one's name or a file, with typed overrides."""
    from tyro.conf import Positional

    @dataclass(frozen=True, kw_only=True)
    class Options:
        """Train by a recipe; `kinema train RECIPE --help` lists its numbers, each of which can be overridden.

        Args:
            recipe: a shipped recipe's name (`kinema train` alone lists them), or a Python file that holds RECIPE.
            resume: a run folder to go on with; its own recipe is used.
            existing: what to do where --run.out holds a run of the same recipe: refuse, or resume it, as processes do
                that torchrun starts again.
            init: a run, an artefact, a file of weights, or hf:owner/name to start from; short for --init.weights.
            max_steps: stop after this many steps.
        """

        recipe: Positional[str] = ""
        resume: Path | None = None
        existing: Literal["refuse", "resume"] = "refuse"
        init: str = ""
        max_steps: int | None = None

    help_wanted = any(word in ("-h", "--help") for word in words)
    quiet = [word for word in words if word not in ("-h", "--help")]
    options, overrides = read(Options, None, quiet, "kinema train")
    if help_wanted and not options.recipe:
        parse(Options, words, "train")
    from kinema.training.distributed import rank
    from kinema.training.loop import train as train_by
    from kinema.training.recipe import load_recipe, recipes_in_short
    from kinema.training.runs import Run

    if options.resume is not None:
        if options.recipe or overrides or options.init:
            raise UsageError("--resume goes on with the run's own recipe; leave the recipe and its overrides away")
        run = Run.open(options.resume)
        recipe = run.recipe
    elif not options.recipe:
        raise UsageError(f"which recipe? There are {recipes_in_short()}, or give a .py file")
    else:
        recipe = _override(load_recipe(options.recipe), overrides + (["--help"] if help_wanted else []), options.recipe)
        if options.init:
            recipe = replace(recipe, init=replace(recipe.init, weights=options.init))
        own = options.recipe.endswith(".py")
        name = Path(options.recipe).stem if own else options.recipe.replace("/", "-")
        run = Run.create(recipe, name=name, existing=options.existing)
    train_by(recipe, run, max_steps=options.max_steps, progress="bar")
    if rank() == 0:
        print(f"artefact: {run.artefact}")


def evaluate(words: Sequence[str]) -> None:
    """Evaluate a run or an artefact on a manifest: predictions to a file, numbers from that file."""
    from tyro.conf import Positional

    from kinema.video.read_options import ReadOptions

    @dataclass(frozen=True, kw_only=True)
    class Options:
        """Evaluate a run or an artefact, or compute all numbers again from a predictions file.

        Args:
            artefact: a run or an artefact folder.
            manifest: a manifest's CSV, or the name of a built-in one.
            predictions: a file written before (or a run that holds one), in place of an artefact and a manifest.
            fuse: more runs, artefacts or predictions files, whose scores are averaged with the first one's.
            temperature_from: predictions of the same weights, best on another split: a temperature is fitted on them.
            bootstrap_over: what is drawn for the intervals: clips, or all clips of a group or subject at once.
            per_class: also print precision, recall and F1 of every class.
            per_attribute: also print how often take-off, somersault, twist and position are right (Diving48).
            json: a file for all numbers, classes and the confusion matrix.
            split: which samples.
            batch_size: clips in a batch.
            workers: processes that read.
            device: where to compute.
            allow_missing: go on where a sample cannot be read; every number then carries the coverage.
            out: where the predictions go; those of a second model get a -2 before the dot.
            modalities: those that a model of colour and depth is shown; both where none is named.
            frames, size: of its clips, where they shall not be those that it was trained with.
            reading: by what, where and within which limits files are read.
        """

        artefact: Positional[Path | None] = None
        manifest: str = ""
        predictions: Path | None = None
        fuse: tuple[Path, ...] = ()
        temperature_from: Path | None = None
        bootstrap_over: Literal["clip", "group", "subject"] = "clip"
        per_class: bool = False
        per_attribute: bool = False
        json: Path | None = None
        split: str = "test"
        batch_size: int = 16
        workers: int = 1
        device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
        allow_missing: bool = False
        out: Path = Path("predictions.safetensors")
        modalities: tuple[Literal["rgb", "depth"], ...] = ()
        frames: int | None = None
        size: int | None = None
        reading: ReadOptions = field(default_factory=ReadOptions)

    options = parse(Options, words, "evaluate")
    first = options.predictions or options.artefact
    stored = options.predictions is not None
    if first is None or stored == bool(options.manifest) or stored == (options.artefact is not None):
        raise UsageError("evaluate wants a run or an artefact and --manifest, or --predictions FILE and neither")
    if options.fuse and options.temperature_from is not None:
        raise UsageError("--temperature-from goes with one model, not with --fuse")
    if len({first, *options.fuse}) <= len(options.fuse):
        raise UsageError("--fuse names a model twice")
    from kinema.evaluation.attributes import by_attribute
    from kinema.evaluation.bootstrap import Bootstrap
    from kinema.evaluation.evaluate import evaluate as evaluate_on
    from kinema.evaluation.evaluate import load_predictions
    from kinema.evaluation.summary import plain, summarise
    from kinema.inference.trained_model import load_model
    from kinema.reports.evaluation import print_attributes, print_classes, print_fusion, print_summary, write_json

    missing: Literal["allow", "stop"] = "allow" if options.allow_missing else "stop"
    bootstrap = Bootstrap(over=options.bootstrap_over)
    files = {}
    for number, source in enumerate((first, *options.fuse), start=1):
        files[str(source)] = source
        if options.manifest and (number == 1 or source.is_dir()):
            out = options.out if number == 1 else options.out.with_stem(f"{options.out.stem}-{number}")
            files[str(source)] = out
            evaluate_on(
                load_model(source).at(frames=options.frames, size=options.size),
                options.manifest,
                split=options.split,
                batch_size=options.batch_size,
                workers=options.workers,
                device=options.device,
                missing=missing,
                out=out,
                reading=options.reading,
                modalities=options.modalities,
            )
    models = {name: load_predictions(path) for name, path in files.items()}
    if options.manifest and not models[str(first)].labelled:
        for name, path in files.items():
            print(f"{models[name].extent}, which has no labels: answered, not measured; predictions: {path}")
        return
    if options.fuse:
        summaries, said = print_fusion(models, bootstrap=bootstrap, missing=missing)
        summary = summaries["logits"]
    else:
        held_out = None if options.temperature_from is None else load_predictions(options.temperature_from)
        summary = summarise(models[str(first)], bootstrap=bootstrap, temperature_from=held_out)
        said = plain(summary)
        print_summary(summary)
    if options.per_class:
        print_classes(summary)
    if options.per_attribute:
        said["attributes"] = print_attributes(summary, by_attribute(summary.predictions, bootstrap=bootstrap))
    if options.json is not None:
        write_json(options.json, said)
    for name, path in files.items():
        print(f"{models[name].extent}; predictions: {path}")


def runs(words: Sequence[str]) -> None:
    """List the runs of a folder, or compare two by their stored predictions."""
    from tyro.conf import Positional

    @dataclass(frozen=True, kw_only=True)
    class Options:
        """List the runs of a folder, or compare two by their stored predictions.

        Args:
            folder: that holds the runs.
            compare: two runs of the folder, or paths of runs, predictions files or stored results; the seeds of one
                side are joined by commas: --compare a0,a1,a2 b0,b1,b2
            bootstrap_over: what is drawn for the interval: clips, or all clips of a group or subject at once.
        """

        folder: Positional[Path] = Path("runs")
        compare: tuple[str, str] | None = None
        bootstrap_over: Literal["clip", "group", "subject"] = "clip"

    options = parse(Options, words, "runs")
    from kinema.evaluation.bootstrap import Bootstrap
    from kinema.evaluation.compare import compare
    from kinema.reports.evaluation import print_comparison
    from kinema.reports.run_list import print_runs, runs_in, side_of

    if options.compare is None:
        print_runs(runs_in(options.folder))
        return
    first, second = options.compare
    bootstrap = Bootstrap(over=options.bootstrap_over)
    found = compare(side_of(first, options.folder), side_of(second, options.folder), bootstrap=bootstrap)
    print_comparison(f"{first} - {second}", found, bootstrap=bootstrap)


def fuse(words: Sequence[str]) -> None:
    """Make one model of colour and depth of two trained ones, by the mean of their answers."""
    from tyro.conf import Positional

    @dataclass(frozen=True, kw_only=True)
    class Options:
        """Make one model of colour and depth of two trained ones.

        Args:
            first, second: runs or artefact folders, one of RGB and one of depth.
            out: the folder of the new artefact.
            score: what is averaged.
        """

        first: Positional[Path]
        second: Positional[Path]
        out: Path
        score: Literal["logits", "softmax"] = "logits"

    options = parse(Options, words, "fuse")
    if options.out.exists():
        raise UsageError(f"--out {options.out} exists already; name a new folder")
    from kinema.inference.fusing import fuse_artefacts
    from kinema.inference.trained_model import save_model

    save_model(options.out, fuse_artefacts(options.first, options.second, score=options.score))
    print(f"{options.out}: answers with the mean of {options.score}; `kinema predict {options.out} RGB --depth DEPTH`")


def predict(words: Sequence[str]) -> None:
    """Name the action in videos: ranked labels as text, JSON or CSV."""
    from tyro.conf import Positional

    from kinema.video.read_options import ReadOptions

    @dataclass(frozen=True, kw_only=True)
    class Options:
        """Name the action in videos.

        Args:
            artefact: a run or an artefact folder.
            videos: files, URLs, or folders of videos.
            depth: depth files beside the videos, in the same order, for a model that sees both; one of the two may be
                left out where the model does with the other.
            top_k: how many classes.
            format: of the answer.
            device: where to compute.
            reading: by what, where and within which limits files are read; `--reading.isolation process` for files from
                strangers.
        """

        artefact: Positional[Path]
        videos: Positional[tuple[str, ...]] = ()
        depth: tuple[str, ...] = ()
        top_k: int = 5
        format: Literal["text", "json", "csv"] = "text"
        device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
        reading: ReadOptions = field(default_factory=ReadOptions)

    options = parse(Options, words, "predict")
    from kinema.inference.bulk import name_all

    failed = name_all(
        options.artefact,
        options.videos,
        depth=options.depth,
        top_k=options.top_k,
        form=options.format,
        device=options.device,
        reading=options.reading,
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
    command.__name__: command
    for command in (demo, models, prepare, check, pack, sampling, train, runs, evaluate, submit, fuse, predict, render)
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


if __name__ == "__main__":
    main()
