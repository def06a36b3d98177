"""Measurement for benchmarks: contenders in turns, medians with quartiles, hardware, versions."""
