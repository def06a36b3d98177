"""The names and layouts that timm and Hugging Face give the tensors of a Vision Transformer.

Both use PyTorch's layouts: a linear layer is [out, in], a convolution [out, in, h, w]. Hugging
Face's names are first converted to timm's, with query, key and value concatenated as in timm.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from recon_ad.errors import UserError
from recon_ad.models.spec import MLP_RATIO, Spec

Tensors = Mapping[str, np.ndarray]
CPU = "deit_tiny_patch16_224"  # encoder at scale=cpu
# Heads, and tensors that only pretraining needs.
UNUSED = re.compile(r"(head|head_dist|fc_norm|classifier|cls_classifier|distillation_classifier)\.")
UNUSED_TOO = re.compile(r"mask_token$|pooler\.")
_HF_PREFIX = re.compile(r"^(vit|deit|dinov2|dinov2_with_registers)\.")
_HF_NAMES = (
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.distillation_token$", "dist_token"),
    (r"^embeddings\.register_tokens$", "reg_token"),
    (r"^embeddings\.mask_token$", "mask_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^layernorm\.", "norm."),
    (r"^encoder\.layer\.(\d+)\.", r"blocks.\1."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.attention\.attention\.", ".attn."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"(blocks\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
)


def is_hugging_face(tensors: Tensors) -> bool:
    """Return whether the tensors have Hugging Face's names."""
    return any(_HF_PREFIX.sub("", name).startswith("embeddings.") for name in tensors)


def to_timm(tensors: Tensors) -> dict[str, np.ndarray]:
    """Convert Hugging Face's names and layout to timm's."""
    renamed = {}
    for name, value in tensors.items():
        name = _HF_PREFIX.sub("", name)
        for pattern, new in _HF_NAMES:
            name = re.sub(pattern, new, name)
        renamed[name] = value
    for name in [n for n in renamed if ".attn.query." in n]:
        parts = [name.replace(".query.", f".{part}.") for part in ("query", "key", "value")]
        if all(part in renamed for part in parts):
            values = [renamed.pop(part) for part in parts]
            renamed[name.replace(".query.", ".qkv.")] = np.concatenate(values)
    return renamed


def expected(spec: Spec, positions: int) -> dict[str, tuple[int, ...]]:
    """Return the expected shapes by timm's names.

    Args:
      spec: Shape of the encoder.
      positions: Number of the tokens before the patches that have a position.
    """
    d, hidden = spec.width, MLP_RATIO * spec.width
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, d),
        "pos_embed": (1, positions + spec.grid**2, d),
        "patch_embed.proj.weight": (d, 3, spec.patch, spec.patch),
        "patch_embed.proj.bias": (d,),
        "norm.weight": (d,),
        "norm.bias": (d,),
    }
    if spec.distilled:
        shapes["dist_token"] = (1, 1, d)
    if spec.registers:
        shapes["reg_token"] = (1, spec.registers, d)
    for i in range(spec.depth):
        layers = {"attn.qkv": (3 * d, d), "attn.proj": (d, d)}
        layers |= {"mlp.fc1": (hidden, d), "mlp.fc2": (d, hidden)}
        for layer, shape in layers.items():
            shapes[f"blocks.{i}.{layer}.weight"] = shape
            shapes[f"blocks.{i}.{layer}.bias"] = shape[:1]
        for norm in ("norm1", "norm2"):
            shapes[f"blocks.{i}.{norm}.weight"] = shapes[f"blocks.{i}.{norm}.bias"] = (d,)
        if spec.layer_scale:
            shapes[f"blocks.{i}.ls1.gamma"] = shapes[f"blocks.{i}.ls2.gamma"] = (d,)
    return shapes


