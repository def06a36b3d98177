"""A production line around a detector: images as they arrive, and what became of them.

After Buzzega et al., "Automating Industrial Visual Inspection Systems with Deep
Reconstruction-based Anomaly Detection".

Belongs here: the queue of arriving images, the table of results, control charts, alarms and the
dashboard, all without JAX, as a plant's machine has none. Does not belong here: judging an image
(`recon_ad.detector.jax_detector`), aligning it (`recon_ad.alignment`), figures of merit.
"""
