"""A multilayer perceptron on vectors of features, float32 [n, d]."""

import flax.linen as nn
from jaxtyping import Array, Float


class MLP(nn.Module):
    """One hidden layer with ReLU, and one number of it.

    Attributes:
      hidden: units.
    """

    hidden: int

    @nn.compact
    def __call__(self, x: Float[Array, "n d"]) -> Float[Array, " n"]:
        """The logit of each vector."""
        x = nn.relu(nn.Dense(self.hidden, name="hidden")(x))
        return nn.Dense(1, name="logit")(x)[:, 0]
