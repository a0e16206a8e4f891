"""CTN follows chapter 4."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kinema.errors import ClipError, ConfigError
from kinema.layers.folding import evaluation_copy
from kinema.models.base import encoder_blocks
from kinema.models.complexity import FullLastBlock, macs, parameter_count
from kinema.models.ctn import CTN, CTNConfig, VideoToTokens, convolutional_attention

TINY = CTNConfig(stem_kernel=3, stem_channels=8, width=24, depth=2, attention_heads=3)
BASE = CTNConfig()
DIVING48 = {"label": 48}
EPIC_KITCHENS = {"verb": 97, "noun": 300}
STRIDE_4 = CTNConfig(stem_channels=64, stem_pool="none", stem_norm="none")


def tiny(heads=None, frames=16, **changes):
    torch.manual_seed(0)
    return CTN(dataclasses.replace(TINY, **changes), heads=heads or {"label": 5}, frames=frames, size=32)


def clip(batch=2, frames=16, size=32):
    return torch.randn(batch, 3, frames, size, size, generator=torch.Generator().manual_seed(0))


def shake(model):
    """Perturb every parameter, so that equal outputs mean equal arithmetic."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
                module.running_mean += 0.3 * torch.randn(module.running_mean.shape, generator=generator)
                module.running_var += torch.rand(module.running_var.shape, generator=generator)
    return model


# -- sizes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "heads", "frames", "expected"),
    [
        (BASE, DIVING48, 8, 86_218_000),
        (BASE, EPIC_KITCHENS, 8, 86_486_381),
        (CTNConfig(time_stride=1), DIVING48, 8, 86_218_000),
        (CTNConfig(time_stride=1), EPIC_KITCHENS, 8, 86_486_381),
        (CTNConfig(mapping="linear"), DIVING48, 8, 85_913_872),
        (CTNConfig(mapping_kernel=5), DIVING48, 8, 86_660_368),
        (STRIDE_4, DIVING48, 8, 87_037_360),
        (dataclasses.replace(STRIDE_4, stem_kernel=5), DIVING48, 8, 86_995_504),
        (CTNConfig(embedding="tubelets", position="learned", mapping="linear"), DIVING48, 8, 86_876_976),
        (CTNConfig(embedding="tubelets", position="learned", mapping="linear"), {"label": 400}, 32, 88_954_000),
    ],
    ids=[
        "diving48", "epic-kitchens", "dense", "dense-epic-kitchens", "table-4.5-linear", "table-4.6-5x5",
        "table-4.4-row-1", "table-4.4-row-2", "table-4.3-vivit", "vivit-kinetics",
    ],
)  # fmt: skip
def test_the_parameter_counts(config, heads, frames, expected):
    with torch.device("meta"):
        assert parameter_count(CTN(config, heads=heads, frames=frames, size=224)) == expected


@pytest.mark.parametrize(
    ("config", "frames", "stem", "pooled", "tokens"),
    [
        (BASE, 8, (4, 112, 112), (2, 56, 56), (1, 14, 14)),
        (BASE, 16, (8, 112, 112), (4, 56, 56), (2, 14, 14)),
        (BASE, 32, (16, 112, 112), (8, 56, 56), (4, 14, 14)),
        (CTNConfig(time_stride=1), 8, (8, 112, 112), (8, 56, 56), (4, 14, 14)),
        (STRIDE_4, 8, (2, 56, 56), (2, 56, 56), (1, 14, 14)),
    ],
)
def test_video_to_tokens_has_the_shapes_of_figure_4_2(config, frames, stem, pooled, tokens):
    with torch.device("meta"):
        module = VideoToTokens(config, channels=3)
        maps = module.convolution(torch.empty(1, 3, frames, 224, 224))
    assert maps.shape[1:] == (config.stem_channels, *stem)
    assert module.pool(maps).shape[2:] == pooled
    assert module(torch.empty(1, 3, frames, 224, 224, device="meta")).shape == (1, 768, *tokens)
    assert config.grid(frames=frames, height=224, width=224) == tokens


