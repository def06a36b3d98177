"""The production line around a detector (Buzzega et al., "Automating Industrial Visual Inspection
Systems with Deep Reconstruction-based Anomaly Detection"): what happens to an image before and
after it is judged.

Belongs here: aligning parts, telling defects from harmless anomalies, watching the line, each step
optional. All but training the classifier is without JAX, as a plant's machine has none: there the
classifier is a part of the exported tail.
Does not belong here: judging an image (`recon_ad.inference`), metrics, pictures for reports.
"""
