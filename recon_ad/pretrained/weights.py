"""The published weights of an encoder, from a safetensors file, a folder with one, or the hub."""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.numpy

from recon_ad.errors import UserError
from recon_ad.models.spec import Spec
from recon_ad.pretrained.hub import FILE, fetched
from recon_ad.pretrained.names import fits, is_hugging_face, to_params
from recon_ad.pretrained.presets import PRESETS, preset
from recon_ad.runtime.files import is_regular

HUB = "hub"  # value that replaces a path


class Pretrained(NamedTuple):
    """Weights of an encoder, for images of the size that it was trained on.

    Attributes:
      params: Parameters of `recon_ad.models.vit.ViT`.
      antialias: Whether its library interpolates positions with antialiasing (see
        `recon_ad.models.vit.fitted`).
      file: File that they were read from.
      sha256: SHA-256 of the file.
    """

    params: dict[str, Any]
    antialias: bool
    file: str
    sha256: str


def read_encoder(name: str, weights: str, *, sha256: str = "") -> Pretrained:
    """Read the weights of a preset.

    Args:
      name: Name in `PRESETS`.
      weights: A safetensors file, a folder that contains model.safetensors, or "hub". The latter is
        fetched once by huggingface_hub, which keeps the file in its cache.
      sha256: Required SHA-256 of the file. "" accepts any.

    Raises:
      UserError: If the preset or the file does not exist, the file is damaged or a different one,
        or its tensors are not the preset's.
    """
    if weights == HUB:
        path = fetched(name)
        # The cache names large files by their SHA-256, which the hub gives.
        blob = path.resolve().name
        sha256 = sha256 or (blob if len(blob) == 64 else "")
    else:
        path = Path(weights).expanduser()
        path = path / FILE if path.is_dir() else path
    return read_file(path, preset(name).spec, sha256=sha256, name=name)


def check_given(weights: str) -> None:
    """Raise UserError if a given path to weights leads to no file."""
    path = Path(weights).expanduser()
    _check_file(path / FILE if path.is_dir() else path)


def _check_file(path: Path) -> None:
    if not is_regular(path):
        raise UserError(
            f"no weights at {path}: set weights= or config.encoder.weights to a safetensors file, "
            f'to a folder with {FILE}, or to "{HUB}" to fetch them.'
        )


def read_file(path: Path, spec: Spec, *, sha256: str = "", name: str = "") -> Pretrained:
    """Read the weights in a file; arguments and errors are those of `read_encoder`."""
    _check_file(path)
    if path.suffix != ".safetensors":
        raise UserError(
            f"{path} is not a safetensors file: formats with Python objects are not opened, as "
            "they can run code; save it with safetensors.torch.save_file."
        )
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if sha256 and found != sha256.lower():
        raise UserError(
            f"{path} has the SHA-256 {found}, not {sha256.lower()}: it is a different file, or was "
            "damaged in transit; fetch it again."
        )
    try:
        tensors = safetensors.numpy.load(content)
    except KeyError as error:
        raise UserError(
            f"{path} has numbers of type {error}, which NumPy does not support: convert the file "
            "to float32 or float16."
        ) from None
    except (safetensors.SafetensorError, ValueError) as error:
        raise UserError(f"{path} is damaged or truncated ({error}): fetch it again.") from None
    other = next((key for key, each in PRESETS.items() if fits(tensors, each.spec)), "")
    params = to_params(tensors, spec, where=str(path), encoder=name, other=other)
    # timm always antialiases, Hugging Face only with registers.
    antialias = not is_hugging_face(tensors) or spec.registers > 0
    return Pretrained(params, antialias, str(path), found)