def macs_by_hand(config, *, frames, size, last_block, classes):
    """Return the multiply-adds from the shapes alone."""
    width, (times, rows, columns) = config.width, config.grid(frames=frames, height=size, width=size)
    patches = times * rows * columns
    if config.embedding == "tubelets":
        total = patches * width * 3 * math.prod(config.token_stride)
    else:
        time, side = (config.time_stride, 2) if config.stem_pool == "max" else (config.time_stride**2, 4)
        maps = config.stem_channels * (frames // time) * (size // side) ** 2
        total = maps * 3 * config.stem_kernel**3 + patches * width * config.stem_channels * math.prod(config.patch)
    n, mapped = patches + 1, patches * width * config.mapping_kernel**2 if config.mapping == "convolution" else 0
    for block in range(config.depth):
        whole = block < config.depth - 1 or last_block == "all"
        rows = n if whole else 1
        total += (3 if whole else 2) * mapped  # a query of the class token is not mapped by its neighbors
        total += (rows + 2 * n) * width**2 + 2 * rows * n * width + rows * (1 + 2 * config.mlp_ratio) * width**2
    return total + width * classes


@pytest.mark.parametrize(
    ("config", "frames", "whole"),
    [
        (BASE, 8, 19.30e9),
        pytest.param(BASE, 16, 39.94e9, marks=pytest.mark.long),
        (CTNConfig(time_stride=1), 8, 82.15e9),
        pytest.param(CTNConfig(time_stride=1), 16, 186.87e9, marks=pytest.mark.long),
        (CTNConfig(mapping="linear"), 8, 19.25e9),
        pytest.param(CTNConfig(mapping="linear"), 16, 39.84e9, marks=pytest.mark.long),
        (CTNConfig(mapping_kernel=5), 8, 19.39e9),
        pytest.param(CTNConfig(mapping_kernel=5), 16, 40.11e9, marks=pytest.mark.long),
        (CTNConfig(embedding="tubelets", position="learned"), 8, 79.15e9),
        pytest.param(CTNConfig(embedding="tubelets", position="learned"), 16, 180.88e9, marks=pytest.mark.long),
        (CTNConfig(embedding="tubelets", position="learned", mapping="linear"), 8, 78.96e9),
        (STRIDE_4, 8, None),
    ],
)
def test_macs_counted_two_ways(config, frames, whole):
    """MACs with full last blocks match the specification; the network executes about 7 % fewer."""
    with torch.device("meta"):
        model = CTN(config, heads=DIVING48, frames=frames, size=224)
    counted = macs(FullLastBlock(model), channels=3, frames=frames, size=224)
    assert counted == macs_by_hand(config, frames=frames, size=224, last_block="all", classes=48)
    assert whole is None or counted == pytest.approx(whole, rel=5e-4)
    executed = macs(model, channels=3, frames=frames, size=224)
    assert executed == macs_by_hand(config, frames=frames, size=224, last_block="class", classes=48)
    assert 0.06 < 1 - executed / counted < 0.075


# -- the same arithmetic -----------------------------------------------------------------------------------------------


def test_video_to_tokens_is_equation_4_5():
    """MaxPool(BN(Conv)), without activation, then one token for each patch."""
    module = shake(VideoToTokens(TINY, channels=3)).double().eval()
    nn.init.constant_(module.norm.bias, -2)  # an activation would leave little of such maps
    x = clip().double()
    maps = F.conv3d(x, module.convolution.weight, stride=2, padding=1)
    norm = module.norm
    maps = F.batch_norm(maps, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
    maps = F.max_pool3d(maps, 3, 2, 1)
    first = (maps[0, :, 0:2, 4:8, 0:4] * module.patches.weight).flatten(1).sum(1) + module.patches.bias
    torch.testing.assert_close(module(x)[0, :, 0, 1, 0], first, rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_an_untrained_block_equals_a_vit_block(norm):
    """torch's own pre-norm encoder layer with the same weights, in evaluation."""
    block, dim = tiny(mapping_norm=norm).double().eval().blocks[1], TINY.width
    reference = nn.TransformerEncoderLayer(
        dim, 3, 4 * dim, 0.0, F.gelu, 1e-6, batch_first=True, norm_first=True, dtype=torch.float64
    )
    mapping = block.attention.mapping
    for part in (mapping.query, mapping.key, mapping.value):
        part.reset_depthwise()  # once more, with a gain in float64
    parts = [part.pointwise for part in (mapping.query, mapping.key, mapping.value)]
    reference.load_state_dict(
        {
            "self_attn.in_proj_weight": torch.cat([part.weight for part in parts]),
            "self_attn.in_proj_bias": torch.cat([part.bias for part in parts]),
            "self_attn.out_proj.weight": block.attention.out.weight,
            "self_attn.out_proj.bias": block.attention.out.bias,
            "linear1.weight": block.mlp.expand.weight,
            "linear1.bias": block.mlp.expand.bias,
            "linear2.weight": block.mlp.contract.weight,
            "linear2.bias": block.mlp.contract.bias,
            "norm1.weight": block.norm_attention.weight,
            "norm1.bias": block.norm_attention.bias,
            "norm2.weight": block.norm_mlp.weight,
            "norm2.bias": block.norm_mlp.bias,
        }
    )
    tokens = torch.randn(2, 9, dim, dtype=torch.float64)
    torch.testing.assert_close(block(tokens, (2, 2, 2)), reference(tokens), rtol=0, atol=1e-12)


def test_norm_order_post_ends_with_a_layer_norm():
    """Eq. 4.1 and 4.2 end in LayerNorm, so that each token leaves with mean 0 and variance 1."""
    tokens = 5 + torch.randn(2, 9, 24)
    post = encoder_blocks(TINY, lambda: convolutional_attention(TINY), norm_order="post")[0](tokens, (2, 2, 2))
    torch.testing.assert_close(post.mean(-1), torch.zeros(2, 9), rtol=0, atol=1e-5)
    torch.testing.assert_close(post.var(-1, unbiased=False), torch.ones(2, 9), rtol=0, atol=1e-4)
    pre = encoder_blocks(TINY, lambda: convolutional_attention(TINY))[0](tokens, (2, 2, 2))
    assert pre.mean() > 4
    assert tiny(norm_order="post")(clip()).shape == (2, 5)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"mapping_norm": "none", "stem_norm": "none"},
        {"mapping": "linear", "norm_order": "post"},
        {"mapping_kernel": 5, "mapping_padding": "circular", "position": "learned"},
        {"embedding": "tubelets"},
        {"stem_pool": "none", "time_stride": 1, "patch": (4, 4, 4)},
    ],
    ids=str,
)
def test_the_evaluation_copy_is_independent_and_equal(changes):
    model = shake(tiny(**changes)).eval()
    copied = evaluation_copy(model)
    assert copied is not model
    assert not any(isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d) for module in copied.modules())
    torch.testing.assert_close(copied(clip()), model(clip()), rtol=1e-5, atol=1e-5)
    before = model(clip())
    for parameter in copied.parameters():
        nn.init.zeros_(parameter)
    assert torch.equal(model(clip()), before)


