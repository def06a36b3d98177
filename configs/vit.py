"""Detectors on the features of a pretrained Vision Transformer, on a user's images.

    python -m recon_ad.train --workdir runs/vit \\
        --config configs/vit.py:method=knn,encoder=vit_small_patch14_dinov2,weights=FILE,path=DIR

`method=` is knn, vit_flow or vit_recon; `encoder=` a name in recon_ad.pretrained.PRESETS and
`weights=` its safetensors file or folder, "random" to see what the architecture alone is worth, or
"hub", the default, to fetch it once: that needs the extra `hub` and a network; without one fetch
model.safetensors elsewhere and name it. Images are seen whole, at `side=` px, a multiple of the
encoder's patch, if it is given. `scale=cpu` is for two cores: a small encoder, if none is named,
and a short training. One model for several categories: `category=grid+carpet`, or `category=*` for
all.
"""

from configs import default
from recon_ad.config import parse_arg
from recon_ad.pretrained import preset


def on_features(c, *, encoder, weights, side, scale):
    """Sets what the method on features needs; encoder "" and side 0 go by the scale."""
    method = c.method.name
    large = "_large_" in encoder  # 24 blocks instead of 12
    c.encoder.name = encoder or default.scaled(
        scale, cpu="deit_tiny_patch16_224", paper="vit_small_patch14_reg4_dinov2"
    )
    c.encoder.weights = weights
    # Nothing is learnt by knn, so that it has time for more of the image.
    wanted = default.scaled(scale, cpu=384 if method == "knn" else 224, paper=392)
    patch = preset(c.encoder.name).spec.patch
    side = side or patch * round(wanted / patch)
    c.data.resize = (side, side)
    c.data.patch_size = side
    c.inference.stride = side
    c.inference.tile_weights = "uniform"
    c.inference.batch_size = 1  # an image is one tile
    c.inference.sigma = 4.0
    if method == "knn":  # a look at so many images
        c.train.steps, c.train.batch_size, c.train.log_every = 50, 8, 10
    if method == "vit_flow":
        c.optim.learning_rate = 1e-3
        c.train.steps = default.scaled(scale, cpu=300, paper=5_000)
        c.train.batch_size = default.scaled(scale, cpu=8, paper=32)
    if method == "vit_recon":  # Dinomaly's blocks, rate and length
        c.encoder.blocks = tuple(range(4, 20, 2) if large else range(2, 10))
        c.optim.learning_rate = default.scaled(scale, cpu=1e-3, paper=2e-3)
        c.optim.schedule = "cosine"
        c.optim.warmup = default.scaled(scale, cpu=30, paper=100)
        c.train.steps = default.scaled(scale, cpu=300, paper=10_000)
        c.train.batch_size = default.scaled(scale, cpu=8, paper=16)
        c.inference.score = "top_1%"
    elif large:
        c.encoder.blocks = tuple(2 * i for i in c.encoder.blocks)
    return c


def get_config(arg=""):
    args = parse_arg(
        arg,
        method="knn",
        encoder="",
        weights="hub",
        path="",
        category="",
        side=0,
        seed=0,
        scale="paper",
        smoke=False,
    )
    c = on_features(
        default.choose_method(default.default_config(), args.method),
        encoder=args.encoder,
        weights=args.weights,
        side=args.side,
        scale=args.scale,
    )
    c.seed = args.seed
    c.data.path = args.path
    c.data.category = args.category
    return default.finish(c, smoke=args.smoke)
