"""Public names are loaded lazily and completely; unknown names are refused."""

import doctest

import pytest

import kinema
import kinema.inference.recognizer
import kinema.models.registry


def test_every_public_name_can_be_imported() -> None:
    names = "Recipe Recognizer create_model evaluate list_models load_manifest load_model load_recipe train"
    assert set(kinema.__all__) == set(names.split())
    for name in kinema.__all__:
        assert callable(getattr(kinema, name))
        assert name in dir(kinema)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="recognize"):
        _ = kinema.recognize


@pytest.mark.parametrize("module", [kinema.models.registry, kinema.inference.recognizer])
def test_the_examples_in_docstrings_run(module: object) -> None:
    result = doctest.testmod(module)  # type: ignore[arg-type]  # a module by parametrize
    assert result.attempted > 0
    assert result.failed == 0
