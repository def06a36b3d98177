"""Every default, and what each field means; the other configs change some of them.

No command takes this file by itself: it names no data.
"""

import logging
from types import SimpleNamespace

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from recon_ad.errors import UserError
from recon_ad.methods import ON_FEATURES
from recon_ad.pretrained import obtainable, preset
from recon_ad.pretrained.weights import HUB

logger = logging.getLogger("recon_ad")


def default_config() -> ConfigDict:
    """All fields, each with its unit."""
    c = ConfigDict()
    c.seed = 0  # of everything random: patches, augmentation, initialisation, bootstrap

    c.method = ConfigDict()
    c.method.name = "cae"  # a row of recon_ad.methods.METHODS
    # Of autoencoders but dae. Column of Schneider et al. 2022, Table 2, for cae, vae, aae:
    # "industrial" or "synthetic"; for vae also "bergmann", the network of Bergmann et al. 2019
    c.method.variant = "industrial"
    c.method.n_z = 100  # length of the code
    c.method.width = 1.0  # channels, as a multiple of the paper's

    c.vae = ConfigDict()
    c.vae.kl_weight = placeholder(float)  # of the divergence; None: 1/(H·W·C)

    c.aae = ConfigDict()
    c.aae.critic_steps = 5  # of the critic for each batch
    c.aae.critic_clip = 0.01  # the critic's weights stay within ± this
    # Rate of the encoder's step against the critic, as a multiple of optim.learning_rate
    c.aae.encoder_rate = 0.3

    c.ssim_l1 = ConfigDict()  # a pixel is defective above either; None: from held-out normal images
    c.ssim_l1.ssim_threshold = placeholder(float)  # of 1 − S
    c.ssim_l1.l1_threshold = placeholder(float)  # of |x − x̃|

    c.fm_ae = ConfigDict()
    c.fm_ae.feature_weight = 0.01  # of the features' squared error beside the pixels'

    c.dae = ConfigDict()
    c.dae.noise = 0.1  # standard deviation of the noise on images in [0, 1]
    c.dae.widths = (16, 32, 64, 64)  # channels at 1/2, 1/4, 1/8 and 1/16 resolution
    c.dae.bottleneck = 16  # channels of the code at 1/16 resolution

    c.knn = ConfigDict()
    c.knn.memory = 60_000  # features of good images that the coreset is chosen from
    c.knn.coreset = 6_000  # features that are kept; 10 %, as PatchCore has it

    c.subspace = ConfigDict()
    c.subspace.variance = 0.9  # share of the features' variance that the subspace keeps

    c.vit_flow = ConfigDict()
    c.vit_flow.steps = 8  # of the flow
    c.vit_flow.coupling = "convolution"  # or "attention", how it looks around
    c.vit_flow.ratio = 0.16  # hidden channels, as a multiple of a step's input

    c.vit_recon = ConfigDict()
    # Or "published", as Dinomaly's code has it; see the method's file. Its step, of 789 tokens for
    # each image, did not compile for an H100 that is not there (benchmarks/gpu_compile.py).
    c.vit_recon.recipe = "ours"

    c.encoder = ConfigDict()  # pretrained; of knn, vit_flow, vit_recon, fm_ae
    c.encoder.name = "vit_small_patch14_reg4_dinov2"  # in recon_ad.pretrained.PRESETS
    # A safetensors file, a folder with model.safetensors, "hub" to fetch it, or "random"
    c.encoder.weights = "hub"
    c.encoder.sha256 = ""  # that the file must have; "": any
    # Whose tokens are the features, counted from 0
    c.encoder.blocks = (2, 4, 6, 8)
    c.encoder.dtype = "float32"  # or "bfloat16", of its products
    # Patches that all training images together are cut into, at most, where data.patch_size is 0
    c.encoder.tokens = 150_000

    c.ssim = ConfigDict()  # of the loss and of the residual
    c.ssim.window = 11  # px, side of the window, odd
    c.ssim.kind = "gaussian"  # (1.5 px) or "uniform"

    c.residual = ConfigDict()  # weights of the residual maps that are added up
    c.residual.squared = 1.0  # (x − x̃)²
    c.residual.absolute = 0.0  # |x − x̃|
    c.residual.ssim = 0.0  # (1 − S) / 2

    c.data = ConfigDict()
    c.data.source = "folder"  # or "synthetic", "tfds", "csv"
    # folder: MVTec layout, or just good images; tfds: the download; csv: the CSV files
    c.data.path = ""
    # folder: subfolder of path that holds train/ and test/, or several ("grid+carpet") or all
    # ("*") of them, for one model; tfds: category
    c.data.category = ""
    c.data.name = "chess"  # synthetic: in recon_ad.data.build.GENERATED; tfds: the set
    c.data.prepared = "~/tensorflow_datasets"  # tfds: where prepared sets are kept
    c.data.images = ""  # csv: folder of the images, "" where they are beside the CSV files
    c.data.side = 512  # chess and noise: px, height and width of the images, 96 or more
    c.data.truth = "B"  # chess and noise: A displaced or overdrawn, B value changed
    c.data.channels = 0  # 1 gray, 3 RGB, n as all files have, 0 as the training images are
    # Values in the files that mean black and white, such as (0, 4095) for 12 bits kept in 16;
    # (0, 0) goes by their type: 0 to 255, 0 to 65535, floats 0 to 1.
    c.data.input_range = (0.0, 0.0)
    c.data.on_error = "raise"  # a broken training image: "raise" stops, "skip" leaves it out
    # Height and width in px that images are resized to; (n, 0): n is the shorter side, and the
    # aspect ratio is kept; (0, 0): native
    c.data.resize = (0, 0)
    # px, side of the square training patches and of the tiles; 0, for methods on features: as large
    # as the images' shorter side and encoder.tokens allow
    c.data.patch_size = 128
    c.data.patches = "random"  # where training sees the images; or "tiles": as inference does
    c.data.augment = ()  # names from recon_ad.data.augment.AUGMENTATIONS, applied in order
    # Decoded training images are kept in memory, else in a temporary file, else decoded each time.
    c.data.cache_mib = 1024  # MiB, the most that is kept in memory
    c.data.disk_cache_mib = 32_768  # MiB, the most that is kept in the file

    c.part = ConfigDict()  # one rigid part, in one pose or another
    c.part.align = False  # images are aligned to a template before anything else sees them
    # The template's file; "": of a few good images the one to which the others are aligned best
    c.part.template = ""
    c.part.angle = 15.0  # degrees, the largest rotation either way
    c.part.scale = 0.1  # the largest change of scale: 0.9 to 1.1
    c.part.overlap = 0.5  # share of the template that has to be in the picture
    c.part.confidence = 0.85  # correlation with the template below which it is not registered
    # Ground never scores: "auto" tells it by brightness, or a mask's file, white on the part, of
    # the template's size (without align, of all images'); "": there is none
    c.part.background = ""

    c.holdout = ConfigDict()  # normal images kept from training, for calibration
    c.holdout.fraction = 0.2  # share of the training images (or of each image's length)
    c.holdout.group = ""  # regular expression on the file name: whole series are held out
    c.holdout.few = 10  # with fewer images than this, regions of images are held out

    c.train = ConfigDict()
    c.train.steps = 2_000  # optimiser steps; 0: as many as see every image, or tile, once
    c.train.batch_size = 32  # patches per step, over all devices
    c.train.log_every = 50  # steps
    c.train.eval_every = 500  # steps between held-out loss, checkpoint and sample pictures
    c.train.heldout_patches = 256  # at most, for the held-out loss
    c.train.select = "last"  # checkpoint that becomes the detector: "last" or "best" (held-out)

    c.optim = ConfigDict()  # Adam; StableAdamW in vit_recon's published recipe
    c.optim.learning_rate = 5e-4
    c.optim.warmup = 0  # steps in which the rate rises from 0
    # Or "cosine", to zero at the last step; in vit_recon's published recipe to a tenth
    c.optim.schedule = "constant"

    c.inference = ConfigDict()
    c.inference.stride = 64  # px between tiles; 0: the patch size, that is, no overlap
    c.inference.tile_weights = "hann"  # or "uniform"
    c.inference.batch_size = 32  # tiles at a time
    c.inference.sigma = 2.0  # px, Gaussian smoothing of the residual map; 0 none
    c.inference.score = "max"  # image score from the map, a name in recon_ad.ops.scores.SCORES
    c.inference.opening = 0  # px, radius of the disk that the mask is opened with; 0 none
    c.inference.min_area = 0  # px, smaller regions of the mask are dropped
    c.inference.border = 0  # px along the image's border whose residual is multiplied by:
    c.inference.border_weight = 0.2

    c.calibration = ConfigDict()
    # "split": thresholds from the held-out images; "cross": every good image both trains and
    # calibrates, each judged by a model without its block, for methods that can leave images out
    c.calibration.rule = "split"
    c.calibration.fpr = 0.01  # false-positive rate per image that the image threshold aims at
    c.calibration.pixel_percentile = 99.9  # of held-out pixels, the pixel threshold
    c.calibration.thresholds = ConfigDict()  # that are known beforehand; None: from held-out
    c.calibration.thresholds.image = placeholder(float)
    c.calibration.thresholds.pixel = placeholder(float)

    c.evaluation = ConfigDict()
    c.evaluation.bootstrap = 500  # resamples for the 95 % intervals
    c.evaluation.panels = 6  # at most, in each group of the report
    return c


