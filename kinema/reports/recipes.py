"""Recipes as text: the list of all, and the description of one with what the thesis prints for it."""

from collections.abc import Iterator

from kinema.reports.thesis import printed_accuracy
from kinema.training.recipe_modules import describe, names_in, shipped_modules

OWN_DATA = "Your own data"


def recipe_lines() -> Iterator[str]:
    """Yield a line of meaning for every shipped recipe, in groups; the rows of a table with the printed numbers."""
    modules = shipped_modules()
    width = max(len(name) for module in modules for name in names_in(module))
    groups: dict[str, list[str]] = {OWN_DATA: [], "Datasets": [], "Tables and figures of the thesis, by row": []}
    for module in modules:
        summary = recipe_summary(module)
        rows = list(row_lines(module, width))
        title = list(groups)[2 if rows else 0 if "your own" in summary else 1]
        groups[title] += [f"  {module:<{width}}  {summary}", *rows]
    for title, lines in groups.items():
        yield from (f"{title}:", *lines, "")
    yield "`kinema train RECIPE --help` shows what a recipe takes from the thesis, and its options."


def row_lines(name: str, width: int = 0) -> Iterator[str]:
    """Yield a line for every row of a table, with the printed numbers; none for other recipes."""
    rows = names_in(name) if name in shipped_modules() else [name]
    if rows != [name]:
        width = width or max(map(len, rows))
        yield from (f"  {row:<{width}}  {printed_line(row)}" for row in rows)


def recipe_summary(name: str) -> str:
    """Return the first paragraph of a recipe's description on one line."""
    return " ".join(describe(name).partition("\n\n")[0].split()) or f"Train a model from the recipe {name}."


def recipe_details(name: str) -> str:
    """Return the other paragraphs of a recipe's description, and the numbers that the thesis prints for a row."""
    details = describe(name).partition("\n\n")[2]
    return (
        f"{details}\n\nThis row, {name}: {printed_line(name)}" if "/" in name and not name.endswith(".py") else details
    )


def printed_line(name: str) -> str:
    """Return the accuracies that the thesis prints for a row."""
    printed = printed_accuracy(name)
    return f"printed: {printed}" if printed else "not printed"
