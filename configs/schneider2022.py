"""The sets of Schneider et al. 2022: chess and noise (section 3.1), riblet and granular (3.2).

    python -m recon_ad.train --config configs/schneider2022.py:dataset=chess --workdir runs/chess
    python -m recon_ad.train --workdir runs/riblet \\
        --config configs/schneider2022.py:dataset=riblet_albedo,method=vae

`dataset=` is chess, noise, riblet_albedo, riblet_normals, granular_gradient or granular_curvature,
all generated; `method=` is cae, vae or aae. The paper gives neither epochs, batch size nor learning
rate, only that they are the same for all three methods; the values here are ours. `scale=cpu` is
for two cores. `scale=long`, for two cores and hours, takes the average of the weights.
"""

from configs import default
from recon_ad.config import parse_arg


def get_config(arg=""):
    args = parse_arg(arg, method="cae", dataset="chess", seed=0, scale="paper", smoke=False)
    c = default.synthetic_config(args)
    c.optim.schedule = "cosine"
    # On noise nothing can be learnt but the mean, which is soon done.
    long = {"chess": 6_000, "noise": 1_000}.get(args.dataset, 1_500)
    c.train.steps = default.scaled(args.scale, cpu=700, long=long, paper=20_000)
    c.optim.average = default.scaled(args.scale, cpu=0.0, long=0.99, paper=0.0)
    c.train.batch_size = default.scaled(args.scale, cpu=16, paper=32)
    c.train.eval_every = default.scaled(args.scale, cpu=100, paper=1_000)
    if args.dataset not in ("chess", "noise"):
        c.method.variant = "industrial"
        c.data.channels = 0  # albedo has one channel, normals have three
    return default.finish(c, smoke=args.smoke)
