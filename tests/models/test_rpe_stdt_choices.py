"""RPE-STDT with each option: invalid values, gradients, initialization, compile, export and autocast."""

import copy
import dataclasses
import json

import pytest
import torch
from small_rpe_stdt import POOLS, TINY, clip, shake, tiny
from torch import nn

from kinema.config import to_json
from kinema.errors import ConfigError
from kinema.models.registry import config_from_json, create_model
from kinema.models.rpe_stdt import RPESTDT, RPESTDTConfig

FORMS = [
    *({"position": position} for position in ("none", "absolute", "shared", "per-head")),
    *({"position_terms": terms} for terms in ("query-key", "query-key-value")),
]


# -- what can be chosen ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "field", "word"),
    [
        ({"clusters": 51}, "clusters", "10, 26, 50"),
        ({"clusters": 50, "position_distance": "euclid"}, "clusters", "4, 6, 8, 10, 12, 14"),
        ({"clusters": 9, "position_function": "clip"}, "clusters", "10"),
        ({"pool_layers": (1, 4)}, "pool_layers", "0 to 3"),
        ({"pool_layers": (-1, 1)}, "pool_layers.0", "at least 0"),
        ({"pool_layers": (1, 1)}, "pool_layers", "increasing"),
        ({"pool_layers": (3, 1)}, "pool_layers", "increasing"),
        ({"temporal_layers": 3}, "pool_layers", "0 to 2"),
        ({"pool_place": "between", "pool_layers": (0, 2)}, "pool_layers", "between"),
        ({"pool": "max", "pool_heads": "per-head"}, "pool", "pool=max"),
        ({"pool": "none", "pool_scores": "logits"}, "pool", "pool=none"),
        ({"pool_heads": "per-head", "temporal_heads": 3}, "temporal_heads", "width=16"),
        ({"spatial_heads": 3}, "width", "spatial_heads=3"),
        *(({name: rate}, name, rate) for name in ("dropout", "drop_path") for rate in (-0.1, 1.0)),
        *(
            ({name: 0}, name, "above 0")
            for name in (
                "patch",
                "width",
                "spatial_layers",
                "spatial_heads",
                "spatial_mlp_channels",
                "temporal_layers",
                "temporal_heads",
                "temporal_head_channels",
                "temporal_mlp_channels",
            )
        ),
    ],
    ids=str,
)
def test_invalid_values_are_refused(raises, changes, field, word):
    with raises(ConfigError, word, field=field):
        dataclasses.replace(TINY, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"pool_place": "between", "pool_layers": (0,), "pool": "max"},  # needs no map of a layer before
        {"pool_place": "between", "pool_layers": (0,), "pool": "none"},
        {"pool_layers": ()},
        {"temporal_heads": 3},  # all attention heads keep the same frames
    ],
    ids=str,
)
def test_refused_values_are_accepted_where_they_are_valid(changes):
    assert tiny(**changes)(clip()).shape == (2, 5)


@pytest.mark.parametrize(
    "change",
    [
        {"position": "relative"},
        {"temporal_position": "as_space"},
        {"position_terms": "key"},
        {"position_function": "piecewise"},
        {"position_distance": "euclidean"},
        {"pool": "topk"},
        {"pool_place": "within"},
        {"pool_heads": "per_head"},
        {"pool_scores": "weights"},
        {"start": "imagenet"},
    ],
    ids=str,
)
def test_a_misspelt_choice_is_refused_by_name(raises, change):
    (name,) = change
    with raises(ConfigError, " or ", field=name):
        create_model("rpe_stdt_tiny", num_classes=3, **change)


def test_create_model_changes_fields():
    model = create_model(
        "rpe_stdt_tiny",
        num_classes=7,
        spatial_layers=1,
        pool_layers=(2,),
        position="per-head",
        frames=4,
        size=32,
        channels=1,
    )
    assert isinstance(model, RPESTDT)
    assert (model.config.pool_layers, model.config.position, model.config.width) == ((2,), "per-head", 128)
    assert (len(model.spatial_blocks), model.spatial_blocks[0].attention.position.table_on_query.shape[0]) == (1, 4)
    assert model(clip(2, 4)[:, :1]).shape == (2, 7)


def test_a_config_survives_json():
    for config in (RPESTDTConfig(), TINY, dataclasses.replace(TINY, pool_layers=(0, 2), position="per-head")):
        stored = json.loads(json.dumps(to_json(config)))
        assert stored["kind"] == "rpe-stdt"
        assert config_from_json(stored) == config


# -- learning ----------------------------------------------------------------------------------------------------------


