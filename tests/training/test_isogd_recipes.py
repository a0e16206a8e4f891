"""Tests of IsoGD from its folder with real pairs to the first training steps of RGB, depth, and both fused."""

from dataclasses import replace
from pathlib import Path

import pytest

from kinema.cli import main
from kinema.data.manifest import load_manifest
from kinema.models.ctn import CTNConfig
from kinema.training.loop import train
from kinema.training.recipe import load_recipe

TINY = CTNConfig(stem_kernel=3, stem_channels=4, width=24, depth=1, attention_heads=3)


@pytest.fixture
def isogd(tmp_path: Path, real_data: Path) -> Path:
    """Return a folder in the layout of the download, with four training and two validation pairs of two gestures."""
    root = tmp_path / "IsoGD"
    lines = (real_data / "isogd_rgbd" / "train_list_subset.txt").read_text().splitlines()
    lists: dict[str, list[str]] = {"train": [], "valid": []}
    for number, line in enumerate(lines[:6]):
        split = "train" if number < 4 else "valid"
        color, depth, label = line.split()
        for name in (color, depth):
            place = root / split / "001" / Path(name).name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(real_data / "isogd_rgbd" / name)
        lists[split].append(f"{split}/001/{Path(color).name} {split}/001/{Path(depth).name} {label}")
    (root / "train_list.txt").write_text("\n".join(lists["train"]))
    (root / "valid_list_with_labels.txt").write_text("\n".join(lists["valid"]))
    return root


def test_from_the_folder_to_the_first_steps(isogd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "isogd.csv"
    main(["prepare", "isogd", "--root", str(isogd), "--out", str(table)])
    assert ": 4 train, 2 val; 249 classes; 0 files cannot be read" in capsys.readouterr().out
    assert load_manifest(table).heads == {"label": 249}
    runs = {}
    for name in ("isogd_mfst_large", "isogd_mfst_large_depth"):
        recipe = load_recipe(name)
        recipe = replace(
            recipe,
            clip=replace(recipe.clip, frames=8, size=32, short_side=40),
            data=replace(recipe.data, manifest=str(table), batch_size=2, workers=0),
            model=TINY,
            compute=replace(recipe.compute, device="cpu"),
            run=replace(recipe.run, out=tmp_path / name),
        )
        runs[name] = train(recipe, max_steps=1)
        assert len(runs[name].steps()) == 1
        assert runs[name].metrics()[-1]["coverage"] == 100
    color, depth = (str(run.path) for run in runs.values())
    args = [
        color,
        "--manifest",
        str(table),
        "--split",
        "val",
        "--fuse",
        depth,
        "--out",
        str(tmp_path / "p.safetensors"),
    ]
    main(["evaluate", *args, "--workers", "0", "--device", "cpu"])
    assert "2 samples of split 'val', coverage 100.00 %" in capsys.readouterr().out
