"""Your own images: a folder in the MVTec layout, or a folder of good images.

python -m recon_ad.train --config configs/folder.py:path=DIR --workdir runs/mine
python -m recon_ad.train --config configs/folder.py:path=DIR,category=grid --workdir runs/grid

`scale=cpu` is a short training, for two cores.
"""

from configs import default
from recon_ad.config import parse_arg


def get_config(arg=""):
    args = parse_arg(arg, method="cae", path="", category="", seed=0, scale="paper", smoke=False)
    c = default.choose_method(default.default_config(), args.method)
    c.seed = args.seed
    c.data.path = args.path
    c.data.category = args.category
    if args.method in default.ON_BERGMANN:
        default.bergmann_training(c, args.scale, cpu_steps=4_000)
    else:
        c.train.steps = default.scaled(args.scale, cpu=800, paper=c.train.steps)
        c.train.batch_size = default.scaled(args.scale, cpu=16, paper=c.train.batch_size)
    return default.finish(c, smoke=args.smoke)
