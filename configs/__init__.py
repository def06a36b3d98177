"""Configs: the only home of defaults. Run the commands from the repository's root."""
