"""Detectors: the one inference path, and how it is run, opened, exported and calibrated.

Belongs here: images in, predictions out, by JAX or by an ONNX runtime. Does not belong here: how a
method learns, figures of merit, a production line. This file imports nothing: a plant's machine has
no JAX.
"""