def dead_by_construction(config):
    """Return the names of parameters without gradient, and the keys' part of biases."""
    spatial, temporal = f"spatial_blocks.{config.spatial_layers - 1}", f"temporal_blocks.{config.temporal_layers - 1}"
    dead = set()
    if (
        config.is_relative
    ):  # all pairs with the class row have one cluster, and softmax cancels what is the same for all
        dead.add(f"{spatial}.attention.position.table_on_query")
        if config.temporal_position == "as-space":
            dead.add(f"{temporal}.attention.position.table_on_query")
    last = config.temporal_layers - 1
    if config.pool == "convolution" and config.pool_place == "inside" and last in config.pool_layers:
        dead |= {f"{temporal}.pooling.convolution.weight", f"{temporal}.pooling.convolution.bias"}
    biases = set()
    for part, layers in (("spatial", config.spatial_layers), ("temporal", config.temporal_layers)):
        tells = config.is_relative and (part == "spatial" or config.temporal_position == "as-space")
        for layer in range(layers):  # a bias of the keys, too, but where keys meet a vector of their own
            if not tells or config.position_terms == "query" or layer == layers - 1:
                biases.add(f"{part}_blocks.{layer}.attention.mapping.bias")
    return dead, biases


CHOICES = [
    *FORMS,
    {"temporal_position": "none"},
    {"position_terms": "query-key-value", "temporal_position": "none"},
    {"pool_layers": (0, 2)},
    {"pool_layers": (2, 3), "position_terms": "query-key"},
    {"pool_scores": "logits"},
    {"pool_heads": "per-head"},
    {"pool_heads": "per-head", "pool_place": "between"},
    {"pool_heads": "per-head", "position": "per-head", "position_terms": "query-key-value"},
    {"pool_place": "between", "position": "absolute"},
    {"pool": "convolution", "pool_layers": (0, 2)},
    *({"pool": pool, "pool_place": place} for pool in POOLS for place in ("inside", "between")),
]


@pytest.mark.parametrize("changes", CHOICES, ids=str)
def test_all_parameters_that_can_learn_get_a_gradient(changes):
    model = shake(tiny(**changes)).double()
    (3 * model(clip(4, dtype=torch.float64))).logsumexp(1).square().sum().backward()
    dead, biases = dead_by_construction(model.config)
    grads = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert [name for name, grad in grads.items() if grad is None] == []
    assert {name for name, grad in grads.items() if grad.abs().max() < 1e-6} == dead
    of_keys = {name: grad.chunk(3)[1] for name, grad in grads.items() if name.endswith("mapping.bias")}
    assert {name for name, grad in of_keys.items() if grad.abs().max() < 1e-6} == biases


@pytest.mark.parametrize("where", ["spatial", "temporal"])
@pytest.mark.parametrize("terms", ["query", "query-key", "query-key-value"])
def test_the_last_layer_uses_only_the_class_tokens_position_vector(where, terms):
    """Tables on keys and values learn; the query's table does not change the logits."""
    model = shake(tiny(position_terms=terms)).double()
    position = getattr(model, f"{where}_blocks")[-1].attention.position
    answer = model(clip(dtype=torch.float64))
    answer.logsumexp(1).square().sum().backward()
    for name, table in position.named_parameters():
        met = table.grad[0].abs().amax(-1) > 1e-9
        assert not met[:-1].any()
        assert met[-1] == (name != "table_on_query")
    nn.init.normal_(position.table_on_query)
    torch.testing.assert_close(model(clip(dtype=torch.float64)), answer, rtol=0, atol=1e-11)


@pytest.mark.parametrize("changes", FORMS, ids=str)
def test_position_tables_are_initialized_to_zero(changes):
    model = tiny(**changes)
    tables = [p for name, p in model.named_parameters() if ".position." in name]
    assert len(tables) == (
        0 if not model.config.is_relative else 6 * len(changes.get("position_terms", "query").split("-"))
    )
    assert not any(table.any() for table in tables)
    if model.config.is_relative:
        plain = tiny(position="none")
        plain.load_state_dict({name: p for name, p in model.state_dict().items() if ".position." not in name})
        torch.testing.assert_close(model(clip()), plain(clip()), rtol=0, atol=1e-6)


def test_weights_are_initialized_like_vit_or_wider_from_scratch():
    for start in ("vit", "scratch"):
        torch.manual_seed(0)
        model = create_model("rpe_stdt_tiny", num_classes=50, start=start, position="absolute", spatial_layers=1)
        for name, parameter in model.named_parameters():
            std = parameter.std().item()
            if "norm" in name:
                assert torch.equal(parameter, torch.full_like(parameter, name.endswith("weight")))
            elif name.endswith(".bias"):
                assert not parameter.any()
            elif "patches" in name:
                assert std == pytest.approx((3 * 16 * 16) ** -0.5, rel=0.05)
            elif "token" in name or "position" in name:
                assert std == pytest.approx(0.02, rel=0.2)
            else:
                expected = 0.02 if start == "vit" else (2 / sum(parameter.shape)) ** 0.5
                assert std == pytest.approx(expected, rel=0.05)


