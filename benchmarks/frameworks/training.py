"""Training steps: loss, gradient and Adam of the CAE, the SSIM autoencoder and the ViT decoder.

Batches are on the device already. Networks begin with the same parameters; losses and gradients of
the first steps are compared. `vit_recon` trains on tokens that its encoder, of random weights, has
made before, as it does where images are not augmented; its dropout is left out of the comparison,
as no two frameworks draw the same.
"""

import copy
from collections.abc import Callable
from contextlib import nullcontext
from typing import NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jaxtyping import Array, PyTree

from benchmarks.harness import devices as settings
from benchmarks.harness.book import OURS, Book
from benchmarks.harness.devices import DEVICE, MODES
from benchmarks.harness.subjects import METHODS, JaxTraining, Scale, Subject, subject
from benchmarks.harness.turns import Runner, in_turns
from benchmarks.peers.torch_bergmann import BergmannAE
from benchmarks.peers.torch_cae import CAE
from benchmarks.peers.torch_decoder import FeatureDecoder, mined_loss
from benchmarks.peers.torch_ssim import SSIM
from recon_ad.methods.bergmann import dissimilarity
from recon_ad.methods.vit_recon import EASY
from recon_ad.models import feature_decoder
from recon_ad.pretrained import preset

STEPS = 4  # that are compared
CLOSE = 1e-3  # losses, relative
# Norms of gradients, of the largest. Wide: where an activation is so near to its kink that rounding
# decides, that alone can change a small batch's gradient by a hundredth.
GRADIENTS_CLOSE = 0.05


class Pair(NamedTuple):
    """The same training in both frameworks.

    Attributes:
      ours: in JAX.
      theirs: network and loss in PyTorch: batch to mean loss.
      tensors: the batch in PyTorch.
    """

    ours: Subject
    theirs: torch.nn.Module
    tensors: torch.Tensor


