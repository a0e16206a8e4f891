"""The arrows of the layout, checked: a wing imports from wings to its right, and nothing else of ours."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "kinema"

LAYERS: frozenset[str] = frozenset()
DATA: frozenset[str] = frozenset()
MODELS = frozenset({"layers"})
INFERENCE = MODELS | {"models", "data"}
EVALUATION = INFERENCE | {"inference"}
TRAINING = EVALUATION | {"evaluation"}
REPORTS = TRAINING | {"training"}
ALLOWED = {
    "layers": LAYERS,
    "data": DATA,
    "models": MODELS,
    "inference": INFERENCE,
    "evaluation": EVALUATION,
    "training": TRAINING,
    "reports": REPORTS,
    "demo": REPORTS | {"reports"},
    "cli": REPORTS | {"reports", "demo", "render", "options", "cli_data"},
    "cli_data": REPORTS | {"reports", "options"},
    "options": frozenset(),
    "render": frozenset({"data"}),
    "recipes": frozenset({"models", "training"}),
    "assets": frozenset(),
}
FILES = sorted(PACKAGE.rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> set[str]:
    """Modules of ours that a file imports, inside functions too; names taken from a package count as modules there."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import hides its direction"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            is_package = (PACKAGE.parent / Path(*(node.module or "").split("."))).is_dir()
            found |= {name for name in names if is_package} if is_package else {node.module or ""}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.split(".")[0] == "kinema"}


def wing(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    own = wing(module_name(path))
    if own == "":
        return  # kinema/__init__.py names all wings, lazily: test_public_names
    # kinema.__version__ is no wing; training looks up the folder of the recipes, but imports none of them.
    others = {wing(m) for m in imported(path)} - {own, "__version__", ""}
    if own == "training":
        others.discard("recipes")
    assert others <= ALLOWED[own]


def test_rendering_takes_only_the_manifest_of_the_data_wing() -> None:
    taken = {m for path in (PACKAGE / "render").glob("*.py") for m in imported(path) if wing(m) == "data"}
    assert taken <= {"kinema.data.manifest"}


def test_no_recipe_is_imported_by_name() -> None:
    everywhere = {m for path in FILES for m in imported(path)}
    assert not {m for m in everywhere if m.startswith("kinema.recipes.")}


def test_there_are_no_circles_inside_a_wing() -> None:
    names = {module_name(path) for path in FILES}
    graph = {
        module_name(path): {m for m in imported(path) if m in names and wing(m) == wing(module_name(path))}
        for path in FILES
    }
    list(TopologicalSorter({m: sources - {m} for m, sources in graph.items()}).static_order())


def test_nothing_is_called_a_drawer() -> None:
    assert not [p for p in FILES if p.stem in {"utils", "util", "common", "helpers", "helper", "misc"}]


def test_importing_the_package_or_its_command_line_loads_nothing_heavy() -> None:
    code = (
        "import sys, kinema, kinema.cli; kinema.cli.main(['--help']); "
        "print(sorted({'torch', 'av', 'numpy', 'matplotlib', 'lightning_fabric', 'tyro'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines()[-1] == "[]"
