"""List pretrained encoders, download their weights, or verify a weight file.

    python -m recon_ad.weights
    python -m recon_ad.weights --fetch deit_tiny_patch16_224
    python -m recon_ad.weights --verify FILE --name deit_tiny_patch16_224

Downloaded weights are stored in the cache of the Hugging Face Hub client, where `weights=hub` finds
them without a network. A file passes verification if each tensor has the shape that the encoder
expects and only finite values. Its SHA-256 is printed; `--config.encoder.sha256` makes a training
accept only that file. JAX is not needed.
"""

from absl import flags

from recon_ad import cli
from recon_ad.errors import UserError
from recon_ad.pretrained.encoders import encoder_table, verified
from recon_ad.pretrained.weights import HUB


def main() -> None:
    """Run the command."""
    fetch, file, name = _FETCH.value, _VERIFY.value, _NAME.value
    if fetch and (file or name):
        raise UserError(
            "--fetch cannot be combined with --verify or --name: it verifies by itself."
        )
    if bool(file) != bool(name):
        raise UserError("--verify and --name go together: give the file and its encoder's name.")
    if fetch:
        print(verified(fetch, HUB))
    elif file:
        print(verified(name, file))
    else:
        print(encoder_table())


if __name__ == "__main__":
    _FETCH = flags.DEFINE_string("fetch", "", "Name of an encoder whose weights to download.")
    _VERIFY = flags.DEFINE_string("verify", "", "Weight file, or folder with model.safetensors.")
    _NAME = flags.DEFINE_string("name", "", "Name of the encoder that --verify checks against.")
    cli.run(main)
