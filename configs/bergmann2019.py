"""The autoencoders of Bergmann et al. 2019.

    python -m recon_ad.train --workdir runs/nanofibres \\
        --config configs/bergmann2019.py:dataset=nanofibres,path=DIR

`dataset=` is nanofibres (NanoTWICE), grid (MVTec AD) or any folder's name; `path=` is the folder in
the MVTec layout. `method=` is ssim_ae, l2_ae, vae or fm_ae. The features of fm_ae are those of
`encoder=` with the weights `weights=` (see configs/folder.py). The paper trains on 10 000 patches
of 128 px for 200 epochs with Adam at 2e-4; tiles are 30 px apart and averaged evenly. The code's
length, 500 for the nanofibres and 100 for textures, is quoted from memory of the paper.
`scale=cpu` is for two cores: fewer patches, in smaller batches, at a higher rate that rises for 300
steps and then falls. `scale=long` has eight times as many steps.
"""

from configs import default
from recon_ad.config import parse_arg


def get_config(arg=""):
    args = parse_arg(
        arg,
        method="ssim_ae",
        dataset="nanofibres",
        encoder="deit_tiny_patch16_224",
        weights="hub",
        path="",
        seed=0,
        scale="paper",
        smoke=False,
    )
    c = default.choose_method(default.default_config(), args.method)
    c.seed = args.seed
    c.data.path = args.path
    c.data.channels = 1
    c.encoder.name = args.encoder
    c.encoder.weights = args.weights
    if args.method == "vae":
        c.method.variant = "bergmann"
    fibres = args.dataset == "nanofibres"
    c.method.n_z = 500 if fibres else 100
    default.bergmann_training(c, args.scale, cpu_steps=12_000 if fibres else 4_000)
    c.train.eval_every = 1_000
    c.inference.stride = 30
    c.inference.tile_weights = "uniform"
    c.inference.sigma = 0.0
    return default.finish(c, smoke=args.smoke)
