"""ViT files of torchvision load to the features of the network that wrote them."""

from collections import OrderedDict

import pytest
import torch
from torch import nn

from kinema.errors import ViTError
from kinema.models.pretrained.vit import from_vit
from kinema.models.pretrained.vit_file import read_vit
from kinema.models.vit_spatial import ViTSpatial, ViTSpatialConfig
from kinema.training.weights import load_weights

WIDTH, HEADS, HIDDEN, PATCH, SIZE, LAYERS = 24, 3, 48, 8, 32, 3


class EncoderBlock(nn.Module):
    """Block of torchvision's ViT, with its names."""

    def __init__(self):
        super().__init__()
        self.ln_1 = nn.LayerNorm(WIDTH, eps=1e-6)
        self.self_attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.ln_2 = nn.LayerNorm(WIDTH, eps=1e-6)
        layers = (nn.Linear(WIDTH, HIDDEN), nn.GELU(), nn.Dropout(0.0), nn.Linear(HIDDEN, WIDTH), nn.Dropout(0.0))
        self.mlp = nn.Sequential(*layers)

    def forward(self, tokens):
        x = self.ln_1(tokens)
        tokens = tokens + self.self_attention(x, x, x, need_weights=False)[0]
        return tokens + self.mlp(self.ln_2(tokens))


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.pos_embedding = nn.Parameter(torch.empty(1, (SIZE // PATCH) ** 2 + 1, WIDTH))
        self.layers = nn.Sequential(OrderedDict((f"encoder_layer_{n}", EncoderBlock()) for n in range(LAYERS)))
        self.ln = nn.LayerNorm(WIDTH, eps=1e-6)


class VisionTransformer(nn.Module):
    """torchvision's ViT, with its names."""

    def __init__(self):
        super().__init__()
        self.conv_proj = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.class_token = nn.Parameter(torch.empty(1, 1, WIDTH))
        self.encoder = Encoder()
        self.heads = nn.Sequential(OrderedDict(head=nn.Linear(WIDTH, 10)))

    def features(self, pictures):
        patches = self.conv_proj(pictures).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(len(pictures), -1, -1), patches], 1) + self.encoder.pos_embedding
        return self.encoder.ln(self.encoder.layers(tokens))[:, 0]


@pytest.fixture(scope="module")
def torchvision():
    torch.manual_seed(0)
    model = VisionTransformer().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(mean=1.0 if "ln" in name and "weight" in name else 0.0, std=0.3)
    return model


def published(tensors):
    """Return the names of torchvision's published files, which predate those in memory."""
    return {
        name.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."): t for name, t in tensors.items()
    }


NAMES = {
    "in memory": dict,
    "published": published,
    "compiled": lambda tensors: {f"_orig_mod.{name}": tensor for name, tensor in tensors.items()},
    "data parallel": lambda tensors: published({f"module.{name}": tensor for name, tensor in tensors.items()}),
    "without a classifier": lambda tensors: {n: t for n, t in tensors.items() if not n.startswith("heads.")},
}


def spatial():
    torch.manual_seed(1)
    config = ViTSpatialConfig(patch=PATCH, width=WIDTH, depth=LAYERS, attention_heads=HEADS, mlp_ratio=HIDDEN // WIDTH)
    return ViTSpatial(config, heads={"label": 5}, channels=3, frames=1, size=SIZE).eval()


@torch.no_grad()
@pytest.mark.parametrize("names", NAMES)
def test_a_file_of_torchvision_gives_its_features(tmp_path, torchvision, names):
    torch.save(NAMES[names](torchvision.state_dict()), tmp_path / "vit_b_16-c867db91.pth")
    model = spatial()
    heads = {name: tensor.clone() for name, tensor in model.state_dict().items() if name.startswith("heads.")}
    report = load_weights(model, tmp_path / "vit_b_16-c867db91.pth", classes={"label": tuple("abcde")})
    clip = torch.randn(2, 3, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(2))
    expected = torchvision.features(clip[:, :, 0])
    assert expected.std() > 0.1
    torch.testing.assert_close(model.features(clip), expected, rtol=0, atol=1e-5)
    assert report.family == "ViT"
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in heads.items())


@pytest.mark.parametrize(
    "name", ["encoder.layers.encoder_layer_1.self_attention.in_proj_bias", "conv_proj.bias", "encoder.ln.weight"]
)
def test_a_missing_tensor_is_named_as_in_the_file(raises, torchvision, name):
    tensors = {other: tensor for other, tensor in torchvision.state_dict().items() if other != name}
    with raises(ViTError, field=name):
        from_vit(read_vit(tensors), spatial())


def test_an_unknown_tensor_is_refused(raises, torchvision):
    with raises(ViTError, "torchvision", field="init.ignore"):
        read_vit(torchvision.state_dict() | {"encoder.layers.encoder_layer_0.gamma": torch.ones(WIDTH)})
