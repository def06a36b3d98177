"""A multilayer perceptron on vectors of features, float32 [n, d]."""

import flax.linen as nn
from jaxtyping import Array, Float


class MLP(nn.Module):
    """Perceptron with one hidden layer, ReLU and one output.

    Attributes:
      hidden: Number of hidden units.
    """

    hidden: int

    @nn.compact
    def __call__(self, x: Float[Array, "n d"]) -> Float[Array, " n"]:
        """Return the logit of each vector."""
        x = nn.relu(nn.Dense(self.hidden, name="hidden")(x))
        return nn.Dense(1, name="logit")(x)[:, 0]
