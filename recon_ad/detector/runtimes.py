"""Inference runtimes that open and run a model: ONNX Runtime and OpenVINO."""

import functools
import logging
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recon_ad.errors import UserError

PREFIX = "recon_ad_"  # of our metadata in a model
FATAL = 4  # level of ONNX Runtime's log
# Encoded types of nodes that may run for ever (field 4 of a NodeProto); exports have none.
ENDLESS = (b"\x22\x04Loop", b"\x22\x04Scan")


class Graph(ABC):
    """A model that a runtime has opened.

    Attributes:
      facts: Its metadata, without `PREFIX`.
      outputs: Names of its outputs.
      any_batch: Whether its first input takes any number of tiles.
    """

    facts: Mapping[str, str]
    outputs: Sequence[str]
    any_batch: bool = True

    @abstractmethod
    def run(self, wanted: Sequence[str], feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Return the wanted outputs."""


def _ours(metadata: Mapping[str, Any]) -> dict[str, str]:
    return {k.removeprefix(PREFIX): str(v) for k, v in metadata.items() if k.startswith(PREFIX)}


def onnx_runtime() -> Any:
    """Import ONNX Runtime, which sends no events to its maker from then on."""
    import onnxruntime  # part of an extra

    # For Windows, and where it was imported before recon_ad, which switches them off otherwise.
    onnxruntime.disable_telemetry_events()
    return onnxruntime


class OnnxRuntimeGraph(Graph):
    """A graph run by ONNX Runtime: on a GPU where its GPU build is installed, else on the CPU."""

    def __init__(self, model: Path | bytes):
        onnxruntime = onnx_runtime()
        there = onnxruntime.get_available_providers()
        # With TF32, ten bits of mantissa, its decisions would differ from the detector's.
        wanted = {"CUDAExecutionProvider": {"use_tf32": "0"}, "CPUExecutionProvider": {}}
        options = onnxruntime.SessionOptions()
        # Its errors become UserErrors, and it recovers from what it warns about.
        onnxruntime.set_default_logger_severity(FATAL)
        options.log_severity_level = FATAL
        # Idle threads of one graph would spin and take processors from the other's.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        providers = [(name, settings) for name, settings in wanted.items() if name in there]
        self._session = onnxruntime.InferenceSession(
            model if isinstance(model, bytes) else str(model),
            options,
            providers=providers,
            # From the CPU it would fall back to the CPU, and print that.
            enable_fallback=int(len(providers) > 1),
        )
        self.facts = _ours(self._session.get_modelmeta().custom_metadata_map)
        self.outputs = [output.name for output in self._session.get_outputs()]
        shape = self._session.get_inputs()[0].shape
        self.any_batch = not (shape and isinstance(shape[0], int))  # else a name, or None

    def run(self, wanted: Sequence[str], feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Run the session, as `Graph.run` describes."""
        return self._session.run(list(wanted), dict(feeds))


_alone = threading.Lock()


@functools.cache
def _core() -> Any:
    """Return OpenVINO's core, one for the process that is never released; not thread-safe.

    OpenVINO gives the thread another stack for signals and removes it with the core. After a second
    core it does so in the wrong order, and the next signal (SIGTERM, for example) finds freed
    memory.
    """
    # It would send an event to its maker when it is imported, from a forked process that may hang
    # where JAX has threads. It imports without this package too.
    sys.modules.setdefault("openvino_telemetry", None)
    handlers = logging.root.handlers[:]
    import openvino  # part of an extra

    # It removes absl's handler from the root logger, and with it a command's log.
    for handler in handlers:
        logging.root.addHandler(handler)
    return openvino.Core()


def _openvino() -> Any:
    with _alone:
        return _core()


class OpenVinoGraph(Graph):
    """A graph run by OpenVINO on the CPU in float32 (its default is bfloat16 where available)."""

    def __init__(self, model: Path | bytes):
        core = _openvino()
        read = core.read_model(model if isinstance(model, bytes) else str(model))
        kept = dict(read.get_rt_info().items()).get("framework", {})
        self.facts = _ours({name: value.value for name, value in kept.items()})
        self._compiled = core.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        # An output may have several names, of which any may come first.
        self.outputs = [name for output in self._compiled.outputs for name in output.get_names()]
        shape = self._compiled.inputs[0].get_partial_shape()
        self.any_batch = not (shape.rank.is_static and len(shape) and shape[0].is_static)

    def run(self, wanted: Sequence[str], feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Run the compiled model, as `Graph.run` describes."""
        results = self._compiled(dict(feeds))
        return [results[name] for name in wanted]


RUNTIMES: Mapping[str, Callable[[Path | bytes], Graph]] = {
    "onnxruntime": OnnxRuntimeGraph,
    "openvino": OpenVinoGraph,
}


def opened(path: Path, *, runtime: str) -> Graph:
    """Open a model that may be a stranger's.

    Args:
      path: Path of its file.
      runtime: Name in `RUNTIMES`.

    Raises:
      UserError: If the runtime is not installed, or the model is damaged or may run for ever.
    """
    content = path.read_bytes()
    if any(node in content for node in ENDLESS):
        raise UserError(
            f"{path} holds a loop, and no export of a detector does: copy it, or export it, anew."
        )
    try:
        return RUNTIMES[runtime](path)
    except ModuleNotFoundError as error:
        if error.name != runtime:
            raise
        raise UserError(
            f"{runtime} is not installed: pip install {runtime}, or choose another runtime."
        ) from None
    except Exception as error:  # neither runtime has a base class of its own for broken files
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path} is not a model that {runtime} can open ({reason}): copy it, or export it, "
            "anew."
        ) from error
