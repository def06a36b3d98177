"""Evaluation of a detector on test images: results, figures, protocol, the pictures of a report.

Belongs here: what runs a detector over a test set and collects the outcome. Does not belong here:
a figure of merit (`recon_ad.metrics`), how a page looks (`recon_ad.report`).
"""
