"""CSV tables as rows with line numbers, and their text, which no spreadsheet takes for formulas."""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from kinema.data.names import is_unicode
from kinema.errors import ManifestError
from kinema.terminal import printable

FORMULA = re.compile(r"'*[=+\-@\t\r\uff1d\uff0b\uff0d\uff20]")
"""Start of a cell that a spreadsheet takes for a formula, or that has been quoted already."""
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Return rows as the text of a CSV table; None is an empty cell.

    Texts that a spreadsheet would run as formulas, but no numbers, get an apostrophe, which `read_csv` removes.
    """
    return "".join(map(_line, rows))


def _line(row: Sequence[object]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow(map(_quote, row))  # with its own line end, without which a lone \r is not quoted
    return line.getvalue().removesuffix("\r\n") + "\n"


def _quote(cell: object) -> object:
    is_formula = isinstance(cell, str) and FORMULA.match(cell) and not NUMBER.fullmatch(cell)
    return f"'{cell}" if is_formula else cell


def _unquote(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


def read_csv(path: Path, table: bytes) -> list[tuple[int, dict[str, str]]]:
    """Return the line number and the cells of each row of a file's content, without the spaces around cells.

    Raises:
        ManifestError: The table is empty, not UTF-8 text, or not a table.
    """
    try:
        text = table.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        problem = f"{error.reason} at byte {error.start}"
        raise ManifestError(f"{path}: not UTF-8 text ({problem}). Save it as UTF-8.", path=path) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ManifestError(f"{path}, line {line}: has a null character. Save it as text.", path=path, line=line)
    reader = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True)
    parsed = []
    try:
        columns = [column.strip() for column in reader.fieldnames or ()]
        if len(set(columns)) != len(columns):
            column = Counter(columns).most_common(1)[0][0]
            raise ManifestError(
                f"{path}, line 1: duplicate column {column!r}. Remove one.", path=path, line=1, field=column
            )
        for row in reader:
            if None in row or None in row.values():
                cells = sum(len(cell or ()) if key is None else cell is not None for key, cell in row.items())
                raise ManifestError(
                    f"{path}, line {reader.line_num}: expected {len(columns)} cells as in the header, got {cells}",
                    path=path,
                    line=reader.line_num,
                )
            parsed.append((reader.line_num, {column.strip(): _unquote(cell.strip()) for column, cell in row.items()}))
    except csv.Error as error:
        line = reader.line_num + 1
        raise ManifestError(f"{path}, line {line}: {error}", path=path, line=line) from error
    if not parsed:
        raise ManifestError(f"{path}: empty table; expected a header and one line per sample", path=path)
    return parsed


def check_unicode(path: Path, rows: Sequence[Sequence[object]]) -> None:
    """Raise ManifestError if a cell has bytes of a file name that are not UTF-8, or half a character."""
    for row in rows:
        for column, cell in zip(rows[0], row, strict=True):
            if isinstance(cell, str) and not is_unicode(cell):
                problem = f"{column} '{printable(cell)}' is not UTF-8 text"
                fix = "Rename it, for example with `convmv -f latin1 -t utf8`"
                raise ManifestError(f"{path}: {problem}. {fix}.", path=path, field=str(column))


def parse_number(column: str, cell: str) -> int | float:
    """Return a number of a manifest: seconds and rates may have a fraction."""
    kind = float if column == "rate" or column.endswith("_s") else int
    try:
        return kind(cell)
    except ValueError:
        expected = "a number" if kind is float else "a whole number"
        raise ManifestError(f"{column}: expected {expected}, got {cell!r}", field=column) from None