# Methods that only look at good images, once; nothing is learnt by steps.
WITHOUT_LEARNING = ("knn", "subspace")
# By scale.
ENCODERS = {"cpu": "deit_tiny_patch16_224", "paper": "vit_small_patch14_reg4_dinov2"}
# Methods on the network of Bergmann et al. 2019.
ON_BERGMANN = ("ssim_ae", "l2_ae", "ssim_l1", "fm_ae")


def choose_method(config: ConfigDict, name: str) -> ConfigDict:
    """The config with that method, and the settings that its paper gives it."""
    config.method.name = name
    if name in ON_BERGMANN:
        config.optim.learning_rate = 2e-4
    if name == "fm_ae":  # its patches have to divide the tile, and early blocks are enough
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
    """The value for that scale.

    Raises:
      UserError: there is no such scale.
    """
    if scale not in values:
        raise UserError(f"scale={scale} is none; choose one of: {', '.join(values)}.")
    return values[scale]


def bergmann_training(config: ConfigDict, scale: str, *, cpu_steps: int) -> None:
    """Patches, rate and schedule of Bergmann et al. 2019, or what two cores can do."""
    config.train.batch_size = scaled(scale, cpu=8, paper=128)
    config.train.steps = scaled(scale, cpu=cpu_steps, paper=10_000 * 200 // 128)
    config.optim.learning_rate = scaled(scale, cpu=1e-3, paper=2e-4)
    config.optim.warmup = scaled(scale, cpu=300, paper=0)  # or small batches get stuck at gray
    config.optim.schedule = scaled(scale, cpu="cosine", paper="constant")


def on_features(config: ConfigDict, *, encoder: str, weights: str, side: int, scale: str) -> None:
    """Sets what a method on a pretrained encoder's features needs.

    Args:
      config: with its method.
      encoder: in recon_ad.pretrained.PRESETS; "" goes by the scale.
      weights: as config.encoder.weights.
      side: px, of the images' shorter side; 0 goes by the images for knn and subspace, by the scale
        for others.
      scale: "cpu" or "paper".
    """
    name = config.method.name
    config.encoder.name = encoder or scaled(scale, **ENCODERS)
    config.encoder.weights = weights
    config.encoder.tokens = scaled(scale, cpu=150_000, paper=600_000)
    if name not in WITHOUT_LEARNING:  # which have time for more of the image
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
    if name == "subspace":  # of one, as its moments grow with the square of a feature's length
        config.encoder.blocks = (6,)
    if name == "knn":
        config.inference.score = "max+mean/2"
    if name in WITHOUT_LEARNING:
        config.train.steps, config.train.batch_size, config.train.log_every = 0, 8, 10
    if name == "vit_flow":
        config.vit_flow.steps = scaled(scale, cpu=8, paper=20)  # 20 as FastFlow has it for DeiT
        config.optim.learning_rate = 1e-3
        config.train.steps = scaled(scale, cpu=300, paper=5_000)
        config.train.batch_size = scaled(scale, cpu=8, paper=32)
    if name == "vit_recon":  # Dinomaly's blocks, rate and length
        config.encoder.blocks = tuple(range(4, 20, 2) if large else range(2, 10))
        config.optim.learning_rate = scaled(scale, cpu=1e-3, paper=2e-3)
        config.optim.schedule = "cosine"
        config.optim.warmup = scaled(scale, cpu=30, paper=100)
        config.train.steps = scaled(scale, cpu=300, paper=10_000)
        config.train.batch_size = scaled(scale, cpu=8, paper=16)
        config.inference.score = "top_1%"
    elif large:
        config.encoder.blocks = tuple(2 * i for i in config.encoder.blocks)


# The arguments that choose a method for a user's own images.
CHOICE = {"method": "", "encoder": "", "weights": "", "side": 0, "scale": "paper"}


def chosen(args: SimpleNamespace) -> ConfigDict:
    """The method that `args` choose with the settings that suit it, or, if none, the best that can
    be had: on features where an encoder's weights are at hand or can be fetched, else on pixels.

    Args:
      args: with the fields of `CHOICE`, and `smoke`.
    """
    method = args.method
    if not method:
        encoder = args.encoder or scaled(args.scale, **ENCODERS)
        method = "cae"
        if args.weights or (not args.smoke and obtainable(encoder)):
            method = "knn"
        elif not args.smoke:
            logger.warning(
                "No weights of an encoder are at hand, so that the method is cae, on pixels, which "
                "takes longer and finds less than knn: fetch them with python -m recon_ad.weights "
                "--fetch %s, or name a file by weights=FILE.",
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
        c.train.steps = scaled(args.scale, cpu=800, paper=c.train.steps)
        c.train.batch_size = scaled(args.scale, cpu=16, paper=c.train.batch_size)
        c.optim.schedule = scaled(args.scale, cpu="cosine", paper="constant")
    return c


def synthetic_config(args) -> ConfigDict:
    """The CAE variant and the data of Schneider et al. 2022, section 3.1, as `args` say.

    The map is thresholded as it is, as in the paper.
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
    """The finished config; with `smoke`, shrunk to seconds: on the images of a path where one is
    given, else on generated ones, without need of any file."""
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
