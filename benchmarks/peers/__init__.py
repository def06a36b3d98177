"""Contenders of the benchmarks: the same networks in PyTorch, and others' packages."""
