"""ViT and ViViT weights in tubelet networks: outputs equal those of transformers, and the report is complete."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import ViTConfig, ViTModel, VivitConfig, VivitForVideoClassification, VivitModel

from kinema.errors import StartError, ViTError
from kinema.models.ctn import CTN, CTNConfig
from kinema.models.pretrained.vit import from_vit
from kinema.models.pretrained.vit_file import is_vit, read_vit
from kinema.models.registry import create_model
from kinema.models.rpe_stdt import RPESTDT, RPESTDTConfig
from kinema.models.vit_spatial import ViTSpatial, ViTSpatialConfig
from kinema.models.vivit import ViViT, ViViTConfig
from kinema.training.messages import load_messages
from kinema.training.weights import load_weights

WIDTH, HEADS, HIDDEN, SIZE, LAYERS = 24, 3, 48, 32, 3
SIZES = {
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": HIDDEN,
    "image_size": SIZE,
    "layer_norm_eps": 1e-6,  # timm's and ours; that of Hugging Face's ViT is smaller
    "hidden_act": "gelu",  # Hugging Face's ViViT would approximate it
}


def randomized(model):
    """Randomize all parameters, norms and biases included."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(mean=1.0 if "layernorm" in name and "weight" in name else 0.0, std=0.3)
    return model.eval()


@pytest.fixture(scope="module")
def vit():
    """transformers' ViT on 4 x 4 patches of 8 x 8 pixels."""
    torch.manual_seed(0)
    return randomized(ViTModel(ViTConfig(**SIZES, patch_size=8), add_pooling_layer=False))


@pytest.fixture(scope="module")
def vivit():
    """transformers' ViViT on 3 x 4 x 4 tubelets of 2 x 8 x 8 pixels, and a classifier."""
    torch.manual_seed(0)
    return randomized(
        VivitForVideoClassification(VivitConfig(**SIZES, tubelet_size=[2, 8, 8], num_frames=6, num_labels=7))
    )


def our_vivit(*, frames=4, size=SIZE, channels=3, **changes):
    torch.manual_seed(1)
    small = {"tubelet": (2, 8, 8), "width": WIDTH, "depth": LAYERS, "attention_heads": HEADS, "mlp_ratio": 2}
    return ViViT(
        ViViTConfig(**(small | changes)), heads={"label": 5}, channels=channels, frames=frames, size=size
    ).eval()


def ctn(*, frames=4, size=SIZE, channels=3, **changes):
    torch.manual_seed(1)
    small = {"embedding": "tubelets", "patch": (2, 2, 2), "position": "learned"}
    small |= {"width": WIDTH, "depth": LAYERS, "attention_heads": HEADS, "mlp_ratio": 2, "stem_channels": 4}
    return CTN(CTNConfig(**(small | changes)), heads={"label": 5}, channels=channels, frames=frames, size=size).eval()


def loaded(tensors, model, *, blocks=()):
    model.load_state_dict(from_vit(read_vit(tensors), model, blocks=blocks).weights, strict=False)
    return model


def clip(*, frames=4, channels=3, size=SIZE):
    return torch.randn(2, channels, frames, size, size, generator=torch.Generator().manual_seed(2))


def close(found, expected):
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def tokens_of(model, given):
    """Return the input of the first block."""
    seen = []
    hook = model.blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(given)
    hook.remove()
    return seen[0]


# -- ViT's weights -----------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"mapping_kernel": 5, "mapping_padding": "circular"},
        {"mapping_norm": "none"},
        {"mapping": "linear"},
        {"embedding": "video-to-tokens", "position": "none", "patch": (1, 2, 2)},
    ],
    ids=str,
)
def test_a_loaded_block_of_ctn_is_the_layer_of_transformers_vit(vit, changes):
    model = loaded(vit.state_dict(), ctn(**changes), blocks=(2, 0, 1))
    tokens = torch.randn(2, 1 + 2 * 3 * 5, WIDTH, generator=torch.Generator().manual_seed(3))
    for block, number in zip(model.blocks, (2, 0, 1), strict=True):
        close(block(tokens, (2, 3, 5)), vit.layers[number](tokens))


