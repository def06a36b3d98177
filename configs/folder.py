"""A user's own images: a folder in the MVTec layout, or a folder of good images.

    python -m recon_ad.train --config configs/folder.py:path=DIR --workdir runs/mine
    python -m recon_ad.train --config configs/folder.py:path=DIR,category=grid --workdir runs/grid

The method is knn, on the features of a pretrained encoder, if its weights are available: from
`weights=`, a safetensors file or folder of `encoder=`, from the Hugging Face hub's cache, or from
the hub. Otherwise it is cae, on pixels. `method=` names another method. `scale=cpu` is for two
cores: a small encoder, or a short training; `scale=long` trains about five times as long. `side=`
is the shorter side in px to which images are resized for the encoder, a multiple of its patch.
`category=grid+carpet` trains one model for several categories, and `category=*` for all.
"""

from configs import default
from recon_ad.config import parse_arg


def get_config(arg=""):
    args = parse_arg(arg, **default.CHOICE, path="", category="", seed=0, smoke=False)
    c = default.chosen(args)
    c.seed = args.seed
    c.data.path = args.path
    c.data.category = args.category
    return default.finish(c, smoke=args.smoke)
