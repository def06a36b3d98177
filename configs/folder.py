"""Your own images: a folder in the MVTec layout, or a folder of good images.

    python -m recon_ad.train --config configs/folder.py:path=DIR --workdir runs/mine
    python -m recon_ad.train --config configs/folder.py:path=DIR,category=grid --workdir runs/grid

The method is knn, on the features of a pretrained encoder, where its weights can be had: from
`weights=`, a safetensors file or folder of `encoder=`, from the Hugging Face hub's cache, or from
the hub. Else it is cae, on pixels. `method=` names another. `scale=cpu` is for two cores: a small
encoder, or a short training. `side=` is the shorter side of the images in px as the encoder sees
them, a multiple of its patch. One model for several categories: `category=grid+carpet`, or
`category=*` for all.
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
