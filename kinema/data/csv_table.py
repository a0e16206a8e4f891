"""CSV tables as rows with line numbers."""

import csv
import io
from collections import Counter
from pathlib import Path

from kinema.errors import ManifestError


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
            parsed.append((reader.line_num, {column.strip(): cell.strip() for column, cell in row.items()}))
    except csv.Error as error:
        line = reader.line_num + 1
        raise ManifestError(f"{path}, line {line}: {error}", path=path, line=line) from error
    if not parsed:
        raise ManifestError(f"{path}: empty table; expected a header and one line per sample", path=path)
    return parsed