@torch.no_grad()
@pytest.mark.parametrize("network", [ctn, our_vivit])
@pytest.mark.parametrize(("frames", "middle"), [(1, 0), (2, 1), (3, 1), (4, 2)])
def test_a_single_time_of_tubelets_equals_vit_on_the_middle_frame(vit, network, frames, middle):
    tubelet = {"patch": (frames, 2, 2)} if network is ctn else {"tubelet": (frames, 8, 8)}
    model = loaded(vit.state_dict(), network(frames=frames, **tubelet))
    given = clip(frames=frames)
    close(model.features(given), vit(given[:, :, middle]).last_hidden_state[:, 0])


@torch.no_grad()
@pytest.mark.parametrize("network", [ctn, our_vivit])
@pytest.mark.parametrize("size", [SIZE, 48])
def test_vits_positions_are_repeated_for_every_time(vit, network, size):
    model, given = loaded(vit.state_dict(), network(frames=6, size=size)), clip(frames=6, size=size)
    pictures = [vit.embeddings(given[:, :, frame], interpolate_pos_encoding=True) for frame in (1, 3, 5)]
    expected = torch.cat((pictures[0][:, :1], *(picture[:, 1:] for picture in pictures)), dim=1)
    close(tokens_of(model, given), expected)


@torch.no_grad()
@pytest.mark.parametrize("network", [ctn, our_vivit])
def test_a_one_channel_clip_gives_the_result_of_its_gray_image(vit, network):
    gray = clip(frames=2, channels=1)
    model = loaded(vit.state_dict(), network(frames=2, channels=1))
    close(model.features(gray), vit(gray[:, :, 1].expand(-1, 3, -1, -1)).last_hidden_state[:, 0])


def test_depthwise_kernels_of_ctn_stay_the_identity(vit):
    model = ctn()
    fresh = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    weights = from_vit(read_vit(vit.state_dict()), model).weights
    beyond = {name for name in fresh if name not in weights and not name.startswith("heads.")}
    assert beyond == {name for name in fresh if "depthwise" in name or (".mapping." in name and ".norm." in name)}
    loaded(vit.state_dict(), model)
    assert all(torch.equal(model.state_dict()[name], fresh[name]) for name in beyond)


# -- ViViT's weights ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def namings(vivit, tmp_path_factory):
    """Return the same weights under the names in memory and in transformers' files."""
    folder = tmp_path_factory.mktemp("vivit")
    vivit.save_pretrained(folder / "classifier")
    backbone = VivitModel(vivit.config)
    backbone.load_state_dict(vivit.vivit.state_dict(), strict=False)
    backbone.save_pretrained(folder / "backbone")
    return {
        "in memory": vivit.vivit.state_dict(),
        "classifier in memory": vivit.state_dict(),
        "file of the backbone": load_file(folder / "backbone" / "model.safetensors"),
        "file of the classifier": load_file(folder / "classifier" / "model.safetensors"),
    }


NAMINGS = ("in memory", "classifier in memory", "file of the backbone", "file of the classifier")


@torch.no_grad()
@pytest.mark.parametrize("network", [ctn, our_vivit])
@pytest.mark.parametrize("naming", NAMINGS)
def test_tubelets_positions_and_blocks_equal_transformers_vivit(vivit, namings, network, naming):
    tensors = namings[naming]
    assert is_vit(tensors)
    given = clip(frames=6)
    found = loaded(tensors, network(frames=6)).features(given)
    close(found, vivit.vivit(given.transpose(1, 2)).last_hidden_state[:, 0])


def test_names_in_files_differ_from_those_in_memory(namings):
    """A check of the fixture: names in files and in memory differ."""
    file, memory = set(namings["file of the classifier"]), set(namings["classifier in memory"])
    assert "vivit.encoder.layer.0.attention.attention.query.weight" in file
    assert "vivit.layers.0.attention.q_proj.weight" in memory


@torch.no_grad()
@pytest.mark.parametrize("network", [ctn, our_vivit])
def test_positions_are_interpolated_to_another_number_of_times(vivit, network):
    """Positions are interpolated as for longer clips than the network was built for."""
    built = loaded(vivit.state_dict(), our_vivit(frames=6))
    other = loaded(vivit.state_dict(), network(frames=4))
    close(tokens_of(other, clip(frames=4)), tokens_of(built, clip(frames=4)))


# -- the report -------------------------------------------------------------------------------------------------------

NO_POSITION = {"embeddings.position_embeddings": "the network has no position"}
TO_2 = ", in frame 1 of 0 to 1, zeros in the others"


