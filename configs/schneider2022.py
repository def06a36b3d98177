"""The synthetic sets of Schneider et al. 2022 (section 3.1), chess and noise.

    python -m recon_ad.train --config configs/schneider2022.py:dataset=chess --workdir runs/chess

The paper gives neither image size, epochs, batch size nor learning rate: those are ours.
"""

from configs import default
from recon_ad.config import parse_arg


def get_config(arg=""):
    args = parse_arg(arg, method="cae", dataset="chess", seed=0, smoke=False)
    c = default.default_config()
    c.seed = args.seed
    c.method.name = args.method
    c.method.variant = "synthetic"
    c.data.source = "synthetic"
    c.data.name = args.dataset
    c.data.channels = 1
    c.inference.sigma = 0.0  # the paper thresholds the residual map as it is
    return default.finish(c, smoke=args.smoke)
