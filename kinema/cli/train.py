"""Commands for runs: train, runs."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from tyro.conf import Positional, Suppress

from kinema.cli.command import BootstrapUnit, Command
from kinema.cli.help import HELP_FLAGS, first_sentence, options_of, print_help
from kinema.cli.parsing import parse_known_options, unknown_option
from kinema.errors import UsageError
from kinema.terminal import echo

if TYPE_CHECKING:
    from kinema.training.recipe import Recipe
    from kinema.training.runs import Run

logger = logging.getLogger(__name__)

COMMON = {
    "Data": ("data.manifest", "data.train", "data.evaluate", "data.batch-size", "data.workers"),
    "Clips": ("clip.frames", "clip.size", "clip.modalities"),
    "Optimization": ("optim.epochs", "optim.lr", "optim.warmup-epochs", "optim.weight-decay", "optim.grad-accum-steps"),
    "Weights": ("init", "init.freeze"),
    "Run": ("run.out", "run.seed", "resume", "max-steps", "compute.device", "compute.precision"),
}
"""Options that `kinema train RECIPE --help` lists."""


@dataclass(frozen=True, kw_only=True)
class Train(Command):
    """Train a model from a recipe.

    Every field of a recipe is an option, e.g. --optim.lr 0.1. `kinema train RECIPE --help` lists the common ones with
    the values of the recipe, `kinema train RECIPE --help-all` lists all.

    Attributes:
        recipe: Name of a recipe, or Python file that defines RECIPE.
        list: List all recipes, with a line of meaning each, and exit.
        resume: Run folder to resume, with the recipe stored in it.
        existing: Action if --run.out contains a run of the same recipe. Use `resume` with torchrun, which restarts
            processes.
        init: Run, model folder, weights file, or hf:owner/name to start from. Short for --init.weights.
        model: Network of your own, in place of the recipe's: module:Class or file.py:Class. Its code is executed.
        max_steps: Stop after this number of steps.
    """

    EXAMPLE: ClassVar = "ctn_small --data.manifest mine.csv --optim.epochs 30"

    recipe: Positional[str] = ""
    list: bool = False
    resume: Path | None = None
    existing: Literal["refuse", "resume"] = "refuse"
    init: str = ""
    model: str = ""
    max_steps: int | None = None
    overrides: Suppress[tuple[str, ...]] = ()

    @classmethod
    def from_args(cls, args: Sequence[str], prog: str) -> "Train":
        """Parse the command's own options and keep all others as overrides of the recipe."""
        options, overrides = parse_known_options(cls, [arg for arg in args if arg not in HELP_FLAGS], prog)
        if len(flags := set(args) & set(HELP_FLAGS)):
            if options.recipe:
                print_recipe_help(options.recipe, scope="all" if "--help-all" in flags else "common")
            else:
                cls.print_help(prog)
            raise SystemExit(0)
        return replace(options, overrides=tuple(overrides))

    def run(self) -> int:
        """Train in a new run folder, or resume one."""
        if self.list:
            from kinema.reports.recipes import recipe_lines, row_lines

            for line in list(row_lines(self.recipe)) or recipe_lines():
                echo(line)
            return 0
        from kinema.models.own import create_own_model
        from kinema.reports.run_list import shipped_message
        from kinema.training.distributed import rank
        from kinema.training.loop import train
        from kinema.training.runs import Run

        if self.resume is not None:
            if self.recipe or self.overrides or self.init:
                raise UsageError(
                    "--resume uses the recipe stored in the run; remove the recipe argument, --init and all overrides.",
                    field="--resume",
                )
            run = Run.open(self.resume)
            recipe = run.recipe
        else:
            recipe, run = self._new_run()
        model = None
        if self.model:
            model = create_own_model(self.model, heads=recipe.open_manifest().heads, seed=recipe.run.seed)
        train(recipe, run, model=model, max_steps=self.max_steps, progress="bar")
        if rank() == 0:
            logger.info("%s", shipped_message(run))
            echo(f"model: {run.model}")
        return 0

    def _new_run(self) -> tuple["Recipe", "Run"]:
        from kinema.training.recipe import load_recipe, summarize_recipe_names
        from kinema.training.runs import Run

        if not self.recipe:
            problem = f"No recipe given. Available recipes: {summarize_recipe_names()}."
            raise UsageError(problem, field="recipe")
        recipe = override(load_recipe(self.recipe), self.overrides, f"kinema train {self.recipe}")
        if self.init:
            recipe = replace(recipe, init=replace(recipe.init, weights=self.init))
        name = Path(self.recipe).stem if self.recipe.endswith(".py") else self.recipe.replace("/", "-")
        return recipe, Run.create(recipe, name=name, existing=self.existing)


