"""Opens a detector, whichever form it has."""

from pathlib import Path

from recon_ad.inference import Inference


def load(path: Path | str, *, runtime: str = "onnxruntime") -> Inference:
    """Opens a detector directory, by JAX, or an exported M.onnx, without it.

    Args:
      path: the folder `detector` of a run, or M.onnx, beside which M.tail.onnx lies.
      runtime: that computes an M.onnx, "onnxruntime" or "openvino".

    Raises:
      UserError: it is neither, or its files are missing or damaged.
    """
    # Imported when needed: the machine that runs an exported model need not have JAX.
    if Path(path).suffix == ".onnx":
        from recon_ad import deployed

        return deployed.load(path, runtime=runtime)
    from recon_ad import detector

    return detector.load(path)
