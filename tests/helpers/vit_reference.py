"""A Vision Transformer in NumPy, float64, for tensors with timm's names, and random tensors."""

import re

import numpy as np
from scipy import special

from recon_ad.models.spec import Spec
from recon_ad.pretrained.names import expected

SMALL = Spec(patch=4, width=12, depth=3, heads=3, grid=4)


def make_tensors(spec=SMALL, *, positions=None):
    """Draw random weights that are large enough to affect the output."""
    random = np.random.default_rng(0)
    shapes = expected(spec, spec.prefix if positions is None else positions)
    return {n: random.normal(0, 0.3, shape).astype(np.float32) for n, shape in shapes.items()}


def forward(tensors, images, spec):
    """Return the tokens after each block, and the last ones normalised.

    Images [b, h, w, 3] have the trained size.
    """
    t = {name: value.astype(np.float64) for name, value in tensors.items()}
    b, p, d = len(images), spec.patch, spec.width

    def linear(x, name):
        return x @ t[f"{name}.weight"].T + t[f"{name}.bias"]

    def norm(x, name):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
        return x * t[f"{name}.weight"] + t[f"{name}.bias"]

    windows = images.astype(np.float64).reshape(b, spec.grid, p, spec.grid, p, 3)
    x = np.einsum("bihjwc,dchw->bijd", windows, t["patch_embed.proj.weight"])
    x = x.reshape(b, -1, d) + t["patch_embed.proj.bias"]
    prefix = [t[n][0] for n in ("cls_token", "dist_token", "reg_token") if n in t]
    x = np.concatenate([np.broadcast_to(np.concatenate(prefix), (b, spec.prefix, d)), x], axis=1)
    positions = t["pos_embed"][0]
    rows = len(positions) - spec.grid**2
    x[:, :rows] += positions[:rows]
    x[:, spec.prefix :] += positions[rows:]
    found = []
    for i in range(spec.depth):
        block = f"blocks.{i}"
        qkv = linear(norm(x, f"{block}.norm1"), f"{block}.attn.qkv")
        q, k, v = np.moveaxis(qkv.reshape(b, -1, 3, spec.heads, d // spec.heads), 2, 0)
        scores = np.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(d // spec.heads)
        y = np.einsum("bhqk,bkhd->bqhd", special.softmax(scores, axis=-1), v).reshape(x.shape)
        y = linear(y, f"{block}.attn.proj")
        x = x + y * t.get(f"{block}.ls1.gamma", 1.0)
        y = linear(norm(x, f"{block}.norm2"), f"{block}.mlp.fc1")
        y = linear(y * special.ndtr(y), f"{block}.mlp.fc2")  # the exact GELU
        x = x + y * t.get(f"{block}.ls2.gamma", 1.0)
        found.append(x)
    return found, norm(x, "norm")


HUGGING_FACE = {
    r"^cls_token": "embeddings.cls_token",
    r"^pos_embed": "embeddings.position_embeddings",
    r"^dist_token": "embeddings.distillation_token",
    r"^reg_token": "embeddings.register_tokens",
    r"^patch_embed\.proj": "embeddings.patch_embeddings.projection",
    r"^norm\.": "layernorm.",
    r"^blocks": "encoder.layer",
    r"attn\.proj": "attention.output.dense",
    r"ls(\d)\.gamma": r"layer_scale\1.lambda1",
}
BUT_DINOV2 = {
    r"\.norm1": ".layernorm_before",
    r"\.norm2": ".layernorm_after",
    r"mlp\.fc1": "intermediate.dense",
    r"mlp\.fc2": "output.dense",
}


def hugging_face(tensors, *, dinov2):
    """Return the same tensors with Hugging Face's names."""
    renamed = {}
    for name, value in tensors.items():
        for pattern, theirs in (HUGGING_FACE | ({} if dinov2 else BUT_DINOV2)).items():
            name = re.sub(pattern, theirs, name)
        parts, pieces = ("",), (value,)
        if "attn.qkv" in name:
            parts, pieces = ("query", "key", "value"), np.split(value, 3)
        for part, piece in zip(parts, pieces, strict=True):
            renamed[name.replace("attn.qkv", f"attention.attention.{part}")] = piece
    return renamed
