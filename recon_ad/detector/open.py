"""Opening of a detector in either form: a directory or an exported model."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from absl import flags

from recon_ad.detector import onnx_detector
from recon_ad.detector.bounds import check_calibrated
from recon_ad.detector.certificate import CARD
from recon_ad.detector.inference import Inference
from recon_ad.detector.runtimes import RUNTIMES
from recon_ad.errors import UserError
from recon_ad.runtime.files import is_regular, sha256
from recon_ad.runtime.waiting import RUN_LOCK, exclusive_lock

if TYPE_CHECKING:
    from recon_ad.detector.jax_detector import Detector

# The flags belong to the command that calls `detector_flags`, so that its --help shows them.
flags.disclaim_key_flags()


def load(path: Path | str, *, runtime: str = "onnxruntime") -> Inference:
    """Open a detector directory, by JAX, or an exported M.onnx, without it.

    Args:
      path: Folder `detector` of a run, or M.onnx, with M.tail.onnx beside it.
      runtime: Runtime for an M.onnx, a name in `runtimes.RUNTIMES`.

    Raises:
      UserError: If it is neither, or its files are missing or damaged.
    """
    if Path(path).suffix == ".onnx":
        return onnx_detector.load(path, runtime=runtime)
    # Imported when needed: the machine that runs an exported model need not have JAX.
    from recon_ad.detector import directory

    return directory.load(path)


@contextmanager
def detector_to_change(path: Path) -> Iterator["Detector"]:
    """Open a detector directory that this process is going to write, and lock it.

    Raises:
      UserError: As for `load`, or if another process is about to write it.
    """
    from recon_ad.detector import directory

    if not path.is_dir():
        directory.load(path)  # raises with what is wrong
    with exclusive_lock(path.parent / RUN_LOCK):
        yield directory.load(path)


def identity(path: Path) -> str:
    """Return a digest of all files of a detector, which distinguishes it from others.

    Args:
      path: Path as for `load`.
    """
    if path.suffix == ".onnx":
        of = [path, onnx_detector.tail_path(path), onnx_detector.part_path(path)]
    else:
        # Not the model card: evaluating or certifying a detector writes it and changes no decision.
        of = sorted(file for file in path.iterdir() if file.name != CARD)
    content = {file.name: sha256(file.read_bytes()) for file in of if is_regular(file)}
    return sha256(json.dumps(content).encode())


class DetectorFlags(NamedTuple):
    """The functions behind the flags that name a command's detector.

    Attributes:
      open: () -> the detector. Raises UserError unless exactly one of both kinds is given, if a
        runtime is given for a detector directory, if the detector was never calibrated, or if
        `load` raises it.
      identity: () -> its `identity`.
      directory: () -> the detector directory; None for an exported model.
    """

    open: Callable[[], Inference]
    identity: Callable[[], str]
    directory: Callable[[], Path | None]


def detector_flags() -> DetectorFlags:
    """Define the flags that name a detector."""
    detector = flags.DEFINE_string("detector", "", "Detector directory.")
    onnx = flags.DEFINE_string("onnx", "", "Exported model, in place of a detector directory.")
    runtime = flags.DEFINE_enum(
        "runtime", "onnxruntime", list(RUNTIMES), "What computes the model of --onnx."
    )
    category = flags.DEFINE_string(
        "category", "", "What the images show, for a detector of several categories."
    )
    add_methods = methods_flag()

    def opened() -> Inference:
        found = whole()
        found = found.of_category(category.value) if category.value else found
        check_calibrated(found.thresholds, name=detector.value or onnx.value)
        return found

    def whole() -> Inference:
        if bool(detector.value) == bool(onnx.value):
            raise UserError("give either --detector, a detector directory, or --onnx, a model.")
        if onnx.value:
            return onnx_detector.load(onnx.value, runtime=runtime.value)
        if runtime.present:
            raise UserError("--runtime is for --onnx: a detector directory is run by JAX.")
        # These need JAX, which --onnx does not.
        from recon_ad.detector import directory
        from recon_ad.runtime.compilation import keep_compiled

        keep_compiled()
        add_methods()
        return directory.load(detector.value)

    return DetectorFlags(
        opened,
        lambda: identity(Path(detector.value or onnx.value)) + f" {category.value}".rstrip(),
        lambda: Path(detector.value) if detector.value else None,
    )


def methods_flag() -> Callable[[], None]:
    """Define the flag that names methods of the user's own; return a function to import them."""
    methods = flags.DEFINE_list(
        "methods", [], "Import paths of methods of your own; their code is run."
    )

    def add() -> None:
        from recon_ad.methods import add_method

        for path in methods.value:
            add_method(path)

    return add
