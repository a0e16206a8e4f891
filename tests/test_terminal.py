"""Names on the terminal: nothing in them moves the cursor, adds a line or stops the program."""

import ast
import io
import json
from pathlib import Path

import pytest
from rich.table import Table

from kinema.terminal import TerminalConsole, echo, echo_data, printable

PACKAGE = Path(__file__).parents[1] / "kinema"
HOSTILE = "a\x1b[2J\nb\r\t\x9bc\u2028\u202e\u2066d\x7f\x00"
OWN_TEXT = {"cli/app.py", "cli/help.py", "render/moves.py"}
"""Modules that print lines of their own, without names from outside."""


def test_names_stay_on_one_line_and_give_no_orders():
    shown = printable(HOSTILE)
    assert shown.isprintable()
    assert json.loads(f'"{shown}"') == HOSTILE
    assert printable("é 日本 👩\u200d🚀 <b>[red] \\n") == "é 日本 👩\u200d🚀 <b>[red] \\n"


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
def test_every_name_can_be_printed(monkeypatch, encoding):
    stream = io.TextIOWrapper(io.BytesIO(), encoding)
    name = "caf\udce9 é 日 👩"
    monkeypatch.setattr("sys.stderr", stream)
    echo(name, to="stderr")
    stream.flush()
    line = stream.buffer.getvalue().decode(encoding)
    assert line.endswith("\n")
    assert json.loads(f'"{line.strip()}"') == name


def test_cells_of_tables_are_printed_like_lines():
    table = Table("class\x1b[1m", box=None)
    table.add_row(HOSTILE)
    console = TerminalConsole(file=io.StringIO(), width=200, markup=False)
    console.print(table)
    console.print(HOSTILE, soft_wrap=True)
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 3
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize("is_terminal", [False, True])
def test_data_is_changed_on_a_terminal_alone(capsys, monkeypatch, is_terminal):
    monkeypatch.setattr("sys.stdout.isatty", lambda: is_terminal)
    echo_data('"a\nb",\x1b[1m,caf\udce9\n')
    assert capsys.readouterr().out.count("\x1b") == (not is_terminal)


def test_every_module_prints_through_the_terminal():
    for path in PACKAGE.rglob("*.py"):
        if path.name == "terminal.py" or str(path.relative_to(PACKAGE)) in OWN_TEXT:
            continue
        calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        assert "print" not in {call.id for call in calls if isinstance(call, ast.Name)}, path
