"""Files on the Hugging Face hub: what is in the cache of its client, and fetching the others.

What lies in the cache takes neither the client nor a network. The layout is documented and has been
the same since 2022: a folder for each repository, in it `refs/main` with the name of a commit, and
`snapshots/COMMIT/` with that commit's files.
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

FILE = "model.safetensors"  # of weights, on the hub and in its cache
ADDRESS = "https://huggingface.co"  # unless HF_ENDPOINT says another
PATIENCE = 3.0  # s within which the hub has to answer
OFFLINE = (
    f"fetch its {FILE} on another machine and name it by weights=FILE behind the config's name "
    "(config.encoder.weights)."
)


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


def fetched(name: str) -> Path:
    """Returns the file with an encoder's weights, from the cache or else from the hub.

    Args:
      name: in `PRESETS`.

    Raises:
      UserError: there is no such preset, or the file cannot be fetched; says so within seconds.
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
    except Exception as error:  # of the client, or of whatever it reaches the hub by
        if disk_is_full(error):
            raise
        raise _cannot_be_fetched(repository, type(error).__name__) from None


def obtainable(name: str) -> bool:
    """Returns whether an encoder's weights are in the cache, or the hub can be asked for them.

    Args:
      name: in `PRESETS`.

    Raises:
      UserError: there is no such preset.
    """
    if cached(name) is not None:
        return True
    if importlib.util.find_spec("huggingface_hub") is None:
        return False
    return not unreachable(_address(preset(name).hub))


def unreachable(address: str) -> str:
    """Returns why a server cannot be reached, "" where it answers, whatever its answer is.

    The client itself tries again and again, for half a minute.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return "HF_HUB_OFFLINE is set"
    found = [f"no answer within {PATIENCE:g} s"]

    def look() -> None:
        request = urllib.request.Request(address, method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=PATIENCE).close()
            found[0] = ""
        except urllib.error.HTTPError:  # an answer
            found[0] = ""
        except OSError as error:
            reason = getattr(error, "reason", error)
            # The client may know certificates that Python does not.
            found[0] = "" if isinstance(reason, ssl.SSLError) else str(reason)
        except Exception:  # an odd address or answer, of which the client may make more
            found[0] = ""

    # In a thread: looking up a name cannot be given a limit.
    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    looking.join(PATIENCE + 1)
    return found[0]


def _address(repository: str) -> str:
    return f"{os.environ.get('HF_ENDPOINT') or ADDRESS}/{repository}"


@contextlib.contextmanager
def _errors_only() -> Iterator[None]:
    """Silences what the client warns of."""
    theirs = logging.getLogger("huggingface_hub")
    level = theirs.level
    theirs.setLevel(logging.ERROR)
    try:
        yield
    finally:
        theirs.setLevel(level)


def _cannot_be_fetched(repository: str, reason: str) -> UserError:
    return UserError(
        f"{repository} cannot be fetched from the Hugging Face hub, as weights=hub, the default, "
        f"would have it ({reason}): go online, or {OFFLINE}"
    )
