"""Tests that need eight devices, collected only if `test_eight_devices.py` starts them."""

import jax

collect_ignore_glob = [] if jax.device_count() == 8 else ["test_*.py"]
