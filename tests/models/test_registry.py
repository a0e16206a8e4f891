"""Models by name: what is unknown is refused with what was meant, and configs survive JSON."""

import json
import re
from dataclasses import asdict

import pytest
import torch

from kinema.errors import UnknownField, UnknownModel
from kinema.models.ctn import CTN, CTNConfig
from kinema.models.fields import fields_of
from kinema.models.registry import MODELS, build_model, config_from, config_kind, create_model, list_models


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


def test_the_names():
    assert list_models() == (
        "ctn_base",
        "ctn_base_dense",
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
        "rpe_stdt_small",
        "rpe_stdt_tiny",
        "vit_base_spatial",
        "vit_tiny_spatial",
        "vivit_base",
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
    ("name", "fields", "error", "message"),
    [
        ("ctn_bsae", {}, UnknownModel, "there is no model 'ctn_bsae'; did you mean 'ctn_base'?"),
        ("zzz", {}, UnknownModel, "there is ctn_base, ctn_base_dense"),
        ("ctn_tiny", {"postion": "none"}, UnknownField, "ctn_tiny has no field 'postion'; did you mean 'position'?"),
        ("ctn_tiny", {"frame": 8}, UnknownField, "did you mean 'frames'?"),
        ("ctn_tiny", {"depth": "4"}, ValueError, "depth='4' is not of type int"),
        ("ctn_tiny", {"depth": True}, ValueError, "depth=True is not of type int"),
        ("ctn_tiny", {"frames": 8.0}, ValueError, "frames=8.0 is not of type int"),
        ("ctn_tiny", {"position": "sinus"}, ValueError, "position='sinus' is not one of 'none', 'learned'"),
        ("ctn_tiny", {"mapping_kernel": 4}, ValueError, "mapping_kernel=4 is not one of 3, 5"),
        ("ctn_tiny", {"patch": (2, 4)}, ValueError, "patch=(2, 4) is not of type tuple[int, int, int]"),
        ("ctn_tiny", {"frames": 12}, ValueError, "frames must be a multiple of 8: 8, 16, 24, ...; got 12"),
    ],
)
def test_what_is_unknown_or_wrong_is_refused_in_one_line(name, fields, error, message):
    with pytest.raises(error, match=re.escape(message)) as caught:
        create_model(name, num_classes=3, **fields)
    assert "\n" not in str(caught.value)


def test_a_misspelt_option_of_a_config_is_a_type_error():
    with pytest.raises(TypeError, match="postion"):
        CTNConfig(postion="none")


@pytest.mark.parametrize("config", [CTNConfig(), MODELS["ctn_tiny"].config, CTNConfig(patch=(1, 2, 4), dropout=0.1)])
@pytest.mark.parametrize("as_plain", [asdict, fields_of])
def test_a_config_survives_json(config, as_plain):
    stored = json.loads(json.dumps({"kind": config_kind(config), "config": as_plain(config)}))
    assert config_from(stored["kind"], stored["config"]) == config
    assert isinstance(config_from(stored["kind"], stored["config"]).patch, tuple)


def test_a_stored_config_of_another_kind_or_with_another_field_is_refused():
    assert config_kind(CTNConfig()) == "ctn"
    with pytest.raises(UnknownModel, match="there is no model kind 'ctm'; did you mean 'ctn'"):
        config_from("ctm", {})
    with pytest.raises(UnknownField, match="CTNConfig has no field 'widht'; did you mean 'width'"):
        config_from("ctn", {"widht": 3})
    with pytest.raises(ValueError, match="width='3' is not of type int"):
        config_from("ctn", {"width": "3"})


def test_the_type_of_the_config_names_the_network():
    assert isinstance(
        build_model(MODELS["ctn_tiny"].config, heads={"label": 2}, channels={"rgb": 3}, frames=8, size=16), CTN
    )
