"""Conversion of detector files of older formats to the current one."""

import copy
from typing import Any

from recon_ad.errors import UserError

# Settings of one method, which format 6 kept with those of all others under `method`.
MOVED = {
    "kl_weight": ("vae", "kl_weight"),
    "critic_steps": ("aae", "critic_steps"),
    "critic_clip": ("aae", "critic_clip"),
    "encoder_rate": ("aae", "encoder_rate"),
    "ssim_threshold": ("ssim_l1", "ssim_threshold"),
    "l1_threshold": ("ssim_l1", "l1_threshold"),
    "feature_weight": ("fm_ae", "feature_weight"),
    "noise": ("dae", "noise"),
    "widths": ("dae", "widths"),
    "bottleneck": ("dae", "bottleneck"),
    "memory": ("knn", "memory"),
    "coreset": ("knn", "coreset"),
    "flow_steps": ("vit_flow", "steps"),
    "flow_coupling": ("vit_flow", "coupling"),
    "flow_ratio": ("vit_flow", "ratio"),
}


OLDER = (6, 7, 8)  # formats that this version reads beside its own


def as_today(described: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a detector.json in the current format.

    Args:
      described: Content in any format. Fields that its version lacked get the value that was in
        force then. Format 6 has no digest of the tensors, which is None here.

    Raises:
      UserError: If the method is knn of before format 9, which had one memory and not two.
    """
    described = copy.deepcopy(described)
    described["config"] = with_later_fields(described["config"])
    if described["format"] == 6:
        described["config"] = _from_format_6(described["config"])
        described["variables_sha256"] = None
    if described["format"] in OLDER:
        config = described["config"]
        if config["method"]["name"] == "knn":
            raise UserError(
                "its method knn is that of an earlier version, which compared features in one "
                "way and not in two: train it anew, or open it by the version that wrote it."
            )
        config["calibration"].setdefault("rule", "split")
        config["data"].setdefault("patches", "random")  # not used after training
        config["encoder"].setdefault("tokens", 1)
        config.setdefault("vit_recon", {"recipe": "ours"})
        described.setdefault("categories", {})
    return described


def with_later_fields(config: dict[str, Any]) -> dict[str, Any]:
    """Return the config of a detector or workdir with fields that were added without a new format.

    They get the value that was in force before. A damaged config is returned as it is.
    """
    optim = config.get("optim")
    if not isinstance(optim, dict):
        return config
    return {**config, "optim": {"average": 0.0, **optim}}


def _from_format_6(config: dict[str, Any]) -> dict[str, Any]:
    for old, (section, new) in MOVED.items():
        if old in config["method"]:
            config.setdefault(section, {})[new] = config["method"].pop(old)
    config["method"].setdefault("width", 1.0)
    config["data"].setdefault("side", 512)
    return config