@pytest.mark.parametrize(
    "changes",
    [{}, {"mapping": "linear"}, {"norm_order": "post"}, {"mapping_norm": "none", "mapping_kernel": 5}],
    ids=str,
)
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_the_class_row_of_the_last_block_equals_that_of_the_full_block_in_output_and_gradient(changes, mode):
    model, results = shake(tiny(**changes)).double().train(mode == "train"), []
    for last_block in ("class", "all"):
        given = clip().double().requires_grad_()
        model.zero_grad()
        features = model.features(given, last_block)
        (3 * features).logsumexp(1).square().sum().backward()
        grads = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
        results.append((features.detach(), given.grad, grads))
    (features, by_clip, grads), (whole_features, whole_by_clip, whole_grads) = results
    torch.testing.assert_close(features, whole_features, rtol=0, atol=1e-10)
    torch.testing.assert_close(by_clip, whole_by_clip, rtol=1e-9, atol=1e-10)
    assert grads.keys() == whole_grads.keys() == {n for n, _ in model.named_parameters() if "heads" not in n}
    for name, grad in grads.items():
        torch.testing.assert_close(grad, whole_grads[name], rtol=1e-8, atol=1e-9, msg=name)


# -- what a network must do --------------------------------------------------------------------------------------------


def test_each_task_head_returns_one_logit_per_class():
    assert tiny()(clip()).shape == (2, 5)
    answer = tiny(heads={"verb": 4, "noun": 6})(clip())
    assert {head: logits.shape for head, logits in answer.items()} == {"verb": (2, 4), "noun": (2, 6)}


