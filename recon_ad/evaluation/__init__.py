"""Evaluation of a detector on test images: results, figures, protocol, the pictures of a report.

Code that runs a detector over a test set and collects the results belongs here. Figures of merit
(`recon_ad.metrics`) and the design of pages (`recon_ad.report`) do not.
"""
