"""Limits that configs, images and the files of detectors share.

Nothing is imported here, so that modules which run without JAX and without configs can use them.
"""

# Pillow warns from 89 million pixels on and refuses twice that, which a line-scan camera exceeds.
# One gigapixel (1 to 3 GB decoded) is the limit here; a header that promises more is refused.
MAX_PIXELS = 2**30
MAX_SIDE = 1 << 16  # px, of an image that is tiled, of a tile, and of what surrounds a pixel
