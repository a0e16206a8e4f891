"""Documentation: every command is parsed or run, every link leads somewhere, and pages stay short."""

import contextlib
import json
import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import mypy.api
import pytest
import torch

from kinema.cli.app import COMMANDS, load_command, main
from kinema.cli.train import Train, override
from kinema.data.manifest import load_manifest
from kinema.inference.trained_model import load_model
from kinema.training.recipe import load_recipe, recipe_names

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md"]
GUIDES = [path for path in PAGES if path.parent.name == "docs" and path.name != "architecture.md"]
QUICK = [README, ROOT / "docs" / "data.md", ROOT / "docs" / "predict.md"]
"""Pages whose commands take seconds; the others train on all of moves."""

PARSED_ONLY = {
    r"ntu|isogd|ucf101|hmdb51|diving48|epic|msr_action3d": "needs a public dataset",
    r"vit_b_16|google/vit|dinov2|rgb_imagenet": "needs published weights",
    r"^torchrun": "starts processes; tests/training/test_distributed.py runs them",
    r"^kinema render": "needs EGL; tests/render renders",
}
"""Commands that are parsed with all their options and not run, with the reason."""

UNTESTED = {
    r"^make (demo|test|long|lint|pythons|lowest|tables)$": "runs the tests or what they test; .ci/run does, but tables",
    r"^(pip|apt-get) install": "installs packages",
    r"^for f in .*unrar": "unpacks a public dataset",
    r"^python benchmarks/(?!tables)": "measures for minutes to hours",
}
"""Commands that are neither parsed nor run, with the reason. Scripts and make targets must exist."""

FASTER = {
    "train": ["--max-steps", "1", "--data.workers", "0", "--data.batch-size", "2"],
    "evaluate": ["--workers", "0"],
    "check": ["--workers", "1"],
    "pack": ["--workers", "1"],
}
"""Options appended to a command that runs: one step, and no processes."""

SMALLER = (["ctn_small"], ["ctn_tiny"])
"""Recipes that run with one block."""

FILE_NAME = re.compile(r"# (\w+\.py)\n")
"""First line of an example that is a file."""

RECIPE = """
from kinema.models.ctn import CTNConfig
from kinema.training.recipe import Clip, Data, Optim, Recipe

RECIPE = Recipe(
    clip=Clip(frames=8, size=32, short_side=32),
    data=Data(manifest="mine.csv", workers=0, batch_size=4),
    model=CTNConfig(stem_kernel=3, stem_channels=4, width=24, depth=1, attention_heads=3),
    optim=Optim(lr=0.01, epochs=1.0),
)
"""


TYPED = [README, ROOT / "docs" / "python.md", ROOT / "docs" / "mfst.md"]
"""Pages whose Python passes `mypy --strict`."""


class Block(NamedTuple):
    """Fenced block of a page."""

    line: int
    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(text[: one.start()].count("\n") + 1, one[1], one[2]) for one in found]


def commands(text: str) -> list[str]:
    """Return the commands of a block, without comments."""
    lines = (re.sub(r"\s+#.*", "", line).strip() for line in text.splitlines())
    return [line for line in lines if line]


def inline_commands(page: Path) -> Iterator[str]:
    """Yield `kinema COMMAND ...` within sentences, with placeholders filled in."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for command in re.findall(r"`(kinema [a-z][^`]*)`", text):
        yield " ".join(command.replace("RECIPE", "ctn_tiny").replace("COMMAND", "check").split())


def matches(patterns: dict[str, str], command: str) -> bool:
    return any(re.search(pattern, command) for pattern in patterns)


def parse(command: str) -> None:
    """Parse a command with all its options, as the command line does; recipes are loaded and overridden."""
    args = shlex.split(command)
    args = args[args.index("kinema.cli") + 1 :] if args[0] == "torchrun" else args[1:]
    name, *rest = args
    if {"--help", "--help-all"} & set(rest):
        with pytest.raises(SystemExit) as stop:
            main(args)
        assert not stop.value.code
        return
    options = load_command(name).from_args(rest, f"kinema {name}")
    if isinstance(options, Train) and options.recipe and not options.recipe.endswith(".py"):
        override(load_recipe(options.recipe), options.overrides, f"kinema train {options.recipe}")


ALL_COMMANDS = [
    pytest.param(command, id=f"{page.name}:{block.line}: {command}")
    for page in PAGES
    for block in blocks(page)
    if block.language == "sh"
    for command in commands(block.text)
]
INLINE_COMMANDS = sorted({command for page in PAGES for command in inline_commands(page)})


@pytest.mark.parametrize("command", ALL_COMMANDS)
def test_every_command_is_parsed(command: str) -> None:
    if command.startswith(("kinema ", "torchrun ")):
        parse(command)
    elif command.startswith("make "):
        assert re.search(rf"^{command.split()[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    else:
        assert matches(UNTESTED, command) or re.match(r"python (benchmarks/tables|docs/make_)", command)
        for script in re.findall(r"\S+\.py", command):
            assert (ROOT / script).is_file()


@pytest.mark.parametrize("command", INLINE_COMMANDS)
def test_every_command_within_a_sentence_is_parsed(command: str) -> None:
    """A mention without options, such as `kinema prepare jhmdb`, must name what exists."""
    _, name, *rest = command.split()
    assert name in COMMANDS
    if "-" in command:
        parse(command)
    elif name == "prepare" and rest:
        parse(f"{command} --help")
    elif name == "train" and rest:
        assert any(recipe.split("/")[0] == rest[0] for recipe in recipe_names())


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the pages name: videos, tables, a recipe, runs and weights."""
    folder = tmp_path_factory.mktemp("docs") / "workspace"
    moves = load_manifest("moves_cross_subject")
    rows = []
    for label in ("kick", "walk"):
        (folder / "videos" / label).mkdir(parents=True)
        (folder / "pairs" / label).mkdir(parents=True)
        for entry in [entry for entry in moves.entries if entry.labels["label"] == label][:5]:
            rgb, name = Path(moves.locate(entry.rgb)), Path(entry.rgb).stem
            (folder / "videos" / label / rgb.name).symlink_to(rgb)
            (folder / "pairs" / label / f"{name}_rgb.mp4").symlink_to(rgb)
            (folder / "pairs" / label / f"{name}_depth.mkv").symlink_to(moves.locate(entry.depth))
            row = {"path": f"videos/{label}/{rgb.name}", "label": label, "source_video": name}
            rows.append(row | {"verb": label, "noun": f"person {len(rows) % 2}"})
    (folder / "new.mp4").symlink_to(rgb)
    (folder / "kinema").mkdir()
    (folder / "kinema" / "assets").symlink_to(ROOT / "kinema" / "assets")
    lines = [",".join(("path", "label", "source_video"))]
    lines += [",".join((row["path"], row["label"], row["source_video"])) for row in rows]
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    (folder / "table.json").write_text(json.dumps([{k: row[k] for k in ("path", "verb", "noun")} for row in rows]))
    (folder / "mine.py").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        main(["prepare", "folder", "--root", "videos", "--out", "mine.csv"])
        for out in ("demo/run", "runs/other"):
            main(["train", "mine.py", "--run.out", out])
        torch.save(load_model("runs/other").model.state_dict(), "weights.pt")
    return folder


