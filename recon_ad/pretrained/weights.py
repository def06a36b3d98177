"""Reads the published weights of an encoder: a safetensors file, a folder with one, or the hub."""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.numpy

from recon_ad.errors import UserError
from recon_ad.models.spec import Spec
from recon_ad.pretrained.hub import FILE, fetched
from recon_ad.pretrained.names import is_hugging_face, to_params
from recon_ad.pretrained.presets import preset

HUB = "hub"  # instead of a path


class Pretrained(NamedTuple):
    """An encoder's weights, for images of the size that it was trained on.

    Attributes:
      params: of `recon_ad.models.vit.ViT`.
      antialias: how its library interpolates positions, see `recon_ad.models.vit.fitted`.
      file: that they were read from.
      sha256: of the file.
    """

    params: dict[str, Any]
    antialias: bool
    file: str
    sha256: str


def read_encoder(name: str, weights: str, *, sha256: str = "") -> Pretrained:
    """The weights of a preset.

    Args:
      name: in `PRESETS`.
      weights: a safetensors file, a folder that holds model.safetensors, or "hub": fetched once by
        huggingface_hub, which keeps it in its cache.
      sha256: that the file must have; "": any.

    Raises:
      UserError: there is no such preset or file, the file is damaged or another one, or its tensors
        are not the preset's.
    """
    if weights == HUB:
        path = fetched(name)
        # The cache names large files by their SHA-256, which the hub gives.
        blob = path.resolve().name
        sha256 = sha256 or (blob if len(blob) == 64 else "")
    else:
        path = Path(weights).expanduser()
        path = path / FILE if path.is_dir() else path
    return read_file(path, preset(name).spec, sha256=sha256)


def read_file(path: Path, spec: Spec, *, sha256: str = "") -> Pretrained:
    """The weights in a file; arguments and exceptions as `read_encoder` has them."""
    if not path.is_file():
        raise UserError(
            f"there are no weights at {path}: set config.encoder.weights to a safetensors file, to "
            f'a folder with {FILE}, or to "{HUB}" to fetch them.'
        )
    if path.suffix != ".safetensors":
        raise UserError(
            f"{path} is no safetensors file: formats that hold Python objects are not opened, as "
            "they can run code; save it by safetensors.torch.save_file."
        )
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if sha256 and found != sha256.lower():
        raise UserError(
            f"{path} has the SHA-256 {found}, not {sha256.lower()}: it is another file, or was "
            "damaged on its way; fetch it anew."
        )
    try:
        tensors = safetensors.numpy.load(content)
    except KeyError as error:
        raise UserError(
            f"{path} holds numbers of type {error}, which NumPy has not: convert the file to "
            "float32 or float16."
        ) from None
    except (safetensors.SafetensorError, ValueError) as error:
        raise UserError(f"{path} is damaged or cut short ({error}): fetch the file anew.") from None
    params = to_params(tensors, spec, where=str(path))
    # As timm does, and Hugging Face with registers only.
    antialias = not is_hugging_face(tensors) or spec.registers > 0
    return Pretrained(params, antialias, str(path), found)