def override(recipe: "Recipe", args: Sequence[str], prog: str) -> "Recipe":
    """Return the recipe with the command line's overrides, parsed and applied together.

    Raises:
        UsageError: An override is unknown or has an invalid value.
        KinemaError: The values contradict each other.
    """
    from kinema.training.recipe import Recipe

    changed, unknown = parse_known_options(Recipe, args, prog, default=recipe)
    if unknown:
        raise unknown_option(unknown[0], recipe, prog)
    return changed


def print_recipe_help(name: str, *, scope: Literal["common", "all"]) -> None:
    """Print the description of a recipe, and its options with its values as defaults: the common ones, or all in full.

    Raises:
        RecipeError: The recipe does not exist or cannot be built.
    """
    from kinema.reports.recipes import recipe_details, recipe_summary, row_lines
    from kinema.training.recipe import load_recipe

    prog = f"kinema train {name}"
    if rows := list(row_lines(name)):
        summary, details, footer = recipe_summary(name), recipe_details(name), "\n".join(["Rows:", *rows])
        example = f"{rows[0].split()[0]} --data.manifest mine.csv"
        print_help(prog, summary=summary, details=details, example=f"kinema train {example}", options=[], footer=footer)
        return
    recipe = load_recipe(name)
    own = [option for option in options_of(Train) if option.name.startswith("--")]
    fields = list(options_of(recipe))
    options, footer = [*own, *fields], ""
    if scope == "common":
        by_name = {option.name: option for option in options}
        options = [
            by_name[f"--{field}"]._replace(group=group, help=first_sentence(by_name[f"--{field}"].help))
            for group, names in COMMON.items()
            for field in names
        ]
        footer = f"`{prog} --help-all` lists all {len(own) + len(fields)} options, with those of the model."
    print_help(
        prog,
        summary=recipe_summary(name),
        details=recipe_details(name),
        example=f"{prog} --data.manifest mine.csv --optim.epochs 30",
        options=options,
        footer=footer,
    )


@dataclass(frozen=True, kw_only=True)
class Runs(Command):
    """List the runs of a folder, or compare two by their predictions.

    Attributes:
        folder: Folder that contains the runs.
        compare: Two runs of the folder, or paths of runs, predictions files or stored results. Separate the seeds
            of one side by commas: --compare a0,a1,a2 b0,b1,b2
        bootstrap_over: Resampling unit of the confidence intervals: single clips, or all clips of a group or subject.
    """

    EXAMPLE: ClassVar = "runs --compare first second"

    folder: Positional[Path] = Path("runs")
    compare: tuple[str, str] | None = None
    bootstrap_over: BootstrapUnit = "auto"

    def run(self) -> int:
        """Print the runs, or the comparison."""
        from kinema.evaluation.bootstrap import Bootstrap
        from kinema.evaluation.compare import compare
        from kinema.reports.evaluation import print_comparison
        from kinema.reports.run_list import print_runs, runs_in, side_of

        if self.compare is None:
            print_runs(runs_in(self.folder))
            return 0
        first, second = self.compare
        bootstrap = Bootstrap(over=self.bootstrap_over)
        comparison = compare(side_of(first, self.folder), side_of(second, self.folder), bootstrap=bootstrap)
        print_comparison(f"{first} - {second}", comparison, bootstrap=bootstrap)
        return 0
