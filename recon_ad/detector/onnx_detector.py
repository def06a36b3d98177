"""A detector from its ONNX files, by ONNX Runtime or OpenVINO, without JAX.

`M.onnx` holds the core (where an image is one tile, the tail too), `M.tail.onnx` the tail, and
`M.part.safetensors`, where images are aligned, the part; `onnx_graphs` writes them. `inference` has
the steps around the graphs, as with JAX. Only the files' metadata are needed: no config, no
detector directory.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Shaped

from recon_ad.alignment import part as parts
from recon_ad.alignment.part import Part
from recon_ad.data.arrays import to_unit
from recon_ad.detector.bounds import check_medians, check_numbers
from recon_ad.detector.history import read_promise, read_seen
from recon_ad.detector.inference import Inference, Plan, Prediction, Thresholds
from recon_ad.detector.normalised import read_medians
from recon_ad.detector.runtimes import RUNTIMES, Graph, opened
from recon_ad.detector.words import by_category, damaged, decimals, fact, misfit, whole
from recon_ad.errors import UserError
from recon_ad.ops.tiles import Geometry
from recon_ad.runtime.files import is_regular, sha256

FORMAT = "2"  # of the metadata
DTYPES, LAYOUTS = ("uint8", "uint16", "float32"), ("NHWC", "NCHW")  # of the images
# In this order in the files. A method that reconstructs nothing leaves out the reconstruction.
OUTPUTS: Mapping[str, tuple[str, ...]] = {
    "core": ("residual_map", "reconstruction"),
    "tail": ("score", "label", "anomaly_map", "mask"),
    "whole": ("score", "label", "anomaly_map", "mask", "reconstruction", "residual_map"),
}
PROBABILITY = "defect_probability"  # after these, of tail and whole, where there is a classifier


class OnnxDetector(Inference):
    """A detector whose graphs an inference runtime computes: call it on images.

    Args:
      core: Graph of the kind "core" or "whole".
      tail: Graph of the kind "tail", exported together with it.
      name: Name of both in messages.
      part: Part that images are aligned to, exported together with them.

    Attributes:
      facts: Metadata of the core.

    Raises:
      UserError: If the graphs are not such a pair.
    """

    def __init__(self, core: Graph, tail: Graph, *, name: str, part: Part | None = None):
        for graph, kinds in ((core, ("core", "whole")), (tail, ("tail",))):
            if graph.facts.get("format") != FORMAT or graph.facts.get("kind") not in kinds:
                raise UserError(
                    f"{name}: the {kinds[-1] if len(kinds) == 1 else 'model'} was not written by "
                    "python -m recon_ad.export of this version: export the detector anew."
                )
        try:
            plan, thresholds = _plan(core.facts), _thresholds(core.facts)
            categories = _categories(core.facts.get("categories", ""))
            for each in (thresholds, *categories.values()):
                check_numbers(plan, each._asdict())
            medians = read_medians(core.facts)
            check_medians(medians)
            pairs = [fact(graph.facts, "pair") for graph in (core, tail)]
            self._dtype = _choice(core.facts, "dtype", DTYPES)
            self._swapped = _choice(core.facts, "layout", LAYOUTS) == "NCHW"
            for graph in (core, tail):
                needed = set(OUTPUTS[graph.facts["kind"]]) - {"reconstruction"}
                if absent := needed - set(graph.outputs):
                    raise ValueError(f"no output {', '.join(sorted(absent))}")
            of_regions = _choice(core.facts, "regions_of_interest", ("False", "True"))
            self._on_regions = of_regions == "True"
        except ValueError as error:
            raise damaged(name, error) from None
        if pairs[0] != pairs[1]:
            raise UserError(
                f"{name} and its .tail.onnx are of two exports: copy both files of one export."
            )
        self.facts = core.facts
        self._core, self._tail, self._name = core, tail, name
        super().__init__(plan, thresholds, part=part, categories=categories, medians=medians)

    @property
    def calibrated_on_regions(self) -> bool:
        """True if the thresholds are of regions of interest only, by the metadata."""
        return self._on_regions

    @property
    def seen(self) -> frozenset[str]:
        """The digests in its metadata of images that the detector learnt from or calibrated with.

        Raises:
          UserError: If they are damaged.
        """
        return read_seen(self.facts, model=self._name)

    @property
    def promise(self) -> tuple[float, float] | None:
        """The promise in its metadata, for the category that was chosen, if one was.

        Raises:
          UserError: If it is damaged.
        """
        return read_promise(self.facts, self.category, model=self._name)

    def batch_for(self, count: int) -> int:
        """Return the size of the next batch: a graph takes any, or the one it was exported for."""
        return min(count, self.plan.batch_size) if self._core.any_batch else self.plan.batch_size

    def run_core(
        self, images: Shaped[np.ndarray, "b h w c"], *, reconstruct: bool
    ) -> tuple[Float[np.ndarray, "b h w"], Float[np.ndarray, "b h w c"] | None]:
        """Run the core's graph, as `Inference.run_core` describes.

        Raises:
          UserError: If the images are not of the type that the model takes.
        """
        with_reconstruction = reconstruct and "reconstruction" in self._core.outputs
        wanted = OUTPUTS["core"][: 1 + with_reconstruction]
        found = self._outputs(self._core, wanted, {"images": self._fed(images)})
        residual, *rest = found
        self._check(wanted[:1], [residual], [images.shape[:3]])
        if not rest:
            return residual, None
        reconstruction = rest[0].transpose(0, 2, 3, 1) if self._swapped else rest[0]
        self._check(wanted[1:], [reconstruction], [images.shape])
        return residual, reconstruction

    def run_tail(
        self, residual_map: np.ndarray, valid: np.ndarray, thresholds: Thresholds
    ) -> tuple[np.ndarray, ...]:
        """Run the tail's graph, as `Inference.run_tail` describes."""
        feeds = {"residual_map": residual_map, "valid": valid}
        feeds |= {f"{k}_threshold": np.asarray(v) for k, v in thresholds._asdict().items()}
        wanted = _decided(self._tail)
        found = [np.asarray(x) for x in self._outputs(self._tail, wanted, feeds)]
        whole = residual_map.shape
        shapes = {"anomaly_map": whole, "mask": whole}
        self._check(wanted, found, [shapes.get(name, ()) for name in wanted])
        return tuple(found)

    def whole(self, images: Shaped[np.ndarray, "b h w c"]) -> list[Prediction]:
        """Return the predictions of a graph of the kind "whole" for images of the tile's size."""
        outputs = self._outputs(self._core, _decided(self._core), {"images": self._fed(images)})
        each = [map(np.asarray, values) for values in zip(*outputs, strict=True)]
        made = [Prediction(s, label, m, k, None, *p) for s, label, m, k, *p in each]
        return [one._replace(normalised_score=self.normalised(one.score)) for one in made]

    def _outputs(
        self, graph: Graph, wanted: Sequence[str], feeds: Mapping[str, np.ndarray]
    ) -> list[np.ndarray]:
        """Run the graph and return the outputs; raise UserError where it does not run."""
        try:
            return graph.run(wanted, feeds)
        except Exception as error:  # neither runtime has a base class of its own for it
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"{self._name}: the model does not run ({reason}): export the detector anew."
            ) from error

    def _check(
        self,
        names: Sequence[str],
        found: Sequence[np.ndarray],
        shapes: Sequence[tuple[int, ...]],
    ) -> None:
        """Raise UserError for an output that no detector has; the model may be a stranger's."""
        for name, array, shape in zip(names, found, shapes, strict=True):
            kind = np.bool_ if name in ("label", "mask") else np.float32
            if array.shape != shape or array.dtype != kind:
                raise UserError(
                    f"{self._name}: its {name} is {array.dtype} {list(array.shape)} and not "
                    f"{np.dtype(kind)} {list(shape)}: export the detector anew."
                )

    def _fed(self, images: Shaped[np.ndarray, "b h w c"]) -> Shaped[np.ndarray, "b p q r"]:
        """Return the images in the type and layout that the core takes."""
        dtype = np.dtype(self._dtype)
        if dtype == np.float32:
            images = to_unit(images)
        if images.dtype != dtype:
            raise UserError(
                f"the image is of type {images.dtype}, but this model takes {dtype}: export it "
                "with --dtype float32, which takes any."
            )
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2)) if self._swapped else images


