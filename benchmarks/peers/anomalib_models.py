"""anomalib's models that are nearest to ours, for benchmarks/inference.py.

GANomaly (adversarial, as `aae` is), FRE (an autoencoder of features) and PaDiM, with anomalib's own
settings and random weights: nothing is downloaded, and speed does not depend on them. Images are
float32 [n, 3, h, w]. What comes out is a score and, but for GANomaly, a map.
"""

import os
import warnings
from collections.abc import Callable, Mapping

import benchmarks.peers.torchvision_operators  # noqa: F401

# isort: split
import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # it imports all its models
    from anomalib.models.image.fre.torch_model import FREModel
    from anomalib.models.image.ganomaly.torch_model import GanomalyModel
    from anomalib.models.image.padim.torch_model import PadimModel


def ganomaly(side: int) -> torch.nn.Module:
    """An encoder, decoder and second encoder."""
    return GanomalyModel((side, side), 3, n_features=64, latent_vec_size=100)


def fre(side: int) -> torch.nn.Module:
    """A ResNet-50 to its third stage, and a linear autoencoder that has not learnt."""
    options = {"latent_dim": 220, "pre_trained": False, "pooling_kernel_size": 2}
    # The third stage is 1024 channels at a sixteenth of the resolution.
    return FREModel("resnet50", "layer3", input_dim=1024 * (side // 32) ** 2, **options)


def padim(side: int) -> torch.nn.Module:
    """A ResNet-18 to its third stage, and a Gaussian for each place."""
    model = PadimModel("resnet18", ["layer1", "layer2", "layer3"], pre_trained=False)
    # As if loaded from a file: fitting it takes more memory than judging, which is measured here.
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
    """The model in the state that it judges in."""
    torch.manual_seed(0)
    torch.set_num_threads(os.cpu_count() or 1)
    return PEERS[name](side).eval()
