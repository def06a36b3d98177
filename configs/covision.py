"""The denoising autoencoder of Buzzega et al. (Covision Lab), section 3.2, on a user's images.

    python -m recon_ad.train --config configs/covision.py:path=DIR --workdir runs/line

The paper gives residual blocks, Gaussian noise, the squared error and the sum of the heatmap as the
image score; noise level, widths and training are ours.
"""

from configs import default
from recon_ad.config import parse_arg


def get_config(arg=""):
    args = parse_arg(arg, method="dae", path="", category="", seed=0, smoke=False)
    c = default.choose_method(default.default_config(), args.method)
    c.seed = args.seed
    c.data.path = args.path
    c.data.category = args.category
    c.optim.schedule = "cosine"
    return default.finish(c, smoke=args.smoke)
