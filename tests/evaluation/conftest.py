"""Fixtures of the evaluation tests."""

from pathlib import Path

import pytest

from kinema.inference.trained_model import save_model


@pytest.fixture
def model_folder(make_trained_model, tiny_ctn, tmp_path: Path) -> Path:
    save_model(tmp_path / "model", make_trained_model(tiny_ctn(channels=3)))
    return tmp_path / "model"
