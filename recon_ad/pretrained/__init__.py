"""Pretrained encoders: which there are, and how their published files become parameters.

`presets` names them, `names` knows how libraries call their tensors, `hub` fetches files and knows
what is in the hub's cache, `weights` reads files and checks them against the preset, and `encoders`
lists all of it. Nothing is executed: safetensors only. Networks are in `recon_ad.models`, and none
of it needs JAX.
"""

from recon_ad.pretrained.hub import cached, obtainable
from recon_ad.pretrained.presets import PRESETS, Preset, preset
from recon_ad.pretrained.weights import Pretrained, read_encoder

__all__ = ["PRESETS", "Preset", "Pretrained", "cached", "obtainable", "preset", "read_encoder"]
