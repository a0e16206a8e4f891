"""Write docs/architecture.md: the layers of the package, and every file with the first line of its docstring."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"
COLUMN = 29
HEAD = """# Architecture

```sh
make tables    # regenerates this page from the files
```

A package imports only from packages below it; `tests/test_imports.py` enforces this and rejects cycles.

```text
cli -> reports -> training -> evaluation -> inference -> models -> layers
                  training, evaluation, inference -> data -> transforms -> video
                  datasets, curation, render -> data, transforms, video
```

Every package may use `errors.py`, `config.py`, `files.py` and `modality.py`, which use nothing else of kinema.

## Files

"""


def purpose(path: Path) -> str:
    """Return the first line of a module's docstring."""
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]


def lines(folder: Path, depth: int = 0) -> list[str]:
    """Return one line for a package and one for each file and package in it; recipes are omitted."""
    indent = "  " * depth
    tree = [f"{indent + folder.name + '/':<{COLUMN}}{purpose(folder / '__init__.py')}".rstrip()]
    if folder.name == "recipes":
        return tree
    for path in sorted(folder.glob("*.py")):
        if path.stem != "__init__":
            tree.append(f"{indent + '  ' + path.name:<{COLUMN - 1}} {purpose(path)}".rstrip())
    for path in sorted(folder.iterdir()):
        if (path / "__init__.py").is_file():
            tree += lines(path, depth + 1)
    return tree


def page() -> str:
    """Return the page."""
    return HEAD + "```text\n" + "\n".join(lines(ROOT / "kinema")) + "\n```\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
