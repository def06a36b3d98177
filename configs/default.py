"""Every default and the meaning of each field; the other configs change some of them.

This file names no data, so no command uses it alone.
"""

import logging
from pathlib import Path
from types import SimpleNamespace

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from recon_ad.errors import UserError
from recon_ad.methods import ON_FEATURES, WITHOUT_LEARNING
from recon_ad.pretrained import obtainable, preset
from recon_ad.pretrained.weights import HUB

logger = logging.getLogger("recon_ad")


def default_config() -> ConfigDict:
    """Return all fields, each with its unit."""
    c = ConfigDict()
    c.seed = 0  # seed of all randomness: patches, augmentation, initialisation, bootstrap

    c.method = ConfigDict()
    c.method.name = "cae"  # a row of recon_ad.methods.METHODS
    # The next three are for autoencoders except dae. The variant of cae, vae and aae is a column of
    # Schneider et al. 2022, Table 2, "industrial" or "synthetic"; vae also has "bergmann", the
    # network of Bergmann et al. 2019
    c.method.variant = "industrial"
    c.method.n_z = 100  # length of the code
    c.method.width = 1.0  # channels, as a multiple of the paper's

    c.vae = ConfigDict()
    c.vae.kl_weight = placeholder(float)  # weight of the divergence; None gives 1/(H·W·C)

    c.aae = ConfigDict()
    c.aae.critic_steps = 5  # steps of the critic for each batch
    c.aae.critic_clip = 0.01  # limit of the absolute value of the critic's weights
    # Rate of the encoder's step against the critic, as a multiple of optim.learning_rate
    c.aae.encoder_rate = 0.3

    # A pixel above either threshold is defective. None takes it from held-out normal images
    c.ssim_l1 = ConfigDict()
    c.ssim_l1.ssim_threshold = placeholder(float)  # threshold of 1 − S
    c.ssim_l1.l1_threshold = placeholder(float)  # threshold of |x − x̃|

    c.fm_ae = ConfigDict()
    c.fm_ae.feature_weight = 0.01  # weight of the features' squared error beside the pixels'

    c.dae = ConfigDict()
    c.dae.noise = 0.1  # standard deviation of the noise on images in [0, 1]
    c.dae.widths = (16, 32, 64, 64)  # channels at 1/2, 1/4, 1/8 and 1/16 resolution
    c.dae.bottleneck = 16  # channels of the code at 1/16 resolution

    c.knn = ConfigDict()
    c.knn.memory = 60_000  # number of features of good images that the coreset is chosen from
    c.knn.coreset = 6_000  # number of features that are kept; 10 % as in PatchCore

    c.subspace = ConfigDict()
    c.subspace.variance = 0.9  # share of the features' variance that the subspace keeps

    c.vit_flow = ConfigDict()
    c.vit_flow.steps = 8  # steps of the flow
    c.vit_flow.coupling = "convolution"  # or "attention": its access to the surroundings
    c.vit_flow.ratio = 0.16  # hidden channels, as a multiple of a step's input

    c.vit_recon = ConfigDict()
    # Or "published", as in Dinomaly's code (see the method's file). Its step, with 789 tokens for
    # each image, did not compile for an H100 without the GPU present (benchmarks/gpu_compile.py).
    c.vit_recon.recipe = "ours"

    c.encoder = ConfigDict()  # pretrained encoder of knn, subspace, vit_flow, vit_recon, fm_ae
    c.encoder.name = "vit_small_patch14_reg4_dinov2"  # name in recon_ad.pretrained.PRESETS
    # A safetensors file, a folder with model.safetensors, "hub" to fetch it, or "random"
    c.encoder.weights = "hub"
    c.encoder.sha256 = ""  # required SHA-256 of the file; "" accepts any
    # Blocks, counted from 0, whose tokens are the features
    c.encoder.blocks = (2, 4, 6, 8)
    # Type of its products: "float32", "bfloat16", or "auto": bfloat16 on GPUs, else float32
    c.encoder.dtype = "float32"
    # Most patches that all training images together are cut into if data.patch_size is 0
    c.encoder.tokens = 150_000

    c.ssim = ConfigDict()  # for the loss and the residual
    c.ssim.window = 11  # px, side of the window, odd
    c.ssim.kind = "gaussian"  # (1.5 px) or "uniform"

    c.residual = ConfigDict()  # weights of the summed residual maps
    c.residual.squared = 1.0  # (x − x̃)²
    c.residual.absolute = 0.0  # |x − x̃|
    c.residual.ssim = 0.0  # (1 − S) / 2

    c.data = ConfigDict()
    c.data.source = "folder"  # or "synthetic", "tfds", "csv"
    # folder: the MVTec layout, or only good images; tfds: the download; csv: the CSV files
    c.data.path = ""
    # folder: subfolder of path that contains train/ and test/, or several ("grid+carpet") or all
    # ("*") of them for one model; tfds: category
    c.data.category = ""
    c.data.name = "chess"  # synthetic: name in recon_ad.data.build.GENERATED; tfds: the set
    c.data.prepared = "~/tensorflow_datasets"  # tfds: folder of prepared sets
    c.data.images = ""  # csv: folder of the images, "" if they are beside the CSV files
    c.data.side = 512  # chess and noise: px, height and width of the images, 96 or more
    c.data.truth = "B"  # chess and noise: A displaced or overdrawn, B value changed
    c.data.channels = 0  # 1 gray, 3 RGB, n if all files have n, 0 as in the training images
    # Values in the files for black and white, such as (0, 4095) for 12 bits stored in 16; (0, 0)
    # stands for the range of their type: 0 to 255, 0 to 65535, floats 0 to 1
    c.data.input_range = (0.0, 0.0)
    c.data.on_error = "raise"  # at a broken training image "raise" stops, "skip" leaves it out
    # Height and width in px that images are resized to; (n, 0) resizes the shorter side to n and
    # keeps the aspect ratio; (0, 0) keeps the native size
    c.data.resize = (0, 0)
    # px, side of the square training patches and of the tiles; 0, for methods on features, is as
    # large as the images' shorter side and encoder.tokens allow
    c.data.patch_size = 128
    c.data.patches = "random"  # places of training patches; "tiles" are those of inference
    c.data.augment = ()  # names from recon_ad.data.augment.AUGMENTATIONS, applied in order
    # Decoded training images are kept in memory, else in a temporary file, else decoded each time.
    c.data.cache_mib = 1024  # MiB, limit of the cache in memory
    c.data.disk_cache_mib = 32_768  # MiB, limit of the cache in the file

    c.part = ConfigDict()  # one rigid part in varying poses
    c.part.align = False  # whether images are first aligned to a template
    # The template's file; "" chooses, from a few good images, the one to which others align best
    c.part.template = ""
    c.part.angle = 15.0  # degrees, largest rotation either way
    c.part.scale = 0.1  # largest change of scale: 0.9 to 1.1
    c.part.overlap = 0.5  # share of the template that has to be in the image
    c.part.confidence = 0.85  # correlation with the template below which it is not registered
    # The background never scores. "auto" separates it by brightness; a mask's file is white on the
    # part and has the template's size (without align, that of all images); "" scores everything
    c.part.background = ""

    c.holdout = ConfigDict()  # normal images kept from training, for calibration
    c.holdout.fraction = 0.2  # share of the training images (or of each image's length)
    c.holdout.group = ""  # regular expression on the file name; whole series are held out
    c.holdout.few = 10  # with fewer images than this, regions of images are held out

    c.train = ConfigDict()
    c.train.steps = 2_000  # optimiser steps; 0 sees every image, or tile, once
    c.train.batch_size = 32  # patches per step, over all devices
    c.train.log_every = 50  # steps
    c.train.eval_every = 500  # steps between held-out loss, checkpoint and sample pictures
    c.train.heldout_patches = 256  # most patches for the held-out loss
    c.train.select = "last"  # checkpoint of the detector: "last" or "best" (by held-out loss)

    c.optim = ConfigDict()  # Adam; StableAdamW in vit_recon's published recipe
    c.optim.learning_rate = 5e-4
    c.optim.warmup = 0  # steps in which the rate rises from 0
    # Or "cosine", to zero at the last step; in vit_recon's published recipe to a tenth
    c.optim.schedule = "constant"
    # Decay of the moving average of the weights that the detector gets; 0 takes the last weights
    c.optim.average = 0.0

    c.inference = ConfigDict()
    c.inference.stride = 64  # px between tiles; 0 is the patch size, without overlap
    c.inference.tile_weights = "hann"  # or "uniform"
    c.inference.batch_size = 32  # tiles at a time
    c.inference.sigma = 2.0  # px, Gaussian smoothing of the residual map; 0 for none
    c.inference.score = "max"  # rule of the image score, a name in recon_ad.ops.scores.SCORES
    c.inference.opening = 0  # px, radius of the disk that the mask is opened with; 0 for none
    c.inference.min_area = 0  # px, area below which regions of the mask are dropped
    c.inference.border = 0  # px, width of the image's border in which the residual is scaled
    c.inference.border_weight = 0.2  # factor of the residual there

    c.calibration = ConfigDict()
    # "split" takes thresholds from the held-out images. With "cross" every good image both trains
    # and calibrates, scored by a model without its block, if the method can leave images out
    c.calibration.rule = "split"
    c.calibration.fpr = 0.01  # target false-positive rate per image of the image threshold
    c.calibration.pixel_percentile = 99.9  # percentile of held-out pixels at the pixel threshold
    c.calibration.thresholds = ConfigDict()  # known thresholds; None takes held-out images
    c.calibration.thresholds.image = placeholder(float)
    c.calibration.thresholds.pixel = placeholder(float)

    c.evaluation = ConfigDict()
    c.evaluation.bootstrap = 500  # resamples for the 95 % intervals
    c.evaluation.panels = 6  # most panels in each group of the report
    return c


