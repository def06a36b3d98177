"""Findings of `python -m recon_ad.check` in a folder of images before training on it.

Measuring and comparing images and masks, and the sentences about oddities belong here. Listing and
decoding do not, as they are those of training (`recon_ad.data`), and neither does JAX.
"""
