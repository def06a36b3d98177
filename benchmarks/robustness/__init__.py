"""Trials with damaged and hostile input, killed commands and full disks."""
