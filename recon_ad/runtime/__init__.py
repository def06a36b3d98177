"""The environment of a run: devices and hosts, checkpoints, logs, files, versions.

Nothing here knows methods, images or metrics.
"""
