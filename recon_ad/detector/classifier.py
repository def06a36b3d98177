"""A classifier of heatmaps that belongs to a detector and tells defects from harmless anomalies.

    anomaly map ─▶ features ─▶ standardised ─▶ MLP ─▶ logit ─▶ Platt ─▶ probability

Features are moments, area and intensity (`ops.moments.describe`), or a pretrained encoder's
features of the map as a picture: mean and maximum over its patches (Buzzega et al., section 3.3).
Maps are float32 [h, w], smoothed, raw. All traced values are in a `Network`; the tail computes it,
so that it is in every exported model.

A classifier is one file in the detector directory, safetensors with JSON in its header: nothing in
it is executed. It names the images that it was made with, which are left out of all metrics.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from flax.errors import FlaxError
from jaxtyping import Array, Bool, Float, PyTree
from ml_collections import ConfigDict

from recon_ad.data import Record, Source
from recon_ad.data.source import digest
from recon_ad.detector.damage import reason
from recon_ad.errors import UserError
from recon_ad.methods.features import Encoder
from recon_ad.models.mlp import MLP
from recon_ad.ops import moments
from recon_ad.pretrained import preset
from recon_ad.runtime import files, tensors

FILE = "classifier.safetensors"  # in a detector directory
FORMAT = 1
LIMIT = 5.0  # standard deviations from the mean at which features are clipped
DEFECT, HARMLESS = "defect", "harmless"
ENCODER = "encoder"  # of the two kinds of features; else "hu"


Maps = Float[Array, "b h w"]
Valid = Bool[Array, "b h w"]


class Spec(NamedTuple):
    """The structure of a network, without its numbers.

    Attributes:
      features: "hu" or "encoder".
      encoder: Name in `recon_ad.pretrained.PRESETS`; "" for Hu's moments.
      side: Side in px of the picture that the encoder gets; 0 for Hu's moments.
      hidden: Units of the MLP.
    """

    features: str
    encoder: str
    side: int
    hidden: int


@flax.struct.dataclass
class Network:
    """The traced part of a classifier.

    Attributes:
      variables: `unit` (the pixel threshold of the maps it learnt from), `mean` and `deviation`
        [d], `mlp`, `platt` [2] (factor and offset of the logit), `threshold` (of the probability),
        and `encoder` for features of one.
      spec: Its structure.
    """

    variables: Mapping[str, PyTree]
    spec: Spec = flax.struct.field(pytree_node=False)


class Labelled(NamedTuple):
    """An image that the classifier was made with.

    Attributes:
      name: Path below the folder that was labelled.
      sha256: `data.source.digest` of the decoded image.
      label: "defect" or "harmless".
    """

    name: str
    sha256: str
    label: str


class Classifier(NamedTuple):
    """A trained classifier.

    Attributes:
      network: Its traced part.
      labelled: The images it was made with.
      record: Results of training and cross-validation, plain JSON.
    """

    network: Network
    labelled: tuple[Labelled, ...]
    record: dict[str, Any]

    @property
    def threshold(self) -> float:
        """The probability above which an anomaly is a defect."""
        return float(self.network.variables["threshold"])


def encoder_of(spec: Spec, *, weights: str = "", sha256: str = "", seed: int = 0) -> Encoder:
    """Return the encoder of a spec; arguments behind the star serve reading its weights only.

    Raises:
      UserError: If the encoder is unknown, or the side is not a multiple of its patches.
    """
    last = preset(spec.encoder).spec.depth - 1
    settings = {"name": spec.encoder, "weights": weights, "sha256": sha256}
    settings |= {"blocks": (last,), "dtype": "float32"}
    config = ConfigDict({"encoder": settings, "data": {"patch_size": spec.side}, "seed": seed})
    return Encoder(config, channels=1)


def extract(network: Network, maps: Maps, valid: Valid) -> Float[Array, "b d"]:
    """Return the features of maps; of the variables, `unit` and `encoder` are enough."""
    spec, unit = network.spec, jnp.asarray(network.variables["unit"])
    if spec.features != ENCODER:
        return jax.vmap(lambda m, v: moments.describe(m, v, unit))(maps, valid)
    seen = jax.vmap(lambda m, v: moments.picture(m, v, unit, side=spec.side))(maps, valid)
    tokens = encoder_of(spec).blocks_of(network.variables["encoder"], seen[..., None])["norm"]
    return jnp.concatenate([jnp.mean(tokens, axis=(1, 2)), jnp.max(tokens, axis=(1, 2))], axis=1)


def standardised(
    features: Float[Array, "n d"], mean: Float[Array, " d"], deviation: Float[Array, " d"]
) -> Float[Array, "n d"]:
    """Return features in standard deviations from the mean, clipped at `LIMIT`."""
    scaled = (features - mean[None, :]) / deviation[None, :]
    return jnp.clip(scaled, -LIMIT, LIMIT)


def judge(
    network: Network, maps: Maps, valid: Valid
) -> tuple[Bool[Array, " b"], Float[Array, " b"]]:
    """Return whether maps show defects, and the calibrated probabilities of that."""
    v = network.variables
    mean, deviation, platt = (jnp.asarray(v[name]) for name in ("mean", "deviation", "platt"))
    x = standardised(extract(network, maps, valid), mean, deviation)
    logits = MLP(network.spec.hidden).apply({"params": v["mlp"]}, x)
    probabilities = jax.nn.sigmoid(platt[0] * logits + platt[1])
    return probabilities > jnp.asarray(v["threshold"]), probabilities


def save(classifier: Classifier, directory: Path) -> None:
    """Write the file into a detector directory, whole or not at all."""
    files.write_bytes(directory / FILE, to_bytes(classifier))


def to_bytes(classifier: Classifier) -> bytes:
    """Return the content of the file."""
    variables = traverse_util.flatten_dict(jax.device_get(classifier.network.variables))
    flat = {"/".join(key): np.asarray(value) for key, value in variables.items()}
    described = {
        "format": FORMAT,
        "spec": classifier.network.spec._asdict(),
        "tensors": {name: list(value.shape) for name, value in flat.items()},
        "labelled": [list(image) for image in classifier.labelled],
        "record": classifier.record,
    }
    return tensors.to_bytes(flat, described)


def load(directory: Path) -> Classifier | None:
    """Return the classifier of a detector directory, or None where it has none.

    Raises:
      UserError: If the file is damaged, or of another version.
    """
    path = directory / FILE
    if not files.is_regular(path):
        return None
    mend = "train it anew by python -m recon_ad.classify, or delete the file."
    try:
        flat, described = tensors.read(path)
        if described["format"] != FORMAT:
            raise UserError(f"{path} is not in format {FORMAT}, which this version reads: {mend}")
        if {name: list(value.shape) for name, value in flat.items()} != described["tensors"]:
            raise ValueError("its tensors are not those that its header names")
        variables = traverse_util.unflatten_dict(
            {tuple(name.split("/")): value for name, value in flat.items()}
        )
        network = Network(variables, Spec(**described["spec"]))
        # Misfits show here, and not at the first image.
        one = (jax.ShapeDtypeStruct((1, 1, 1), t) for t in (jnp.float32, bool))
        jax.eval_shape(judge, network, *one)
        labelled = tuple(Labelled(*image) for image in described["labelled"])
        return Classifier(network, labelled, dict(described["record"]))
    except (KeyError, TypeError, ValueError, AttributeError, FlaxError) as error:
        raise UserError(f"{path} is damaged ({reason(error)}): {mend}") from None


def without_labelled(source: Source, classifier: Classifier | None) -> Source:
    """Return the source without the test images that the classifier was made with, and a note.

    Images are recognised by their pixels: a copy under another name is left out, another image of
    the same name is not.
    """
    if classifier is None:
        return source
    known = {image.sha256 for image in classifier.labelled}
    kept, left = _parted(source.test, known)
    if not left:
        return source
    note = (
        f"Left out of the test: {len(left)} images that the classifier was made with "
        f"({', '.join(left[:3])}{', …' * (len(left) > 3)})."
    )
    return source._replace(test=kept, notes=(*source.notes, note))


def _parted(records: Sequence[Record], known: set[str]) -> tuple[tuple[Record, ...], list[str]]:
    labelled = [digest(record.load()) in known for record in records]
    kept = tuple(r for r, out in zip(records, labelled, strict=True) if not out)
    return kept, [r.name for r, out in zip(records, labelled, strict=True) if out]