@pytest.mark.parametrize(
    ("network", "changes", "origins", "unused"),
    [
        (
            our_vivit,
            {},
            {
                "embedding.patches": f"patch kernel{TO_2}",
                "position.table": "positions, the same at each of 2 times",
                "blocks.0 to 2": "blocks 0, 1, 2 of the file",
            },
            {},
        ),
        (
            ctn,
            {"size": 48, "channels": 1, "depth": 1},
            {
                "embedding.patches": f"patch kernel, summed over 3 colors{TO_2}",
                "position.table": "positions, interpolated from 4 x 4 to 6 x 6, the same at each of 2 times",
                "blocks.0": "block 0 of the file",
            },
            {"layers.1, layers.2": "the network loads other blocks"},
        ),
        (
            our_vivit,
            {"tubelet": (1, 8, 8), "frames": 1, "position": "none"},
            {"blocks.0 to 2": "blocks 0, 1, 2 of the file"},
            NO_POSITION,
        ),
        (
            ctn,
            {"embedding": "video-to-tokens", "position": "none", "frames": 8},
            {"blocks.0 to 2": "blocks 0, 1, 2 of the file"},
            NO_POSITION | {"embeddings.patch_embeddings.projection": "the network has video-to-tokens instead"},
        ),
    ],
)
def test_changes_and_unused_tensors_of_vit_are_reported(vit, network, changes, origins, unused):
    converted = from_vit(read_vit(vit.state_dict()), network(**changes))
    assert converted.origins == origins
    assert converted.unused == unused


def test_changes_and_unused_tensors_of_vivit_are_reported(vivit):
    converted = from_vit(read_vit(vivit.state_dict()), ctn(frames=4))
    assert converted.origins == {
        "position.table": "positions, interpolated from 3 to 2 times of 4 x 4 places",
        "blocks.0 to 2": "blocks 0, 1, 2 of the file",
    }
    heads = ("classifier.weight", "classifier.bias")
    assert converted.unused == dict.fromkeys(heads, "task heads are reinitialized")
    assert "position.table" not in from_vit(read_vit(vivit.state_dict()), our_vivit(frames=6)).origins


def test_the_report_names_every_tensor(vivit, tmp_path):
    torch.save(vivit.state_dict(), tmp_path / "vivit.pt")
    model = ctn(embedding="video-to-tokens", position="none", frames=8)
    started = load_weights(model, tmp_path / "vivit.pt", classes={"label": tuple("abcde")})
    own = model.state_dict()
    assert sorted((*started.loaded_keys, *started.reset_keys, *started.extra_keys)) == sorted(own)
    assert torch.equal(
        own["blocks.1.attention.mapping.key.pointwise.weight"],
        vivit.state_dict()["vivit.layers.1.attention.k_proj.weight"],
    )
    mapping = [f"blocks.*.attention.mapping.{part}" for part in ("query", "key", "value")]
    beyond = ", ".join(["embedding", *(f"{part}.{of}" for part in mapping for of in ("depthwise", "norm"))])
    heads = [f"heads.classifiers.head_label.{kind}" for kind in ("weight", "bias")]
    assert load_messages(started) == [
        f"weights: {LAYERS * 16 + 3} tensors loaded from {tmp_path / 'vivit.pt'}",
        "  blocks.0 to 2: blocks 0, 1, 2 of the file",
        *(f"  reset: {name} (not in ViViT weights)" for name in heads),
        f"  not part of ViViT: {len(own) - LAYERS * 16 - 3 - 2} tensors ({beyond})",
        "  unexpected: classifier.bias: task heads are reinitialized",
        "  unexpected: classifier.weight: task heads are reinitialized",
        "  unexpected: embeddings.patch_embeddings.projection: the network has video-to-tokens instead",
        "  unexpected: embeddings.position_embeddings: the network has no position",
    ]


# -- at their real sizes -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def base():
    """State dicts of ViT-B/16 and ViViT-B/16x2 with 32 frames, on the meta device."""
    with torch.device("meta"):
        vit = ViTModel(ViTConfig(), add_pooling_layer=False).state_dict()
        return {"ViT": vit, "ViViT": VivitForVideoClassification(VivitConfig()).state_dict()}


