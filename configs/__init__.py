"""Configs, the only home of defaults; run the commands from the repository's root."""
