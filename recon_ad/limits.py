"""Limits that configs, images and the files of detectors share.

Nothing is imported here, so that modules which run without JAX and without configs can use them.
"""

MAX_SIDE = 1 << 16  # px, of an image that is tiled, of a tile, and of what surrounds a pixel
