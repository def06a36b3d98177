"""Findings of `python -m recon_ad.check` in a folder of images that one wants to train on.

Here: looking at images and masks, comparing them, and the sentences about what is odd. Not here:
listing and decoding (`recon_ad.data`), which is the same as training does. No JAX.
"""
