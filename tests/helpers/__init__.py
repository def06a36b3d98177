"""Helpers for several tests: small configs, generated data, commands, references."""
