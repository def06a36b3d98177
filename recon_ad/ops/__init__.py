"""Pure array functions that several parts share: residuals, smoothing, tiles.

What is traced (residuals, smoothing) is JAX and exportable; `tiles` is NumPy only, because a
deployed detector cuts and stitches tiles on machines without JAX. Nothing here learns or reads
files.
"""
