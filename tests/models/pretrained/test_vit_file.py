"""ViT files are read in one form; missing, unknown and misshapen tensors are refused by name."""

import re

import pytest
import torch

from kinema.errors import ViTError
from kinema.models.pretrained.i3d import I3D_KERNELS
from kinema.models.pretrained.vit_file import is_vit, read_vit
from kinema.models.registry import create_model, list_models

WIDTH = 24
OLD = {  # timm's names in regular expressions -> those of transformers' files, but for attention's mapping
    r"cls_token": "embeddings.cls_token",
    r"pos_embed": "embeddings.position_embeddings",
    r"patch_embed\.proj": "embeddings.patch_embeddings.projection",
    r"blocks\.(\d+)\.norm1": r"encoder.layer.\1.layernorm_before",
    r"blocks\.(\d+)\.norm2": r"encoder.layer.\1.layernorm_after",
    r"blocks\.(\d+)\.attn\.proj": r"encoder.layer.\1.attention.output.dense",
    r"blocks\.(\d+)\.mlp\.fc1": r"encoder.layer.\1.intermediate.dense",
    r"blocks\.(\d+)\.mlp\.fc2": r"encoder.layer.\1.output.dense",
    r"norm": "layernorm",
}


def linear(name, *shape):
    return {f"{name}.weight": torch.randn(shape), f"{name}.bias": torch.randn(shape[0])}


@pytest.fixture(scope="module")
def timm():
    """A small ViT under timm's names."""
    torch.manual_seed(0)
    tensors = {"cls_token": torch.randn(1, 1, WIDTH), "pos_embed": torch.randn(1, 17, WIDTH)}
    tensors |= linear("patch_embed.proj", WIDTH, 3, 8, 8)
    for block in range(3):
        tensors |= linear(f"blocks.{block}.norm1", WIDTH) | linear(f"blocks.{block}.norm2", WIDTH)
        tensors |= linear(f"blocks.{block}.attn.qkv", 3 * WIDTH, WIDTH)
        tensors |= linear(f"blocks.{block}.attn.proj", WIDTH, WIDTH)
        tensors |= linear(f"blocks.{block}.mlp.fc1", 48, WIDTH) | linear(f"blocks.{block}.mlp.fc2", WIDTH, 48)
    return tensors | linear("norm", WIDTH) | linear("head", 10, WIDTH)


@pytest.fixture(scope="module")
def hugging_face(timm):
    """The same weights under the names of transformers' files."""
    tensors = {}
    for name, tensor in timm.items():
        if ".qkv." in name:
            block, kind = name.split(".")[1], name.split(".")[-1]
            for part, rows in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                tensors[f"vit.encoder.layer.{block}.attention.attention.{part}.{kind}"] = rows
        elif name.startswith("head"):
            tensors[name.replace("head", "classifier")] = tensor
        else:
            old = next(pattern for pattern in OLD if re.match(pattern, name))
            tensors["vit." + re.sub(f"^{old}", OLD[old], name)] = tensor
    return tensors


def test_every_naming_is_read_into_the_same_form(timm, hugging_face):
    one, other = read_vit(timm), read_vit(hugging_face)
    assert one.naming.label == "timm"
    assert other.naming.label == "Hugging Face"
    for vit in (one, other):
        assert torch.equal(vit.class_token, timm["cls_token"][0, 0])
        assert torch.equal(vit.position, timm["pos_embed"][0])
        assert torch.equal(vit.patches["weight"], timm["patch_embed.proj.weight"])
        assert torch.equal(vit.norm["bias"], timm["norm.bias"])
        assert len(vit.blocks) == 3
        for number, block in enumerate(vit.blocks):
            assert torch.equal(block["qkv"]["weight"], timm[f"blocks.{number}.attn.qkv.weight"])
            assert torch.equal(block["qkv"]["bias"], timm[f"blocks.{number}.attn.qkv.bias"])
            assert torch.equal(block["norm2"]["weight"], timm[f"blocks.{number}.norm2.weight"])
            assert torch.equal(block["fc2"]["bias"], timm[f"blocks.{number}.mlp.fc2.bias"])
    assert set(one.unused) == {"head.weight", "head.bias"}
    assert set(other.unused) == {"classifier.weight", "classifier.bias"}


def test_vit_is_recognized_by_its_names_and_our_own_networks_are_not(timm, hugging_face):
    for names in (timm, hugging_face, ["pos_embed"], ["head.weight", "module.blocks.11.mlp.fc2.bias"]):
        assert is_vit(names)
    others = ["norm.weight", "head.weight", "blocks.0.attn.qkv", "layers.0.blocks.0.attn.qkv.weight", "blocks.x.norm1"]
    assert not is_vit(others)
    assert not is_vit(f"{unit}.conv3d.weight" for unit in I3D_KERNELS)
    for name in list_models():
        with torch.device("meta"):
            own = create_model(name, num_classes=2).state_dict()
        assert not is_vit(own), name


@pytest.mark.parametrize("name", ["head_dist.weight", "pre_logits.fc.bias", "fc_norm.weight", "module.head.bias"])
def test_tensors_after_the_last_norm_are_ignored(timm, name):
    assert name in read_vit({**timm, name: torch.zeros(2)}).unused


