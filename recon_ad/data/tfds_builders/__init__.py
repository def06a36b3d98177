"""TFDS builders of public inspection data sets, written as ArrayRecord without TensorFlow.

This package has one builder for each data set, which knows the layout of its download. Reading the
prepared sets belongs to `recon_ad.data.tfds_source`. Nothing is downloaded: most of these sets
require their licence to be accepted first, so the user puts the archive, or its content, into
`manual_dir`.

Importing this package registers the builders, so that TFDS's own `tfds.builder("mvtec_ad/grid")`
finds them as well.
"""

from collections.abc import Mapping

from recon_ad.data.tfds_builders.base import DefectBuilder
from recon_ad.data.tfds_builders.kolektor import KolektorSdd
from recon_ad.data.tfds_builders.mvtec import MvtecAd, MvtecAd2, MvtecLoco
from recon_ad.data.tfds_builders.nanotwice import Nanotwice
from recon_ad.data.tfds_builders.visa import Visa
from recon_ad.data.tfds_builders.woven_fabrics import WovenFabrics

BUILDERS: Mapping[str, type[DefectBuilder]] = {
    builder.name: builder
    for builder in (MvtecAd, MvtecLoco, MvtecAd2, Visa, Nanotwice, WovenFabrics, KolektorSdd)
}

__all__ = ["BUILDERS", "DefectBuilder"]
