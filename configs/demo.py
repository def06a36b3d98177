"""The demo: a CAE that learns a chess board and finds where it was bent.

    make demo
    python -m recon_ad.train --config configs/demo.py --workdir runs/demo
    python -m recon_ad.train --config configs/demo.py:dataset=noise --workdir runs/noise

Times and scores, with the hardware, are in results/runs.json.
"""

from configs import default
from recon_ad.config import parse_arg


def get_config(arg=""):
    args = parse_arg(arg, method="cae", dataset="chess", seed=0, smoke=False)
    c = default.synthetic_config(args)
    # This takes about four minutes on two cores.
    c.train.steps = 700
    c.train.batch_size = 16
    c.train.eval_every = 100
    c.train.log_every = 20
    c.optim.schedule = "cosine"
    # Sixteen tiles cover every pixel, and smoothing removes single misplaced pixels. The paper
    # thresholds the map without smoothing (configs/schneider2022.py).
    c.inference.stride = 32
    c.inference.sigma = 1.0
    return default.finish(c, smoke=args.smoke)
