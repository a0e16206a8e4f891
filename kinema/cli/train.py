"""Commands about runs: train, runs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional, Suppress

from kinema.cli.command import BootstrapUnit, Command
from kinema.cli.parsing import parse_known_options, parse_options, unknown_option
from kinema.errors import UsageError

if TYPE_CHECKING:
    from kinema.training.recipe import Recipe
    from kinema.training.runs import Run


@dataclass(frozen=True, kw_only=True)
class Train(Command):
    """Train a model from a recipe.

    `kinema train RECIPE --help` lists the fields of a recipe, each of which is an option: `--optim.lr 0.1`.

    Args:
        recipe: Name of a shipped recipe (`kinema train` alone lists them), or a Python file that defines RECIPE.
        resume: Run folder to resume; the recipe stored in it is used.
        existing: What to do if --run.out holds a run of the same recipe: refuse, or resume it, as processes do that
            torchrun restarts.
        init: Run, model folder, file of weights, or hf:owner/name to start from; short for --init.weights.
        max_steps: Stop after this number of steps.
    """

    recipe: Positional[str] = ""
    resume: Path | None = None
    existing: Literal["refuse", "resume"] = "refuse"
    init: str = ""
    max_steps: int | None = None
    overrides: Suppress[tuple[str, ...]] = ()

    @classmethod
    def from_args(cls, args: Sequence[str], prog: str) -> "Train":
        """Parse the command's own options and keep all others as overrides of the recipe."""
        help_flags = [arg for arg in args if arg in ("-h", "--help")]
        options, overrides = parse_known_options(cls, [arg for arg in args if arg not in help_flags], prog)
        if help_flags and not options.recipe:
            return parse_options(cls, args, prog)
        return replace(options, overrides=(*overrides, *help_flags))

    def run(self) -> int:
        """Train in a new run folder, or resume one."""
        from kinema.training.distributed import rank
        from kinema.training.loop import train

        if self.resume is None:
            recipe, run = self._new_run()
        else:
            run = self._resumed_run(self.resume)
            recipe = run.recipe
        train(recipe, run, max_steps=self.max_steps, progress="bar")
        if rank() == 0:
            print(f"model: {run.model}")
        return 0

    def _resumed_run(self, folder: Path) -> "Run":
        from kinema.training.runs import Run

        if self.recipe or self.overrides or self.init:
            raise UsageError(
                "--resume uses the recipe stored in the run; remove the recipe argument and its overrides.",
                field="--resume",
            )
        return Run.open(folder)

    def _new_run(self) -> tuple["Recipe", "Run"]:
        from kinema.training.recipe import load_recipe, summarize_recipe_names
        from kinema.training.runs import Run

        if not self.recipe:
            raise UsageError(f"No recipe given. Available: {summarize_recipe_names()}, or a .py file.", field="recipe")
        recipe = override(load_recipe(self.recipe), self.overrides, f"kinema train {self.recipe}")
        if self.init:
            recipe = replace(recipe, init=replace(recipe.init, weights=self.init))
        name = Path(self.recipe).stem if self.recipe.endswith(".py") else self.recipe.replace("/", "-")
        return recipe, Run.create(recipe, name=name, existing=self.existing)


def override(recipe: "Recipe", args: Sequence[str], prog: str) -> "Recipe":
    """Return the recipe with the typed overrides of a command line, applied all at once.

    Raises:
        UsageError: an override is unknown or has an invalid value.
        KinemaError: the values do not fit each other.
    """
    from kinema.training.recipe import Recipe

    changed, unknown = parse_known_options(Recipe, args, prog, default=recipe)
    if unknown:
        raise unknown_option(unknown[0], recipe, prog)
    return changed


@dataclass(frozen=True, kw_only=True)
class Runs(Command):
    """List the runs of a folder, or compare two by their predictions.

    Args:
        folder: Folder that holds the runs.
        compare: Two runs of the folder, or paths of runs, predictions files or stored results. Join the seeds of one
            side by commas: --compare a0,a1,a2 b0,b1,b2
        bootstrap_over: Unit drawn for the intervals: clips, or all clips of a group or subject at once.
    """

    folder: Positional[Path] = Path("runs")
    compare: tuple[str, str] | None = None
    bootstrap_over: BootstrapUnit = "clip"

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
        found = compare(side_of(first, self.folder), side_of(second, self.folder), bootstrap=bootstrap)
        print_comparison(f"{first} - {second}", found, bootstrap=bootstrap)
        return 0
