"""Helpers of several tests: small configs, generated data, commands, references."""
