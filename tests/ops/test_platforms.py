"""The form of an operation, which follows the platform that a program is compiled for."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.sharding import AxisType, PartitionSpec

from recon_ad.ops.platforms import by_platform, for_other_runtimes

ONE = jax.ShapeDtypeStruct((4,), np.float32)


@jax.custom_vjp
def written_out(x):
    return jnp.tanh(x)


written_out.defvjp(lambda x: (jnp.tanh(x), x), lambda x, grad: (grad * jnp.expm1(x),))


def chosen(x, *, portable=None):
    return by_platform(x, cpu=written_out, accelerator=jnp.sin, portable=portable)


def exported(function, *platforms):
    return str(export.export(jax.jit(function), platforms=platforms)(ONE).mlir_module())


def test_the_platform_compiled_for_counts_and_not_the_one_at_hand():
    assert jax.default_backend() == "cpu"
    for platform, own, other in (("cpu", "tanh", "sine"), ("cuda", "sine", "tanh")):
        program = exported(chosen, platform)
        assert own in program and other not in program
        gradient = exported(jax.grad(lambda x: chosen(x).sum()), platform)
        assert ("exponential_minus_one" in gradient) == (platform == "cpu")
        assert ("cosine" in gradient) == (platform == "cuda")
    both = exported(chosen, "cpu", "cuda")
    assert "tanh" in both and "sine" in both


@pytest.mark.parametrize(
    "transformed",
    [
        chosen,
        jax.vmap(chosen),
        jax.grad(lambda x: chosen(x).sum()),
        jax.checkpoint(chosen),
        lambda x: jax.shard_map(
            chosen,
            mesh=jax.make_mesh((1,), ("data",), axis_types=(AxisType.Auto,)),
            in_specs=PartitionSpec("data"),
            out_specs=PartitionSpec("data"),
        )(x),
    ],
    ids=["jit", "vmap", "grad", "checkpoint", "shard_map"],
)
def test_no_condition_is_left_in_the_program_of_one_platform(transformed):
    program = jax.jit(transformed).lower(ONE).compile().as_text()
    assert "conditional" not in program and "sine" not in program
    x = np.linspace(-1, 1, 4, dtype=np.float32)
    alone = transformed(x)
    np.testing.assert_allclose(jax.jit(transformed)(x), alone, rtol=1e-6)


def test_other_runtimes_are_given_their_own_form_or_that_of_accelerators():
    cases = ((None, "sin"), (jnp.cos, "cos"))
    for portable, own in cases:
        with for_other_runtimes():
            program = str(jax.make_jaxpr(functools.partial(chosen, portable=portable))(np.ones(4)))
        assert f"= {own} " in program and "tanh" not in program and "cond" not in program
    assert "tanh" in str(jax.make_jaxpr(chosen)(np.ones(4)))  # no longer
