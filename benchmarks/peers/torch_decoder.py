"""The trained half of `vit_recon` in PyTorch, with its loss.

It consists of the bottleneck, the decoder with linear attention, and the loss with hard mining.
Tokens are float32 [b, n, d] and groups [b, n, g, d], as in `recon_ad.methods.vit_recon`. The recipe
is "ours".
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, PyTree

from benchmarks.peers.torch_cae import linear
from recon_ad.methods.vit_recon import FACTOR
from recon_ad.models.feature_decoder import DROPPED, EPSILON, TINY

Tokens = Float[torch.Tensor, "b n d"]
Groups = Float[torch.Tensor, "b n g d"]


def _unbiased(params: PyTree) -> torch.nn.Linear:
    layer = linear({"kernel": params["kernel"], "bias": params["kernel"][0]})
    layer.bias = None
    return layer


def _norm(params: PyTree) -> torch.nn.LayerNorm:
    layer = torch.nn.LayerNorm(len(params["scale"]), eps=EPSILON)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(params["scale"]))
        layer.bias.copy_(torch.tensor(params["bias"]))
    return layer


class Block(torch.nn.Module):
    """A block with the parameters of `recon_ad.models.feature_decoder.Block`."""

    def __init__(self, params: PyTree, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = _norm(params["norm1"]), _norm(params["norm2"])
        self.qkv, self.proj = linear(params["attn"]["qkv"]), linear(params["attn"]["proj"])
        self.fc1, self.fc2 = _unbiased(params["fc1"]), _unbiased(params["fc2"])

    def attention(self, x: Tokens) -> Tokens:
        """Compute linear attention, with elu(x) + 1 instead of the softmax."""
        b, n, d = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, d // self.heads).unbind(2)
        q, k = F.elu(q) + 1, F.elu(k) + 1
        values = torch.einsum("bnhc,bnhe->bhce", k, v)
        weight = torch.einsum("bnhc,bhc->bnh", q, k.sum(1))
        attended = torch.einsum("bnhc,bhce->bnhe", q, values) / (weight + TINY)[..., None]
        return self.proj(attended.reshape(b, n, d))

    def forward(self, x: Tokens) -> Tokens:
        """Return the next tokens."""
        x = x + self.attention(self.norm1(x))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class FeatureDecoder(torch.nn.Module):
    """The part that `vit_recon` trains, with parameters of `recon_ad.models.feature_decoder`.

    Args:
      params: The parameters.
      depth: Number of the decoder's blocks.
      heads: Number of their attention heads.
    """

    def __init__(self, params: PyTree, depth: int, heads: int):
        super().__init__()
        self.dropped = DROPPED
        self.fc1, self.fc2 = _unbiased(params["fc1"]), _unbiased(params["fc2"])
        self.blocks = torch.nn.ModuleList(Block(params[f"block{i}"], heads) for i in range(depth))

    def forward(self, targets: Groups) -> Groups:
        """Return the reconstruction of both groups, with dropout in training mode."""
        count, half = len(self.blocks), len(self.blocks) // 2
        x = (half * targets[..., 0, :] + (count - half) * targets[..., 1, :]) / count
        x = F.gelu(self.fc1(F.dropout(x, self.dropped, self.training)))
        x = F.dropout(x, self.dropped, self.training)
        x = F.dropout(self.fc2(x), self.dropped, self.training)
        found = []
        for block in self.blocks:
            x = block(x)
            found.append(x)
        found = found[::-1]
        return torch.stack([sum(g) / len(g) for g in (found[:half], found[half:])], dim=2)


def cosine_distance(
    a: Float[torch.Tensor, "*n d"], b: Float[torch.Tensor, "*n d"]
) -> Float[torch.Tensor, "*n"]:
    """Return 1 − cos of the angle between vectors."""
    return 1 - F.cosine_similarity(a, b, dim=-1)


def mined_loss(targets: Groups, found: Groups, easy: float) -> Float[torch.Tensor, " b"]:
    """Compute the loss as `recon_ad.methods.vit_recon.mined_loss` does."""
    with torch.no_grad():
        apart = cosine_distance(targets, found)  # [b, n, g]
        limit = torch.quantile(apart.flatten(0, 1), easy, dim=0)
        well = (apart < limit)[..., None]
    # The value is unchanged; only the gradient is reduced.
    found = torch.where(well, FACTOR * found + (1 - FACTOR) * found.detach(), found)
    whole = (x.transpose(1, 2).flatten(2) for x in (targets, found))
    return cosine_distance(*whole).mean(1)
