"""The small encoder, for methods that look through one."""

from helpers.small_encoder import small_encoder  # noqa: F401
