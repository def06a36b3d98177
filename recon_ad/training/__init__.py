"""Training runs: the loop, its steps, resumption, the cache of a frozen encoder's features.

Everything between a config and a saved detector belongs here. The training of a method itself does
not (`recon_ad.methods`), nor do devices and checkpoints (`recon_ad.runtime`).
"""
