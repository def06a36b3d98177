"""Files on the Hugging Face hub: reading its client's cache, and fetching files that are not there.

Files in the cache need neither the client nor a network. The layout is documented and has not
changed since 2022: each repository has a folder, which contains `refs/main` with the name of a
commit, and `snapshots/COMMIT/` with that commit's files.
"""

import contextlib
import importlib.util
import logging
import os
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from recon_ad.errors import UserError
from recon_ad.pretrained.presets import preset
from recon_ad.runtime.waiting import disk_is_full

FILE = "model.safetensors"  # name of a weights file, on the hub and in its cache
ADDRESS = "https://huggingface.co"  # default of HF_ENDPOINT
PATIENCE = 3.0  # s within which the hub has to answer
OFFLINE = (
    f"fetch its {FILE} on another machine and add weights=FILE after the config's name "
    "(config.encoder.weights)."
)


def cache_folder() -> Path:
    """Return the client's cache folder, from the environment variables that the client reads."""
    home = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("HF_HOME", os.path.join(home, "huggingface"))
    older = os.environ.get("HUGGINGFACE_HUB_CACHE", os.path.join(home, "hub"))
    chosen = os.environ.get("HF_HUB_CACHE", older)
    return Path(os.path.expandvars(os.path.expanduser(chosen)))


def cached(name: str) -> Path | None:
    """Return the file with an encoder's weights if it is in the cache, else None.

    This needs neither a network nor huggingface_hub, only two disk accesses.

    Args:
      name: Name in `PRESETS`.

    Raises:
      UserError: If the preset is unknown.
    """
    repository = cache_folder() / f"models--{preset(name).hub.replace('/', '--')}"
    try:
        commit = (repository / "refs" / "main").read_text().strip()
        file = repository / "snapshots" / commit / FILE
        return file if file.is_file() else None
    except (OSError, ValueError):  # no such repository, or an unreadable cache
        return None


def fetched(name: str) -> Path:
    """Return the file with an encoder's weights, from the cache or else from the hub.

    Args:
      name: Name in `PRESETS`.

    Raises:
      UserError: If the preset is unknown, or the file cannot be fetched. An unreachable hub is
        reported within seconds.
    """
    if file := cached(name):
        return file
    repository = preset(name).hub
    try:
        import huggingface_hub
    except ModuleNotFoundError:
        raise UserError(
            "weights=hub, which is the default, fetches the pretrained encoder, but "
            f'huggingface_hub is not installed: pip install "recon_ad[hub]", or {OFFLINE}'
        ) from None
    if reason := unreachable(_address(repository)):
        raise _cannot_be_fetched(repository, reason)
    try:
        with _errors_only():
            return Path(huggingface_hub.hf_hub_download(repository, FILE))
    except Exception as error:  # raised by the client or by its HTTP library
        if disk_is_full(error):
            raise
        raise _cannot_be_fetched(repository, type(error).__name__) from None


def obtainable(name: str) -> bool:
    """Return whether an encoder's weights are in the cache or can be requested from the hub.

    Args:
      name: Name in `PRESETS`.

    Raises:
      UserError: If the preset is unknown.
    """
    if cached(name) is not None:
        return True
    if importlib.util.find_spec("huggingface_hub") is None:
        return False
    return not unreachable(_address(preset(name).hub))


def unreachable(address: str) -> str:
    """Return the reason why a server cannot be reached, or "" if it gives any answer.

    The client itself would retry for half a minute.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return "HF_HUB_OFFLINE is set"
    found = [f"no answer within {PATIENCE:g} s"]

    def look() -> None:
        request = urllib.request.Request(address, method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=PATIENCE).close()
            found[0] = ""
        except urllib.error.HTTPError:  # an error status is an answer too
            found[0] = ""
        except OSError as error:
            reason = getattr(error, "reason", error)
            # The client may accept certificates that Python does not know.
            found[0] = "" if isinstance(reason, ssl.SSLError) else str(reason)
        except Exception:  # an unusual address or answer, which the client may understand
            found[0] = ""

    # Runs in a thread, because the name lookup has no timeout.
    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    looking.join(PATIENCE + 1)
    return found[0]


def _address(repository: str) -> str:
    return f"{os.environ.get('HF_ENDPOINT') or ADDRESS}/{repository}"


@contextlib.contextmanager
def _errors_only() -> Iterator[None]:
    """Suppress the client's warnings."""
    theirs = logging.getLogger("huggingface_hub")
    level = theirs.level
    theirs.setLevel(logging.ERROR)
    try:
        yield
    finally:
        theirs.setLevel(level)


def _cannot_be_fetched(repository: str, reason: str) -> UserError:
    return UserError(
        f"cannot fetch {repository} from the Hugging Face hub, which weights=hub, the default, "
        f"needs ({reason}): go online, or {OFFLINE}"
    )
