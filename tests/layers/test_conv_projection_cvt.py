"""The convolutional mapping equals CvT's (arXiv:2103.15808) of `transformers` with its weights."""

import pytest
import torch
from torch import nn
from transformers.models.cvt.modeling_cvt import CvtSelfAttention

from kinema.layers.conv_projection import ConvolutionalMapping
from kinema.layers.transformer import SelfAttention

DIM, HEADS = 12, 3
GRID = (1, 4, 5)


def pair(kernel):
    """Return CvT's attention and ours with the same random parameters."""
    torch.manual_seed(0)
    theirs = CvtSelfAttention(
        HEADS, DIM, kernel, kernel // 2, kernel // 2, 1, 1, "dw_bn", qkv_bias=True, attention_drop_rate=0.0
    )
    for tensor in (*theirs.parameters(), *(b for b in theirs.buffers() if b.is_floating_point())):
        nn.init.uniform_(tensor, 0.1, 1)
    mapping = ConvolutionalMapping(DIM, kernel=kernel, norm="batch", padding="zeros")
    for name in ("query", "key", "value"):
        part, convolution = getattr(mapping, name), getattr(theirs, f"convolution_projection_{name}")
        part.depthwise.load_state_dict(convolution.convolution_projection.convolution.state_dict())
        part.norm.load_state_dict(convolution.convolution_projection.normalization.state_dict())
        part.pointwise.load_state_dict(getattr(theirs, f"projection_{name}").state_dict())
    ours = SelfAttention(mapping, dim=DIM, heads=HEADS)
    nn.init.eye_(ours.out.weight)  # CvT has this layer elsewhere
    nn.init.zeros_(ours.out.bias)
    return theirs.double(), ours.double()


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_the_mapping_equals_cvts_except_for_the_scale(kernel, mode):
    """CvT divides logits by the root of all channels; ViT and ours by that of one head's channels."""
    theirs, ours = (module.train(mode == "train") for module in pair(kernel))
    tokens = torch.randn(2, 1 + 20, DIM, dtype=torch.float64)
    as_it_is = theirs(tokens, *GRID[1:])
    assert (as_it_is - ours(tokens, GRID)).abs().max() > 1e-3
    theirs.scale = (DIM // HEADS) ** -0.5
    torch.testing.assert_close(ours(tokens, GRID), theirs(tokens, *GRID[1:]), rtol=0, atol=1e-12)
