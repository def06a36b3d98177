"""Flax linen networks, one family per file, and their shapes in `spec`.

A network maps float32 NHWC arrays to a dict of all its named intermediates. Losses, residuals and
everything random or learnt belong in `recon_ad.methods`.
"""
