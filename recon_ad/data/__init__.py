"""Where images come from: sources, decoding, hold-out splits, the loading pipeline.

Here: whatever turns files, arrays or a generator into named records and batches of them. Not
here: models, metrics, or anything that knows what an anomaly map is.
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
