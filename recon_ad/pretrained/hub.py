"""Finds what the Hugging Face hub's client has in its cache, without that client and a network.

The layout is documented and has been the same since 2022: a folder for each repository, in it
`refs/main` with the name of a commit, and `snapshots/COMMIT/` with that commit's files.
"""

import os
from pathlib import Path

from recon_ad.pretrained.presets import preset

FILE = "model.safetensors"  # of weights, on the hub and in its cache


def cache_folder() -> Path:
    """Returns where the client keeps files, by the variables that it reads itself."""
    home = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("HF_HOME", os.path.join(home, "huggingface"))
    older = os.environ.get("HUGGINGFACE_HUB_CACHE", os.path.join(home, "hub"))
    chosen = os.environ.get("HF_HUB_CACHE", older)
    return Path(os.path.expandvars(os.path.expanduser(chosen)))


def cached(name: str) -> Path | None:
    """Returns the file with an encoder's weights where the cache has it, else None.

    Works without a network and without huggingface_hub, and costs two looks at the disk.

    Args:
      name: in `PRESETS`.

    Raises:
      UserError: there is no such preset.
    """
    repository = cache_folder() / f"models--{preset(name).hub.replace('/', '--')}"
    try:
        commit = (repository / "refs" / "main").read_text().strip()
        file = repository / "snapshots" / commit / FILE
        return file if file.is_file() else None
    except (OSError, ValueError):  # no such repository, or a cache that cannot be read
        return None
