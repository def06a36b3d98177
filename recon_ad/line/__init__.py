"""Production-line operation of a detector: arriving images, their results, and alarms.

After Buzzega et al., "Automating Industrial Visual Inspection Systems with Deep
Reconstruction-based Anomaly Detection".

Belongs here: the queue of arriving images, the table of results, control charts, alarms and the
dashboard, all without JAX, because a plant's machine has none. Does not belong here: judging an
image (`recon_ad.detector.jax_detector`), aligning it (`recon_ad.alignment`), metrics.
"""
