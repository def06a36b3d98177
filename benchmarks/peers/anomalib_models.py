"""anomalib's models that are most similar to ours, for benchmarks/inference.py.

GANomaly (adversarial, like `aae`), FRE (an autoencoder of features) and PaDiM have anomalib's own
settings and random weights, so that nothing is downloaded; the speed does not depend on weights.
Images are float32 [n, 3, h, w]. The output is a score and, except for GANomaly, a map.
"""

import os
import warnings
from collections.abc import Callable, Mapping

import benchmarks.peers.torchvision_operators  # noqa: F401

# isort: split
import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # anomalib imports all its models
    from anomalib.models.image.fre.torch_model import FREModel
    from anomalib.models.image.ganomaly.torch_model import GanomalyModel
    from anomalib.models.image.padim.torch_model import PadimModel


def ganomaly(side: int) -> torch.nn.Module:
    """Build an encoder, a decoder and a second encoder."""
    return GanomalyModel((side, side), 3, n_features=64, latent_vec_size=100)


def fre(side: int) -> torch.nn.Module:
    """Build a ResNet-50 up to its third stage and an untrained linear autoencoder."""
    options = {"latent_dim": 220, "pre_trained": False, "pooling_kernel_size": 2}
    # The third stage has 1024 channels at a sixteenth of the resolution.
    return FREModel("resnet50", "layer3", input_dim=1024 * (side // 32) ** 2, **options)


def padim(side: int) -> torch.nn.Module:
    """Build a ResNet-18 up to its third stage and a Gaussian for each position."""
    model = PadimModel("resnet18", ["layer1", "layer2", "layer3"], pre_trained=False)
    # The Gaussians are set as if loaded from a file, because fitting needs more memory than the
    # judging that is measured here.
    places, n = (side // 4) ** 2, model.n_features  # at a quarter of the resolution
    model.gaussian.mean = torch.rand(n, places)
    model.gaussian.inv_covariance = torch.eye(n).repeat(places, 1, 1)
    return model


PEERS: Mapping[str, Callable[[int], torch.nn.Module]] = {
    "ganomaly": ganomaly,
    "fre": fre,
    "padim": padim,
}


def load(name: str, *, side: int) -> torch.nn.Module:
    """Load a model in evaluation mode."""
    torch.manual_seed(0)
    torch.set_num_threads(os.cpu_count() or 1)
    return PEERS[name](side).eval()