def test_task_heads_classify_the_features():
    model = shake(tiny()).eval()
    features = model.features(clip())
    assert features.shape == (2, TINY.width)
    assert torch.equal(model(clip()), model.heads(features))
    normalized = (features - model.norm.bias) / model.norm.weight
    torch.testing.assert_close(normalized.mean(1), torch.zeros(2), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [{}, {"position": "learned", "norm_order": "post"}, {"mapping_norm": "none", "stem_norm": "none"}],
    ids=str,
)
def test_every_parameter_that_can_learn_gets_a_gradient(changes):
    """In the last block only the class token is used, and its query bypasses the depth-wise part (figure 4.4).

    A bias of the keys moves all logits of a row alike, which softmax does not see.
    """
    model = shake(tiny(**changes))
    (3 * model(clip(batch=4))).logsumexp(1).square().sum().backward()
    last = f"blocks.{TINY.depth - 1}.attention.mapping.query"
    own = {"depthwise.weight"} | ({"depthwise.bias"} if "mapping_norm" in changes else {"norm.weight", "norm.bias"})
    dead = {f"{last}.{name}" for name in own}
    dead |= {f"blocks.{block}.attention.mapping.key.pointwise.bias" for block in range(TINY.depth)}
    grads = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert [name for name, grad in grads.items() if grad is None] == []
    assert {name for name, grad in grads.items() if grad.abs().max() < 1e-6} == dead


def test_8448_parameters_of_the_base_model_cannot_learn():
    with torch.device("meta"):
        query = convolutional_attention(BASE).mapping.query
    assert parameter_count(query.depthwise) + parameter_count(query.norm) == 8_448


def test_evaluation_is_deterministic_and_batch_independent():
    model = shake(tiny(dropout=0.3, drop_path=0.3))
    assert not torch.equal(model(clip()), model(clip()))
    model.eval()
    together = model(clip(4))
    assert torch.equal(together, model(clip(4)))
    alone = torch.cat([model(one[None]) for one in clip(4)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_the_mapping_mixes_locations_but_not_times():
    """Attention weights do not depend on the moved patch, so only values carry it through the block's reshapes."""
    block = shake(tiny()).blocks[0].eval()
    block.attention.heads = 1
    mapping = block.attention.mapping
    grid, dim = (3, 4, 4), TINY.width
    tokens = torch.randn(1, 49, dim, generator=torch.Generator().manual_seed(2))
    moved = tokens.clone()
    moved[:, 1 + 16 + 5] += torch.randn(dim)  # time 1, row 1, column 1
    seen = []
    hook = mapping.register_forward_hook(lambda _module, _inputs, outputs: seen.append(outputs))
    block(tokens, grid)
    block(moved, grid)
    hook.remove()
    expected = torch.zeros(grid, dtype=torch.bool)
    expected[1, :3, :3] = True
    for before, after in zip(*seen, strict=True):
        assert torch.equal((before - after)[0, 1:].abs().amax(-1).reshape(grid) > 1e-6, expected)
        assert torch.equal(before[:, 0], after[:, 0])


def test_without_position_or_convolution_token_order_does_not_matter():
    """Linear mapping and no position: shuffling the tokens changes nothing. Convolution: it does (section 4.4.3)."""
    shuffle = torch.cat(
        (torch.zeros(1, dtype=torch.long), 1 + torch.randperm(8, generator=torch.Generator().manual_seed(0)))
    )
    tokens = torch.randn(1, 9, TINY.width, generator=torch.Generator().manual_seed(1))
    moved = {}
    for mapping in ("linear", "convolution"):
        block = shake(tiny(mapping=mapping)).blocks[0].eval()
        moved[mapping] = (block(tokens, (2, 2, 2)) - block(tokens[:, shuffle], (2, 2, 2)))[:, 0].abs().max()
    assert moved["linear"] < 1e-5
    assert moved["convolution"] > 1e-3


def test_drop_path_rises_from_the_first_block_to_the_last():
    assert [block.drop_path.rate for block in tiny(depth=3, drop_path=0.2).blocks] == [0.0, 0.1, 0.2]


def test_the_network_can_memorize_one_batch():
    model = tiny()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    labels = torch.tensor([1, 3, 0, 4])
    for _ in range(80):
        loss = F.cross_entropy(model(clip(4)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.05


# -- what does not fit -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frames", "size", "field", "multiples"),
    [(12, 32, "frames", "8, 16, 24"), (0, 32, "frames", "8, 16, 24"), (8, 40, "size", "16, 32, 48")],
)
def test_unsupported_clips_are_refused_by_constructor_and_forward(raises, frames, size, field, multiples):
    with raises(ClipError, multiples, field=field):
        CTN(TINY, heads=DIVING48, frames=frames, size=size)
    with raises(ClipError, multiples, field=field):
        tiny()(torch.zeros(1, 3, frames, size, size))


def test_without_a_learned_position_other_sizes_work(raises):
    model = tiny().eval()
    for frames, height, width in ((8, 32, 32), (24, 48, 32)):
        assert model(torch.randn(1, 3, frames, height, width)).shape == (1, 5)
    with raises(ClipError, 16, field="width"):
        model(torch.randn(1, 3, 8, 32, 40))


def test_a_learned_position_needs_clips_of_the_built_size(raises):
    model = tiny(position="learned")
    assert model(clip()).shape == (2, 5)
    with raises(ClipError, "16 frames of 32 x 32", "8 frames", field="position"):
        model(clip(frames=8))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"width": 25}, "width"),
        *(({name: 0}, name) for name in ("stem_channels", "width", "depth", "attention_heads", "mlp_ratio")),
        *(({name: rate}, name) for name in ("dropout", "drop_path") for rate in (-0.1, 1.0)),
        ({"patch": (0, 4, 4)}, "patch.0"),
    ],
    ids=str,
)
def test_impossible_configurations_are_refused_by_name(raises, changes, field):
    with raises(ConfigError, next(iter(changes)), field=field):
        dataclasses.replace(TINY, **changes)


