"""Lists pretrained encoders, fetches their weights, and verifies files of them.

    python -m recon_ad.weights
    python -m recon_ad.weights --fetch deit_tiny_patch16_224
    python -m recon_ad.weights --verify FILE --name deit_tiny_patch16_224

What is fetched lies in the cache of the Hugging Face hub's client, where `weights=hub` finds it
without a network. A file is verified by its tensors: each has the shape that the encoder asks for,
and finite values. Its SHA-256 is printed, which `--config.encoder.sha256` then insists on. No JAX
is needed.
"""

from absl import flags

from recon_ad import cli
from recon_ad.errors import UserError
from recon_ad.pretrained.encoders import encoder_table, verified
from recon_ad.pretrained.weights import HUB


def main() -> None:
    """Runs the command."""
    fetch, file, name = _FETCH.value, _VERIFY.value, _NAME.value
    if fetch and (file or name):
        raise UserError("--fetch stands alone: what is fetched is verified.")
    if bool(file) != bool(name):
        raise UserError("--verify and --name belong together: a file, and whose weights it holds.")
    if fetch:
        print(verified(fetch, HUB))
    elif file:
        print(verified(name, file))
    else:
        print(encoder_table())


if __name__ == "__main__":
    _FETCH = flags.DEFINE_string("fetch", "", "Name of an encoder to fetch.")
    _VERIFY = flags.DEFINE_string("verify", "", "File, or folder with model.safetensors.")
    _NAME = flags.DEFINE_string("name", "", "Encoder that the weights of --verify are of.")
    cli.run(main)
