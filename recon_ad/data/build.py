"""The data source that a config names."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from ml_collections import ConfigDict

from recon_ad.data.arrays import given_range
from recon_ad.data.csv_source import csv_source
from recon_ad.data.decode_cache import DecodeCache, decoded_once
from recon_ad.data.folder import folder_source
from recon_ad.data.granular import granular_source
from recon_ad.data.riblet import riblet_source
from recon_ad.data.several import named, several
from recon_ad.data.source import Source, readable
from recon_ad.data.synthetic import synthetic_source
from recon_ad.errors import UserError

# The generated sets of Schneider et al. 2022, by config.data.name: 3.1, then 3.2.
GENERATED: dict[str, Callable[..., Source]] = {
    "chess": partial(synthetic_source, "chess"),
    "noise": partial(synthetic_source, "noise"),
    "riblet_albedo": partial(riblet_source, "albedo"),
    "riblet_normals": partial(riblet_source, "normals"),
    "granular_gradient": partial(granular_source, "gradient"),
    "granular_curvature": partial(granular_source, "curvature"),
}


def build_source(config: ConfigDict) -> Source:
    """Return the source of `config.data`, which keeps decoded images up to `data.cache_mib`.

    Every test image is decoded here, so that a broken one does not stop an evaluation halfway.

    Raises:
      UserError: If the source raises it.
    """
    data = config.data
    cache = DecodeCache(memory_mib=data.cache_mib)
    source = _source(config, cache)
    # A folder's images are kept by their files already.
    source = source if data.source == "folder" else decoded_once(source, cache)
    if data.source in ("folder", "csv"):  # files from elsewhere may be broken
        source = readable(source, on_error=data.on_error)
    return source


def _source(config: ConfigDict, cache: DecodeCache) -> Source:
    data = config.data
    if data.source == "synthetic":
        if data.path:
            raise UserError(
                f"config.data.path is {data.path}, which generated images do not come from: give "
                "it as path=DIR behind the config's name, or set config.data.source, or leave it "
                "out."
            )
        if data.name not in GENERATED:
            raise UserError(
                f'unknown generated set "{data.name}": choose one of {", ".join(GENERATED)}.'
            )
        boards = data.name in ("chess", "noise")
        given = {"truth": data.truth, "side": data.side} if boards else {}
        return GENERATED[data.name](seed=config.seed, **given)
    if data.source == "memory":
        raise UserError(
            "the run was trained on images in memory, which are gone: name a folder to evaluate "
            "on with --data."
        )
    if not data.path:
        raise UserError(
            "config.data.path is empty: name the folder, as path=DIR behind the config's name "
            "(configs/folder.py:path=DIR, for example) or as --config.data.path=DIR."
        )
    if data.source in ("tfds", "csv") and given_range(data.input_range) is not None:
        raise UserError(
            "config.data.input_range is for images of a folder; public sets have 8 bits: leave it "
            "out."
        )
    channels = data.channels or None
    if data.source == "tfds":
        # Imported late: it takes a second, and a plant's machine does not need it.
        from recon_ad.data.tfds_source import tfds_source

        return tfds_source(
            data.name,
            config=data.category,
            data_dir=data.prepared,
            manual_dir=data.path,
            channels=channels,
        )
    if data.source == "csv":
        return csv_source(data.path, images=data.images or data.path, channels=channels)
    load = partial(
        folder_source,
        data.path,
        input_range=given_range(data.input_range),
        on_error=data.on_error,
        cache=cache,
    )
    names = named(data.category, Path(data.path))
    if len(names) == 1:
        return load(category=names[0], channels=channels)
    return several(
        lambda name, channels: load(category=name, channels=channels), names, channels=channels
    )
