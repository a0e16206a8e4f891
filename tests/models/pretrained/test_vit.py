"""ViT weights in our networks: outputs equal those of transformers in any naming, and the report is complete."""

import copy

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import ViTConfig, ViTForImageClassification, ViTModel

from kinema.errors import ViTError
from kinema.models.pretrained.vit import from_vit
from kinema.models.pretrained.vit_file import is_vit, read_vit
from kinema.models.registry import create_model
from kinema.models.rpe_stdt import RPESTDT, RPESTDTConfig
from kinema.models.vit_spatial import ViTSpatial, ViTSpatialConfig

WIDTH, HEADS, HIDDEN, PATCH, SIZE, LAYERS = 24, 3, 48, 8, 32, 3
OF_A_BLOCK = {  # transformers' name in memory -> timm's; queries, keys and values are one layer there
    "layernorm_before": "norm1",
    "attention.o_proj": "attn.proj",
    "layernorm_after": "norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
MAPPING = "attention.mapping.weight"


@pytest.fixture(scope="module")
def hugging_face():
    """transformers' ViT with random norms and biases, too, and the LayerNorm epsilon of timm and ours, 1e-6."""
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=HIDDEN,
        image_size=SIZE,
        patch_size=PATCH,
        layer_norm_eps=1e-6,
    )
    model = ViTModel(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(mean=1.0 if "layernorm" in name and "weight" in name else 0.0, std=0.3)
    return model


@pytest.fixture(scope="module")
def timm(hugging_face):
    """The same weights under timm's names."""
    theirs = hugging_face.state_dict()
    tensors = {
        "cls_token": theirs["embeddings.cls_token"],
        "pos_embed": theirs["embeddings.position_embeddings"],
        "patch_embed.proj.weight": theirs["embeddings.patch_embeddings.projection.weight"],
        "patch_embed.proj.bias": theirs["embeddings.patch_embeddings.projection.bias"],
    }
    for block in range(LAYERS):
        for kind in ("weight", "bias"):
            for there, here in OF_A_BLOCK.items():
                tensors[f"blocks.{block}.{here}.{kind}"] = theirs[f"layers.{block}.{there}.{kind}"]
            mapped = [theirs[f"layers.{block}.attention.{letter}_proj.{kind}"] for letter in "qkv"]
            tensors[f"blocks.{block}.attn.qkv.{kind}"] = torch.cat(mapped)
    tensors |= {"norm.weight": theirs["layernorm.weight"], "norm.bias": theirs["layernorm.bias"]}
    tensors |= {"head.weight": torch.zeros(1000, WIDTH), "head.bias": torch.zeros(1000)}
    return {name: tensor.clone() for name, tensor in tensors.items()}


def frame_by_frame(*, size=SIZE, channels=3, **changes):
    torch.manual_seed(1)
    small = {"patch": PATCH, "width": WIDTH, "depth": LAYERS, "attention_heads": HEADS, "mlp_ratio": HIDDEN // WIDTH}
    config = ViTSpatialConfig(**(small | changes))
    return ViTSpatial(config, heads={"label": 5}, channels=channels, frames=1, size=size).eval()


def rpe_stdt(*, size=SIZE, channels=3, **changes):
    """Return an RPE-STDT whose temporal encoder has ViT's attention heads, so that a block can equal ViT's."""
    torch.manual_seed(1)
    small = {"patch": PATCH, "width": WIDTH, "spatial_layers": LAYERS, "spatial_heads": HEADS, "clusters": 10}
    small |= {"spatial_mlp_channels": HIDDEN, "temporal_mlp_channels": HIDDEN, "temporal_layers": 2}
    small |= {"temporal_heads": HEADS, "temporal_head_channels": WIDTH // HEADS, "pool": "none", "pool_layers": ()}
    config = RPESTDTConfig(**(small | changes))
    return RPESTDT(config, heads={"label": 5}, channels=channels, frames=4, size=size).eval()


def loaded(tensors, model, *, blocks=(), ignore=()):
    model.load_state_dict(from_vit(read_vit(tensors, ignore=ignore), model, blocks=blocks).weights, strict=False)
    return model


def clip(*, frames=1, channels=3, size=SIZE):
    return torch.randn(2, channels, frames, size, size, generator=torch.Generator().manual_seed(2))


def without_position(hugging_face):
    model = copy.deepcopy(hugging_face)
    nn.init.zeros_(model.embeddings.position_embeddings)
    return model


def of_blocks(hugging_face, numbers):
    model = copy.deepcopy(hugging_face)
    model.layers = nn.ModuleList(hugging_face.layers[number] for number in numbers)
    return model


def class_token(hugging_face, pictures, **options):
    """Return the normalized class token."""
    return hugging_face(pictures, **options).last_hidden_state[:, 0]


def close(found, expected):
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


# -- outputs -----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_vit_on_one_frame_equals_transformers_vit(hugging_face, timm):
    close(loaded(timm, frame_by_frame()).features(clip()), class_token(hugging_face, clip()[:, :, 0]))


@torch.no_grad()
@pytest.mark.parametrize("position", ["none", "shared", "per-head"])
def test_rpe_stdt_equals_transformers_vit_without_position_on_each_frame(hugging_face, timm, position):
    """Relative positions are initialized to zero."""
    frames = loaded(timm, rpe_stdt(position=position)).encode_space(clip(frames=4))
    for time in range(4):
        close(frames[:, time], class_token(without_position(hugging_face), clip(frames=4)[:, :, time]))


@torch.no_grad()
def test_rpe_stdt_with_absolute_position_equals_transformers_vit_on_each_frame(hugging_face, timm):
    frames = loaded(timm, rpe_stdt(position="absolute")).encode_space(clip(frames=4))
    for time in range(4):
        close(frames[:, time], class_token(hugging_face, clip(frames=4)[:, :, time]))


@torch.no_grad()
@pytest.mark.parametrize("numbers", [(2, 0, 1), (1, 1, 2)])
def test_chosen_blocks_are_loaded_in_the_chosen_order(hugging_face, timm, numbers):
    found = loaded(timm, frame_by_frame(), blocks=numbers).features(clip())
    close(found, class_token(of_blocks(hugging_face, numbers), clip()[:, :, 0]))


@torch.no_grad()
def test_a_shallower_network_loads_the_first_blocks_by_default(hugging_face, timm):
    found = loaded(timm, frame_by_frame(depth=2)).features(clip())
    close(found, class_token(of_blocks(hugging_face, (0, 1)), clip()[:, :, 0]))


@torch.no_grad()
def test_further_chosen_blocks_are_loaded_into_the_temporal_encoder(hugging_face, timm):
    model = loaded(timm, rpe_stdt(position="none", spatial_layers=1), blocks=(0, 2, 1))
    tokens = torch.randn(2, 5, WIDTH, generator=torch.Generator().manual_seed(3))
    for block, number in zip(model.temporal_blocks, (2, 1), strict=True):
        found, _, _ = block(tokens, torch.arange(4).expand(2, 1, 4), None)
        close(found, hugging_face.layers[number](tokens))


@torch.no_grad()
@pytest.mark.parametrize("size", [48, 16])
def test_positions_of_another_grid_are_interpolated_as_transformers_does(hugging_face, timm, size):
    found = loaded(timm, frame_by_frame(size=size)).features(clip(size=size))
    close(found, class_token(hugging_face, clip(size=size)[:, :, 0], interpolate_pos_encoding=True))


@torch.no_grad()
def test_building_for_another_size_equals_interpolating_at_run_time(timm):
    models = [loaded(timm, rpe_stdt(position="absolute", size=size)) for size in (SIZE, 48)]
    one, other = (model.encode_space(clip(frames=2, size=48)) for model in models)
    torch.testing.assert_close(one, other)


@torch.no_grad()
def test_a_one_channel_clip_gives_the_result_of_a_gray_one(hugging_face, timm):
    found = loaded(timm, frame_by_frame(channels=1)).features(clip(channels=1))
    close(found, class_token(hugging_face, clip(channels=1)[:, :, 0].expand(-1, 3, -1, -1)))


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def namings(hugging_face, timm, tmp_path_factory):
    """The weights under all namings; files are written by transformers itself."""
    classifier = ViTForImageClassification(hugging_face.config)
    classifier.vit.load_state_dict(hugging_face.state_dict(), strict=False)
    found = {"timm": timm, "DataParallel": {f"module.{name}": tensor for name, tensor in timm.items()}}
    for name, model in (("backbone", hugging_face), ("classifier", classifier)):
        folder = tmp_path_factory.mktemp(name)
        model.save_pretrained(folder)
        found |= {f"file of the {name}": load_file(folder / "model.safetensors"), name: model.state_dict()}
    return found


def test_names_in_files_of_transformers_differ_from_those_in_memory(namings):
    """Otherwise one of the two namings would not be tested."""
    spelt = {
        "file of the backbone": "encoder.layer.0.attention.attention.query.weight",
        "file of the classifier": "vit.encoder.layer.0.attention.attention.query.weight",
        "backbone": "layers.0.attention.q_proj.weight",
        "classifier": "vit.layers.0.attention.q_proj.weight",
    }
    for naming, name in spelt.items():
        assert name in namings[naming]
    assert "pooler.dense.weight" in namings["file of the backbone"]
    assert "classifier.weight" in namings["file of the classifier"]


@pytest.mark.parametrize(
    "naming", ["DataParallel", "file of the backbone", "backbone", "file of the classifier", "classifier"]
)
def test_all_namings_load_identical_weights(namings, timm, naming):
    assert is_vit(namings[naming])
    model = rpe_stdt(position="absolute")
    one, other = (from_vit(read_vit(tensors), model) for tensors in (timm, namings[naming]))
    assert one.origins == other.origins
    assert one.weights.keys() == other.weights.keys()
    for name, weight in one.weights.items():
        assert torch.equal(weight, other.weights[name]), name


def test_each_tensor_is_loaded_into_its_counterpart(timm):
    """Names and slices are written out, so that two errors cannot cancel."""
    weights = from_vit(read_vit(timm), rpe_stdt(position="absolute")).weights
    expected = {
        "embedding.patches.weight": timm["patch_embed.proj.weight"],
        "embedding.patches.bias": timm["patch_embed.proj.bias"],
        "spatial_class_token.token": timm["cls_token"][0, 0],
        "spatial_position.table": timm["pos_embed"][0],
        "spatial_norm.weight": timm["norm.weight"],
        "spatial_norm.bias": timm["norm.bias"],
    }
    ours = ("norm_attention", "attention.mapping", "attention.out", "norm_mlp", "mlp.expand", "mlp.contract")
    theirs = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    for block in range(LAYERS):
        for kind in ("weight", "bias"):
            for here, there in zip(ours, theirs, strict=True):
                expected[f"spatial_blocks.{block}.{here}.{kind}"] = timm[f"blocks.{block}.{there}.{kind}"]
    assert weights.keys() == expected.keys()
    for name, weight in weights.items():
        assert torch.equal(weight, expected[name]), name


def test_half_precision_becomes_float32_without_loss(timm):
    halves = {name: tensor.half() for name, tensor in timm.items()}
    weights = from_vit(read_vit(halves), frame_by_frame(channels=1)).weights
    assert torch.equal(weights["blocks.1.mlp.expand.weight"], halves["blocks.1.mlp.fc1.weight"].float())
    kernel = halves["patch_embed.proj.weight"].float().sum(1, keepdim=True)
    assert torch.equal(weights["embedding.patches.weight"], kernel)


# -- the report -------------------------------------------------------------------------------------------------------


def test_conversion_does_not_change_the_network(timm):
    model = rpe_stdt()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    from_vit(read_vit(timm), model)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


@pytest.mark.parametrize(
    ("network", "changes", "blocks", "origins", "unused"),
    [
        (frame_by_frame, {}, (), {"blocks.0 to 2": "blocks 0, 1, 2 of the file"}, {}),
        (
            frame_by_frame,
            {"channels": 1, "depth": 1, "size": 48},
            (),
            {
                "embedding.patches": "patch kernel, summed over 3 colors",
                "position.table": "positions, interpolated from 4 x 4 to 6 x 6",
                "blocks.0": "block 0 of the file",
            },
            {"blocks.1, blocks.2": "the network loads other blocks"},
        ),
        (
            rpe_stdt,
            {"spatial_layers": 2},
            (2, 0, 2),
            {"spatial_blocks.0 to 1": "blocks 2, 0 of the file", "temporal_blocks.0": "block 2 of the file"},
            {"pos_embed": "the network has relative position", "blocks.1": "the network loads other blocks"},
        ),
        (
            rpe_stdt,
            {"position": "none"},
            (),
            {"spatial_blocks.0 to 2": "blocks 0, 1, 2 of the file"},
            {"pos_embed": "the network has no position"},
        ),
    ],
)
def test_changes_and_unused_tensors_are_reported(timm, network, changes, blocks, origins, unused):
    converted = from_vit(read_vit(timm), network(**changes), blocks=blocks)
    heads = dict.fromkeys(("head.weight", "head.bias"), "task heads are reinitialized")
    assert converted.origins == origins
    assert converted.unused == heads | unused


def test_pooler_and_classifier_are_reported_as_unused(namings):
    pooler = from_vit(read_vit(namings["file of the backbone"]), rpe_stdt()).unused
    assert set(pooler) == {"pooler.dense.weight", "pooler.dense.bias", "embeddings.position_embeddings"}
    classifier = from_vit(read_vit(namings["classifier"]), rpe_stdt(spatial_layers=1)).unused
    assert set(classifier) == {
        "classifier.weight",
        "classifier.bias",
        "embeddings.position_embeddings",
        "layers.1, layers.2",
    }


# -- at their real sizes -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vit_base():
    """State dict of timm's ViT-B/16 on the meta device."""
    with torch.device("meta"):
        tensors = {
            "cls_token": torch.empty(1, 1, 768),
            "pos_embed": torch.empty(1, 197, 768),
            "patch_embed.proj.weight": torch.empty(768, 3, 16, 16),
            "patch_embed.proj.bias": torch.empty(768),
        }
        for layer, rows, columns in (("attn.qkv", 2304, 768), ("attn.proj", 768, 768), ("mlp.fc1", 3072, 768)):
            for block in range(12):
                tensors[f"blocks.{block}.{layer}.weight"] = torch.empty(rows, columns)
                tensors[f"blocks.{block}.{layer}.bias"] = torch.empty(rows)
        for block in range(12):
            tensors[f"blocks.{block}.mlp.fc2.weight"] = torch.empty(768, 3072)
            for layer in (f"blocks.{block}.mlp.fc2", f"blocks.{block}.norm1", f"blocks.{block}.norm2"):
                tensors[f"{layer}.bias"] = torch.empty(768)
            for layer in ("norm1", "norm2"):
                tensors[f"blocks.{block}.{layer}.weight"] = torch.empty(768)
        tensors |= {"norm.weight": torch.empty(768), "norm.bias": torch.empty(768)}
        tensors |= {"head.weight": torch.empty(1000, 768), "head.bias": torch.empty(1000)}
    assert sum(tensor.numel() for tensor in tensors.values()) == 86_567_656  # ViT-B/16 with 1000 classes
    return tensors


@pytest.mark.parametrize(
    ("name", "blocks", "count"),
    [
        ("vit_base_spatial", (), 150),
        ("rpe_stdt_base12", (), 149),
        ("rpe_stdt_base", (), 149 - 4 * 12),
        ("rpe_stdt_base", tuple(range(12)), 149),
    ],
)
def test_base_networks_load_vit_base(vit_base, name, blocks, count):
    with torch.device("meta"):
        model = create_model(name, num_classes=101)
    own = model.state_dict()
    weights = from_vit(read_vit(vit_base), model, blocks=blocks).weights
    assert len(weights) == count
    for weight, tensor in weights.items():
        assert tensor.shape == own[weight].shape


def test_narrow_temporal_layers_cannot_load_vits_blocks(raises, vit_base):
    with torch.device("meta"):
        model = create_model("rpe_stdt_base12", num_classes=101)
    with raises(ViTError, "[2304, 768]", "[1536, 768]", field="temporal_blocks.0.attention.mapping.weight"):
        from_vit(read_vit(vit_base), model, blocks=(*range(12), 3))


def test_weights_of_another_width_are_refused_with_both_widths(raises, vit_base):
    with torch.device("meta"):
        model = create_model("rpe_stdt_small", num_classes=101)
    with raises(ViTError, 768, 384, field="model.width"):
        from_vit(read_vit(vit_base), model)


# -- what cannot be ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "changes", "blocks", "field", "words"),
    [
        (frame_by_frame, {"patch": 16}, (), "model.patch", ("[24, 3, 8, 8]", "[24, 3, 16, 16]")),
        (frame_by_frame, {"channels": 4}, (), "model.patch", ("[24, 3, 8, 8]", "[24, 4, 8, 8]")),
        (frame_by_frame, {"depth": 4}, (), "init.blocks", ("no block 3", "0 to 2")),
        (frame_by_frame, {}, (0, 1, 3), "init.blocks", ("no block 3", "0 to 2")),
        (frame_by_frame, {}, (0, -1, 2), "init.blocks", ("no block -1",)),
        (frame_by_frame, {}, (0, 1), "init.blocks", ("2 blocks", "expected 3")),
        (frame_by_frame, {}, (0, 1, 2, 2), "init.blocks", ("4 blocks", "expected 3")),
        (rpe_stdt, {}, (0,) * 6, "init.blocks", ("6 blocks", "3 to 5")),
        (frame_by_frame, {"mlp_ratio": 3}, (), "blocks.0.mlp.expand.weight", ("block 0", "[48, 24]", "[72, 24]")),
        (
            rpe_stdt,
            {"temporal_mlp_channels": 24},
            (0, 1, 2, 1),
            "temporal_blocks.0.mlp.expand.weight",
            ("block 1", "[48, 24]", "[24, 24]"),
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(raises, timm, network, changes, blocks, field, words):
    with raises(ViTError, *words, field=field):
        from_vit(read_vit(timm), network(**changes), blocks=blocks)


def test_positions_not_on_a_square_grid_are_refused_if_needed(raises, timm):
    odd = timm | {"pos_embed": torch.zeros(1, 18, WIDTH)}
    assert from_vit(read_vit(odd), rpe_stdt()).weights
    for model in (frame_by_frame(), rpe_stdt(position="absolute")):
        with raises(ViTError, "18 rows", field="pos_embed"):
            from_vit(read_vit(odd), model)
