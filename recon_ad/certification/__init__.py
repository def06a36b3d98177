"""Certificates: which sizes of defect a detector finds, how often it errs, whether it agrees.

Belongs here: inserting defects into good images, disturbing images, the statistics of hits, rejects
and repeats, the order of the trials, and the page of a certificate.
Does not belong here: running a detector (`recon_ad.detector`), HTML fragments (`recon_ad.report`),
JAX: a machine with an exported model certifies it as well.
"""