def _decided(graph: Graph) -> tuple[str, ...]:
    """Return the outputs of a tail, with a classifier's."""
    return (*OUTPUTS["tail"], *[PROBABILITY] * (PROBABILITY in graph.outputs))


def _choice(facts: Mapping[str, str], name: str, words: Sequence[str]) -> str:
    """Return a fact that has to be one of these words."""
    word = fact(facts, name)
    if word not in words:
        raise misfit(name, word)
    return word


def _plan(facts: Mapping[str, str]) -> Plan:
    def number(name: str) -> int:
        return whole(fact(facts, name), count=1, name=name)[0]

    def pair(name: str) -> tuple[int, int]:
        height, width = whole(fact(facts, name), count=2, name=name)
        return height, width

    black, white = decimals(fact(facts, "input_range"), count=2, name="input_range")
    resize = pair("resize")
    return Plan(
        channels=number("channels"),
        geometry=Geometry(
            tile=pair("tile"),
            stride=pair("stride"),
            weights=fact(facts, "tile_weights"),
            resize=None if resize == (0, 0) else resize,
        ),
        batch_size=number("batch_size"),
        opening=number("opening"),
        min_area=number("min_area"),
        border=number("border"),
        border_weight=decimals(fact(facts, "border_weight"), count=1, name="border_weight")[0],
        input_range=(black, white),
    )


