"""Write the tree of the package, with the first line of each file, into docs/architecture.md: `make tables`."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"
START, STOP = "```text\n", "```\n"


def purpose(path: Path) -> str:
    """Return the first line of a module's docstring."""
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]


def lines(folder: Path, depth: int = 0) -> list[str]:
    """Return a line for a package and one for each file and package in it; recipes are left out."""
    indent = "  " * depth
    found = [f"{indent}{folder.name + '/':<{28 - len(indent)}} {purpose(folder / '__init__.py')}".rstrip()]
    if folder.name == "recipes":
        return found
    for path in sorted(folder.glob("*.py")):
        if path.stem != "__init__":
            found.append(f"{indent}  {path.name:<{26 - len(indent)}} {purpose(path)}".rstrip())
    for path in sorted(folder.iterdir()):
        if (path / "__init__.py").is_file():
            found += lines(path, depth + 1)
    return found


def page() -> str:
    """Return docs/architecture.md with the tree as it is now."""
    head, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
    return head + START + "\n".join(lines(ROOT / "kinema")) + "\n" + STOP + rest.partition(STOP)[2]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