# Default encoder of each scale.
ENCODERS = {"cpu": "deit_tiny_patch16_224", "paper": "vit_small_patch14_reg4_dinov2"}
# Methods on the network of Bergmann et al. 2019.
ON_BERGMANN = ("ssim_ae", "l2_ae", "ssim_l1", "fm_ae")


def choose_method(config: ConfigDict, name: str) -> ConfigDict:
    """Set the method in the config, with the settings of its paper, and return the config."""
    config.method.name = name
    if name in ON_BERGMANN:
        config.optim.learning_rate = 2e-4
    if name == "fm_ae":  # its patches have to divide the tile, and early blocks suffice
        config.encoder.name, config.encoder.blocks = "deit_tiny_patch16_224", (0, 1, 2)
    if name == "ssim_ae":
        config.residual.squared, config.residual.ssim = 0.0, 1.0
    if name == "ssim_l1":  # its map is in units of its thresholds, which smoothing would blur
        config.calibration.thresholds.pixel = 1.0
        config.inference.sigma = 0.0
    if name == "dae":
        config.inference.score = "sum"
    if name in WITHOUT_LEARNING:
        config.calibration.rule = "cross"
    return config


def scaled(scale: str, **values):
    """Return the value for this scale; "long" has that of "cpu" unless it has its own.

    Raises:
      UserError: If the scale is unknown.
    """
    values = {"cpu": values["cpu"], "long": values["cpu"]} | values
    if scale not in values:
        raise UserError(f"unknown scale {scale!r}; choose one of: {', '.join(values)}.")
    return values[scale]