def _thresholds(facts: Mapping[str, str]) -> Thresholds:
    names = [f"{name}_threshold" for name in Thresholds._fields]
    return Thresholds(*(decimals(fact(facts, name), count=1, name=name)[0] for name in names))


def _categories(text: str) -> dict[str, Thresholds]:
    """Read what `onnx_graphs.categories_word` writes."""
    return {
        category: Thresholds(*decimals(numbers, count=2, name="categories"))
        for category, numbers in by_category(text, name="categories").items()
    }


def tail_path(path: Path) -> Path:
    """Return the path of a model's tail: M.tail.onnx beside M.onnx."""
    return path.with_suffix(".tail.onnx")


def part_path(path: Path) -> Path:
    """Return the path of a model's part, if it has one: M.part.safetensors beside M.onnx."""
    return path.with_suffix(".part.safetensors")


def load(path: Path | str, *, runtime: str = "onnxruntime") -> OnnxDetector:
    """Open M.onnx and M.tail.onnx.

    Args:
      path: Path of M.onnx.
      runtime: Name in `runtimes.RUNTIMES` of a runtime that has to be installed.

    Raises:
      UserError: If the runtime is unknown, or the files are missing, damaged, or of two exports.
    """
    path = Path(path)
    if runtime not in RUNTIMES:
        raise UserError(f"unknown runtime {runtime!r}; choose one of: {', '.join(RUNTIMES)}.")
    if path.suffix != ".onnx" or path.name.endswith(".tail.onnx"):
        raise UserError(
            f"{path} is not an exported model: give M.onnx, with M.tail.onnx beside it."
        )
    for file in (path, tail_path(path)):
        if not is_regular(file):
            raise UserError(f"{file} not found: check the path, and copy all files of the export.")
    core, tail = (opened(file, runtime=runtime) for file in (path, tail_path(path)))
    return OnnxDetector(core, tail, name=str(path), part=_part(path, core.facts))


def _part(path: Path, facts: Mapping[str, str]) -> Part | None:
    wanted, file = facts.get("part_sha256", ""), part_path(path)
    if not wanted:
        return None
    if not is_regular(file):
        raise UserError(f"{file} not found: check the path, and copy all files of the export.")
    if sha256(file.read_bytes()) != wanted:
        raise UserError(f"{file} and {path.name} are of two exports: copy all files of one export.")
    return parts.read(file)
