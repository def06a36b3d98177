"""Helpers for several tests: small configs, generated data, commands, references."""

from helpers import typechecker  # noqa: F401  jaxtyping imports this package and nothing below it
