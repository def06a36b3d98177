"""What surrounds a run: devices and hosts, checkpoints, logs, files, versions.

Nothing here knows what a method, an image or a metric is.
"""
