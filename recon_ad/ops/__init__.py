"""Pure array functions that several parts share: residuals, smoothing, tiles.

Traced functions (residuals, smoothing) are JAX and can be exported. `tiles` is NumPy only, because
a deployed detector cuts and stitches tiles on machines without JAX. Nothing here learns or reads
files.
"""
