"""Speed of training steps: loss, gradient and Adam for the CAE, the SSIM autoencoder and the ViT.

Batches are already on the device. Networks start from the same parameters, and the losses and
gradients of the first steps are compared. `vit_recon` trains its decoder on tokens that its
encoder, with random weights, has computed in advance, as it does when images are not augmented. Its
dropout is switched off for the comparison, because frameworks draw different random numbers.
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

STEPS = 4  # steps that are compared
CLOSE = 1e-3  # relative tolerance of losses
# Tolerance of gradient norms, relative to the largest. It is wide, because rounding can push an
# activation across its kink, which alone can change the gradient of a small batch by 1 %.
GRADIENTS_CLOSE = 0.05


class Pair(NamedTuple):
    """The same training in both frameworks.

    Attributes:
      ours: The training in JAX.
      theirs: Network and loss in PyTorch, from a batch to the mean loss.
      tensors: The batch in PyTorch.
    """

    ours: Subject
    theirs: torch.nn.Module
    tensors: torch.Tensor


class SquaredError(torch.nn.Module):
    """The squared error of an autoencoder."""

    def __init__(self, network: torch.nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the mean over all pixels."""
        return torch.nn.functional.mse_loss(self.network(x), x)


class Dissimilarity(torch.nn.Module):
    """1 − SSIM of an autoencoder."""

    def __init__(self, network: torch.nn.Module, *, window: int):
        super().__init__()
        self.network, self.ssim = network, SSIM(window, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the mean over all windows."""
        return 1 - self.ssim(x, self.network(x)).mean()


class Mined(torch.nn.Module):
    """The loss of `vit_recon` after the warm-up of its hard mining."""

    def __init__(self, decoder: FeatureDecoder):
        super().__init__()
        self.decoder = decoder

    def forward(self, targets: torch.Tensor) -> torch.Tensor:
        """Return the mean over images."""
        return mined_loss(targets, self.decoder(targets), EASY).mean()


def pair(name: str, scale: Scale) -> Pair:
    """Build the training of a method in both frameworks."""
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
    """PyTorch's training, with its own copy of the network."""

    def __init__(self, pair: Pair, *, mode: str | None):
        self.module = copy.deepcopy(pair.theirs).train()
        self._loss = settings.compiled(self.module, mode)
        self._batch = pair.tensors
        rate = pair.ours.config.optim.learning_rate
        self._optimizer = torch.optim.Adam(self.module.parameters(), rate, fused=True)

    def __call__(self, steps: int) -> torch.Tensor:
        """Run so many steps and return the last step's loss."""
        for _ in range(steps):
            torch.compiler.cudagraph_mark_step_begin()
            self._optimizer.zero_grad(set_to_none=True)
            loss = self._loss(self._batch)
            loss.backward()
            self._optimizer.step()
        settings.synchronize()
        return loss.detach()

    def told(self, steps: int) -> np.ndarray:
        """Return losses and moments, as `JaxTraining.told` does."""
        rows = []
        for _ in range(steps):
            loss = float(self(1))
            moments = (state["exp_avg"] for state in self._optimizer.state.values())
            rows.append([loss, *sorted(float(m.norm()) for m in moments)])
        return np.array(rows)


def without_noise(theirs: TorchTraining) -> mock._patch:
    """Switch off the dropout of PyTorch's decoder."""
    return mock.patch.object(theirs.module.decoder, "dropped", 0.0)


def compared(
    book: Book, name: str, made: Pair
) -> tuple[dict[str, Runner], dict[str, dict[str, float]]]:
    """Return the contenders whose first steps agree with ours, and their differences."""
    torch.compiler.reset()  # otherwise it stops compiling after several programs of one function
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
    """Return the largest differences of all steps' losses and of the norms after the first step.

    Later gradients diverge, because Adam takes full steps even for gradients that are only rounding
    errors.
    """
    assert found.shape == expected.shape, (found.shape, expected.shape)
    # Relative to the largest norm, because some gradients are almost zero.
    norms = np.abs(found - expected)[0, 1:] / expected[0, 1:].max()
    losses = np.abs(found[:, 0] / expected[:, 0] - 1)
    return {"losses": float(losses.max()), "gradients": float(norms.max())}


def measure(book: Book, scale: Scale) -> None:
    """Measure all methods at each precision."""
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
    """Time a method's contenders and, for the SSIM autoencoder, the share of SSIM in its step."""
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
    """Return the same network trained with the squared error, and the SSIM loss alone."""
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
    """Return a runner that waits for JAX's result."""

    def run(steps: int) -> None:
        for _ in range(steps):
            result = function()
        jax.block_until_ready(result)

    return run
