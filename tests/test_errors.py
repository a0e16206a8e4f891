"""Tests of the list of all errors, and of the messages of this package's commands."""

import runpy
from pathlib import Path

ERRORS = runpy.run_path(str(Path(__file__).parents[1] / "docs" / "list_errors.py"))


def test_the_list_has_every_raise_with_its_message_and_fields() -> None:
    listed = list(ERRORS["raised_errors"]())
    assert len(listed) > 300
    assert {error.kind for error in listed} <= ERRORS["KINDS"]
    (error,) = (error for error in listed if error.file == "curation/pack.py" and "output folder" in error.message)
    assert (error.kind, error.fields) == ("PackError", ("path", "field"))
    assert error.message == "{path}: lies in the output folder {out}. Choose another folder."


def test_messages_are_one_line() -> None:
    assert not [error for error in ERRORS["raised_errors"]() if "\n" in error.message]
