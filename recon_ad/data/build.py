"""The data source that a config names."""

from ml_collections import ConfigDict

from recon_ad.data.arrays import given_range
from recon_ad.data.folder import folder_source
from recon_ad.data.source import Source, readable
from recon_ad.data.synthetic import synthetic_source
from recon_ad.errors import UserError


def build_source(config: ConfigDict) -> Source:
    """The source of `config.data`.

    Raises:
      UserError: what the source itself finds wrong.
    """
    data = config.data
    if data.source == "synthetic":
        return synthetic_source(data.name, seed=config.seed, truth=data.truth)
    if data.source == "memory":
        raise UserError(
            "the run was trained on images in memory, which are gone: name a folder to evaluate "
            "on with --data."
        )
    if not data.path:
        raise UserError(
            "config.data.path is empty: give your folder of images, --config "
            "configs/folder.py:path=DIR or --config.data.path=DIR."
        )
    source = folder_source(
        data.path,
        category=data.category,
        channels=data.channels or None,
        input_range=given_range(data.input_range),
        on_error=data.on_error,
    )
    return readable(source, on_error=data.on_error)