def bergmann_training(config: ConfigDict, scale: str, *, cpu_steps: int) -> None:
    """Set patches, rate and schedule of Bergmann et al. 2019, or settings feasible on two cores.

    The long scale has eight times the steps of the cpu scale.
    """
    config.train.batch_size = scaled(scale, cpu=8, paper=128)
    paper = 10_000 * 200 // 128
    config.train.steps = scaled(scale, cpu=cpu_steps, long=8 * cpu_steps, paper=paper)
    config.optim.learning_rate = scaled(scale, cpu=1e-3, paper=2e-4)
    config.optim.warmup = scaled(scale, cpu=300, paper=0)  # else small batches get stuck at gray
    config.optim.schedule = scaled(scale, cpu="cosine", paper="constant")


def on_features(config: ConfigDict, *, encoder: str, weights: str, side: int, scale: str) -> None:
    """Set the fields that a method on a pretrained encoder's features needs.

    Args:
      config: Config with its method.
      encoder: Name in recon_ad.pretrained.PRESETS. "" is the scale's default.
      weights: Value of config.encoder.weights.
      side: Shorter side of the images in px. 0 depends on the images for knn and subspace, on the
        scale for other methods.
      scale: "cpu", "long" or "paper".
    """
    name = config.method.name
    config.encoder.name = encoder or scaled(scale, **ENCODERS)
    config.encoder.weights = weights
    config.encoder.tokens = scaled(scale, cpu=150_000, paper=600_000)
    if name not in WITHOUT_LEARNING:  # those have time for more of the image
        patch = preset(config.encoder.name).spec.patch
        side = side or patch * round(scaled(scale, cpu=224, paper=392) / patch)
    config.data.patch_size = side
    config.data.resize = (side, 0) if side else (0, 0)
    config.data.patches = "tiles"
    config.inference.stride = 0
    config.inference.tile_weights = "uniform"
    config.inference.batch_size = 1
    config.inference.sigma = 4.0
    large = "_large_" in config.encoder.name  # 24 blocks instead of 12
    if name == "knn" and config.encoder.name.startswith("deit_"):  # others were not measured
        config.encoder.blocks = (4,)
    if name == "subspace":  # one block, because moments grow with the square of a feature's length
        config.encoder.blocks = (6,)
    if name == "knn":
        config.inference.score = "max+mean/2"
    if name in WITHOUT_LEARNING:
        config.train.steps, config.train.batch_size, config.train.log_every = 0, 8, 10
    if name == "vit_flow":
        config.vit_flow.steps = scaled(scale, cpu=8, paper=20)  # 20 as in FastFlow for DeiT
        config.optim.learning_rate = 1e-3
        config.train.steps = scaled(scale, cpu=300, long=1_500, paper=5_000)
        config.train.batch_size = scaled(scale, cpu=8, paper=32)
    if name == "vit_recon":  # Dinomaly's blocks, rate and length
        config.encoder.blocks = tuple(range(4, 20, 2) if large else range(2, 10))
        config.optim.learning_rate = scaled(scale, cpu=1e-3, paper=2e-3)
        config.optim.schedule = "cosine"
        config.optim.warmup = scaled(scale, cpu=30, paper=100)
        config.train.steps = scaled(scale, cpu=300, long=1_500, paper=10_000)
        config.train.batch_size = scaled(scale, cpu=8, paper=16)
        config.inference.score = "top_1%"
    elif large:
        config.encoder.blocks = tuple(2 * i for i in config.encoder.blocks)


