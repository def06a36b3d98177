"""Downloaded public data sets, prepared once as ArrayRecord files and then read from there.

    python -m recon_ad.train --workdir runs/candle \\
        --config configs/public.py:dataset=visa,category=candle,path=DOWNLOADS

`dataset=` is mvtec_ad, mvtec_loco, mvtec_ad_2, visa, nanotwice, woven_fabrics or kolektor_sdd, and
`path=` is the folder that contains the archive or its content. `dataset=` may also be sewer_ml;
then `path=` is the folder of its CSV files, and `--config.data.images=` the folder of its images if
that is another one. `method=`, `encoder=`, `weights=`, `side=` and `scale=` are as in
configs/folder.py.
"""

from configs import default
from recon_ad.config import parse_arg


def get_config(arg=""):
    args = parse_arg(
        arg, **default.CHOICE, dataset="mvtec_ad", category="", path="", seed=0, smoke=False
    )
    c = default.chosen(args)
    c.seed = args.seed
    c.data.source = "csv" if args.dataset == "sewer_ml" else "tfds"
    c.data.name = args.dataset
    c.data.category = args.category
    c.data.path = args.path
    return default.finish(c, smoke=args.smoke)
