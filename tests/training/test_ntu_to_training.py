"""Tests of NTU RGB+D from the downloaded folder to the first training step, on small synthetic recordings."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kinema.cli import main
from kinema.data.manifest import load_manifest

NAMES = [
    f"S{setup:03}C{camera:03}P{performer:03}R001A{action:03}"
    for setup in (1, 2)
    for camera in (1, 2)
    for performer in {1: (1, 3), 2: (8, 10)}[setup]
    for action in (1, 60)
]
"""Two setups, two cameras; performers 1 and 8 train, 3 and 10 test."""

RECIPE = """
from kinema.models.ctn import CTNConfig
from kinema.training.recipe import Augmentation, Clip, Data, Optim, Recipe

RECIPE = Recipe(
    clip=Clip(frames=8, size=32, short_side=36),
    data=Data(evaluate="test", workers=0, batch_size=4, augmentation=Augmentation(flip=0.5, mixup_alpha=0.8)),
    model=CTNConfig(stem_kernel=3, stem_channels=4, width=24, depth=1, attention_heads=3),
    optim=Optim(lr=0.01, epochs=2.0),
)
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, write_video) -> Path:
    """Return a folder of RGB at the official size and masked depth, nine frames each, under the official names."""
    root = tmp_path_factory.mktemp("ntu")
    rng = np.random.default_rng(0)
    (root / "nturgb+d_rgb").mkdir()
    coarse = rng.integers(0, 256, (9, 9, 16, 3), dtype=np.uint8).repeat(120, 1).repeat(120, 2)
    made = Path(write_video(root / "made.avi", coarse, options={"preset": "ultrafast", "crf": "40"}))
    for name in NAMES:
        (root / "nturgb+d_rgb" / f"{name}_rgb.avi").hardlink_to(made)
        folder = root / "nturgb+d_depth_masked" / name
        folder.mkdir(parents=True)
        for number in range(1, 10):
            depth = np.zeros((424, 512), np.uint16)
            depth[100 + number : 250, 180 + 5 * number : 260 + 5 * number] = 2500
            Image.fromarray(depth).save(folder / f"MDepth-{number:08}.png", compress_level=1)
    made.unlink()
    return root


@pytest.mark.parametrize("modality", ["rgb", pytest.param("depth", marks=pytest.mark.long)])
def test_from_the_download_to_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], root: Path, modality: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.py").write_text(RECIPE)
    main(["prepare", "ntu60", "--root", str(root), "--out", "ntu60.csv"])
    stdout, stderr = capsys.readouterr()
    assert "8 of 16560 declared test, 8 of 40320 declared train; 60 classes; 0 files cannot be read" in stdout
    assert "RGB of 16 samples is cropped to 640 x 480 px around the person in masked depth" in stderr
    manifest = load_manifest("ntu60.csv")
    assert {entry.split for entry in manifest.entries if entry.subject in ("P001", "P008")} == {"train"}
    assert all(entry.rgb_box is not None and entry.frames == 9 for entry in manifest.entries)
    args = [
        "--data.manifest",
        "ntu60.csv",
        "--clip.modalities",
        modality,
        "--max-steps",
        "1",
        "--compute.device",
        "cpu",
    ]
    if modality == "depth":
        args += ["--clip.subject-margin", "0.1", "--clip.depth-channels", "3", "--clip.depth-colors", "jet"]
    with pytest.raises(SystemExit):
        main(["train", "small.py", *args])
    assert "8 samples of split 'test'; its JSON declares 16560" in capsys.readouterr().err
    facts = json.loads(Path("ntu60.json").read_text())
    Path("ntu60.json").write_text(json.dumps({**facts, "declared": {"train": 8, "test": 8}}))  # a part, on purpose
    main(["train", "small.py", *args])
    (step,) = Path("runs/latest/steps.jsonl").read_text().splitlines()
    assert np.isfinite(json.loads(step)["loss"])
