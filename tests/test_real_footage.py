"""Tests of predictions for real clips of many formats."""

import json
from pathlib import Path

import pytest

from kinema.cli import main
from kinema.inference.trained_model import save_model
from kinema.video.scan import VIDEO_SUFFIXES


def test_predict_reads_every_format_sample(
    real_data: Path, make_trained_model, tiny_ctn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_model(tmp_path / "model", make_trained_model(tiny_ctn()))
    samples = sorted(p for p in (real_data / "format_samples").rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES)
    assert len(samples) > 20
    main(["predict", str(tmp_path / "model"), str(real_data / "format_samples"), "--format", "jsonl"])
    said = capsys.readouterr()
    answers = [json.loads(line) for line in said.out.splitlines()]
    assert sorted(answer["video"] for answer in answers) == [str(p) for p in samples]
    assert all(answer["predictions"]["label"] for answer in answers)
    assert said.err == ""