def run_page(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the commands and the Python of a page in order, in the current folder; `# NAME.py` begins a file."""
    monkeypatch.setattr(sys, "path", ["", *sys.path])  # as in a script or notebook in this folder
    for block in blocks(page):
        if block.language == "python":
            if name := FILE_NAME.match(block.text):
                Path(name[1]).write_text(block.text)
            exec(compile(block.text, f"{page}:{block.line}", "exec"), {})
        for command in commands(block.text) if block.language == "sh" else ():
            if matches(UNTESTED | PARSED_ONLY, command):
                continue
            if "--help" in command:
                parse(command)
                continue
            args = shlex.split(command)
            if args[0] == "kinema":
                is_large = args[1] == "train" and args[2:3] in SMALLER
                options = FASTER.get(args[1], []) + (["--model.depth", "1"] if is_large else [])
                main([*args[1:], *(options[:2] if "--resume" in args else options)])
            else:
                monkeypatch.setattr(sys, "argv", args[1:])
                with contextlib.chdir(ROOT), pytest.raises(SystemExit) as stop:
                    runpy.run_path(args[1], run_name="__main__")
                assert not stop.value.code


@pytest.mark.filterwarnings("ignore::kinema.inference.recognizer.MissingStream")
@pytest.mark.parametrize(
    "page", [pytest.param(page, id=page.name, marks=[] if page in QUICK else pytest.mark.long) for page in PAGES]
)
def test_the_commands_of_a_page_run_in_order(
    page: Path, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(workspace, tmp_path / "copy", symlinks=True))
    monkeypatch.chdir(folder)
    run_page(page, monkeypatch)


@pytest.mark.long
def test_the_python_of_the_pages_passes_mypy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for page in TYPED:
        for block in blocks(page):
            if block.language == "python":
                name = FILE_NAME.match(block.text)
                (tmp_path / (name[1] if name else f"{page.stem}_{block.line}.py")).write_text(block.text)
    monkeypatch.setenv("MYPYPATH", str(ROOT))
    options = ["--strict", "--follow-imports", "silent", "--config-file", str(ROOT / "pyproject.toml"), "--cache-dir"]
    out, error, code = mypy.api.run([*options, str(ROOT / ".mypy_cache"), *map(str, sorted(tmp_path.glob("*.py")))])
    assert not code, out + error


def test_the_picture_of_the_readme_is_drawn_by_its_script(workspace: Path, tmp_path: Path, monkeypatch) -> None:
    args = ["make_picture.py", str(workspace / "demo/run"), "--out", str(tmp_path / "a.webp")]
    monkeypatch.setattr(sys, "argv", args)
    runpy.run_path(str(ROOT / "docs" / "make_picture.py"), run_name="__main__")
    assert (tmp_path / "a.webp").stat().st_size < 2e6
    assert (ROOT / "docs" / "pictures" / "predictions.webp").stat().st_size < 2e6


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_paths_lead_to_files(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert (page.parent / link).exists(), link
    for path in re.findall(r"`((?:kinema|tests|benchmarks|results|docs)/[\w/.*-]+)`", text):
        assert list(ROOT.glob(path)), path


@pytest.mark.parametrize("page", [README, *GUIDES], ids=lambda page: page.name)
def test_a_page_is_short_and_leads_with_a_command(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert page != README or len(text.splitlines()) <= 120
    assert page == README or re.match(r"# [^\n]+\n\n```sh\n", text), f"{page}: no command after the title"
    prose = re.sub(r"^```.*?^```$|^<!--.*?-->$", "", text, flags=re.MULTILINE | re.DOTALL)
    for paragraph in re.split(r"\n\s*\n|\n(?=[-*] |\d\. )", prose):
        lines = paragraph.strip().splitlines()
        assert len(lines) <= 5 or lines[0].startswith("|"), f"{page}: over five lines: {lines[0]}"
