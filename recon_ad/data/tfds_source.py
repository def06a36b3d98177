"""Public data sets, prepared once by TFDS as ArrayRecord files, as sources.

Records load by index from those files; images are [h, w, c] uint8, the original files' pixels.
`recon_ad.data.tfds_builders` has the sets, and what TFDS keeps of them. A preparation that
was killed leaves a folder `incomplete.*`, which is never read and may be removed.
"""

import json
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Bool, UInt8

from recon_ad.data.decode import check_channels, decode_image, decode_mask
from recon_ad.data.source import Record, Source
from recon_ad.data.tfds_builders import BUILDERS, DefectBuilder
from recon_ad.data.tfds_builders.base import VERSION
from recon_ad.errors import UserError
from recon_ad.runtime import files

# Sets of this builder need no config of their own: any folder in its layout is one.
_ANY_CATEGORY = "mvtec_ad"
_ORIGIN = "origin.json"  # beside TFDS's own files: where the set came from


def tfds_source(
    name: str,
    *,
    config: str,
    data_dir: str | os.PathLike[str],
    manual_dir: str | os.PathLike[str] | None,
    channels: int | None = None,
) -> Source:
    """Prepare a data set where that is not done yet, and list it.

    Args:
      name: Name in `BUILDERS`.
      config: Category, "" for a set without; for mvtec_ad also the name of any other folder in the
        MVTec layout.
      data_dir: Folder where TFDS keeps prepared sets, each as `name/config/version`. Remove that
        folder to prepare a set anew, for example after a change of the files.
      manual_dir: Folder with the download, its archive or its content. None where the set is
        prepared already.
      channels: 1 (gray) or 3 (RGB) for all images. None means 3 if any training image is RGB, else
        1.

    Returns:
      Records named by the files' paths in the data set and sorted by them. A defective image whose
      mask is missing or empty has no `load_mask`, and the notes name it. Images of a split
      `validation` are among the good ones, marked as such.

    Raises:
      UserError: If the set or category is unknown, its download is missing, damaged or something
        else, or an image or mask in it is broken.
    """
    check_channels(channels)
    folder = _prepared(name, config, Path(data_dir).expanduser(), manual_dir)
    builder = tfds.builder_from_directory(folder)
    splits = {split: _Split(builder, split) for split in builder.info.splits}
    train, validation, test = (
        [splits[split].describe(i) for i in range(len(splits[split]))] if split in splits else []
        for split in ("train", "validation", "test")
    )
    good = train + validation
    found = Counter(example["channels"] for example in good)
    notes = []
    if channels is None:
        channels = max(found)
        if len(found) > 1:
            notes.append(
                f"{found[3]} of {len(good)} training images are RGB and the others gray: all are "
                "read as RGB."
            )
    without = sorted(_name(e) for e in test if e["label"] and not e["has_mask"])
    if without:
        more = f" and {len(without) - 3} more" if len(without) > 3 else ""
        notes.append(
            f"{len(without)} defective test image{'s' * (len(without) > 1)} without a mask, or "
            f"with an empty one: {', '.join(without[:3])}{more}."
        )
    records = {
        split: _records(splits[split], examples, channels) if examples else ()
        for split, examples in (("train", train), ("validation", validation), ("test", test))
    }
    held_out = tuple(record._replace(validation=True) for record in records["validation"])
    return Source(records["train"] + held_out, records["test"], tuple(notes))


