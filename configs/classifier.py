"""A classifier of a detector's heatmaps, which tells defects from harmless anomalies.

python -m recon_ad.classify --detector D/detector --images FOLDER --labels labels.csv
python -m recon_ad.classify … --config configs/classifier.py:features=encoder,weights=FILE

`weights=` is a safetensors file or folder of `encoder=`, or "hub", the default, to fetch it (see
configs/folder.py). No command but classify takes this file; it trains for seconds on two cores.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from recon_ad.config import parse_arg


def get_config(arg=""):
    args = parse_arg(arg, features="hu", encoder="deit_tiny_patch16_224", weights="hub", seed=0)
    c = ConfigDict()
    c.seed = args.seed  # of folds and initialisation
    c.features = args.features  # "hu": moments, area and intensity; "encoder": a pretrained one's
    c.encoder = ConfigDict()
    c.encoder.name = args.encoder  # in recon_ad.pretrained.PRESETS
    c.encoder.weights = args.weights  # as configs/default.py has it
    c.encoder.sha256 = ""  # that the file must have; "": any
    c.encoder.side = 224  # px of the picture that is made of a heatmap
    c.hidden = 16  # units of the MLP
    c.steps = 300  # of Adam, on all labels at once
    c.learning_rate = 1e-2
    c.l2 = 1e-2  # weight of the kernels' squares beside the mean cross-entropy
    c.folds = 5  # of the cross-validation; each class needs as many labels
    c.repeats = 10  # of the cross-validation, with other folds
    # Of the probability; None: that of the highest balanced accuracy on labels not learnt from
    c.threshold = placeholder(float)
    return c
