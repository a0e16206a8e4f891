"""RPE-STDT follows chapter 3: sizes, spatial attention, clips. test_rpe_stdt_time.py tests the temporal encoder."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from small_rpe_stdt import POOLS, clip, shake, tiny

from kinema.errors import ClipError
from kinema.models.complexity import FullLastBlock, macs, parameter_count
from kinema.models.registry import MODELS, create_model
from kinema.models.rpe_stdt import RPESTDT, RPESTDTConfig

BASE = RPESTDTConfig()
BASE12 = RPESTDTConfig(spatial_layers=12, temporal_head_channels=64, temporal_mlp_channels=768)
UCF101 = {"label": 101}
NO_TIME = {"temporal_position": "none"}
FORMS = [
    *({"position": position} for position in ("none", "absolute", "shared", "per-head")),
    *({"position_terms": terms} for terms in ("query-key", "query-key-value")),
    {"position": "per-head", "position_terms": "query-key-value"},
    {"position_function": "clip", "clusters": 10},
    {"position_distance": "euclid", "clusters": 8},
    {"frame_norm": "clip"},
]


# -- sizes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("base", {}, 85_756_005),
        ("base", {"position": "per-head"}, 86_059_109),
        ("base", {"position": "absolute"}, 85_891_685),
        ("base", {"position": "none"}, 85_727_333),
        ("base", NO_TIME, 85_752_933),
        ("base", {"position": "per-head", **NO_TIME}, 86_034_533),
        ("base", {"position": "absolute", **NO_TIME}, 85_891_685),
        ("base", {"position_terms": "query-key"}, 85_784_677),
        ("base", {"position_terms": "query-key-value"}, 85_813_349),
        ("base", {"clusters": 10}, 85_733_989),
        ("base", {"position_distance": "euclid", "clusters": 8}, 85_734_501),
        ("base", {"pool": "convolution"}, 89_296_485),
        *(("base", {"pool": pool}, 85_756_005) for pool in POOLS if pool != "convolution"),
        ("base12", {}, 96_805_477),
        ("base12", {"position": "per-head"}, 97_242_213),
        ("base12", {"position": "absolute"}, 96_929_381),
        ("base12", {"position": "none"}, 96_765_029),
    ],
    ids=str,
)
def test_exact_parameter_counts(name, changes, expected):
    with torch.device("meta"):
        model = create_model(f"rpe_stdt_{name}", num_classes=101, **changes)
    assert parameter_count(model) == expected


def test_exact_parameter_counts_of_the_parts():
    with torch.device("meta"):
        model = RPESTDT(BASE, heads=UCF101, frames=16, size=224)
    assert parameter_count(model.embedding) == 590_592
    assert {parameter_count(block) for block in model.spatial_blocks} == {7_087_872 + 50 * 64}  # ViT's, and a table
    assert {parameter_count(block) for block in model.temporal_blocks} == {7_087_872 + 8 * 96}
    assert sum(parameter_count(block.attention.position) for block in model.temporal_blocks) == 3_072
    assert parameter_count(model.spatial_class_token) + parameter_count(model.temporal_class_token) == 2 * 768
    assert parameter_count(model.spatial_norm) + parameter_count(model.norm) + parameter_count(model.heads) == 80_741


def test_the_two_sizes_of_the_thesis_are_named_models():
    assert (MODELS["rpe_stdt_base"].config, MODELS["rpe_stdt_base12"].config) == (BASE, BASE12)
    assert {(MODELS[name].frames, MODELS[name].size) for name in ("rpe_stdt_base", "rpe_stdt_base12")} == {(16, 224)}


def layer_macs(width, inner, hidden, *, given, answered, clusters, terms="query"):
    """Return the MACs of one layer: all keys and values, and the rest for the computed rows."""
    mapped = answered["queries"] * width * inner + 2 * given * width * inner
    products = answered["queries"] * given * inner + answered["rows"] * given * inner
    tables = clusters * inner * answered["queries"]
    if terms != "query":
        tables += clusters * inner * given
    if terms == "query-key-value":
        tables += clusters * inner * answered["rows"]
    return mapped + products + tables + answered["rows"] * inner * width + 2 * answered["mlp"] * width * hidden


def macs_by_hand(config, *, frames, size, last_block="class", classes=101, channels=3):
    """Return the multiply-adds from the shapes alone."""
    patches, width, terms = (size // config.patch) ** 2, config.width, config.position_terms
    n, tables = patches + 1, config.position in ("shared", "per-head")
    total = patches * channels * config.patch**2 * width
    for layer in range(1, config.spatial_layers + 1):
        rows = 1 if layer == config.spatial_layers and last_block == "class" else n
        answered = {"queries": rows, "rows": rows, "mlp": rows}
        clusters = config.clusters if tables else 0
        total += layer_macs(
            width, width, config.spatial_mlp_channels, given=n, answered=answered, clusters=clusters, terms=terms
        )
    total *= frames
    inner = config.temporal_heads * config.temporal_head_channels
    clusters = 2 * config.spatial_clusters.reach + 2 if tables and config.temporal_position == "as-space" else 0
    for layer in range(config.temporal_layers):
        pools = config.pool != "none" and layer in config.pool_layers
        fewer = (frames + 1) // 2 if config.pool == "convolution" else frames // 2
        if pools and config.pool == "convolution":
            total += 3 * width**2 * fewer
        if pools and config.pool_place == "between":
            frames = fewer
        answered = {"queries": frames + 1, "rows": frames + 1, "mlp": frames + 1}
        given = frames + 1
        if pools and config.pool_place == "inside":
            answered["mlp"] = fewer + 1
            if config.pool == "top-k":
                answered["rows"] = fewer + 1
            frames = fewer
        total += layer_macs(
            width, inner, config.temporal_mlp_channels, given=given, answered=answered, clusters=clusters, terms=terms
        )
    return total + width * classes


@pytest.mark.parametrize(
    ("config", "whole", "executed", "saved"),
    [(BASE, 189.2e9, 169.7e9, 0.10), (BASE12, 282.6e9, 263.0e9, 0.07)],
    ids=["base", "base12"],
)
def test_macs_counted_two_ways(config, whole, executed, saved):
    with torch.device("meta"):
        model = RPESTDT(config, heads=UCF101, frames=16, size=224)
    counted = macs(FullLastBlock(model), channels=3, frames=16, size=224)
    assert counted == macs_by_hand(config, frames=16, size=224, last_block="all")
    assert counted == pytest.approx(whole, rel=5e-4)
    run = macs(model, channels=3, frames=16, size=224)
    assert run == macs_by_hand(config, frames=16, size=224)
    assert run == pytest.approx(executed, rel=5e-4)
    assert 1 - run / counted == pytest.approx(saved, abs=0.005)


@pytest.mark.parametrize(
    "changes",
    [
        *({"pool": pool, "pool_place": place} for pool in POOLS for place in ("inside", "between")),
        {"pool_layers": (0, 2)},
        {"pool_heads": "per-head"},
        {"position": "none"},
        {"position": "absolute"},
        {"position": "per-head"},
        {"position_terms": "query-key", **NO_TIME},
        {"position_terms": "query-key-value"},
    ],
    ids=str,
)
def test_macs_of_every_option_counted_two_ways(changes):
    model = tiny(frames=9, **changes)
    assert macs(model, channels=3, frames=9, size=48) == macs_by_hand(model.config, frames=9, size=48, classes=5)


# -- the figure, in space ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", FORMS, ids=str)
def test_the_class_row_of_the_last_layer_equals_that_of_the_full_layer_in_output_and_gradient(changes):
    model, results = shake(tiny(**changes)).double(), []
    for last_block in ("class", "all"):
        given = clip(dtype=torch.float64).requires_grad_()
        model.zero_grad()
        features = model.features(given, last_block)
        features.logsumexp(1).square().sum().backward()
        learned = [parameter for name, parameter in model.named_parameters() if "heads.classifiers" not in name]
        results.append([features, given.grad, *(parameter.grad.clone() for parameter in learned)])
    for alone, among in zip(*results, strict=True):
        torch.testing.assert_close(alone, among, rtol=0, atol=1e-11)


def test_frame_norm_standardizes_over_the_frames_of_a_clip(raises):
    model, plain = shake(tiny(frame_norm="clip")).double(), shake(tiny()).double()
    given = clip(batch=3, dtype=torch.float64)
    frames = model.encode_space(given)
    for sample, before in enumerate(plain.encode_space(given)):
        for channel in range(16):
            values = before[:, channel]
            expected = (values - values.mean()) / (values.var(unbiased=False) + 1e-5).sqrt()
            torch.testing.assert_close(frames[sample, :, channel], expected, rtol=0, atol=1e-12)
    assert parameter_count(model) == parameter_count(plain)
    still = given[:, :, :1].expand(-1, -1, 8, -1, -1)
    torch.testing.assert_close(model.encode_space(still), torch.zeros_like(frames), rtol=0, atol=1e-12)
    with raises(ClipError, 2, field="frames"):
        model(given[:, :, :1])


def s(offset):
    """Return s of eq. 3.8 and 3.9 for 50 clusters: 0, 1, 2, 2, and 3 from 4 on."""
    return int(math.copysign((0, 1, 2, 2, 3)[min(abs(offset), 4)], offset))


@pytest.mark.parametrize("position", ["none", "shared", "per-head"])
@pytest.mark.parametrize(("rows", "columns"), [(4, 4), (2, 8), (5, 1)])
def test_the_spatial_encoder_equals_a_patch_by_patch_reference(position, rows, columns):
    """The reference computes the normalized class token patch by patch, with clusters of a loop over pairs."""
    model = shake(tiny(position=position)).double()
    given = clip(1, 3, 8 * rows, 8 * columns, dtype=torch.float64)
    places = list(itertools.product(range(rows), range(columns)))
    ids = torch.full((1, 1, len(places) + 1, len(places) + 1), 49)
    for (i, (row, column)), (j, (other_row, other_column)) in itertools.product(enumerate(places, 1), repeat=2):
        ids[0, 0, i, j] = (s(row - other_row) + 3) * 7 + s(column - other_column) + 3
    kernel, bias = model.embedding.patches.weight.flatten(1), model.embedding.patches.bias
    for frame in range(3):
        cut = [given[0, :, frame, 8 * r : 8 * r + 8, 8 * c : 8 * c + 8].flatten() for r, c in places]
        x = torch.stack([model.spatial_class_token.token, *(kernel @ patch + bias for patch in cut)])[None]
        for block in model.spatial_blocks:
            x = x + block.attention(
                F.layer_norm(x, (16,), block.norm_attention.weight, block.norm_attention.bias, 1e-6), ids
            )
            hidden = block.mlp.expand(F.layer_norm(x, (16,), block.norm_mlp.weight, block.norm_mlp.bias, 1e-6))
            x = x + block.mlp.contract(hidden * (1 + torch.erf(hidden / 2**0.5)) / 2)
        expected = F.layer_norm(x[0, 0], (16,), model.spatial_norm.weight, model.spatial_norm.bias, 1e-6)
        torch.testing.assert_close(model.encode_space(given)[0, frame], expected, rtol=0, atol=1e-11)


def test_the_spatial_encoder_does_not_mix_frames():
    model = shake(tiny())
    changed = clip()
    changed[1, :, 3] += 1
    before, after = model.encode_space(clip()), model.encode_space(changed)
    others = torch.ones(2, 8, dtype=torch.bool)
    others[1, 3] = False
    torch.testing.assert_close(before[others], after[others], rtol=0, atol=1e-6)
    assert (before[1, 3] - after[1, 3]).abs().max() > 1e-2


@pytest.mark.parametrize("changes", FORMS, ids=str)
def test_patch_order_matters_only_with_position(changes):
    """Swap rows of patches, so that the patches themselves do not change."""
    model = shake(tiny(**changes)).double()
    given = clip(dtype=torch.float64)
    moved = torch.cat((given[..., 16:24, :], given[..., :16, :], given[..., 24:, :]), dim=-2)
    change = (model.encode_space(given) - model.encode_space(moved)).abs().max()
    assert (change < 1e-12) == (changes.get("position") == "none")
    assert change < 1e-12 or change > 1e-3


def test_task_heads_classify_the_normalized_class_token_of_the_last_temporal_layer():
    model = shake(tiny())
    features = model.features(clip())
    assert torch.equal(model(clip()), model.heads(features))
    tokens, _ = model.encode_time(model.encode_space(clip()))
    expected = F.layer_norm(tokens[:, 0], (16,), model.norm.weight, model.norm.bias, 1e-6)
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-6)


def test_options_without_parameters_give_the_same_logits():
    model, given = shake(tiny()), clip(3, 5)
    with torch.no_grad():
        answers = model.encode_space(given), model(given)
    for ours, learning in zip(answers, (model.encode_space(given), model(given)), strict=True):
        torch.testing.assert_close(ours, learning, rtol=1e-5, atol=1e-5)


# -- what it can be given ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("frames", [1, 2, 3, 5, 16, 33])
def test_any_number_of_frames_works(raises, pool, frames):
    for place in ("inside", "between"):
        model, given = shake(tiny(pool=pool, pool_place=place)), clip(1, frames, 8, 16)
        if pool in ("max", "average") and frames < 4:
            with raises(ClipError, 4, f"frames={frames}", field="frames"):
                model(given)
        else:
            assert model(given).isfinite().all()


@pytest.mark.parametrize("changes", FORMS, ids=str)
@pytest.mark.parametrize(("height", "width"), [(8, 8), (16, 40), (24, 8), (48, 32)])
def test_any_multiple_of_the_patch_works(changes, height, width):
    answer = shake(tiny(**changes))(clip(1, 5, height, width))
    assert answer.shape == (1, 5)
    assert answer.isfinite().all()


@pytest.mark.parametrize("changes", [form for form in FORMS if form.get("position") != "absolute"], ids=str)
def test_without_absolute_position_weights_do_not_depend_on_the_clip_size(changes):
    """A network built for other clips loads the weights strictly and gives the same logits."""
    here, elsewhere = shake(tiny(**changes)), tiny(frames=5, size=16, **changes)
    elsewhere.load_state_dict(here.state_dict())
    for given in (clip(), clip(2, 5, 16, 16), clip(1, 3, 24, 40)):
        torch.testing.assert_close(here(given), elsewhere(given), rtol=0, atol=1e-6)


def test_an_absolute_position_has_a_vector_per_location_and_time():
    here, elsewhere = tiny(position="absolute"), tiny(position="absolute", frames=5, size=16)
    assert here.spatial_position.table.shape == (1 + 16, 16)
    assert here.temporal_position.table.shape == (1 + 8, 16)
    with pytest.raises(RuntimeError, match="size mismatch"):
        elsewhere.load_state_dict(here.state_dict())


def test_an_absolute_position_in_time_is_interpolated_linearly():
    model = shake(tiny(position="absolute")).double()
    table, tokens = model.temporal_position.table.detach(), torch.zeros(1, 13, 16, dtype=torch.float64)
    ours = model.temporal_position(tokens, (12,))[0].detach()
    torch.testing.assert_close(ours[0], table[0], rtol=0, atol=1e-12)
    for frame in range(12):
        at = min(max((frame + 0.5) * 8 / 12 - 0.5, 0), 7)  # middles of equal parts, held at the ends
        below = min(math.floor(at), 6)
        expected = (1 - at + below) * table[1 + below] + (at - below) * table[2 + below]
        torch.testing.assert_close(ours[1 + frame], expected, rtol=0, atol=1e-12)
    assert torch.equal(model.temporal_position(tokens[:, :9], (8,))[0], table)


@pytest.mark.parametrize("by", ["rows", "columns"])
def test_an_absolute_position_in_space_does_not_mix_rows_and_columns(by):
    """A table that depends only on the row is repeated for more columns, and vice versa."""
    model = shake(tiny(position="absolute")).double()
    lines = torch.randn(4, 16, dtype=torch.float64)
    with torch.no_grad():
        model.spatial_position.table[1:] = lines.repeat_interleave(4, 0) if by == "rows" else lines.repeat(4, 1)
    grid = (4, 7) if by == "rows" else (7, 4)
    ours = model.spatial_position(torch.zeros(1, 29, 16, dtype=torch.float64), grid)[0, 1:].view(*grid, 16)
    expected = lines[:, None] if by == "rows" else lines[None]
    torch.testing.assert_close(ours, expected.expand(*grid, 16), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("extent", "field"),
    [((32, 36), "width"), ((20, 32), "height"), ((4, 4), "size")],
)
def test_sizes_not_divisible_by_the_patch_are_refused(raises, extent, field):
    with raises(ClipError, "8, 16, 24", field=field):
        tiny()(clip(1, 8, *extent))


@pytest.mark.parametrize(
    ("clip_of", "changes", "least"),
    [
        ({"channels": 0}, {}, 1),
        ({"frames": 0}, {}, 1),
        ({"frames": 1}, {"pool": "average", "pool_layers": (1,)}, 2),
        ({"frames": 3}, {"pool": "max"}, 4),
        ({"size": 20}, {}, "8, 16, 24"),
    ],
)
def test_a_network_for_impossible_clips_is_refused(raises, clip_of, changes, least):
    with raises(ClipError, least, field=next(iter(clip_of))):
        tiny(**clip_of, **changes)


@pytest.mark.parametrize("channels", [1, 4])
def test_a_clip_with_other_channels_is_refused(raises, channels):
    with raises(ClipError, f"channels={channels}", field="channels"):
        tiny()(clip(channels=channels))


def test_networks_can_be_built_for_other_channels():
    assert tiny(channels=1)(clip(channels=1)).shape == (2, 5)


@pytest.mark.parametrize("pool", POOLS)
def test_a_zero_clip_gives_finite_logits_and_nan_propagates(pool):
    model = tiny(pool=pool)
    assert model(torch.zeros(2, 3, 8, 32, 32)).isfinite().all()
    broken = clip()
    broken[1, 0, 2, 10, 10] = math.nan
    answer = shake(model)(broken)
    assert answer[0].isfinite().all()
    assert answer[1].isnan().all()


def test_several_task_heads_return_a_dict():
    answers = tiny(heads={"verb": 3, "noun": 4})(clip())
    assert {name: logits.shape for name, logits in answers.items()} == {"verb": (2, 3), "noun": (2, 4)}


@pytest.mark.parametrize("kind", ["still", "repeated", "blank"])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("place", ["inside", "between"])
@pytest.mark.parametrize("position", ["none", "shared"])
def test_equal_frames_are_kept_alike_at_every_batch_size(kind, precision, place, position):
    """Frames of a still video, of a short one whose frames are repeated, and blank frames."""
    pool = {"pool_place": place, "pool_layers": (1, 2) if place == "between" else (0, 1, 2)}
    model = shake(tiny(position=position, temporal_layers=4, **pool))
    clip = torch.randn(8, 3, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    clip = {"still": clip[:, :, :1], "repeated": clip, "blank": torch.zeros(8, 3, 1, 16, 16)}[kind]
    clip = clip.repeat_interleave(16 // clip.shape[2], 2)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        together, alone = model.kept_frames(clip), [model.kept_frames(one[None]) for one in clip]
    for layer, kept in together.items():
        assert torch.equal(kept, torch.cat([frames[layer] for frames in alone]))
        if kind != "repeated" and position == "none":
            assert torch.equal(kept, torch.arange(kept.shape[-1]).expand_as(kept))


def test_small_changes_between_frames_survive_bfloat16():
    """Standardized frames are computed in float32 in evaluation, since they differ by less than rounding."""
    model = shake(tiny(frame_norm="clip")).eval()
    clip = torch.randn(2, 3, 1, 16, 16) + 1e-3 * torch.randn(2, 3, 8, 16, 16)
    expected = model.encode_space(clip)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.encode_space(clip), expected)
        assert model.train().encode_space(clip).dtype == torch.bfloat16


def test_scores_of_frames_are_float32_under_bfloat16():
    """Of products of queries and keys in bfloat16, as the network has them, but not rounded again."""
    attention = shake(tiny()).temporal_blocks[0].attention
    tokens = torch.randn(2, 9, attention.mapping.in_features)
    with torch.autocast("cpu", torch.bfloat16):
        logits, value = attention.logits_and_values(tokens, None)
        query, key, _ = attention.mapping(tokens).unflatten(-1, (3, attention.heads, -1)).permute(2, 0, 3, 1, 4)
    assert (logits.dtype, value.dtype) == (torch.float32, torch.bfloat16)
    expected = query.double() @ key.double().mT * query.shape[-1] ** -0.5
    torch.testing.assert_close(logits.double(), expected, rtol=1e-5, atol=1e-5)