def test_a_clip_without_channels_is_refused(raises):
    with raises(ClipError, field="channels"):
        CTN(TINY, heads=DIVING48, channels=0, frames=8, size=32)


def test_max_pooling_ignores_the_padding():
    """Without an activation maps may be negative everywhere, where padding with zeros would be the maximum."""
    pool = VideoToTokens(TINY, channels=3).pool
    assert pool(-1 - torch.rand(1, 8, 4, 6, 6)).max() < -1


# -- learning from scratch ---------------------------------------------------------------------------------------------


def test_scratch_kernels_respond_to_change_only():
    stem = tiny(start="scratch", stem_channels=8).embedding.convolution
    still = clip(frames=1).expand(-1, -1, 16, -1, -1)
    assert stem(still)[:, :, 2:-2].abs().max() < 1e-5  # outside, zero padding is a change
    assert stem(clip())[:, :, 2:-2].std(dim=(0, 2, 3, 4)).min() > 0.1


def test_linear_layers_are_initialized_like_vit_or_by_xavier():
    for start, spread in (("identity", 0.02), ("scratch", (2 / (TINY.width + TINY.width)) ** 0.5)):
        weight = tiny(start=start).blocks[0].attention.out.weight
        assert weight.std().item() == pytest.approx(spread, rel=0.15)


def test_depthwise_kernels_from_scratch_are_not_the_identity():
    for part in tiny(start="scratch").modules():
        if isinstance(part, nn.Conv2d):
            assert part.weight.count_nonzero() == part.weight.numel()


def test_an_activation_in_the_stem_clips_the_maps_at_zero():
    stem = tiny(stem_activation="relu").embedding.eval()
    torch.nn.init.constant_(stem.norm.bias, -2)  # else the maxima of noise are all above zero
    seen = []
    stem.patches.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    stem(clip())
    expected = F.max_pool3d(stem.norm(stem.convolution(clip())), 3, stride=(2, 2, 2), padding=1).clamp(min=0)
    torch.testing.assert_close(seen[0], expected)
    assert (expected == 0).any()
