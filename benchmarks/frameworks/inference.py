"""Inference speed from images on the device to their anomaly maps, compared with other runtimes.

The network and the residual are timed for the CAE, the SSIM autoencoder and `vit_recon` (encoder,
decoder, cosine distances, enlargement to the image's size). The contenders are PyTorch, with timm's
encoder, and ONNX Runtime with our exported graph (on a GPU with its CUDA provider), if they are
installed. The maps are compared first. All computations are in float32, because the ten mantissa
bits of TF32 change SSIM residuals too much.
"""

import copy
import importlib.util
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Array
from ml_collections import ConfigDict

from benchmarks.frameworks.training import of_function
from benchmarks.harness import devices as settings
from benchmarks.harness.book import OURS, Book
from benchmarks.harness.devices import DEVICE, MODES
from benchmarks.harness.subjects import METHODS, Scale, config_of, jittered, some_images
from benchmarks.harness.turns import Runner, in_turns
from benchmarks.peers.torch_bergmann import BergmannAE
from benchmarks.peers.torch_cae import CAE
from benchmarks.peers.torch_decoder import FeatureDecoder, cosine_distance
from benchmarks.peers.torch_ssim import StructuralResidual
from recon_ad.methods import build_method
from recon_ad.methods.base import Method, Variables
from recon_ad.pretrained import preset

CLOSE = 1e-4  # tolerance, as a fraction of a map's largest value
ONNX = ("jax2onnx", "onnxruntime")  # required packages
PROVIDER = "CUDAExecutionProvider" if DEVICE == "cuda" else "CPUExecutionProvider"


class Judge(NamedTuple):
    """The same inference in both frameworks.

    Attributes:
      config: Config of the method.
      method: Our method.
      variables: Its variables.
      images: Images, NHWC.
      theirs: PyTorch's module from images to maps; None if a package is missing.
      turned: Whether PyTorch's takes images rotated by 180 degrees (see torch_cae).
    """

    config: ConfigDict
    method: Method
    variables: Variables
    images: np.ndarray
    theirs: torch.nn.Module | None
    turned: bool


class SquaredResidual(torch.nn.Module):
    """An autoencoder followed by (x − x̃)²."""

    def __init__(self, network: torch.nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the maps."""
        return (x - self.network(x)).square().mean(1)


class StructuralMap(torch.nn.Module):
    """An autoencoder followed by (1 − S) / 2."""

    def __init__(self, network: torch.nn.Module, *, window: int, size: tuple[int, int]):
        super().__init__()
        self.network, self.residual = network, StructuralResidual(window, 1, size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the maps."""
        return self.residual(x, self.network(x)).mean(1)


class FeatureMap(torch.nn.Module):
    """timm's encoder and our decoder, with the enlarged mean cosine distance of both groups."""

    def __init__(self, encoder: torch.nn.Module, decoder: FeatureDecoder, config: ConfigDict):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.blocks = list(config.encoder.blocks)
        found = preset(config.encoder.name)
        for name, value in (("mean", found.mean), ("std", found.std)):
            self.register_buffer(name, torch.tensor(value).reshape(1, 3, 1, 1))
        self.rows = config.data.patch_size // found.spec.patch

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the maps."""
        options = {"output_fmt": "NLC", "intermediates_only": True, "stop_early": True}
        normal = (x - self.mean) / self.std
        blocks = self.encoder.forward_intermediates(normal, indices=self.blocks, **options)
        half = len(blocks) // 2
        targets = torch.stack([sum(g) / len(g) for g in (blocks[:half], blocks[half:])], dim=2)
        apart = cosine_distance(targets, self.decoder(targets)).mean(2)
        maps = apart.view(len(x), 1, self.rows, self.rows)
        return F.interpolate(maps, x.shape[2:], mode="bilinear", align_corners=False)[:, 0]


def autoencoder(name: str, scale: Scale) -> Judge:
    """Build the inference of `cae` or `ssim_ae`."""
    config = config_of(name, scale)
    images = some_images(name, scale, config)
    method, size = build_method(config, channels=1), images.shape[1:3]
    params = jittered(jax.jit(method.init)(jax.random.key(1), images[:1]).params)
    if name == "cae":
        theirs = SquaredResidual(CAE(config.method.variant, size, params))
    else:
        theirs = StructuralMap(BergmannAE(size, params), window=config.ssim.window, size=size)
    theirs = theirs.to(DEVICE, memory_format=torch.channels_last)
    return Judge(config, method, {"params": params}, images, theirs, name == "cae")


def on_features(book: Book, scale: Scale) -> Judge:
    """Build the inference of `vit_recon`, with the random weights of timm's encoder."""
    config = config_of("vit_recon", scale)
    config.data.resize = (0, 0)  # otherwise images of any size would be one tile
    encoder = None
    if importlib.util.find_spec("timm"):
        import safetensors.torch

        from benchmarks.encoder import theirs as timms

        encoder = timms(config.encoder.name)
    else:
        book.left_out["inference of vit_recon by PyTorch"] = "timm, for the encoder, is absent"
    with tempfile.TemporaryDirectory() as scratch:
        if encoder is not None:
            config.encoder.weights = str(Path(scratch) / "model.safetensors")
            safetensors.torch.save_file(encoder.state_dict(), config.encoder.weights)
        method = build_method(config, channels=3)
        frozen, _ = method.pretrained()
    images = some_images("vit_recon", scale, config)
    targets = jax.jit(method.prepare)(frozen, images[:1])
    params = jittered(jax.jit(method.init)(jax.random.key(1), targets).params)
    theirs = None
    if encoder is not None:
        heads = preset(config.encoder.name).spec.heads
        decoder = FeatureDecoder(params, len(config.encoder.blocks), heads)
        theirs = FeatureMap(encoder, decoder, config).to(DEVICE)
    return Judge(config, method, {"encoder": frozen, "params": params}, images, theirs, False)


class TorchMaps:
    """PyTorch's maps. A call with a number computes them so many times."""

    def __init__(self, judge: Judge, *, mode: str | None):
        self._step = -1 if judge.turned else 1
        network = copy.deepcopy(judge.theirs).eval().requires_grad_(False)
        self._network = settings.compiled(network, mode)
        self._images = settings.to_torch(judge.images[:, :: self._step, :: self._step])

    @torch.inference_mode()
    def __call__(self, times: int) -> torch.Tensor:
        """Compute the maps so many times and return the last ones."""
        for _ in range(times):
            torch.compiler.cudagraph_mark_step_begin()
            maps = self._network(self._images)
        settings.synchronize()
        return maps

    def maps(self) -> np.ndarray:
        """Return the maps in the orientation of ours."""
        return self(1).cpu().numpy()[:, :: self._step, :: self._step]


class OnnxMaps:
    """Our exported graph in ONNX Runtime, with images and maps on its device."""

    def __init__(self, judge: Judge):
        import onnxruntime

        from recon_ad.detector.inference import Thresholds
        from recon_ad.detector.jax_detector import Detector
        from recon_ad.detector.onnx_graphs import Options, core_model

        channels = judge.images.shape[3]
        detector = Detector(judge.config, channels=channels, variables=judge.variables)
        detector = detector.with_thresholds(Thresholds(1.0, 1.0), {"training": {}})
        options = Options(np.dtype(np.float32), len(judge.images), 18, False)
        model = core_model(detector, options)
        self._name, device = model.graph.output[0].name, DEVICE
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), providers=[provider()]
        )
        used = self._session.get_providers()[0]
        assert used == PROVIDER, f"the session uses {used}"
        self._binding = self._session.io_binding()
        value = onnxruntime.OrtValue.ortvalue_from_numpy(judge.images, device, 0)
        self._binding.bind_ortvalue_input("images", value)
        self._binding.bind_output(self._name, device)

    def __call__(self, times: int) -> None:
        """Compute the maps so many times."""
        for _ in range(times):
            self._session.run_with_iobinding(self._binding)
        self._binding.synchronize_outputs()

    def maps(self) -> np.ndarray:
        """Return the maps on the host."""
        self(1)
        return self._binding.copy_outputs_to_cpu()[0]