def to_params(
    tensors: Tensors, spec: Spec, *, where: str, encoder: str = "", other: str = ""
) -> dict[str, Any]:
    """Convert tensors to float32 parameters of `recon_ad.models.vit.ViT` at its training size.

    Args:
      tensors: Tensors by the names of either library.
      spec: Shape of the encoder, which the tensors have to match.
      where: Origin of the tensors, for messages.
      encoder: Name of the encoder, for messages.
      other: Name of the encoder that the tensors fit if they do not fit this one, if known.

    Raises:
      UserError: If tensors are missing, of another shape, surplus or not finite. The message names
        them.
    """
    named = _named(tensors)
    positions = _positions(named, spec)
    shapes = expected(spec, positions)
    _check(named, shapes, where=where, encoder=encoder, other=other)

    f32 = {name: np.asarray(value, np.float32) for name, value in named.items()}
    prefix = [f32[n][0] for n in ("cls_token", "dist_token", "reg_token") if n in f32]
    joined = np.concatenate(prefix)
    joined[:positions] += f32["pos_embed"][0, :positions]
    grid = f32["pos_embed"][0, positions:].reshape(spec.grid, spec.grid, spec.width)
    kernel = np.moveaxis(f32["patch_embed.proj.weight"], (0, 1), (3, 2))
    params: dict[str, Any] = {
        "prefix": joined,
        "positions": grid,
        "embed": {
            "kernel": kernel.reshape(-1, spec.width),
            "bias": f32["patch_embed.proj.bias"],
        },
        "norm": _norm(f32, "norm"),
    }
    for i in range(spec.depth):
        block = f"blocks.{i}."
        params[f"block{i}"] = {
            "attn": {name: _linear(f32, f"{block}attn.{name}") for name in ("qkv", "proj")},
            **{name: _linear(f32, f"{block}mlp.{name}") for name in ("fc1", "fc2")},
            **{name: _norm(f32, block + name) for name in ("norm1", "norm2")},
        }
        if spec.layer_scale:
            scales = {f"scale{n}": f32[f"{block}ls{n}.gamma"] for n in (1, 2)}
            params[f"block{i}"] |= scales
    return params


def _linear(tensors: Tensors, name: str) -> dict[str, Float[np.ndarray, "..."]]:
    return {
        "kernel": np.ascontiguousarray(tensors[f"{name}.weight"].T),
        "bias": tensors[f"{name}.bias"],
    }


def _norm(tensors: Tensors, name: str) -> dict[str, Float[np.ndarray, " d"]]:
    return {"scale": tensors[f"{name}.weight"], "bias": tensors[f"{name}.bias"]}


def fits(tensors: Tensors, spec: Spec) -> bool:
    """Return whether the tensors are those of such an encoder, by their names and shapes."""
    named = _named(tensors)
    return not _faults(named, expected(spec, _positions(named, spec)))


def _named(tensors: Tensors) -> dict[str, np.ndarray]:
    named = to_timm(tensors) if is_hugging_face(tensors) else dict(tensors)
    return {
        name: value
        for name, value in named.items()
        if not UNUSED.match(name) and not UNUSED_TOO.match(name)
    }


def _positions(named: Tensors, spec: Spec) -> int:
    """Return the number of tokens before the patches that have a position.

    They are all tokens, the class token alone, or none.
    """
    with_registers = (0, 1) if spec.registers else (spec.prefix,)
    rows = named["pos_embed"].shape[1] if np.ndim(named.get("pos_embed")) == 3 else None
    found = [n for n in with_registers if rows == n + spec.grid**2]
    return found[0] if found else with_registers[-1]


def _faults(tensors: Tensors, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    missing = [name for name in shapes if name not in tensors]
    surplus = [name for name in tensors if name not in shapes]
    wrong = [
        f"{name} is {list(tensors[name].shape)}, not {list(shape)}"
        for name, shape in shapes.items()
        if name in tensors and tensors[name].shape != shape
    ]
    return [
        f"{what}: {names[0]}" + (f" and {len(names) - 1} more" * (len(names) > 1))
        for what, names in (("missing", missing), ("wrong", wrong), ("surplus", surplus))
        if names
    ]


def _check(
    tensors: Tensors, shapes: Mapping[str, tuple[int, ...]], *, where: str, encoder: str, other: str
) -> None:
    if faults := _faults(tensors, shapes):
        guess = f"they look like {other}: add" if other else "set"
        cpu = " (or scale=cpu)" * (other == CPU)
        value = other or "the network that they belong to"
        raise UserError(
            f"these weights do not fit {encoder or 'this encoder'}; {guess} encoder={value}{cpu}. "
            f"In {where}, {'; '.join(faults)}."
        )
    for name, value in tensors.items():
        if not np.isfinite(value.astype(np.float32)).all():
            raise UserError(
                f"the weights in {where} are damaged: {name} has values that are NaN or infinite; "
                "fetch the file again."
            )
