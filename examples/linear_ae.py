"""A custom method: a linear autoencoder of blocks, which learns the subspace that PCA finds.

    python -m recon_ad.train --config configs/folder.py:path=my_part,method=examples.linear_ae \
        --workdir runs/linear --config.method.n_z=8

(Baldi and Hornik 1989.) Commands that open the detector need --methods=examples.linear_ae.
"""

import flax.linen as nn
from jaxtyping import Array, Float, Key, PyTree
from ml_collections import ConfigDict

from recon_ad.methods import base, reconstruction

BLOCK = 8  # px
Images = Float[Array, "b h w c"]


class LinearAE(nn.Module):
    """A linear map of each block to `n_z` numbers and back."""

    n_z: int

    @nn.compact
    def __call__(self, images: Images) -> Images:
        """Reconstruct images whose sides are multiples of BLOCK."""
        _, h, w, c = images.shape
        rows, columns = h // BLOCK, w // BLOCK
        blocks = images.reshape(-1, rows, BLOCK, columns, BLOCK, c).swapaxes(2, 3)
        code = nn.Dense(self.n_z)(blocks.reshape(-1, rows, columns, BLOCK * BLOCK * c))
        out = nn.Dense(BLOCK * BLOCK * c)(code)
        return out.reshape(-1, rows, columns, BLOCK, BLOCK, c).swapaxes(2, 3).reshape(-1, h, w, c)


def build(config: ConfigDict, *, channels: int) -> base.Method:
    """Build the method; `reconstruction.build` adds the optimiser, residual map and tiles."""
    del channels  # the layers infer the number of channels from the images
    base.check_patch_size(config, multiple=BLOCK)
    base.check_code(config)
    model = LinearAE(config.method.n_z)

    def losses(params: PyTree, images: Images, key: Key[Array, ""] | None) -> dict[str, Array]:
        del key  # nothing is random here
        out = model.apply({"params": params}, images)
        return {"loss": reconstruction.mean_squared_error(images, out)}

    return reconstruction.build(
        config, init=lambda key, images: model.init(key, images)["params"],
        losses=losses, reconstruct=model.apply,
    )  # fmt: skip
