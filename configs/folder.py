"""Your own images: a folder in the MVTec layout, or a folder of good images.

python -m recon_ad.train --config configs/folder.py:path=DIR --workdir runs/mine
python -m recon_ad.train --config configs/folder.py:path=DIR,category=grid --workdir runs/grid
"""

from configs import default
from recon_ad.config import parse_arg


def get_config(arg=""):
    args = parse_arg(arg, method="cae", path="", category="", seed=0, smoke=False)
    c = default.default_config()
    c.seed = args.seed
    c.method.name = args.method
    c.data.path = args.path
    c.data.category = args.category
    return default.finish(c, smoke=args.smoke)