def provider() -> Any:
    """Return the provider of the device, without TF32."""
    return PROVIDER if DEVICE == "cpu" else (PROVIDER, {"use_tf32": 0})


def missing_for_onnx() -> str:
    """Return why ONNX Runtime cannot take part, or "" if it can."""
    absent = [name for name in ONNX if importlib.util.find_spec(name) is None]
    if absent:
        return f"not installed: {', '.join(absent)}"
    import onnxruntime

    there = PROVIDER in onnxruntime.get_available_providers()
    return "" if there else f"onnxruntime has no {PROVIDER}"


def contenders(book: Book, name: str, judge: Judge) -> tuple[dict[str, Runner], dict[str, float]]:
    """Return the contenders that compute the same maps, and their differences from ours."""
    torch.compiler.reset()
    program = jax.jit(judge.method.anomaly_map)
    arguments = jax.device_put((judge.variables, judge.images))
    expected: Array = np.asarray(program(*arguments))
    runners: dict[str, Runner] = {OURS: of_function(lambda: program(*arguments))}
    made: dict[str, Callable[[], TorchMaps | OnnxMaps]] = {}
    if judge.theirs is not None:
        made |= {n: (lambda mode=mode: TorchMaps(judge, mode=mode)) for n, mode in MODES.items()}
    why = missing_for_onnx()
    if why:
        book.left_out["inference by ONNX Runtime"] = why
    else:
        made["ONNX Runtime"] = lambda: OnnxMaps(judge)
    apart: dict[str, float] = {}
    for contender, make in made.items():
        with book.attempt(f"inference of {name} by {contender}, compared"):
            runner = make()
            difference = np.abs(runner.maps() - expected).max() / np.abs(expected).max()
            assert difference < CLOSE, float(difference)
            runners[contender], apart[contender] = runner, float(difference)
    return runners, apart


def measure(book: Book, scale: Scale) -> None:
    """Measure all methods."""
    settings.set_precision("float32")
    for name in METHODS:
        if not book.in_time(f"inference of {name}"):
            continue
        with book.attempt(f"inference of {name}"):
            judge = on_features(book, scale) if name == "vit_recon" else autoencoder(name, scale)
            for count in (len(judge.images), 1):
                some = judge._replace(images=judge.images[:count])
                runners, apart = contenders(book, name, some)
                timings = in_turns(runners, seconds=scale.seconds, burst=scale.burst)
                book.add(
                    f"inference of `{name}`" + ", one at a time" * (count == 1),
                    timings,
                    precision="float32",
                    per_step=count,
                    apart=apart,
                    batch="x".join(map(str, some.images.shape)),
                )
