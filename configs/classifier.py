"""A classifier of a detector's heatmaps, which separates defects from harmless anomalies.

python -m recon_ad.classify --detector D/detector --images FOLDER --labels labels.csv
python -m recon_ad.classify … --config configs/classifier.py:features=encoder,weights=FILE

`weights=` is a safetensors file or folder of `encoder=`, or "hub", the default, to fetch it (see
configs/folder.py). Only the command classify uses this file. Training takes seconds on two cores.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from recon_ad.config import parse_arg


def get_config(arg=""):
    args = parse_arg(arg, features="hu", encoder="deit_tiny_patch16_224", weights="hub", seed=0)
    c = ConfigDict()
    c.seed = args.seed  # seed of folds and initialisation
    c.features = args.features  # "hu" (moments, area, intensity) or "encoder" (pretrained)
    c.encoder = ConfigDict()
    c.encoder.name = args.encoder  # name in recon_ad.pretrained.PRESETS
    c.encoder.weights = args.weights  # see configs/default.py
    c.encoder.sha256 = ""  # required SHA-256 of the file; "" accepts any
    c.encoder.side = 224  # px, side of the picture of a heatmap
    c.hidden = 16  # hidden units of the MLP
    c.steps = 300  # steps of Adam, each on all labels
    c.learning_rate = 1e-2
    c.l2 = 1e-2  # weight of the kernels' squares beside the mean cross-entropy
    c.folds = 5  # folds of the cross-validation; each class needs as many labels
    c.repeats = 10  # repeats of the cross-validation with other folds
    # Threshold of the probability; None takes the best balanced accuracy on held-out labels
    c.threshold = placeholder(float)
    return c
