"""The sets of Schneider et al. 2022: chess and noise (section 3.1), riblet and granular (3.2).

    python -m recon_ad.train --config configs/schneider2022.py:dataset=chess --workdir runs/chess
    python -m recon_ad.train --config configs/schneider2022.py:dataset=riblet_albedo \\
        --workdir runs/riblet

`dataset=` is chess, noise, riblet_albedo, riblet_normals, granular_gradient or granular_curvature,
all generated. The paper gives neither epochs, batch size nor learning rate: those are ours.
"""

from configs import default
from recon_ad.config import parse_arg


def get_config(arg=""):
    args = parse_arg(arg, method="cae", dataset="chess", seed=0, smoke=False)
    c = default.synthetic_config(args)
    if args.dataset not in ("chess", "noise"):
        c.method.variant = "industrial"
        c.data.channels = 0  # albedo has one, normals have three
    return default.finish(c, smoke=args.smoke)
