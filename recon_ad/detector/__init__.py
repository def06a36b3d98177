"""Detectors: the one inference path, and how it is run, opened, exported and calibrated.

This package turns images into predictions, by JAX or by an ONNX runtime. Training of a method,
figures of merit and a production line belong elsewhere. This file imports nothing: a plant's
machine has no JAX.
"""