def test_drop_path_rises_from_the_spatial_to_the_temporal_encoder():
    model = tiny(spatial_layers=3, temporal_layers=4, drop_path=0.3)
    rates = [block.drop_path.rate for block in (*model.spatial_blocks, *model.temporal_blocks)]
    assert rates == pytest.approx([0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3])


def test_a_layer_with_both_branches_dropped_is_the_identity():
    model = tiny(dropout=0.3, pool="none").train()
    for block in (*model.spatial_blocks, *model.temporal_blocks):
        assert (block.attention.dropout, block.mlp.dropout.p) == (0.3, 0.3)
        block.drop_path.rate = 1 - 1e-9
    tokens = torch.randn(2, 17, 16)
    assert torch.equal(model.spatial_blocks[0](tokens, model.cluster_ids(4, 4)), tokens)
    assert torch.equal(model.spatial_blocks[1](tokens, model.cluster_ids(4, 4), "class"), tokens[:, :1])
    assert torch.equal(model.encode_time(tokens)[0][:, 1:], tokens)
    kept = tiny(pool_layers=(0,)).train()
    for block in kept.temporal_blocks:
        block.drop_path.rate = 1 - 1e-9
    left, places = kept.encode_time(tokens)
    assert torch.equal(left[:, 1:], tokens.gather(1, places[0][:, 0, :, None].expand(-1, -1, 16)))


@pytest.mark.parametrize("changes", [{"dropout": 0.3}, {"drop_path": 0.3}, {"pool": "random"}], ids=str)
def test_dropout_is_for_training_only(changes):
    torch.manual_seed(0)
    model = shake(tiny(**changes))
    assert not torch.equal(model(clip()), model(clip()))
    model.eval()
    assert torch.equal(model(clip()), model(clip()))


@pytest.mark.parametrize("pool", POOLS)
def test_evaluation_does_not_depend_on_the_batch_and_clips_are_not_mixed(pool):
    model = shake(tiny(pool=pool, dropout=0.3)).eval()
    three = clip(batch=3)
    together, alone = model(three), torch.cat([model(one[None]) for one in three])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    three[1] += 1
    torch.testing.assert_close(model(three)[[0, 2]], together[[0, 2]], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("changes", FORMS, ids=str)
def test_bfloat16_logits_are_close(changes):
    """Without Top-K, where rounding may select another frame."""
    model = shake(tiny(pool="none", **changes)).eval()
    with torch.autocast("cpu", torch.bfloat16):
        low = model(clip())
    expected = model(clip())
    assert (low - expected).norm() < 0.05 * expected.norm()
    chosen = shake(tiny(**changes))
    with torch.autocast("cpu", torch.bfloat16):
        chosen(clip()).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in chosen.parameters())


def test_copies_are_independent():
    model = shake(tiny())
    copied = copy.deepcopy(model)
    before = copied(clip())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(copied(clip()), before)


# -- other ways to run it ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"pool_layers": (0,), "position_terms": "query-key-value"}, marks=pytest.mark.long),
        pytest.param({"pool_layers": (0,), "position": "absolute", "pool_heads": "per-head"}, marks=pytest.mark.long),
        {"pool_layers": (1,), "pool_place": "between"},
        pytest.param({"pool_layers": (1,), "pool": "random"}, marks=pytest.mark.long),
    ],
    ids=str,
)
def test_export_supports_a_dynamic_batch(changes):
    model, batch = shake(tiny(temporal_layers=2, **changes)).eval(), torch.export.Dim("batch")
    exported = torch.export.export(model, (clip(),), dynamic_shapes={"clip": {0: batch}}).module()
    for given in (clip(5), clip(1)):
        torch.testing.assert_close(exported(given), model(given), rtol=0, atol=1e-6)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"pool_layers": (0,), "pool_heads": "per-head"}, marks=pytest.mark.long),
        {"pool_layers": (1,), "pool_place": "between"},
        pytest.param({"pool_layers": (0,), "pool": "random"}, marks=pytest.mark.long),
    ],
    ids=str,
)
def test_compile_gives_one_graph_and_the_same_results(changes, monkeypatch):
    model = shake(tiny(temporal_layers=2, **changes)).eval()
    # Made anew for each layer, which the compiler reads, but not with the checks of types around it.
    monkeypatch.setattr(RPESTDTConfig, "spatial_clusters", model.config.spatial_clusters)
    torch.compiler.reset()  # what other tests compiled does not count against this one
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(clip()), model(clip()), rtol=0, atol=1e-6)
