"""Flax linen networks, one family per file, and shapes in `spec`; nothing else.

A network maps float32 NHWC arrays to a dict of all its named intermediates; losses, residuals and
everything that is random or learns lives in `recon_ad.methods`.
"""
