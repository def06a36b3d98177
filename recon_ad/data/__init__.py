"""Sources of images, their decoding, hold-out splits and the loading pipeline.

This package turns files, arrays or a generator into named records and batches of them. Models,
metrics and anything that knows what an anomaly map is belong elsewhere.
"""

from recon_ad.data.folder import folder_source, memory_source
from recon_ad.data.holdout import split_holdout
from recon_ad.data.source import GOOD, Record, Source
from recon_ad.data.synthetic import synthetic_source

__all__ = [
    "GOOD",
    "Record",
    "Source",
    "folder_source",
    "memory_source",
    "split_holdout",
    "synthetic_source",
]
