"""Python modules of recipes: the shipped ones, and files, with their names and descriptions."""

import ast
import importlib.util
import inspect
import pkgutil
import traceback
from pathlib import Path
from types import ModuleType

import kinema.recipes
from kinema.errors import KinemaError, RecipeError


def shipped_modules() -> list[str]:
    """Return the names of the shipped modules, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(kinema.recipes.__path__))


def import_shipped(module: str) -> ModuleType:
    """Import a shipped module by its name."""
    return importlib.import_module(f"kinema.recipes.{module}")


def names_in(module: str) -> list[str]:
    """Return the names of the recipes of a shipped module: its own, or `table/row` of each row, in their order."""
    rows = getattr(import_shipped(module), "RECIPES", None)
    return [module] if rows is None else [f"{module}/{row}" for row in rows]


def describe(name: str) -> str:
    """Return the docstring of a recipe's module or file, without its code being executed; empty without one.

    Raises:
        RecipeError: There is no such file.
    """
    if not name.endswith(".py"):
        return inspect.getdoc(import_shipped(name.partition("/")[0])) or ""
    try:
        return ast.get_docstring(ast.parse(_read(Path(name)))) or ""
    except (SyntaxError, ValueError):
        return ""  # executing the file raises the error with its line


def execute(path: Path) -> ModuleType:
    """Execute a recipe file and return its module.

    Raises:
        RecipeError: The file is missing, or an error ends it; `line` is that of the file, and `field` the field of a
            config that refuses its value.
    """
    text = _read(path)
    module = ModuleType(path.stem)
    module.__file__ = str(path)
    try:
        exec(compile(text, str(path), "exec"), module.__dict__)
    except Exception as error:  # report any error of the user's code with its line
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
        kind = "" if isinstance(error, KinemaError) else f"{type(error).__name__}: "
        raise RecipeError(
            f"{path}, line {line or '?'}: {kind}{error}", path=path, line=line, field=getattr(error, "field", None)
        ) from error
    return module


def line_of(path: Path, constant: str) -> int | None:
    """Return the line of a file that sets a constant; None if none does."""
    for statement in ast.parse(_read(path)).body:
        targets = getattr(statement, "targets", [getattr(statement, "target", None)])
        if any(isinstance(target, ast.Name) and target.id == constant for target in targets):
            return statement.lineno
    return None


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise RecipeError(f"{path}: no such recipe file", path=path)
    return path.read_bytes()