@pytest.mark.parametrize(
    "name",
    [
        "cls_token",
        "pos_embed",
        "patch_embed.proj.bias",
        "blocks.1.norm1.weight",
        "blocks.0.attn.qkv.bias",
        "blocks.2.mlp.fc1.bias",
        "norm.weight",
    ],
)
def test_a_missing_tensor_is_refused(raises, timm, name):
    with raises(ViTError, "missing", field=name):
        read_vit({other: tensor for other, tensor in timm.items() if other != name})


def test_the_error_names_a_missing_block_as_in_the_file(raises, timm, hugging_face):
    for tensors, begin, first in (
        (timm, "blocks.1.", "attn.qkv"),
        (hugging_face, "encoder.layer.1.", "attention.attention.query"),
    ):
        short = {name: tensor for name, tensor in tensors.items() if not name.removeprefix("vit.").startswith(begin)}
        with raises(ViTError, "missing", field=f"{begin}{first}.weight"):
            read_vit(short)


@pytest.mark.parametrize(
    ("gone", "field"), [("blocks.", "blocks.0.attn.qkv.weight"), ("patch_embed.", "patch_embed.proj.weight")]
)
def test_an_incomplete_vit_is_refused(raises, timm, gone, field):
    short = {name: tensor for name, tensor in timm.items() if not name.startswith(gone)}
    with raises(ViTError, "missing", field=field):
        read_vit(short)


@pytest.mark.parametrize(
    ("added", "words"),
    [
        (["dist_token"], ("1 unexpected", "timm", "dist_token")),
        (
            ["blocks.0.gamma_1", "blocks.1.gamma_1", "blocks.2.gamma_1", "norm_pre.bias"],
            ("4 unexpected", "blocks.0.gamma_1, blocks.1.gamma_1, blocks.2.gamma_1, ..."),
        ),
        (["encoder.layer.0.output.dense.bias"], ("1 unexpected", "timm")),
        (["blocks.01.norm1.bias"], ("1 unexpected",)),
    ],
)
def test_unexpected_tensors_are_refused_by_name(raises, timm, added, words):
    with raises(ViTError, *words, field="init.ignore"):
        read_vit(timm | {name: torch.zeros(2) for name in added})


def test_tensors_can_be_ignored_by_prefix(raises, timm, hugging_face):
    vit = read_vit(timm | {"dist_token": torch.zeros(1, 1, WIDTH)}, ignore=["dist"])
    assert vit.unused["dist_token"] == "ignored by init.ignore"
    masked = hugging_face | {"vit.embeddings.mask_token": torch.zeros(1, 1, WIDTH)}
    for beginning in ("embeddings.mask", "vit.embeddings.mask"):
        assert "vit.embeddings.mask_token" in read_vit(masked, ignore=[beginning]).unused
    with raises(ViTError, "1 unexpected", "norm_pre", field="init.ignore"):
        read_vit(timm | {"dist_token": torch.zeros(2), "norm_pre.bias": torch.zeros(2)}, ignore=["dist"])


@pytest.mark.parametrize("prefix", ["dist_token", "blocks.2", "ed.weight"])
def test_an_unused_prefix_to_ignore_is_refused(raises, timm, prefix):
    """ViT's own tensors cannot be ignored."""
    with raises(ViTError, prefix, field="init.ignore"):
        read_vit(timm, ignore=[prefix])


@pytest.mark.parametrize(
    ("name", "tensor", "words"),
    [
        ("patch_embed.proj.weight", torch.zeros(24, 3, 64), ("[24, 3, 64]",)),
        ("patch_embed.proj.bias", torch.zeros(25), ("[25]", "[24]")),
        ("cls_token", torch.zeros(1, 1, 25), ("[1, 1, 25]", "[1, 1, 24]")),
        ("pos_embed", torch.zeros(17, 24), ("[17, 24]", "[1, 24, 24]")),
        ("blocks.1.attn.qkv.weight", torch.zeros(24, 24), ("[24, 24]", "[72, 24]")),
        ("blocks.1.mlp.fc2.weight", torch.zeros(24, 47), ("[24, 47]", "[24, 48]")),
        ("blocks.1.norm2.bias", torch.zeros(24, dtype=torch.int8), ("torch.int8",)),
        ("module.norm.bias", torch.zeros(24), ("duplicate",)),
    ],
)
def test_tensors_of_inconsistent_shapes_are_refused(raises, timm, name, tensor, words):
    with raises(ViTError, *words, field=name.removeprefix("module.")):
        read_vit({**timm, name: tensor})


def test_a_kernel_with_frames_is_vivits(timm):
    assert read_vit(timm).family == "ViT"
    kernel = torch.randn(24, 3, 2, 8, 8)
    vivit = read_vit({f"vivit.{name}": tensor for name, tensor in (timm | {"patch_embed.proj.weight": kernel}).items()})
    assert vivit.family == "ViViT"
    assert torch.equal(vivit.patches["weight"], kernel)


def test_a_file_without_vit_tensors_is_refused(raises):
    with raises(ViTError, "no ViT tensor"):
        read_vit({"norm.weight": torch.zeros(3)})
