"""Tests of the import order of packages: each imports only from packages to its right."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "kinema"

GROUND = frozenset({"config", "errors", "files", "memory", "modality", "terminal"})
"""Modules that all packages use, and that use no package."""

VIDEO = GROUND
TRANSFORMS = GROUND | {"video"}
DATA = TRANSFORMS | {"transforms"}
MODELS = GROUND | {"layers"}
INFERENCE = MODELS | DATA | {"models", "data"}
EVALUATION = INFERENCE | {"inference", "datasets"}  # attributes and submission formats belong to a dataset
TRAINING = EVALUATION | {"evaluation"}
REPORTS = TRAINING | {"training", "curation"}
CLI = REPORTS | {"reports", "datasets", "render"}
ALLOWED = {
    **dict.fromkeys(GROUND, frozenset({"errors", "config"})),
    "video": VIDEO,
    "transforms": TRANSFORMS,
    "data": DATA,
    "datasets": DATA | {"data"},
    "curation": DATA | {"data"},
    "render": DATA | {"data"},
    "layers": GROUND,
    "models": MODELS,
    "inference": INFERENCE,
    "evaluation": EVALUATION,
    "training": TRAINING,
    "reports": REPORTS,
    "cli": CLI,
    "__main__": frozenset({"cli"}),
    "recipes": frozenset({"models", "training"}),
    "assets": frozenset(),
}
FILES = sorted(PACKAGE.rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> set[str]:
    """Return the kinema modules that a file imports, inside functions too; names of a package count as its modules."""
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


def package_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    own = package_of(module_name(path))
    if own == "":
        return  # kinema/__init__.py imports all packages lazily: test_public_names
    # kinema.__version__ is not a package; training lists the recipes, but imports none of them.
    others = {package_of(m) for m in imported(path)} - {own, "__version__", ""}
    if own == "training":
        others.discard("recipes")
    assert others <= ALLOWED[own]


def test_only_recipes_import_recipes() -> None:
    elsewhere = {m for path in FILES if path.parent.name != "recipes" for m in imported(path)}
    assert not {m for m in elsewhere if m.startswith("kinema.recipes.")}


def test_recipes_import_only_models_recipes_and_recipe_classes() -> None:
    found = {m for path in FILES if path.parent.name == "recipes" for m in imported(path)}
    others = {m for m in found if not m.startswith(("kinema.models.", "kinema.recipes."))}
    assert others == {"kinema.training.recipe"}


def test_packages_have_no_import_cycles() -> None:
    names = {module_name(path) for path in FILES}
    graph = {
        module_name(path): {m for m in imported(path) if m in names and package_of(m) == package_of(module_name(path))}
        for path in FILES
    }
    list(TopologicalSorter({m: sources - {m} for m, sources in graph.items()}).static_order())


def test_no_module_has_a_catch_all_name() -> None:
    assert not [p for p in FILES if p.stem in {"utils", "util", "common", "helpers", "helper", "misc"}]


@pytest.mark.parametrize(
    ("words", "unwanted"),
    [
        (["--help"], {"torch", "av", "numpy", "matplotlib", "lightning_fabric", "tyro", "pydantic", "kinema.cli.data"}),
        (["--version"], {"torch", "av", "numpy", "tyro", "pydantic", "rich"}),
        (["models"], {"torch", "av", "numpy", "pydantic", "kinema.models"}),
        (["prepare", "--help"], {"torch", "matplotlib", "kinema.cli.data"}),
        (["predict", "--help"], {"torch", "av", "numpy", "matplotlib", "kinema.cli.data", "kinema.inference"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_help_imports_nothing_heavy_and_no_other_command(words: list[str], unwanted: set[str]) -> None:
    code = (
        "import sys, kinema, kinema.cli, contextlib\n"
        f"with contextlib.suppress(SystemExit): kinema.cli.main({words})\n"
        f"print(sorted({unwanted} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines()[-1] == "[]"
