"""A classifier that tells defects from harmless anomalies by their heatmaps (Buzzega et al.).

Belongs here: reading labels, training and cross-validating the classifier. Does not belong here:
the classifier as part of a detector's tail, which needs no labels (`recon_ad.detector`).
"""
