"""Tests of the public names: lazy, complete, and with an error for unknown names."""

import doctest

import pytest

import kinema
import kinema.inference.recognizer
import kinema.models.registry


def test_every_public_name_can_be_imported() -> None:
    assert set(kinema.__all__) == {"Recipe", "Recognizer", "create_model", "evaluate", "list_models", "train"}
    for name in kinema.__all__:
        assert callable(getattr(kinema, name))
        assert name in dir(kinema)


def test_an_unknown_name_is_refused_with_the_public_names() -> None:
    with pytest.raises(AttributeError, match="Recognizer"):
        _ = kinema.recognize


@pytest.mark.parametrize("module", [kinema.models.registry, kinema.inference.recognizer])
def test_the_examples_in_docstrings_run(module: object) -> None:
    result = doctest.testmod(module)  # type: ignore[arg-type]  # a module by parametrize
    assert result.attempted > 0
    assert result.failed == 0
