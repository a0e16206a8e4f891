"""ViT frame by frame, and RPE-STDT's spatial encoder, equal the ViT of `transformers`."""

import copy
import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from small_rpe_stdt import clip, shake
from torch import nn
from transformers import ViTConfig, ViTModel

from kinema.config import to_json
from kinema.errors import ClipError, ConfigError, UnknownField
from kinema.models.complexity import FullLastBlock, macs, parameter_count
from kinema.models.registry import MODELS, config_from_json, create_model
from kinema.models.rpe_stdt import RPESTDT, RPESTDTConfig
from kinema.models.vit_spatial import ViTSpatial, ViTSpatialConfig
from kinema.models.vivit import ViViTConfig

TINY = ViTSpatialConfig(patch=8, width=16, depth=2, attention_heads=2, mlp_ratio=2)
VIVIT = ViViTConfig(tubelet=(2, 8, 8), width=16, depth=2, attention_heads=2, mlp_ratio=2)
RPE_STDT = RPESTDTConfig(
    patch=8,
    width=16,
    spatial_layers=2,
    spatial_heads=2,
    spatial_mlp_channels=32,
    temporal_layers=1,
    temporal_heads=2,
    temporal_head_channels=6,
    temporal_mlp_channels=20,
    pool="none",
    pool_layers=(),
)


def tiny(heads=None, frames=4, size=32, channels=3, **changes):
    torch.manual_seed(0)
    config = dataclasses.replace(TINY, **changes)
    return ViTSpatial(config, heads=heads or {"label": 5}, channels=channels, frames=frames, size=size)


def theirs(model):
    """Return a ViTModel with the weights of ViTSpatial or of RPE-STDT's spatial encoder, with or without position."""
    if isinstance(model, ViTSpatial):
        class_token, blocks, norm, position = model.class_token, model.blocks, model.norm, model.position
    else:
        class_token, blocks, norm = model.spatial_class_token, model.spatial_blocks, model.spatial_norm
        position = model.spatial_position
    layers = []
    for block in blocks:
        query, key, value = block.attention.mapping.weight.chunk(3)
        biases = block.attention.mapping.bias.chunk(3)
        layers.append(
            {
                "attention.q_proj.weight": query,
                "attention.q_proj.bias": biases[0],
                "attention.k_proj.weight": key,
                "attention.k_proj.bias": biases[1],
                "attention.v_proj.weight": value,
                "attention.v_proj.bias": biases[2],
                "attention.o_proj.weight": block.attention.out.weight,
                "attention.o_proj.bias": block.attention.out.bias,
                "layernorm_before.weight": block.norm_attention.weight,
                "layernorm_before.bias": block.norm_attention.bias,
                "layernorm_after.weight": block.norm_mlp.weight,
                "layernorm_after.bias": block.norm_mlp.bias,
                "mlp.fc1.weight": block.mlp.expand.weight,
                "mlp.fc1.bias": block.mlp.expand.bias,
                "mlp.fc2.weight": block.mlp.contract.weight,
                "mlp.fc2.bias": block.mlp.contract.bias,
            }
        )
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=len(layers),
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        patch_size=8,
        layer_norm_eps=1e-6,
    )
    state = {f"layers.{number}.{name}": value for number, layer in enumerate(layers) for name, value in layer.items()}
    state |= {
        "embeddings.cls_token": class_token.token.view(1, 1, 16),
        "embeddings.position_embeddings": torch.zeros(1, 17, 16) if position is None else position.table[None],
        "embeddings.patch_embeddings.projection.weight": model.embedding.patches.weight,
        "embeddings.patch_embeddings.projection.bias": model.embedding.patches.bias,
        "layernorm.weight": norm.weight,
        "layernorm.bias": norm.bias,
    }
    vit = ViTModel(config, add_pooling_layer=False).eval()
    vit.load_state_dict(state)
    return vit


