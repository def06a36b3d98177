"""The adversarial autoencoder with a Wasserstein critic (Schneider et al. 2022, section 2.3).

Every batch is used in two phases. In the reconstruction phase, encoder and decoder take a step on
the mean squared error (eq. 3), as the CAE does. In the regularisation phase, the critic first takes
several steps that raise E[C(z)] − E[C(E(x))], z ~ N(0, I), with fresh samples for each. After each
of these its weights are clipped to a box, so that the maximum is a Wasserstein distance up to a
factor (Arjovsky et al. 2017, algorithm 1). Then the encoder takes a step that raises E[C(E(x))].
Each of the three has its own Adam. All of it is one traced step.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Bool, Float, Key, PyTree
from ml_collections import ConfigDict

from recon_ad.errors import UserError
from recon_ad.methods import base, cae, reconstruction
from recon_ad.methods.reconstruction import Images, Losses
from recon_ad.models.cae import CAE, Critic

Codes = Float[Array, "b n_z"]


class Settings(NamedTuple):
    """Networks, optimisers and settings of the critic.

    Attributes:
      autoencoder: Encoder and decoder.
      critic: Network from codes to one number each.
      tx: Optimiser of the reconstruction.
      encoder_tx: Optimiser of the encoder's step against the critic.
      critic_tx: Optimiser of the critic.
      critic_steps: Number of critic steps for each batch.
      clip: Half the side of the box that the critic's weights are clipped to.
    """

    autoencoder: CAE
    critic: Critic
    tx: optax.GradientTransformation
    encoder_tx: optax.GradientTransformation
    critic_tx: optax.GradientTransformation
    critic_steps: int
    clip: float


def moments(codes: Codes) -> dict[str, Float[Array, ""]]:
    """Return the root mean square deviations of a batch's mean and covariance from 0 and I.

    For n samples of N(0, I) both are about n^(-1/2), which serves as a reference.
    """
    centred = codes - jnp.mean(codes, axis=0, keepdims=True)
    covariance = centred.T @ centred / codes.shape[0] - jnp.eye(codes.shape[1])
    return {
        "mean": jnp.sqrt(jnp.mean(jnp.mean(codes, axis=0) ** 2)),
        "covariance": jnp.sqrt(jnp.mean(covariance**2)),
    }


def critic_step(
    params: PyTree,
    opt_state: PyTree,
    codes: Codes,
    prior: Codes,
    *,
    settings: Settings,
) -> tuple[PyTree, PyTree, Float[Array, ""]]:
    """Take one step of the critic and clip its parameters.

    Returns:
      The parameters, the optimiser's state, and E[C(prior)] − E[C(codes)] before the step.
    """

    def negative_distance(params: PyTree) -> Float[Array, ""]:
        values = settings.critic.apply({"params": params}, jnp.concatenate([prior, codes]))
        return jnp.mean(values[len(prior) :]) - jnp.mean(values[: len(prior)])

    loss, grads = jax.value_and_grad(negative_distance)(params)
    updates, opt_state = settings.critic_tx.update(grads, opt_state, params)
    params = optax.apply_updates(params, updates)
    params = jax.tree.map(lambda p: jnp.clip(p, -settings.clip, settings.clip), params)
    return params, opt_state, -loss


def train_step(
    state: base.TrainState,
    images: Images,
    key: Key[Array, ""],
    *,
    losses: Losses,
    settings: Settings,
) -> tuple[base.TrainState, base.Metrics]:
    """Run both phases on one batch.

    Args:
      state: State whose `params` holds autoencoder and critic, and whose `opt_state` holds
        reconstruction, critic and encoder.
      images: Batch of images.
      key: Key of the step.
      losses: Losses of the reconstruction phase, a function of the autoencoder's parameters.
      settings: Networks, optimisers and settings of the critic.
    """
    tx = settings.tx
    params, critic = state.params["autoencoder"], state.params["critic"]

    # ---- Reconstruction ------------------------------------------------------------------------
    grads, values = reconstruction.minimize(losses, params, images, None)
    updates, of_reconstruction = tx.update(grads, state.opt_state["reconstruction"], params)
    params = optax.apply_updates(params, updates)

    # ---- Regularisation: the critic with the encoder fixed, then the encoder --------------------
    def encoded(encoder: PyTree) -> Codes:
        whole = {"params": params | {"encoder": encoder}}
        return settings.autoencoder.apply(whole, images, method="encode")

    codes, back = jax.vjp(encoded, params["encoder"])

    def body(carry: PyTree, key: Key[Array, ""]) -> tuple[PyTree, Float[Array, ""]]:
        prior = jax.random.normal(key, codes.shape)
        *carry, distance = critic_step(*carry, codes, prior, settings=settings)
        return tuple(carry), distance

    keys = jax.random.split(key, settings.critic_steps)
    (critic, of_critic), distances = lax.scan(body, (critic, state.opt_state["critic"]), keys)

    def critical(codes: Codes) -> Float[Array, ""]:
        return -jnp.mean(settings.critic.apply({"params": critic}, codes))

    (encoder_grads,) = back(jax.grad(critical)(codes))
    updates, of_encoder = settings.encoder_tx.update(
        encoder_grads, state.opt_state["encoder"], params["encoder"]
    )
    params = params | {"encoder": optax.apply_updates(params["encoder"], updates)}

    count = jnp.float32(images.shape[0])
    of_prior = moments(jax.random.normal(keys[0], codes.shape))
    measured = {"critic_distance": distances[-1]}
    measured |= {f"code_{name}": value for name, value in moments(codes).items()}
    measured |= {f"prior_{name}": value for name, value in of_prior.items()}
    metrics = reconstruction.as_metrics(values)
    metrics |= {name: (value * count, count) for name, value in measured.items()}
    opt_state = {"reconstruction": of_reconstruction, "critic": of_critic, "encoder": of_encoder}
    trained = {"autoencoder": params, "critic": critic}
    return base.TrainState(trained, {}, opt_state, state.step + 1), metrics


def eval_step(
    state: base.TrainState, images: Images, mask: Bool[Array, " b"], *, of_autoencoder: base.Method
) -> base.Metrics:
    """Return the reconstruction's metrics; the critic has no deterministic ones."""
    alone = state._replace(params=state.params["autoencoder"])
    return of_autoencoder.eval_step(alone, images, mask)