def _prepared(
    name: str, config: str, data_dir: Path, manual_dir: str | os.PathLike[str] | None
) -> Path:
    """Return the folder of the prepared set, which is prepared first where it is missing."""
    if name not in BUILDERS:
        raise UserError(f'unknown data set "{name}": choose one of {", ".join(BUILDERS)}')
    configs = BUILDERS[name].builder_configs
    if not configs and config:
        raise UserError(f'{name} has no categories, but config is "{config}": leave it empty')
    if configs and config not in configs and not _names_a_folder(name, config):
        raise UserError(
            f'{name} has no category "{config}": there are {", ".join(configs)}'
            + (", or give the name of your own folder" if name == _ANY_CATEGORY else "")
        )
    folder = data_dir / name / config / VERSION
    if (folder / "dataset_info.json").is_file():  # TFDS writes it last, and then renames the folder
        _check_origin(folder, manual_dir)
        return folder
    if folder.exists():
        raise UserError(f"{folder}: is not what TFDS prepared: remove it")
    if manual_dir is None:
        raise UserError(
            f"{folder}: {name} is not prepared yet: give the folder with its download "
            f"({BUILDERS[name].HOMEPAGE}) as manual_dir"
        )
    manual = Path(manual_dir).expanduser()
    if not manual.is_dir() or not any(manual.iterdir()):
        state = "is empty" if manual.is_dir() else "does not exist"
        raise UserError(
            f"{manual}: {state}: put the download of {name} there ({BUILDERS[name].HOMEPAGE}), "
            "the archive or what is in it"
        )
    own = tfds.core.BuilderConfig(name=config) if config not in configs else config
    builder: DefectBuilder = BUILDERS[name](data_dir=data_dir, config=own if configs else None)
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    try:
        with redirect_stdout(sys.stderr):  # TFDS prints its progress
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(
                    manual_dir=manual, try_download_gcs=False
                )
            )
    except OSError:
        # TFDS works in a folder of its own and renames it. With several hosts on one disk, the
        # first one's stays, and the others cannot rename theirs onto it.
        if not folder.is_dir():
            raise
    files.write_json(folder / _ORIGIN, {"manual_dir": str(manual.resolve())})
    return folder


def _check_origin(folder: Path, manual_dir: str | os.PathLike[str] | None) -> None:
    """Raise UserError where the set was prepared from another folder than the one given now."""
    if manual_dir is None or not (folder / _ORIGIN).is_file():
        return
    origin = json.loads((folder / _ORIGIN).read_text())["manual_dir"]
    given = str(Path(manual_dir).expanduser().resolve())
    if origin != given:
        raise UserError(
            f"{folder} was prepared from {origin} and not from {given}: remove it to prepare it "
            "anew, or set another config.data.prepared"
        )


def _names_a_folder(name: str, config: str) -> bool:
    return name == _ANY_CATEGORY and re.fullmatch(r"\w[\w.-]*", config) is not None


class _Split:
    """The examples of one split of a prepared set, their images and masks as they are stored."""

    def __init__(self, builder: tfds.core.DatasetBuilder, split: str):
        self._place = f"{builder.data_dir}: example {{}} of {split}"
        skip = tfds.decode.SkipDecoding()  # else TFDS would decode both for each
        self._source = builder.as_data_source(split, decoders={"image": skip, "mask": skip})

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        try:
            return self._source[index]
        except (RuntimeError, ValueError, IndexError, OSError) as error:
            raise UserError(
                f"{self._place.format(index)} cannot be read ({error}): remove the folder, so that "
                "the set is prepared anew"
            ) from error

    def describe(self, index: int) -> dict[str, Any]:
        """Return one example without its image and mask."""
        return {
            key: value for key, value in self[index].items() if key not in ("image", "mask")
        } | {"index": index}


def _name(example: dict[str, Any]) -> str:
    return example["name"].decode()


def _records(split: _Split, examples: list[dict[str, Any]], channels: int) -> tuple[Record, ...]:
    """Return the records sorted by name: TFDS keeps examples in the order of their hashes."""
    return tuple(
        Record(
            _name(example),
            partial(_load, split, example["index"], channels),
            example["defect"].decode(),
            partial(_load_mask, split, example["index"]) if example["has_mask"] else None,
        )
        for example in sorted(examples, key=_name)
    )


def _load(split: _Split, index: int, channels: int) -> UInt8[np.ndarray, "h w c"]:
    with _as_file(split[index]["image"]) as path:
        return decode_image(path, channels=channels)


def _load_mask(split: _Split, index: int) -> Bool[np.ndarray, "h w"]:
    with _as_file(split[index]["mask"]) as path:
        return decode_mask(path)


@contextmanager
def _as_file(encoded: bytes) -> Iterator[str]:
    """Return a temporary file, so that the pixels are those of a folder of the same images."""
    with tempfile.NamedTemporaryFile(prefix="recon_ad.") as file:
        file.write(encoded)
        file.flush()
        yield file.name
