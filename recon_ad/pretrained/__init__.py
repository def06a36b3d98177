"""Pretrained encoders: the available presets, and the conversion of published files to parameters.

`presets` names the encoders, `names` translates the libraries' tensor names, `hub` fetches files
and reads the hub's cache, `weights` reads files and checks them against the preset, and `encoders`
lists all of them. No code from a file is executed, because only safetensors are read. Networks are
in `recon_ad.models`; none of this needs JAX.
"""

from recon_ad.pretrained.hub import cached, obtainable
from recon_ad.pretrained.presets import PRESETS, Preset, preset
from recon_ad.pretrained.weights import Pretrained, read_encoder

__all__ = ["PRESETS", "Preset", "Pretrained", "cached", "obtainable", "preset", "read_encoder"]
