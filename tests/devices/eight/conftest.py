"""Tests that need eight devices: collected only where `test_eight_devices.py` starts them."""

import jax
from helpers.small_encoder import small_encoder  # noqa: F401

collect_ignore_glob = [] if jax.device_count() == 8 else ["test_*.py"]
