"""What `python -m recon_ad.check` tells of a folder of images before one trains on it.

Here: looking at images and masks, comparing them, and the sentences about what is odd. Not here:
listing and decoding (`recon_ad.data`), which is the same as training does. No JAX.
"""
