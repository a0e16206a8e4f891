"""Figures 3.6, 3.7: features of drawn videos in the plane; only the videos of the chosen classes are shown."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.manifold import TSNE

from kinema.data.manifest import load_manifest
from kinema.errors import ManifestError, ModelError
from kinema.evaluation.projection import HMDB51_CLASSES, embed_videos, project_features
from kinema.inference.trained_model import NOT_PRETRAINED, TrainedModel, save_model
from kinema.models.rpe_stdt import RPESTDTConfig
from kinema.models.vit_spatial import ViTSpatialConfig
from kinema.transforms.preprocessing import Preprocessing
from kinema.transforms.sampling import Sampling

ROOT = Path(__file__).parents[2]
RPE_STDT = RPESTDTConfig(
    width=16,
    spatial_layers=1,
    spatial_heads=2,
    spatial_mlp_channels=24,
    temporal_heads=2,
    temporal_head_channels=6,
    temporal_mlp_channels=20,
)
VIT = ViTSpatialConfig(width=16, depth=1, attention_heads=2)


@pytest.fixture(scope="module")
def manifest():
    return load_manifest("moves_cross_subject")


@pytest.fixture(params=[RPE_STDT, VIT], ids=["rpe-stdt", "vit"])
def trained(request, manifest):
    torch.manual_seed(0)
    network = request.param.build(heads=manifest.heads, channels={"rgb": 3}, frames=4, size=32)
    return TrainedModel(
        model=network,
        config=request.param,
        classes=manifest.classes,
        sampling=Sampling(frames=4),
        preprocessing=Preprocessing(short_side=32, size=32),
        precision="float32",
        provenance={"start_weights": NOT_PRETRAINED},
    )


def test_the_features_are_those_that_the_heads_classify(trained, manifest):
    positions = np.array(manifest.positions("test"))[[5, 0, 9]]
    features = embed_videos(trained, manifest, positions, batch_size=2, device="cpu")
    assert features.shape == (3, 16)
    alone = embed_videos(trained, manifest, positions[1:2], device="cpu")
    np.testing.assert_allclose(features[1:2], alone, rtol=0, atol=1e-5)
    network = trained.model.eval()
    seen = []
    network.heads.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    engine = trained.engine(torch.device("cpu"))
    clip = torch.randint(0, 256, (2, 3, 4, 32, 32), dtype=torch.uint8)
    with torch.inference_mode():
        network(trained.preprocessing.normalize("rgb", clip))
    torch.testing.assert_close(engine.features({"rgb": clip}), seen[0], rtol=0, atol=1e-5)


def test_the_drawn_videos_are_projected_and_those_of_the_classes_shown(trained, manifest):
    classes = ("walk", "kick")
    found = project_features(trained, manifest, classes=classes, num_videos=12, seed=3, device="cpu")
    positions = np.array(manifest.positions("test"))
    drawn = sorted(np.random.default_rng(3).permutation(positions)[:12].tolist())
    expected = [i for i in drawn if manifest.entries[i].labels["label"] in classes]
    assert found.index.tolist() == expected
    assert [classes[t] for t in found.targets] == [manifest.entries[i].labels["label"] for i in expected]
    assert found.num_projected == 12
    assert found.start_weights == NOT_PRETRAINED
    features = embed_videos(trained, manifest, np.array(drawn), device="cpu")
    plane = TSNE(n_components=2, perplexity=11 / 3, init="pca", random_state=3).fit_transform(features)
    assert np.array_equal(found.points, plane[[drawn.index(i) for i in expected]])


def test_what_cannot_be_shown_is_refused(trained, manifest, raises):
    with raises(ManifestError, "sword_exercise", path=manifest.path, field="label"):
        project_features(trained, manifest)
    with raises(ManifestError, "2 drawn", path=manifest.path, field="classes"):
        project_features(trained, manifest, classes=("walk",), num_videos=2, device="cpu")


def test_a_network_without_features_is_refused(trained, raises):
    engine = trained.engine(torch.device("cpu"))
    engine.model = torch.nn.Flatten()
    with raises(ModelError, "features"):
        engine.features({"rgb": torch.zeros(1, 3, 4, 32, 32, dtype=torch.uint8)})


def test_the_figures_are_drawn_by_the_script(trained, tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("benchmark_figures", ROOT / "benchmarks" / "figures.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    save_model(tmp_path / "model", trained)
    out = tmp_path / "plane.svg"
    args = ["tsne", str(tmp_path / "model"), "moves_cross_subject", "--classes", "walk", "kick", "--videos", "10"]
    script.main([*args, "--workers", "0", "--out", str(out)])
    assert b"walk" in out.read_bytes() or out.stat().st_size > 5000
    line = capsys.readouterr().out
    assert "of 10 videos" in line
    assert NOT_PRETRAINED in line


def test_the_ten_classes_are_those_of_the_figures():
    assert len(set(HMDB51_CLASSES)) == 10
    assert {"sword_exercise", "flic_flac", "shake_hands", "wave"} <= set(HMDB51_CLASSES)
