"""The demo: a CAE that learns a chess board and finds where it was bent.

make demo
python -m recon_ad.train --config configs/demo.py --workdir runs/demo
python -m recon_ad.train --config configs/demo.py:dataset=noise --workdir runs/noise
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
    # The paper thresholds the residual map as it is.
    c.inference.sigma = 0.0
    c.train.steps = 400
    c.train.eval_every = 100
    c.train.log_every = 20
    return default.finish(c, smoke=args.smoke)
