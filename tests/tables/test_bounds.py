"""Floor, ceiling and post-processing of the residual maps of chess and noise."""

from types import SimpleNamespace

import numpy as np
import pytest

from recon_ad.data import synthetic_source
from recon_ad.data.synthetic import undisturbed
from recon_ad.detector.jax_detector import Detector
from recon_ad.tables.bounds import FAINT, GROUPS, lost, measure_bounds, section, where_lost


class GrayModel(Detector):
    """A detector that reconstructs 0.5 everywhere, so that its figures are the floor's."""

    def __init__(self, name, side):
        self.config = SimpleNamespace(data=SimpleNamespace(name=name, side=side), seed=0)

    def predict(self, image):
        return SimpleNamespace(
            anomaly_map=((image - np.float32(0.5)) ** 2)[..., 0],
            reconstruction=np.full_like(image, 0.5),
        )


def best_by_levels(records):
    """Return the best IoU of |x − 127.5| and the recall there, by trying every level."""
    distance = np.stack([np.abs(2 * r.load()[..., 0].astype(int) - 255) for r in records])
    truth = np.stack(
        [r.load_mask() if r.anomalous else np.zeros(distance[0].shape, bool) for r in records]
    )
    figures = []
    for level in np.unique(distance):
        called = distance >= level
        hits = (truth & called).sum()
        figures.append((hits / (truth | called).sum(), hits / truth.sum()))
    return max(figures)


def test_a_constant_reaches_on_noise_what_the_models_do():
    source = synthetic_source("noise")
    found = measure_bounds(GrayModel("noise", 512), source)
    anomalous = [record for record in source.test if record.anomalous]
    for group, records in (("all", source.test), ("anomalous", anomalous)):
        figures = found["floor"][group]
        assert (figures["iou"], figures["recall"]) == pytest.approx(best_by_levels(records))
    # What CAE, VAE and AAE reached after 700 steps (results/schneider2022.json of version 0.1).
    assert found["floor"]["all"]["iou"] == pytest.approx(0.7134, abs=5e-5)
    assert found["model"] == found["averaged"] == found["floor"]
    assert found["both"] == found["smoothed"] != found["floor"]


def test_a_perfect_model_separates_every_pixel_that_changed():
    found = measure_bounds(GrayModel("chess", 128), synthetic_source("chess", side=128))
    for group in GROUPS:
        assert found["ceiling"][group] == {"iou": 1.0, "recall": 1.0}
        assert found["floor"][group]["iou"] < 0.9


def test_an_undisturbed_image_differs_exactly_in_truth_b():
    source = synthetic_source("chess", side=128, seed=3)
    anomalous = [record for record in source.test if record.anomalous]
    for record, normal in zip(anomalous, undisturbed("chess", seed=3, side=128), strict=True):
        changed = np.abs(record.load().astype(int) - normal)[..., 0] > 1
        assert changed.any() and np.array_equal(changed, record.load_mask())


class Marking(GrayModel):
    """A detector with a given map for each image."""

    def __init__(self, maps):
        super().__init__("chess", 128)
        self.config.data.truth = "B"
        self.maps = maps

    def predict(self, image, *, reconstruct):
        assert not reconstruct
        return SimpleNamespace(anomaly_map=self.maps[image.tobytes()])


def test_wrong_pixels_are_counted_by_their_kind():
    source = synthetic_source("chess", side=128)
    maps, kinds = {}, dict.fromkeys(("faint", "found", "other", "edge", "else", "good"), 0)
    normal = iter(undisturbed("chess", seed=0, side=128))
    for record in source.test:
        image = record.load()
        marked = np.zeros((128, 128), bool)
        if record.anomalous:
            truth = record.load_mask()
            change = np.abs(image[..., 0].astype(int) - next(normal)[..., 0])
            marked |= truth & (change > FAINT)
            some = np.argwhere(truth & (change <= FAINT))[:7]
            marked[tuple(some.T)] = True
            # The pixel above a column's first defective one touches the truth, two rows do not.
            row, column = np.argwhere(truth)[0]
            assert row > 10
            marked[row - 1, column] = marked[row - 9, :2] = True
            kinds["faint"] += (truth & (change <= FAINT)).sum()
            kinds["other"] += (truth & (change > FAINT)).sum()
            kinds["found"], kinds["edge"], kinds["else"] = (
                kinds["found"] + len(some), kinds["edge"] + 1, kinds["else"] + 2,
            )  # fmt: skip
        else:
            marked[5, 5] = True
            kinds["good"] += 1
        maps[image.tobytes()] = marked.astype(np.float32)
    found = where_lost(Marking(maps), source)
    assert (kinds["edge"], kinds["else"], kinds["good"]) == (4, 8, 4)
    assert found == pytest.approx({
        "faint": kinds["faint"] / (kinds["faint"] + kinds["other"]),
        "recall_faint": kinds["found"] / kinds["faint"], "recall_other": 1.0,
        "false_touching": 4 / 16, "false_elsewhere": 8 / 16, "false_good": 4 / 16,
    })  # fmt: skip
    assert "25% touch the truth, 50% lie" in lost({"name": "chess-cae-seed0", "where_lost": found})


def test_the_section_averages_seeds_and_shows_the_paper_once():
    def run(seed, iou):
        figures = {group: {"iou": iou, "recall": 0.5} for group in GROUPS}
        names = ("floor", "ceiling", "model", "smoothed", "averaged", "both")
        return {
            "part": "", "dataset": "chess", "variant": "", "method": "cae", "seed": seed,
            "bounds": dict.fromkeys(names, figures),
        }  # fmt: skip

    text = section([run(0, 0.6), run(1, 0.8)], {("chess", "cae"): (0.9, 0.75)})
    rows = [line for line in text.splitlines() if line.startswith("| chess")]
    assert len(rows) == 6
    own = next(row for row in rows if "as in the paper" in row)
    assert own.startswith("| chess | cae | 2 |")
    assert "0.7000 (0.6000 to 0.8000) | 0.75 | 0.5000 (0.5000 to 0.5000) | 0.9 |" in own
    assert sum("0.75" in row for row in rows) == 1
