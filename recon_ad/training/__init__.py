"""Training runs: the loop, its steps, resumption, the cache of a frozen encoder's features.

Belongs here: what happens between a config and a saved detector. Does not belong here: how a method
learns (`recon_ad.methods`), devices and checkpoints as such (`recon_ad.runtime`).
"""
