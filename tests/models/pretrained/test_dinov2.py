"""DINOv2 weights in our networks: features equal those of transformers, in every naming, with and without registers."""

import re

import pytest
import torch
from safetensors.torch import load_file
from transformers import Dinov2Config, Dinov2Model, Dinov2WithRegistersConfig, Dinov2WithRegistersModel

from kinema.errors import ViTError
from kinema.models.pretrained.vit import from_vit
from kinema.models.pretrained.vit_file import HALF, IMAGENET, color_statistics, read_vit, unread_family
from kinema.models.registry import create_model

WIDTH, HEADS, LAYERS, SIZE = 24, 3, 2, 56
META = {  # name in memory of transformers -> Meta's, of a block
    "attention.o_proj": "attn.proj",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
}
HUB = {"q_proj": "attention.query", "k_proj": "attention.key", "v_proj": "attention.value", "o_proj": "output.dense"}


@pytest.fixture(scope="module", params=[0, 4], ids=["plain", "registers"])
def dinov2(request):
    """transformers' DINOv2 with random weights, norms and LayerScale too, for pictures of 56 pixels."""
    torch.manual_seed(0)
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "mlp_ratio": 2}
    sizes |= {"image_size": SIZE, "patch_size": 14}
    if request.param:
        model = Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**sizes, num_register_tokens=request.param))
    else:
        model = Dinov2Model(Dinov2Config(**sizes))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(mean=1.0 if re.search(r"norm\d?\.weight|lambda", name) else 0.0, std=0.3)
    return model.eval()


def in_naming(model, naming):
    """Return the weights of a DINOv2 in a naming: `memory` of transformers, its `hub`, or `meta`."""
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    if naming == "memory":
        return tensors
    if naming == "hub":
        for old, new in HUB.items():
            tensors = {name.replace(f"attention.{old}", f"attention.{new}"): t for name, t in tensors.items()}
        return tensors
    found = {}
    for name, tensor in tensors.items():
        if (block := re.fullmatch(r"encoder\.layer\.(\d+)\.(.+)", name)) is None:
            name = name.removeprefix("embeddings.").replace("patch_embeddings.projection", "patch_embed.proj")
            found[name.replace("position_embeddings", "pos_embed").replace("layernorm", "norm")] = tensor
        elif (mapped := re.fullmatch(r"attention\.q_proj\.(\w+)", block[2])) is not None:
            letters = [tensors[name.replace("q_proj", f"{letter}_proj")] for letter in "qkv"]
            found[f"blocks.{block[1]}.attn.qkv.{mapped[1]}"] = torch.cat(letters)
        elif "k_proj" not in name and "v_proj" not in name:
            own = block[2]
            for old, new in META.items():
                own = own.replace(old, new)
            found[f"blocks.{block[1]}.{own}"] = tensor
    return found


def network(name, *, size=SIZE, **changes):
    small = {"width": WIDTH}
    if name == "rpe_stdt_s14":
        small |= {"spatial_layers": LAYERS, "spatial_heads": HEADS, "spatial_mlp_channels": 2 * WIDTH, "clusters": 10}
    else:
        small |= {"depth": LAYERS, "attention_heads": HEADS, "mlp_ratio": 2}
    return create_model(name, num_classes=5, frames=2, size=size, **(small | changes)).eval()


def loaded(tensors, model):
    model.load_state_dict(from_vit(read_vit(tensors), model).weights, strict=False)
    return model


def class_tokens(model, clip):
    with torch.no_grad():
        frames = model(clip.transpose(1, 2).flatten(0, 1)).last_hidden_state[:, 0]
    return frames.unflatten(0, (len(clip), -1))


