"""The models of Preste, "Unsupervised learning models for visual inspection".

    python -m recon_ad.train --workdir runs/transistor \\
        --config configs/preste.py:dataset=transistor,path=DIR

`dataset=` is transistor (MVTec AD) or sewer, with the article's two thresholds, or any other name,
with thresholds from held-out normal images; `path=` is the folder in the MVTec layout. The article
gives the network and its thresholds, but not its training, which is as in configs/bergmann2019.py.
Images of its two sets are seen whole, at 256 px, and those of other sets in patches of 128 px.

`method=` is ssim_l1, the autoencoder with SSIM and L1, or vit_flow, whose code is not available: a
normalising flow with attention on a frozen DeiT, `encoder=` with the weights `weights=` (see
configs/folder.py). The article's encoder is DeiT-base-distilled at 384 px; `scale=cpu` has a tiny
one at 224 px.
"""

from configs import default
from recon_ad.config import parse_arg

# Thresholds of 1 − S and of |x − x̃|, from the article.
THRESHOLDS = {"transistor": (0.330540, 0.079739), "sewer": (0.850003, 0.112418)}


def get_config(arg=""):
    args = parse_arg(
        arg,
        method="ssim_l1",
        dataset="transistor",
        encoder="",
        weights="hub",
        path="",
        seed=0,
        scale="paper",
        smoke=False,
    )
    c = default.choose_method(default.default_config(), args.method)
    c.seed = args.seed
    c.data.path = args.path
    if args.method == "vit_flow":
        named = default.scaled(
            args.scale, cpu="deit_tiny_patch16_224", paper="deit_base_distilled_patch16_384"
        )
        default.on_features(
            c,
            encoder=args.encoder or named,
            weights=args.weights,
            side=default.scaled(args.scale, cpu=224, paper=384),
            scale=args.scale,
        )
        c.vit_flow.coupling = "attention"
        return default.finish(c, smoke=args.smoke)
    if args.dataset in THRESHOLDS:
        c.ssim_l1.ssim_threshold, c.ssim_l1.l1_threshold = THRESHOLDS[args.dataset]
        c.ssim.kind = "uniform"  # the window of 11 px that the thresholds belong to
        c.data.resize = (256, 256)
        c.data.patch_size = 256
        c.inference.stride = 256
        c.inference.tile_weights = "uniform"
        c.method.n_z = 500
    default.bergmann_training(c, args.scale, cpu_steps=3_000)
    c.train.eval_every = default.scaled(args.scale, cpu=500, paper=1_000)
    c.inference.sigma = 0.0
    c.inference.opening = 4
    c.inference.border = 5
    return default.finish(c, smoke=args.smoke)
