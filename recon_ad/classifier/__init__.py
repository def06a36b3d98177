"""A classifier that separates defects from harmless anomalies by their heatmaps (Buzzega et al.).

Reading labels, training and cross-validating the classifier belong here. The classifier as the last
stage of a detector, which needs no labels, does not (`recon_ad.detector`).
"""
