"""Augmentations by name, on the device, one key per example.

Images are float32 [h, w, c] in [0, 1] and stay so. The functions are dm-pix's where it has them.
"""

import functools
from collections.abc import Callable, Mapping, Sequence

import dm_pix as pix
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from recon_ad.errors import UserError

Augmentation = Callable[[Key[Array, ""], Float[Array, "h w c"]], Float[Array, "h w c"]]


def _rot90(key: Key[Array, ""], image: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
    """Turn an image by a random number of quarters; it has to be square."""
    turns = jax.random.randint(key, (), 0, 4)
    return jax.lax.switch(turns, [functools.partial(pix.rot90, k=k) for k in range(4)], image)


def _rotate(key: Key[Array, ""], image: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
    """Turn an image by a random angle of up to 5 degrees, mirrored at the border."""
    angle = jax.random.uniform(key, minval=-5.0, maxval=5.0) * jnp.pi / 180
    return pix.rotate(image, angle, mode="mirror")


AUGMENTATIONS: Mapping[str, Augmentation] = {
    "flip_left_right": pix.random_flip_left_right,
    "flip_up_down": pix.random_flip_up_down,
    "rot90": _rot90,
    "rotate": _rotate,
    "brightness": functools.partial(pix.random_brightness, max_delta=0.05),
    "contrast": functools.partial(pix.random_contrast, lower=0.9, upper=1.1),
    "gamma": functools.partial(pix.random_gamma, min_gamma=0.9, max_gamma=1.1),
}


def check_names(names: Sequence[str]) -> None:
    """Raise UserError for an unknown augmentation."""
    for name in names:
        if name not in AUGMENTATIONS:
            raise UserError(
                f"config.data.augment has an unknown augmentation {name!r}; "
                f"choose from: {', '.join(AUGMENTATIONS)}."
            )


def augment(
    key: Key[Array, ""],
    images: Float[Array, "b h w c"],
    index: Int[Array, " b"],
    *,
    names: Sequence[str],
) -> Float[Array, "b h w c"]:
    """Apply the named augmentations in order.

    Args:
      key: Key of the run. Each example's key is folded from it and from the example's index.
      images: Images of the batch.
      index: Global indices of the examples. What happens to an example depends neither on the batch
        nor on the device.
      names: Names in `AUGMENTATIONS`.
    """

    def one(index: Int[Array, ""], image: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
        example_key = jax.random.fold_in(key, index)
        for i, name in enumerate(names):
            image = AUGMENTATIONS[name](jax.random.fold_in(example_key, i), image)
        return jnp.clip(image, 0.0, 1.0)  # dm-pix exceeds the range

    return jax.vmap(one)(index, images) if names else images
