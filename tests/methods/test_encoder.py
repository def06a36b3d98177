"""An encoder's input, and the parts of its output that methods use, against NumPy."""

import jax
import numpy as np
import pytest
from helpers import vit_reference
from helpers.small_encoder import CELLS, MEAN, SIDE, STD, WIDTH, config_for

from recon_ad.config import load_config
from recon_ad.data import Record
from recon_ad.methods import ON_FEATURES
from recon_ad.methods.features import Encoder
from recon_ad.pretrained import preset
from recon_ad.pretrained.presets import PRESETS
from recon_ad.training.fitted import with_tiles


@pytest.mark.parametrize("channels", [1, 3])
def test_features_are_numpys_on_images_less_the_mean_by_the_spread(small_encoder, channels):
    config = config_for(small_encoder, "knn", **{"encoder.blocks": (2, 0)})
    encoder = Encoder(config, channels=channels)
    frozen, _ = encoder.pretrained()
    images = np.random.default_rng(0).random((2, SIDE, SIDE, channels)).astype(np.float32)
    found = jax.jit(encoder.side_by_side)(frozen, images)

    shown = (np.broadcast_to(images, (2, SIDE, SIDE, 3)) - np.array(MEAN)) / np.array(STD)
    spec = preset("small").spec
    blocks, _ = vit_reference.forward(vit_reference.make_tensors(spec), shown, spec)
    parts = [blocks[i][:, 2:].reshape(2, CELLS, CELLS, WIDTH) for i in (2, 0)]  # as requested
    parts = [x - x.mean(-1, keepdims=True) for x in parts]
    parts = [x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) for x in parts]
    # float32 against float64 through three blocks.
    np.testing.assert_allclose(found, np.concatenate(parts, axis=-1), atol=1e-4)


def test_presets_are_shown_what_they_were_trained_on():
    # As stated in timm's model cards; augreg is the one trained on [-1, 1].
    imagenet = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    augregs = [f"vit_{size}_patch16_224" for size in ("tiny", "small", "base", "large")]
    for name in PRESETS.keys() - {"small"}:  # which belongs to these tests
        known, augreg = PRESETS[name], name in augregs
        expected = ((0.5,) * 3,) * 2 if augreg else imagenet
        assert (known.mean, known.std) == expected, name


@pytest.mark.parametrize("encoder", ["deit_tiny_patch16_224", "vit_small_patch14_dinov2"])
@pytest.mark.parametrize("scale", ["cpu", "paper"])
@pytest.mark.parametrize("method", ON_FEATURES)
def test_the_default_size_is_a_multiple_of_the_encoders_patch(encoder, scale, method):
    arguments = f"method={method},encoder={encoder},weights=random,scale={scale}"
    config = load_config(f"configs/folder.py:{arguments}")
    image = Record("a.png", lambda: np.zeros((390, 500, 1), np.uint8))
    config = with_tiles(config, [image] * 5, part=None)  # some methods depend on the tiles
    assert config.data.patch_size % preset(encoder).spec.patch == 0
    assert 220 <= config.data.patch_size <= 400
