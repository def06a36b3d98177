"""The denoising autoencoder of Buzzega et al. (Covision Lab), section 3.2, on a user's images.

    python -m recon_ad.train --config configs/covision.py:path=DIR --workdir runs/line

Images are first aligned to a template (section 3.1); `align=false` uses them without alignment.
With `--config.part.background=auto`, or a mask's file, the background beside the part never scores.
See `part` in configs/default.py. `scale=cpu` is a short training for two cores.

The paper specifies residual blocks, Gaussian noise, the squared error and the sum of the heatmap as
the image score. The noise level, the widths and the training are ours.
"""

from configs import default
from recon_ad.config import parse_arg


def get_config(arg=""):
    args = parse_arg(
        arg, method="dae", path="", category="", align=True, seed=0, scale="paper", smoke=False
    )
    c = default.choose_method(default.default_config(), args.method)
    c.seed = args.seed
    c.data.path = args.path
    c.data.category = args.category
    c.part.align = args.align
    c.optim.schedule = "cosine"
    c.train.steps = default.scaled(args.scale, cpu=1_500, paper=20_000)
    c.train.batch_size = default.scaled(args.scale, cpu=16, paper=32)
    if args.smoke and not args.path:  # the generated boards show no part
        c.part.align = False
    return default.finish(c, smoke=args.smoke)
