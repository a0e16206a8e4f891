"""Models are created by name, unknown names are refused with a suggestion, and configs survive JSON."""

import json
from pathlib import Path

import pytest
import torch

from kinema.config import to_json
from kinema.errors import ClipError, ConfigError, UnknownField, UnknownModel
from kinema.models.ctn import CTN, CTNConfig
from kinema.models.registry import MODELS, config_from_json, create_model, list_models
from kinema.models.rpe_stdt import RPESTDTConfig
from kinema.models.two_stream import TwoStreamConfig

STORED = Path(__file__).parents[1] / "stored"


@pytest.mark.parametrize("name", list_models())
def test_each_named_model_builds_and_has_a_summary(name):
    with torch.device("meta"):
        model = create_model(name, num_classes=4)
    entry = MODELS[name]
    clips = [
        torch.empty(2, count, entry.frames, entry.size, entry.size, device="meta") for count in entry.channels.values()
    ]
    assert model.eval()(*clips).shape == (2, 4)
    assert entry.summary


def test_the_model_names():
    assert list_models() == (
        "ctn_base",
        "ctn_base_dense",
        "ctn_s14",
        "ctn_small",
        "ctn_tiny",
        "mfst_base",
        "mfst_bm",
        "mfst_large",
        "mfst_large_rgbd",
        "mfst_small",
        "mfst_tiny",
        "mfst_tiny_rgbd",
        "rpe_stdt_base",
        "rpe_stdt_base12",
        "rpe_stdt_s14",
        "rpe_stdt_small",
        "rpe_stdt_tiny",
        "vit_base_spatial",
        "vit_s14_spatial",
        "vit_tiny_spatial",
        "vivit_base",
        "vivit_s14",
        "vivit_tiny",
    )


def test_fields_change_the_config_and_the_clip():
    model = create_model(
        "ctn_tiny", num_classes={"verb": 3, "noun": 2}, depth=1, position="learned", channels=1, frames=8, size=32
    )
    assert isinstance(model, CTN)
    assert (model.config.depth, model.config.position, model.config.width) == (1, "learned", 128)
    answer = model(torch.randn(2, 1, 8, 32, 32))
    assert {head: logits.shape for head, logits in answer.items()} == {"verb": (2, 3), "noun": (2, 2)}


@pytest.mark.parametrize(
    ("name", "fields", "error", "field", "word"),
    [
        ("ctn_bsae", {}, UnknownModel, None, "'ctn_base'"),
        ("zzz", {}, UnknownModel, None, "ctn_base, ctn_base_dense"),
        ("ctn_tiny", {"postion": "none"}, UnknownField, "postion", "'position'"),
        ("ctn_tiny", {"frame": 8}, UnknownField, "frame", "'frames'"),
        ("ctn_tiny", {"kind": "mfst"}, ConfigError, "kind", "'ctn'"),
        ("ctn_tiny", {"depth": "4"}, ConfigError, "depth", "an int"),
        ("ctn_tiny", {"depth": True}, ConfigError, "depth", "an int"),
        ("ctn_tiny", {"frames": 8.0}, ConfigError, "frames", "an int"),
        ("ctn_tiny", {"frames": True}, ConfigError, "frames", "an int"),
        ("ctn_tiny", {"position": "sinus"}, ConfigError, "position", "'none' or 'learned'"),
        ("ctn_tiny", {"mapping_kernel": 4}, ConfigError, "mapping_kernel", "3 or 5"),
        ("ctn_tiny", {"patch": (2, 4)}, ConfigError, "patch.2", "missing"),
        ("ctn_tiny", {"frames": 12}, ClipError, "frames", "8, 16, 24"),
    ],
)
def test_unknown_names_and_invalid_values_are_refused(raises, name, fields, error, field, word):
    with raises(error, word, field=field):
        create_model(name, num_classes=3, **fields)


def test_a_misspelt_field_of_a_config_is_refused(raises):
    with raises(ConfigError, "'position'", field="postion"):
        CTNConfig(postion="none")


@pytest.mark.parametrize(
    "config",
    [
        *(model.config for model in MODELS.values()),
        CTNConfig(patch=(1, 2, 4), dropout=0.1),
        TwoStreamConfig(rgb=CTNConfig(depth=2), depth=RPESTDTConfig(pool_layers=(2,)), stream_dropout=0.5),
    ],
)
def test_a_config_survives_json(config):
    stored = json.loads(json.dumps(to_json(config)))
    assert stored["kind"] == config.kind
    assert config_from_json(stored) == config


@pytest.mark.parametrize(
    ("stored", "field", "word"),
    [
        ({"kind": "ctm"}, "", "'ctn'"),
        ({}, "kind", "missing"),
        ([], "", "object"),
        ({"kind": "ctn", "widht": 3}, "widht", "'width'"),
        ({"kind": "ctn", "width": "3"}, "width", "an int"),
        ({"kind": "ctn", "config": {"widht": 3}}, "widht", "'width'"),
        ({"kind": "ctn", "config": 3}, "config", "unknown"),
        ({"kind": "ctn", "width": 768, "config": {}}, "config", "unknown"),
    ],
)
def test_a_stored_config_of_another_kind_or_with_another_field_is_refused(raises, stored, field, word):
    with raises(ConfigError, word, field=field):
        config_from_json(stored)


def test_configs_that_kinema_0_1_stored_are_read():
    recipe = json.loads((STORED / "recipe_two_streams.json").read_text())
    assert config_from_json(recipe["model"]) == MODELS["mfst_tiny_rgbd"].config
    model = json.loads((STORED / "ctn_artefact" / "artefact.json").read_text())
    config = config_from_json(model["model"])
    assert isinstance(config, CTNConfig)
    assert (config.width, config.patch, config.stem_kernel, config.position) == (12, (2, 4, 4), 3, "learned")


def test_the_config_builds_its_network():
    config = MODELS["ctn_tiny"].config
    assert isinstance(config.build(heads={"label": 2}, channels={"rgb": 3}, frames=8, size=16), CTN)
