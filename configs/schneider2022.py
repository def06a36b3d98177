"""The synthetic sets of Schneider et al. 2022 (section 3.1), chess and noise.

    python -m recon_ad.train --config configs/schneider2022.py:dataset=chess --workdir runs/chess

The paper gives neither image size, epochs, batch size nor learning rate: those are ours.
"""

from configs import default
from recon_ad.config import parse_arg


def get_config(arg=""):
    args = parse_arg(arg, method="cae", dataset="chess", seed=0, smoke=False)
    c = default.synthetic_config(args)
    return default.finish(c, smoke=args.smoke)
