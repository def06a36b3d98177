"""Trials of damaged and hostile input, of killed commands and of full disks."""