def of_frames(model, given, **options):
    """Return transformers' normalized class token of each frame."""
    return torch.stack([model(frames.transpose(0, 1), **options).last_hidden_state[:, 0] for frames in given])


# -- the same as elsewhere ---------------------------------------------------------------------------------------------


def test_features_are_the_mean_of_vits_class_tokens():
    model, given = shake(tiny()), clip()
    vit = theirs(model)
    expected = of_frames(vit, given).mean(1)
    torch.testing.assert_close(model.features(given), expected, rtol=0, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(model.features(given), expected, rtol=0, atol=1e-5)
    head = model.heads.classifiers["head_label"]
    torch.testing.assert_close(model(given), F.linear(expected, head.weight, head.bias), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (64, 64), (32, 48), (24, 8), (8, 56)])
def test_positions_for_other_sizes_are_interpolated_like_vits(height, width):
    model, given = shake(tiny()), clip(2, 3, height, width)
    vit = theirs(model)
    expected = of_frames(vit, given, interpolate_pos_encoding=True).mean(1)
    torch.testing.assert_close(model.features(given), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("position", ["none", "absolute", "shared", "per-head"])
@pytest.mark.parametrize("terms", ["query", "query-key-value"])
def test_the_spatial_encoder_of_rpe_stdt_with_zero_tables_equals_vit(position, terms):
    config = dataclasses.replace(RPE_STDT, position=position, position_terms=terms)
    model, given = shake(RPESTDT(config, heads={"label": 3}, frames=4, size=32)), clip()
    tables = [table for name, table in model.named_parameters() if "attention.position" in name]
    before = model.encode_space(given)
    for table in tables:
        nn.init.zeros_(table)
    vit = theirs(model)
    torch.testing.assert_close(model.encode_space(given), of_frames(vit, given), rtol=0, atol=1e-5)
    assert bool(tables) == (position in ("shared", "per-head"))
    assert not tables or (model.encode_space(given) - before).abs().max() > 1e-2


# -- sizes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("depth", "expected"), [(12, 85_876_325), (8, 57_524_837)])
def test_exact_parameter_counts(depth, expected):
    with torch.device("meta"):
        model = create_model("vit_base_spatial", num_classes=101, depth=depth)
    assert parameter_count(model) == expected
    assert {parameter_count(block) for block in model.blocks} == {7_087_872}
    assert parameter_count(model.position) == 197 * 768


def macs_by_hand(config, *, frames, size, last_block, classes):
    """Return the multiply-adds from the shapes alone."""
    width, n = config.width, (size // config.patch) ** 2 + 1
    total = (n - 1) * 3 * config.patch**2 * width
    for rows in [n] * (config.depth - 1) + [1 if last_block == "class" else n]:
        total += (rows + 2 * n) * width**2 + 2 * rows * n * width + rows * (1 + 2 * config.mlp_ratio) * width**2
    return frames * total + width * classes


@pytest.mark.parametrize(("depth", "whole", "saved"), [(12, 281.0e9, 0.07), (8, 188.0e9, 0.10)])
def test_macs_counted_two_ways(depth, whole, saved):
    with torch.device("meta"):
        model = create_model("vit_base_spatial", num_classes=101, depth=depth)
    counted = macs(FullLastBlock(model), channels=3, frames=16, size=224)
    assert counted == macs_by_hand(model.config, frames=16, size=224, last_block="all", classes=101)
    assert counted == pytest.approx(whole, rel=5e-4)
    run = macs(model, channels=3, frames=16, size=224)
    assert run == macs_by_hand(model.config, frames=16, size=224, last_block="class", classes=101)
    assert 1 - run / counted == pytest.approx(saved, abs=0.005)


def test_the_class_row_of_the_last_block_equals_that_of_the_full_block_in_output_and_gradient():
    model, results = shake(tiny()).double(), []
    for last_block in ("class", "all"):
        given = clip(dtype=torch.float64).requires_grad_()
        model.zero_grad()
        features = model.features(given, last_block)
        features.logsumexp(1).square().sum().backward()
        learned = [parameter for name, parameter in model.named_parameters() if not name.startswith("heads")]
        results.append([features, given.grad, *(parameter.grad.clone() for parameter in learned)])
    for alone, among in zip(*results, strict=True):
        torch.testing.assert_close(alone, among, rtol=0, atol=1e-11)


# -- frames ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [1, 2, 3, 5, 16, 33])
def test_each_frame_is_encoded_independently(frames):
    model, given = shake(tiny()), clip(2, frames)
    alone = torch.stack([model.features(given[:, :, [frame]]) for frame in range(frames)])
    torch.testing.assert_close(model.features(given), alone.mean(0), rtol=0, atol=1e-5)


def test_frame_order_does_not_matter():
    model, given = shake(tiny()), clip(2, 5)
    torch.testing.assert_close(model(given[:, :, [3, 0, 4, 1, 2]]), model(given), rtol=0, atol=1e-5)


def test_a_clip_without_frames_is_refused(raises):
    with raises(ClipError, field="frames"):
        tiny()(torch.zeros(2, 3, 0, 32, 32))


def test_clips_do_not_mix_and_evaluation_does_not_depend_on_the_batch():
    model = shake(tiny(dropout=0.3, drop_path=0.3))
    assert not torch.equal(model(clip()), model(clip()))
    model.eval()
    three = clip(batch=3)
    together, alone = model(three), torch.cat([model(one[None]) for one in three])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    three[1] += 1
    torch.testing.assert_close(model(three)[[0, 2]], together[[0, 2]], rtol=1e-5, atol=1e-5)


def test_a_zero_clip_gives_finite_logits_and_nan_propagates():
    model = tiny()
    assert model(torch.zeros(2, 3, 4, 32, 32)).isfinite().all()
    broken = clip()
    broken[1, 0, 2, 10, 10] = math.nan
    answer = shake(model)(broken)
    assert answer[0].isfinite().all()
    assert answer[1].isnan().all()


# -- learning ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config", [TINY, VIVIT, dataclasses.replace(VIVIT, position="none")], ids=["frames", "joint", "joint-no-position"]
)
def test_every_parameter_but_the_key_bias_gets_a_gradient(config):
    """A bias of keys shifts all logits of a row alike, which softmax cancels."""
    torch.manual_seed(0)
    model = shake(config.build(heads={"label": 5}, channels={"rgb": 3}, frames=4, size=32)).double()
    (3 * model(clip(4, 4, dtype=torch.float64))).logsumexp(1).square().sum().backward()
    grads = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert ("position.table" in grads) == (getattr(config, "position", "learned") == "learned")
    assert [name for name, grad in grads.items() if grad is None or grad.abs().max() < 1e-6] == []
    for name, grad in grads.items():
        if name.endswith("mapping.bias"):
            of_query, of_key, of_value = (part.abs().max() for part in grad.chunk(3))
            assert of_key < 1e-12
            assert min(of_query, of_value) > 1e-6


@pytest.mark.parametrize("start", ["vit", "scratch"])
@pytest.mark.parametrize(("name", "pixels"), [("vit_tiny_spatial", 16 * 16), ("vivit_tiny", 4 * 16 * 16)])
def test_weights_are_initialized_like_vit_or_wider_from_scratch(name, pixels, start):
    torch.manual_seed(0)
    model = create_model(name, num_classes=50, start=start, depth=1)
    for called, parameter in model.named_parameters():
        if "norm" in called:
            assert torch.equal(parameter, torch.full_like(parameter, called.endswith("weight")))
        elif called.endswith(".bias"):
            assert not parameter.any()
        else:
            expected = 0.02 if start == "vit" or "token" in called or "position" in called else None
            if "patches" in called:
                expected = (3 * pixels) ** -0.5
            expected = expected or (2 / sum(parameter.shape)) ** 0.5
            assert parameter.std().item() == pytest.approx(expected, rel=0.2 if "token" in called else 0.05)


def test_drop_path_rises_from_the_first_block_to_the_last():
    assert [block.drop_path.rate for block in tiny(depth=3, drop_path=0.2).blocks] == [0.0, 0.1, 0.2]


def test_bfloat16_logits_are_close():
    model = shake(tiny()).eval()
    with torch.autocast("cpu", torch.bfloat16):
        low = model(clip())
    assert (low - model(clip())).norm() < 0.05 * model(clip()).norm()


def test_copies_are_independent():
    model = shake(tiny())
    copied = copy.deepcopy(model)
    before = copied(clip())
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    assert torch.equal(copied(clip()), before)


@pytest.mark.usefixtures("unchecked")
def test_export_supports_a_dynamic_batch():
    model = shake(tiny()).eval()
    exported = torch.export.export(model, (clip(),), dynamic_shapes={"clip": {0: torch.export.Dim("batch")}}).module()
    for given in (clip(5), clip(1)):
        torch.testing.assert_close(exported(given), model(given), rtol=0, atol=1e-6)


# -- what it can be given ----------------------------------------------------------------------------------------------


def test_several_task_heads_return_a_dict():
    answers = tiny(heads={"verb": 3, "noun": 4})(clip())
    assert {name: logits.shape for name, logits in answers.items()} == {"verb": (2, 3), "noun": (2, 4)}


def test_create_model_changes_fields_and_configs_survive_json():
    model = create_model("vit_tiny_spatial", num_classes=7, depth=1, frames=4, size=32, channels=1)
    assert isinstance(model, ViTSpatial)
    assert (len(model.blocks), model.config.width, model.position.table.shape[0]) == (1, 128, 5)
    assert model(clip(channels=1)).shape == (2, 7)
    assert (MODELS["vit_base_spatial"].config, MODELS["vit_base_spatial"].frames) == (ViTSpatialConfig(), 16)
    assert model.config.kind == "vit-spatial"
    assert config_from_json(to_json(model.config)) == model.config
    fresh = create_model("vit_tiny_spatial", num_classes=7, depth=1, frames=9, size=32, channels=1)
    fresh.load_state_dict(model.state_dict())  # the number of frames is not in the weights
    torch.testing.assert_close(fresh(clip(channels=1)), model(clip(channels=1)))


@pytest.mark.parametrize(
    ("extent", "field", "multiples"),
    [
        ((32, 36), "width", "8, 16, 24"),
        ((4, 4), "size", "8, 16, 24"),
    ],
)
def test_sizes_not_divisible_by_the_patch_are_refused(raises, extent, field, multiples):
    with raises(ClipError, multiples, field=field):
        tiny()(clip(1, 4, *extent))


@pytest.mark.parametrize("clip_of", [{"channels": 0}, {"frames": 0}, {"size": 20}])
def test_a_network_for_impossible_clips_is_refused(raises, clip_of):
    ((field, value),) = clip_of.items()
    with raises(ClipError, f"{field}={value}", field=field):
        tiny(**clip_of)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"width": 17}, "width"),
        ({"dropout": 1.0}, "dropout"),
        ({"drop_path": -0.1}, "drop_path"),
        *(({name: 0}, name) for name in ("patch", "width", "depth", "attention_heads", "mlp_ratio")),
    ],
    ids=str,
)
def test_invalid_values_are_refused(raises, changes, field):
    with raises(ConfigError, next(iter(changes)), field=field):
        dataclasses.replace(TINY, **changes)


@pytest.mark.parametrize(
    ("changes", "error", "word"),
    [
        ({"start": "imagenet"}, ConfigError, "'vit' or 'scratch'"),
        ({"attention_haeds": 2}, UnknownField, "'attention_heads'"),
    ],
    ids=str,
)
def test_misspelled_fields_are_refused_by_name(raises, changes, error, word):
    with raises(error, word, field=next(iter(changes))):
        create_model("vit_tiny_spatial", num_classes=3, **changes)