# The arguments that choose a method for a user's own images.
CHOICE = {"method": "", "encoder": "", "weights": "", "side": 0, "scale": "paper"}


def chosen(args: SimpleNamespace) -> ConfigDict:
    """Return a config of the method that `args` choose, or of the best available one.

    If `args` choose none, the method is on features if an encoder's weights are available or can be
    fetched, else on pixels.

    Args:
      args: Arguments with the fields of `CHOICE`, `path` and `smoke`.
    """
    method = args.method
    if not method:
        encoder = args.encoder or scaled(args.scale, **ENCODERS)
        method = "cae"
        if args.weights or (not args.smoke and obtainable(encoder)):
            method = "knn"
        # A wrong path ends the command, whose only message should then be about the path.
        elif not args.smoke and Path(args.path).expanduser().is_dir():
            logger.warning(
                "No encoder weights are available, so the method is cae, on pixels, which takes "
                "longer and finds less than knn: fetch them with python -m recon_ad.weights "
                "--fetch %s, or give a file by weights=FILE.",
                encoder,
            )
    c = choose_method(default_config(), method)
    if method in ON_FEATURES:
        on_features(
            c,
            encoder=args.encoder,
            weights=args.weights or HUB,
            side=args.side,
            scale=args.scale,
        )
    elif method in ON_BERGMANN:
        bergmann_training(c, args.scale, cpu_steps=4_000)
    else:
        c.train.steps = scaled(args.scale, cpu=800, long=4_000, paper=c.train.steps)
        c.train.batch_size = scaled(args.scale, cpu=16, paper=c.train.batch_size)
        c.optim.schedule = scaled(args.scale, cpu="cosine", paper="constant")
    return c


def synthetic_config(args) -> ConfigDict:
    """Return the CAE variant and the data of Schneider et al. 2022, section 3.1, for `args`.

    As in the paper, the map is thresholded without smoothing.
    """
    c = choose_method(default_config(), args.method)
    c.seed = args.seed
    c.method.variant = "synthetic"
    c.data.source = "synthetic"
    c.data.name = args.dataset
    c.data.channels = 1
    c.inference.sigma = 0.0
    return c


def finish(config: ConfigDict, *, smoke: bool) -> ConfigDict:
    """Return the finished config, which `smoke` shrinks to a run of seconds.

    A smoke run uses the images of a given path, else generated ones, and then needs no file.
    """
    if smoke:
        if not config.data.path:
            if config.data.source != "synthetic" or config.data.name not in ("chess", "noise"):
                config.data.source, config.data.name = "synthetic", "chess"
            config.data.channels = 1
        config.data.resize = (0, 0)
        config.data.side = 128
        config.data.patch_size = 32
        config.method.n_z, config.method.width = 8, 0.25
        config.dae.widths, config.dae.bottleneck = (4, 4, 8, 8), 4
        config.knn.memory, config.knn.coreset = 400, 100
        config.vit_flow.steps = 2
        config.holdout.group = ""
        config.encoder.name = "deit_tiny_patch16_224"
        config.encoder.weights = "random"
        config.encoder.blocks = (0, 1)
        config.train.steps = 6
        config.optim.warmup = 0
        config.train.batch_size = 8
        config.train.log_every = 1
        config.train.eval_every = 2
        config.train.heldout_patches = 16
        config.inference.stride = 32
        config.evaluation.bootstrap = 20
        config.evaluation.panels = 1
    return config