def finish(frozen: PyTree, state: base.TrainState, batches: object) -> base.Variables:
    """Keep the autoencoder's parameters; drop the critic and the optimisers."""
    del frozen, batches
    return {"params": state.params["autoencoder"]}


def build(config: ConfigDict, *, channels: int) -> base.Method:
    """Build the method for patches of `config.data.patch_size` with this number of channels.

    Raises:
      UserError: If the settings do not fit (`cae.check_settings`), or the critic's are not
        positive.
    """
    plain = cae.build(config, channels=channels)
    c, shared, size = config.aae, config.method, config.data.patch_size
    if c.critic_steps < 1 or c.critic_clip <= 0 or c.encoder_rate <= 0:
        raise UserError(
            f"config.aae.critic_steps is {c.critic_steps}, critic_clip {c.critic_clip} and "
            f"encoder_rate {c.encoder_rate}, but the critic needs 1 step or more for each batch "
            "and a clip above 0, and the encoder a rate above 0."
        )
    settings = Settings(
        CAE(shared.variant, (size, size), channels, shared.n_z, shared.width),
        Critic(),
        base.build_optimizer(config),
        # Adam turns the critic's small gradients into steps of full length. Unscaled, they would
        # pull the encoder as hard as the reconstruction does, and the code would collapse.
        optax.chain(base.build_optimizer(config), optax.scale(c.encoder_rate)),
        base.build_optimizer(config, updates=c.critic_steps),
        c.critic_steps,
        c.critic_clip,
    )

    def init(key: Key[Array, ""], images: Images) -> base.TrainState:
        of_autoencoder, of_critic = jax.random.split(key)
        autoencoder = settings.autoencoder.init(of_autoencoder, images)["params"]
        critic = settings.critic.init(of_critic, jnp.zeros((1, shared.n_z)))["params"]
        # Its weights start in the box and stay there.
        critic = jax.tree.map(lambda p: jnp.clip(p, -settings.clip, settings.clip), critic)
        opt_state = {
            "reconstruction": settings.tx.init(autoencoder),
            "critic": settings.critic_tx.init(critic),
            "encoder": settings.encoder_tx.init(autoencoder["encoder"]),
        }
        params = {"autoencoder": autoencoder, "critic": critic}
        return base.TrainState(params, {}, opt_state, jnp.zeros((), jnp.int32))

    return plain._replace(
        init=init,
        train_step=functools.partial(
            train_step,
            losses=functools.partial(cae.losses, model=settings.autoencoder),
            settings=settings,
        ),
        eval_step=functools.partial(eval_step, of_autoencoder=plain),
        finish=finish,
        protocol={
            "critic_steps": settings.critic_steps,
            "critic_clip": settings.clip,
            "encoder_rate": c.encoder_rate,
        },
    )
