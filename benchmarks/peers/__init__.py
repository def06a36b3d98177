"""Contenders of benchmarks: the same networks in PyTorch, and other people's packages."""