def pictures(size):
    return torch.randn(2, 3, 2, size, size, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("size", [SIZE, 42, 84])
@pytest.mark.parametrize("naming", ["memory", "hub", "meta"])
def test_features_equal_those_of_transformers(dinov2, naming, size):
    registers = getattr(dinov2.config, "num_register_tokens", 0)
    tensors, clip = in_naming(dinov2, naming), pictures(size)
    expected = class_tokens(dinov2, clip)
    assert expected.std() > 0.1
    with torch.no_grad():
        by_frame = loaded(tensors, network("vit_s14_spatial", size=size, registers=registers)).features(clip)
        in_space = loaded(tensors, network("rpe_stdt_s14", size=size, registers=registers)).encode_space(clip)
    torch.testing.assert_close(by_frame, expected.mean(1), rtol=0, atol=1e-5)
    torch.testing.assert_close(in_space, expected, rtol=0, atol=1e-5)


def test_positions_of_timm_without_the_class_token(dinov2):
    tensors = in_naming(dinov2, "meta")
    if "register_tokens" not in tensors:
        return
    expected, clip = read_vit(tensors), pictures(SIZE)
    tensors["reg_token"] = tensors.pop("register_tokens")
    tensors["cls_token"] = tensors["cls_token"] + tensors["pos_embed"][:, :1]
    tensors["pos_embed"] = tensors["pos_embed"][:, 1:]
    found = read_vit(tensors)
    assert torch.equal(found.position[1:], expected.position[1:])
    model = loaded(tensors, network("vit_s14_spatial", registers=4))
    with torch.no_grad():
        torch.testing.assert_close(model.features(clip), class_tokens(dinov2, clip).mean(1), rtol=0, atol=1e-5)


def test_the_last_block_may_compute_the_class_token_only(dinov2):
    registers = getattr(dinov2.config, "num_register_tokens", 0)
    model = loaded(in_naming(dinov2, "hub"), network("rpe_stdt_s14", registers=registers))
    with torch.no_grad():
        torch.testing.assert_close(model.features(pictures(70), "all"), model.features(pictures(70), "class"))


@pytest.mark.parametrize("name", ["vivit_s14", "ctn_s14"])
def test_one_frame_tubelets_equal_frames(dinov2, raises, name):
    """With tubelets of one frame, one frame gives the features of the picture."""
    model = network(name, tubelet=(1, 14, 14))
    if getattr(dinov2.config, "num_register_tokens", 0):
        with raises(ViTError, "register", field="model.registers"):
            loaded(in_naming(dinov2, "hub"), model)
        return
    model = create_model(
        name, num_classes=5, frames=1, size=SIZE, width=WIDTH, depth=2, attention_heads=3, mlp_ratio=2,
        tubelet=(1, 14, 14),
    ).eval()  # fmt: skip
    loaded(in_naming(dinov2, "hub"), model)
    clip = pictures(SIZE)[:, :, :1]
    with torch.no_grad():
        torch.testing.assert_close(model.features(clip), class_tokens(dinov2, clip)[:, 0], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "word"),
    [({"registers": 2}, "register"), ({"patch": 7}, "patch"), ({"width": 48}, "width")],
)
def test_another_architecture_is_refused(dinov2, raises, changes, word):
    with raises(ViTError, word):
        loaded(in_naming(dinov2, "hub"), network("vit_s14_spatial", **changes))


def test_relative_position_starts_at_zero(dinov2):
    registers = getattr(dinov2.config, "num_register_tokens", 0)
    model = network("rpe_stdt_s14", registers=registers)
    tables = [value for name, value in model.named_parameters() if "table_on" in name and name.startswith("spatial")]
    assert len(tables) == LAYERS
    assert not any(table.any() for table in tables)


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("model.layer.0.attention.q_proj.weight", "DINOv3"),
        ("layer.0.attention.k_proj.weight", "DINOv3"),
        ("rope_embed.periods", "DINOv3"),
        ("vision_model.pre_layrnorm.weight", "CLIP"),
        ("visual.transformer.resblocks.0.ln_1.weight", "CLIP"),
        ("vision_model.head.probe", "SigLIP"),
        ("layers.0.blocks.0.norm1.weight", "Swin"),
    ],
)
def test_families_that_are_not_read_are_named(raises, name, family):
    assert family in unread_family([name])
    with raises(ViTError, family):
        read_vit({name: torch.zeros(1), "embeddings.cls_token": torch.zeros(1, 1, 4)})


def test_colors_of_a_family(dinov2):
    for naming in ("memory", "hub", "meta"):
        assert color_statistics(in_naming(dinov2, naming)) == IMAGENET
    assert color_statistics(["blocks.0.attn.qkv.weight", "dist_token"]) == IMAGENET
    assert color_statistics(["blocks.0.attn.qkv.weight", "cls_token"]) == HALF


@pytest.mark.long
@pytest.mark.parametrize("size", [224, 168])
def test_real_weights(real_data, size):
    file = real_data / "weights" / "dinov2_vits14.safetensors"
    if not file.exists():
        pytest.skip(f"{file} is not here")
    tensors = load_file(file)
    theirs = Dinov2Model(Dinov2Config(hidden_size=384, num_attention_heads=6, image_size=518, use_mask_token=False))
    names = {new: old for old, new in HUB.items()}
    renamed = {}
    for name, tensor in tensors.items():
        for old, new in names.items():
            name = name.replace(f"attention.{old}", f"attention.{new}")
        renamed[name] = tensor
    theirs.load_state_dict(renamed)
    clip = pictures(size)
    expected = class_tokens(theirs.eval(), clip)
    vit = read_vit(tensors)
    assert vit.family == "DINOv2"
    model = create_model("rpe_stdt_s14", num_classes=5, frames=2, size=size).eval()
    model.load_state_dict(from_vit(vit, model).weights, strict=False)
    with torch.no_grad():
        torch.testing.assert_close(model.encode_space(clip), expected, rtol=0, atol=1e-4)
