"""The small encoder, for methods that use one."""

from helpers.small_encoder import small_encoder  # noqa: F401
