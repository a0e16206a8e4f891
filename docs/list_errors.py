"""Print every error that kinema raises: `python docs/list_errors.py [FOLDER]`.

One line per raise of a KinemaError: file and line, kind, fields passed, and the message with its placeholders.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from kinema import errors

ROOT = Path(__file__).parents[1] / "kinema"
KINDS = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, errors.KinemaError)}


class RaisedError(NamedTuple):
    """One place that creates an error.

    Attributes:
        file: Path relative to the package.
        line: Line of the file.
        kind: Name of the class.
        fields: Keyword arguments that are passed, e.g. `path`.
        message: Message template; empty if it is built elsewhere.
    """

    file: str
    line: int
    kind: str
    fields: tuple[str, ...]
    message: str


def raised_errors(root: Path = ROOT) -> Iterator[RaisedError]:
    """Yield every call that creates a KinemaError, by file and line."""
    for path in sorted(root.rglob("*.py")):
        calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
        for call in sorted(calls, key=lambda call: call.lineno):
            if isinstance(call.func, ast.Name) and call.func.id in KINDS:
                fields = tuple(keyword.arg or "**" for keyword in call.keywords)
                message = _template(call.args[0]) if call.args else ""
                yield RaisedError(path.relative_to(root).as_posix(), call.lineno, call.func.id, fields, message)


def _template(node: ast.expr) -> str:
    """Return a message with its placeholders in braces."""
    match node:
        case ast.Constant():
            return str(node.value)
        case ast.JoinedStr():
            return "".join(map(_template, node.values))
        case ast.FormattedValue():
            return "{" + ast.unparse(node.value) + "}"
        case ast.BinOp():
            return _template(node.left) + _template(node.right)
    return "{" + ast.unparse(node) + "}"


if __name__ == "__main__":
    for error in raised_errors(ROOT / (sys.argv[1] if len(sys.argv) > 1 else "")):
        print(f"{error.file}:{error.line}  {error.kind}({', '.join(error.fields)})\n    {error.message}")