@pytest.mark.parametrize(
    ("name", "changes", "file", "count"),
    [
        ("vivit_base", {}, "ViT", 150),
        ("vivit_base", {"frames": 32}, "ViViT", 150),
        ("vivit_base", {}, "ViViT", 150),
        ("ctn_base", {}, "ViT", 12 * 16 + 3),
        ("ctn_base_dense", {"position": "learned"}, "ViViT", 12 * 16 + 4),
        ("ctn_base", {"embedding": "tubelets", "position": "learned", "mapping": "linear"}, "ViT", 12 * 16 + 6),
    ],
)
def test_base_networks_load_base_files(base, name, changes, file, count):
    with torch.device("meta"):
        model = create_model(name, num_classes=48, **changes)
    own = model.state_dict()
    vit = read_vit(base[file])
    assert vit.family == file
    weights = from_vit(vit, model).weights
    assert len(weights) == count
    assert all(tensor.shape == own[name].shape for name, tensor in weights.items())


# -- what cannot be ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "changes", "field", "words"),
    [
        (our_vivit, {"tubelet": (2, 16, 16)}, "model.patch", ("[24, 3, 8, 8]", "[24, 3, 2, 16, 16]")),
        (our_vivit, {"channels": 4}, "model.patch", ("[24, 3, 8, 8]", "[24, 4, 2, 8, 8]")),
        (our_vivit, {"width": 48}, "model.width", (24, 48)),
        (ctn, {"patch": (2, 4, 4)}, "model.patch", ("[24, 3, 8, 8]", "[24, 3, 2, 16, 16]")),
        (ctn, {"embedding": "video-to-tokens", "frames": 8, "width": 48}, "model.width", (24, 48)),
        (ctn, {"mlp_ratio": 3}, "blocks.0.mlp.expand.weight", ("[48, 24]", "[72, 24]")),
        (ctn, {"depth": 4}, "init.blocks", ("no block 3", "0 to 2")),
        (ctn, {"norm_order": "post"}, "model.norm_order", ("pre",)),
        (ctn, {"start": "scratch"}, "model.start", ("identity",)),
    ],
)
def test_weights_that_do_not_fit_are_refused(raises, vit, network, changes, field, words):
    with raises(ViTError, *words, field=field):
        from_vit(read_vit(vit.state_dict()), network(**changes))


def test_a_linear_mapping_loads_vit_even_with_start_scratch(vit):
    assert from_vit(read_vit(vit.state_dict()), ctn(mapping="linear", start="scratch")).weights


def test_vivits_kernel_does_not_fit_frame_by_frame_networks(raises, vivit):
    frame_by_frame = ViTSpatialConfig(patch=8, width=WIDTH, depth=LAYERS, attention_heads=HEADS, mlp_ratio=2)
    rpe_stdt = RPESTDTConfig(patch=8, width=WIDTH, spatial_layers=LAYERS, spatial_heads=HEADS, clusters=10)
    for model in (
        ViTSpatial(frame_by_frame, heads={"label": 5}, frames=2, size=SIZE),
        RPESTDT(rpe_stdt, heads={"label": 5}, frames=2, size=SIZE),
    ):
        with raises(ViTError, "[24, 3, 2, 8, 8]", "[24, 3, 8, 8]", field="model.patch"):
            from_vit(read_vit(vivit.state_dict()), model)


def test_a_tubelet_with_another_number_of_frames_is_refused(raises, vivit):
    with raises(ViTError, "[24, 3, 2, 8, 8]", "[24, 3, 1, 8, 8]", field="model.patch"):
        from_vit(read_vit(vivit.state_dict()), our_vivit(tubelet=(1, 8, 8)))


def test_positions_of_another_grid_are_refused(raises, vivit):
    with raises(ViTError, "49 rows", "5 x 5", field="embeddings.position_embeddings"):
        from_vit(read_vit(vivit.state_dict()), our_vivit(size=40))
    assert from_vit(read_vit(vivit.state_dict()), our_vivit(size=40, position="none")).weights


def test_an_unexpected_tensor_of_vivit_is_refused_unless_ignored(raises, vivit, tmp_path):
    torch.save(vivit.state_dict() | {"vivit.embeddings.mask_grid": torch.zeros(2)}, tmp_path / "vivit.pt")
    model = our_vivit(frames=6)
    with raises(StartError, "mask_grid", path=tmp_path / "vivit.pt", field="init.ignore"):
        load_weights(model, tmp_path / "vivit.pt", classes={})
    started = load_weights(model, tmp_path / "vivit.pt", classes={}, ignore=["embeddings.mask"])
    assert "vivit.embeddings.mask_grid: ignored by init.ignore" in started.unexpected_keys