class SquaredError(torch.nn.Module):
    """Of an autoencoder."""

    def __init__(self, network: torch.nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The mean over all pixels."""
        return torch.nn.functional.mse_loss(self.network(x), x)


class Dissimilarity(torch.nn.Module):
    """1 − SSIM of an autoencoder."""

    def __init__(self, network: torch.nn.Module, *, window: int):
        super().__init__()
        self.network, self.ssim = network, SSIM(window, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The mean over all windows."""
        return 1 - self.ssim(x, self.network(x)).mean()


class Mined(torch.nn.Module):
    """The loss of `vit_recon`, after the rise of its mining."""

    def __init__(self, decoder: FeatureDecoder):
        super().__init__()
        self.decoder = decoder

    def forward(self, targets: torch.Tensor) -> torch.Tensor:
        """The mean over images."""
        return mined_loss(targets, self.decoder(targets), EASY).mean()


def pair(name: str, scale: Scale) -> Pair:
    """Of that method."""
    ours = subject(name, scale)
    config, params, batch = ours.config, jax.device_get(ours.state.params), np.array(ours.batch)
    size = ours.images.shape[1:3]
    if name == "vit_recon":
        heads = preset(config.encoder.name).spec.heads
        decoder = FeatureDecoder(params, len(config.encoder.blocks), heads)
        return Pair(ours, Mined(decoder).to(DEVICE), torch.from_numpy(batch).to(DEVICE))
    if name == "cae":
        theirs = SquaredError(CAE(config.method.variant, size, params))
        batch = batch[:, ::-1, ::-1]  # see torch_cae
    else:
        theirs = Dissimilarity(BergmannAE(size, params), window=config.ssim.window)
    theirs = theirs.to(DEVICE, memory_format=torch.channels_last)
    return Pair(ours, theirs, settings.to_torch(batch))


class TorchTraining:
    """PyTorch's, with a network of its own."""

    def __init__(self, pair: Pair, *, mode: str | None):
        self.module = copy.deepcopy(pair.theirs).train()
        self._loss = settings.compiled(self.module, mode)
        self._batch = pair.tensors
        rate = pair.ours.config.optim.learning_rate
        self._optimizer = torch.optim.Adam(self.module.parameters(), rate, fused=True)

    def __call__(self, steps: int) -> torch.Tensor:
        """The last step's loss."""
        for _ in range(steps):
            torch.compiler.cudagraph_mark_step_begin()
            self._optimizer.zero_grad(set_to_none=True)
            loss = self._loss(self._batch)
            loss.backward()
            self._optimizer.step()
        settings.synchronize()
        return loss.detach()

    def told(self, steps: int) -> np.ndarray:
        """As `JaxTraining.told`."""
        rows = []
        for _ in range(steps):
            loss = float(self(1))
            moments = (state["exp_avg"] for state in self._optimizer.state.values())
            rows.append([loss, *sorted(float(m.norm()) for m in moments)])
        return np.array(rows)


def without_noise(theirs: TorchTraining) -> mock._patch:
    """The decoder of PyTorch does not drop anything."""
    return mock.patch.object(theirs.module.decoder, "dropped", 0.0)


def compared(
    book: Book, name: str, made: Pair
) -> tuple[dict[str, Runner], dict[str, dict[str, float]]]:
    """Who trains as we do, and how far the first steps' losses and gradients are from ours."""
    torch.compiler.reset()  # or it gives up after some programs of one function
    noisy = name == "vit_recon"
    quiet = mock.patch.object(feature_decoder, "DROPPED", 0.0) if noisy else nullcontext()
    with quiet:
        ours = JaxTraining(made.ours)
        expected = ours.told(STEPS)
    runners: dict[str, Runner] = {OURS: JaxTraining(made.ours) if noisy else ours}
    apart = {}
    for contender, mode in MODES.items():
        with book.attempt(f"training of {name} by {contender}, compared"):
            theirs = TorchTraining(made, mode=mode)
            with without_noise(theirs) if noisy else nullcontext():
                found = theirs.told(STEPS)
            difference = differences(found, expected)
            assert difference["losses"] < CLOSE, (found[:, 0], expected[:, 0])
            assert difference["gradients"] < GRADIENTS_CLOSE, (found, expected)
            runners[contender], apart[contender] = theirs, difference
    return runners, apart


def differences(found: np.ndarray, expected: np.ndarray) -> dict[str, float]:
    """The largest ones of the losses of all steps, and of the norms after the first.

    Later, gradients go apart: Adam makes full steps of gradients that are rounding alone.
    """
    assert found.shape == expected.shape, (found.shape, expected.shape)
    # Some gradients are next to nothing: of the largest norm.
    norms = np.abs(found - expected)[0, 1:] / expected[0, 1:].max()
    losses = np.abs(found[:, 0] / expected[:, 0] - 1)
    return {"losses": float(losses.max()), "gradients": float(norms.max())}


def measure(book: Book, scale: Scale) -> None:
    """All methods, in every arithmetic."""
    for name in METHODS:
        if not book.in_time(f"training of {name}"):
            continue
        with book.attempt(f"training of {name}"):
            settings.set_precision("float32")
            made = pair(name, scale)
            runners, apart = compared(book, name, made)
            for precision in settings.PRECISIONS:
                if book.in_time(f"training of {name} in {precision}"):
                    settings.set_precision(precision)
                    one_row(book, name, made, runners, apart, scale, precision)


def one_row(
    book: Book,
    name: str,
    made: Pair,
    runners: dict[str, Runner],
    apart: dict[str, dict[str, float]],
    scale: Scale,
    precision: str,
) -> None:
    """Times a method's contenders; with the SSIM autoencoder, what the SSIM costs of its step."""
    more = ssim_parts(made.ours, scale) if name == "ssim_ae" else {}
    timings = in_turns(runners | more, seconds=scale.seconds, burst=scale.burst)
    parts = {key: timings.pop(key).median for key in more}
    book.add(
        f"training of `{name}`",
        timings,
        precision=precision,
        per_step=len(made.ours.images),
        apart=apart,
        batch="x".join(map(str, made.ours.batch.shape)),
    )
    if parts:
        step = timings[OURS].median
        book.extra[f"share of the SSIM in a step of ssim_ae, {precision}"] = {
            "step less that of l2_ae": 1 - parts["l2_ae"] / step,
            "loss with gradient, by itself": parts["ssim"] / step,
        }


def ssim_parts(ours: Subject, scale: Scale) -> dict[str, Runner]:
    """The same network learning by the squared error; and the SSIM's loss alone."""
    options = {"window": ours.config.ssim.window, "kind": ours.config.ssim.kind}

    def loss(found: Array, images: Array) -> Array:
        return jnp.mean(dissimilarity(images, found, **options))

    both = jax.jit(jax.value_and_grad(loss))
    found = jax.jit(ours.method.reconstruct)({"params": ours.state.params}, ours.batch)
    return {
        "l2_ae": JaxTraining(subject("l2_ae", scale)),
        "ssim": of_function(lambda: both(found, ours.batch)),
    }


def of_function(function: Callable[[], PyTree]) -> Runner:
    """A runner that waits for what JAX returns."""

    def run(steps: int) -> None:
        for _ in range(steps):
            result = function()
        jax.block_until_ready(result)

    return run
