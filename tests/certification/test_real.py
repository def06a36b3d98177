"""Real defects: sizes by masks, escapes, and the comparison with inserted ones."""

import numpy as np
import pytest
from PIL import Image
from statsmodels.stats.proportion import confint_proportions_2indep

from recon_ad.certification.real import (
    Defective,
    by_size,
    defective_images,
    diameter,
    difference_interval,
    real_defects,
)
from recon_ad.errors import UserError


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.mark.parametrize("counts", [(3, 20, 14, 30), (0, 12, 0, 40), (12, 12, 1, 9)])
def test_the_interval_of_a_difference_is_newcombes_by_statsmodels(counts):
    theirs = confint_proportions_2indep(*counts, method="newcomb", compare="diff", alpha=0.05)
    assert difference_interval(*counts, coverage=0.95) == pytest.approx(theirs, abs=1e-9)


def test_the_size_is_that_of_the_largest_region():
    mask = np.zeros((60, 80), bool)
    mask[10:13, 5:45] = True  # 3 by 40 px
    mask[40, 70] = True
    assert diameter(mask) == pytest.approx(np.hypot(39, 2) + 1, abs=0.1)
    y, x = np.mgrid[:60, :80]
    assert diameter(np.hypot(y - 30, x - 40) <= 10) == pytest.approx(21, abs=0.5)


def test_bins_differ_only_where_chance_does_not_explain_it():
    inserted = [(12.0, i < 50) for i in range(100)] + [(24.0, True)] * 50
    alike = by_size([(12.0, i < 9) for i in range(20)], inserted)
    assert [(r["from_px"], r["found"], r["real"], r["inserted"]) for r in alike] == [
        (8.0, 9, 20, 100)
    ]
    assert not alike[0]["differs"] and alike[0]["difference"] == pytest.approx(-0.05)
    apart = by_size([(12.0, False)] * 20 + [(24.0, True)] * 4 + [(99.0, True)], inserted)
    assert [row["differs"] for row in apart] == [True, False, False]
    assert apart[2]["interval"] is None and apart[2]["inserted"] == 0


def test_equal_rates_are_called_different_in_five_per_cent_at_most():
    rng, called = np.random.default_rng(0), 0
    for _ in range(300):
        sizes = np.exp2(rng.uniform(2, 6, 60)), np.exp2(rng.uniform(2, 6, 600))
        pairs = [[(float(s), bool(rng.random() < 0.6)) for s in each] for each in sizes]
        called += any(row["differs"] for row in by_size(*pairs))
    assert called <= 24  # 5 %, and two standard deviations


def test_escapes_are_counted_by_kind():
    images = [Defective(f"{k}/{i}.png", k, None, []) for k in ("bent", "cut") for i in range(4)]
    rows = {one.name: {"stopped": one.kind == "cut", "size": None, "digest": ""} for one in images}
    found = real_defects(images, rows, [])
    assert (found["escapes"]["count"], found["escapes"]["total"]) == (4, 8)
    assert found["by_kind"]["bent"]["rate"] == 1 and found["by_kind"]["cut"]["rate"] == 0
    assert found["without_size"] == 8 and found["by_size"] == [] and not found["differs"]


@pytest.mark.parametrize("beside", [True, False])
def test_images_and_masks_are_found_as_in_mvtec_ads_layout(beside, tmp_path):
    folder = tmp_path / "test"
    truths = tmp_path / "ground_truth" if beside else folder / "ground_truth"
    pixels = np.zeros((20, 30), np.uint8)
    for name in ("bent/0.png", "bent/1.png", "good/0.png"):
        write(folder / name, pixels)
    write(truths / "bent/0_mask.png", pixels + 255)
    found = defective_images(folder)
    assert [(one.name, len(one.masks)) for one in found] == [("bent/0.png", 1), ("bent/1.png", 0)]
    write(truths / "bent/1_mask.png", pixels[:10])
    with pytest.raises(UserError, match="the mask has 10"):
        defective_images(folder)


def test_a_folder_without_defects_is_refused(tmp_path):
    write(tmp_path / "good/0.png", np.zeros((20, 30), np.uint8))
    for folder, says in ((tmp_path, "no folder with defective"), (tmp_path / "x", "no such")):
        with pytest.raises(UserError, match=says):
            defective_images(folder)
