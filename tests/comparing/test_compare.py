"""Runs side by side: statistics over seeds, rows, runs that cannot be compared, and the page."""

import base64
import itertools
import json
import re
import urllib.parse

import numpy as np
import pytest
from helpers.commands import refusal, run_command
from helpers.made_runs import make_run
from helpers.report_pages import EVIL, Page
from scipy import stats

from recon_ad.comparing import write_comparison
from recon_ad.comparing.page import html, markdown
from recon_ad.comparing.runs import compare, read_run
from recon_ad.errors import UserError
from recon_ad.metrics.seeds import Mean, clearly_best, mean_over_seeds


def compared(*folders):
    return compare([read_run(folder) for folder in folders])


def rows_of(*folders):
    (one,) = compared(*folders).sets
    return one.rows


@pytest.fixture
def make(tmp_path):
    """Return a function that writes runs to separate folders."""
    count = itertools.count()
    return lambda **fields: make_run(tmp_path / f"run{next(count)}", **fields)


@pytest.mark.parametrize("n", [2, 3, 5, 10, 50])
def test_the_interval_is_students_and_that_of_the_printed_table(n):
    values = list(np.random.default_rng(n).normal(0.9, 0.02, n))
    mean = mean_over_seeds(values)
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    np.testing.assert_allclose((mean.value - mean.half, mean.value + mean.half), (low, high))
    assert mean.n == n
    # Student's t with one degree of freedom is 12.706; for values one apart that gives 12.706 / 2.
    assert mean_over_seeds([0, 1]).half == pytest.approx(12.706 / 2, abs=5e-4)
    assert mean_over_seeds([0.5]) == Mean(0.5, None, 1)


def test_the_best_lies_above_all_others_or_is_none():
    a, b, c = Mean(0.9, 0.05, 3), Mean(0.8, 0.04, 3), Mean(0.7, 0.2, 3)
    touching, alone = [Mean(value, 0.25, 3) for value in (0.75, 0.25)], Mean(0.1, None, 1)
    for best, means in (
        (1, [b, a]),
        (None, [b, a, c]),  # c reaches 0.9
        (None, touching),
        (None, [a, alone]),
        (None, [a]),
        (None, []),
    ):
        assert clearly_best(dict(enumerate(means))) == best


def test_runs_that_differ_in_nothing_but_the_seed_form_one_row(make):
    runs = [
        make(seed=1, figures={"image_auroc": 0.8, "aupro_30": 0.7}),
        make(seed=0, figures={"image_auroc": 0.7, "aupro_30": 0.5}, fields={"data.path": "there"}),
        make(seed=0, method="vae", figures={"image_auroc": 0.6, "pixel_auroc": 0.5}),
        make(seed=2, fields={"optim.learning_rate": 1e-4}),
        # The CAE does not use this field.
        make(seed=3, fields={"aae.critic_steps": 9, "encoder.name": "x"}),
    ]
    rows = rows_of(*runs)
    assert [[run.seed for run in row.runs] for row in rows] == [[0, 1, 3], [0], [2]]
    low, high = stats.t.interval(0.95, 2, 0.8, stats.sem([0.7, 0.8, 0.9]))
    mean = rows[0].figures["image_auroc"]
    np.testing.assert_allclose((mean.value, 2 * mean.half, mean.n), (0.8, high - low, 3), 1e-12)
    assert "pixel_auroc" not in rows[0].figures
    assert rows[1].figures["pixel_auroc"] == Mean(0.5, None, 1)
    assert "0.600 ± 1.271 (of 2)" in markdown(compared(*runs))


def test_the_best_is_marked_only_where_intervals_are_apart(make):
    def pair(method, image, pixel):
        figures = (
            {"image_auroc": image + seed / 1e4, "pixel_auroc": pixel + seed / 10,
             "image_tpr_calibrated": image, "train_seconds": 100 * image + seed}
            for seed in (0, 1)
        )  # fmt: skip
        return [make(method=method, seed=seed, figures=f) for seed, f in enumerate(figures)]

    runs = pair("cae", 0.8, 0.5) + pair("vae", 0.9, 0.8)
    (one,) = compared(*runs).sets
    assert one.best == {"image_auroc": 1}
    assert re.findall(r"\*\*(.*?)\*\*", markdown(compared(*runs))) == ["0.900 ± 0.001"]
    # With one seed of a third group nothing can be concluded.
    (one,) = compared(*runs, make(method="aae", figures={"image_auroc": 0.1})).sets
    assert one.best == {}


@pytest.mark.parametrize(
    ("field", "best"), [("data.patch_size", {}), ("optim.warmup", {"patch_auroc": 0})]
)
def test_patches_of_another_size_are_another_figure(make, field, best):
    runs = [
        make(seed=seed, figures={"patch_auroc": value}, fields={field: setting})
        for setting, value in ((64, 0.9), (128, 0.5))
        for seed in (0, 1)
    ]
    assert compared(*runs).sets[0].best == best


def test_columns_tell_rows_apart_and_the_rest_stands_below(make):
    runs = [make(method="cae"), make(method="ssim_ae")]
    runs.append(make(method="ssim_ae", fields={"inference.sigma": 4.0}))
    (one,) = compared(*runs).sets
    assert one.columns == ["method.name", "inference.sigma"]
    assert {"residual.ssim", "optim.learning_rate"} <= set(one.along)
    assert not {"method.name", "inference.sigma", "seed", "data.path"} & set(one.along)
    lines = markdown(compared(*runs)).splitlines()
    table = [re.sub(" +", " ", line) for line in lines]
    assert "| row | method.name | inference.sigma | runs | Image AUROC | Training time |" in table
    assert "| 3 | ssim_ae | 4.0 | 1, seed 0 | 0.900 | 1 min 00 s |" in table
    assert "| residual.ssim | 0.0 | 1.0 | 1.0 |" in table


@pytest.mark.parametrize(
    "other",
    [
        {"fingerprint": "other"}, {"tested": "test/good/2.png"},
        {"protocol": {"aupro_fpr_limit": 0.1}},
        {"tested": "test/good/3.png", "protocol": {"not_registered": ["test/good/1.png"]}},
    ],
)  # fmt: skip
def test_other_images_are_never_in_one_table(make, other):
    runs = [make(), make(method="vae", **other), make(method="aae")]
    comparison = compared(*runs)
    assert [s.name for s in comparison.sets] == ["my_part (1)", "my_part (2)"]
    assert [len(s.rows) for s in comparison.sets] == [2, 1]
    assert "not all comparable: they are on 2 different sets of images" in comparison.messages[0]
    assert ("did not find the part" in comparison.messages[0]) == (
        "test/good/3.png" in other.values()
    )


def test_generated_images_of_other_seeds_are_comparable_and_against_another_truth_are_not(make):
    chess = {"spec": "configs/demo.py"}
    runs = [make(**chess, seed=s, fingerprint=f"drawn by {s}") for s in (0, 1)]
    (one,) = compared(*runs).sets
    assert [run.seed for run in one.rows[0].runs] == [0, 1]
    assert one.warnings[0].startswith("Each seed draws its own images")
    assert len(one.warnings) == 1
    (one,) = compared(*runs, make(**chess, method="vae", fingerprint="drawn otherwise")).sets
    assert "those of seed 0 were not drawn alike" in one.warnings[1]
    noise = make(**chess, fields={"data.name": "noise"}, fingerprint="drawn by 0")
    assert len(compared(*runs, noise).sets) == 2
    truths = {**chess, "figures": {"truths": {"A": {}}}}
    runs = [make(**truths), make(**truths, method="vae", fields={"data.truth": "A"})]
    assert len(compared(*runs).sets) == 2


def test_seeds_of_before_a_field_are_in_the_row_of_the_value_that_was_in_force(make):
    runs = [make(), make(seed=1), make(seed=2, fields={"optim.average": 0.5})]
    config = json.loads((runs[0] / "config.json").read_text())
    del config["optim"]["average"]
    (runs[0] / "config.json").write_text(json.dumps(config))
    assert [[run.seed for run in row.runs] for row in rows_of(*runs)] == [[0, 1], [2]]


def test_another_protocol_is_told_with_its_rows(make):
    other = {"score_rule": "sum", "resolution": "resized to (64, 64)", "part": "aligned"}
    runs = [make(method="cae"), make(method="vae", protocol=other)]
    runs += [make(method="aae", protocol={"hardware": "another"}), make(method="aae", seed=1)]
    (one,) = compared(*runs).sets
    assert one.warnings == [
        "Different protocols, resolution: native (rows 1, 3); resized to (64, 64) (row 2).",
        "Different protocols, alignment: not recorded (rows 1, 3); aligned (row 2).",
        "Different protocols, score rule: max of the smoothed map (rows 1, 3); sum (row 2).",
        "Different machines, hardware (do not compare times): a machine (rows 1, 2, 3); "
        "another (row 3).",
    ]
    assert compared(runs[0]).sets[0].warnings == []


def test_the_same_weights_are_known_by_their_checksum(make):
    def knn(weights, sha256, seed):
        return make(
            method="knn", spec="configs/folder.py", seed=seed,
            fields={"encoder.weights": weights, "data.path": "x"},
            protocol={"pretrained": {"sha256": sha256}},
        )  # fmt: skip

    rows = rows_of(knn("hub", "a" * 64, 0), knn("a/file", "a" * 64, 1), knn("hub", "b" * 64, 0))
    assert [len(row.runs) for row in rows] == [2, 1]


def test_what_is_unfinished_or_doubled_is_named_and_left_out(make):
    done, again = make(), make()
    unfinished, untested = (make(seed=seed, missing=["metrics.json"]) for seed in (1, 2))
    (untested / "detector").mkdir()
    (untested / "detector" / "detector.json").touch()
    begun = make(seed=3, missing=["metrics.json", "log.jsonl", "data.json"])
    comparison = compared(done, unfinished, untested, begun, again)
    assert comparison.messages == [
        f"{unfinished} is unfinished and left out: at step 300 of 2,000.",
        f"{untested} is unfinished and left out: not evaluated; "
        f"run python -m recon_ad.evaluate --workdir {untested}.",
        f"{begun} is unfinished and left out: at step 0 of 2,000.",
        f"{again} is left out: it has the same config and seed as {done}.",
    ]
    assert [len(row.runs) for row in comparison.sets[0].rows] == [1]
    with pytest.raises(UserError, match=r"none of these runs is finished .*at step 300 of 2,000"):
        compared(unfinished)


def test_a_folder_of_runs_stands_for_them_and_one_folder_counts_once(make, tmp_path):
    runs = [make(seed=seed) for seed in (0, 1)]
    given = (
        [runs[0].parent],
        runs,
        [*runs, runs[0].parent],
        [*runs, runs[0] / ".." / runs[0].name],
    )
    texts = {write_comparison(folders, tmp_path / "out") for folders in given}
    assert len(texts) == 1 and "2, seeds 0, 1" in texts.pop()


def test_no_runs_and_damaged_runs_are_refused(make, tmp_path):
    nothing = tmp_path / "nothing"
    with pytest.raises(UserError, match=r"nothing is not a run, as it has no config\.json"):
        read_run(nothing)
    with pytest.raises(UserError, match=r"nothing is not a run and contains none"):
        write_comparison([nothing], tmp_path / "out")
    for name, content in (("metrics.json", "{"), ("config.json", "\ufffd")):
        run = make()
        (run / name).write_text(content)
        with pytest.raises(UserError, match=rf"{name} is damaged"):
            read_run(run)


def test_the_page_needs_no_network_and_links_to_the_reports(make, tmp_path):
    evil = {"protocol": {"evaluated_on": EVIL, "score_rule": EVIL}, "fields": {"data.name": EVIL}}
    runs = [make(method=m, seed=s, **evil) for m in ("cae", "vae") for s in (0, 1)]
    odd = make_run(tmp_path / "a #1? & <b>", method="aae", missing=["report.html"])
    odder = make_run(tmp_path / "b #1? & <b>", method="aae", seed=1)
    output = tmp_path / "deep" / "out"
    write_comparison([*runs, odd, odder], output)
    page = Page((output / "compare.html").read_text())
    links = [link for link in page.links if not link.startswith(("data:", "#"))]
    paths = [urllib.parse.unquote(urllib.parse.urlsplit(link).path) for link in links]
    files = [(output / path).resolve() for path in paths]
    assert files == [run / "report.html" for run in (*runs, odd, odder) if run != odd]
    assert all(file.is_file() for file in files)
    assert "b #1? & <b>" in page.text and "b" not in page.tags
    assert page.tags.count("script") == 1 and "alert(1)" in page.text  # the template's own, empty
    assert "url(" not in page.style and "@import" not in page.style
    assert "6 finished runs in 3 rows, on 1 set of images." in page.text
    assert "set1" in page.ids
    assert (output / "compare.md").read_text().startswith("# Runs compared")


def test_held_out_losses_share_an_axis_within_a_method_only(make, tmp_path):
    runs = [make(method=m, seed=s) for m in ("cae", "vae") for s in (0, 1)]
    runs.append(make(method="cae", fields={"optim.warmup": 7}))
    images = Page(html(compared(*runs), beside=tmp_path)).images
    svgs = [base64.b64decode(image["src"].partition(",")[2]).decode() for image in images]
    lines = [
        [len(re.findall(rf'style="fill: none; stroke: {colour}; stroke-width: 1.6', svg))
         for colour in ("#2f7fc1", "#d9701e")]
        for svg in svgs
    ]  # fmt: skip
    # The legend has a line for each run and one for each row.
    assert lines == [[3, 2], [3, 0]]
    assert ["cae" in images[0]["alt"], "vae" in images[1]["alt"]] == [True, True]
    silent = make(missing=["log.jsonl"])
    assert Page(html(compared(silent), beside=tmp_path)).images == []
    single = make(method="aae")
    (single / "log.jsonl").write_text('{"step": 50, "heldout_loss": 0.5}\n')
    assert Page(html(compared(single), beside=tmp_path)).images == []  # no curve


def test_the_main_table_is_short_and_the_rest_folded(make, tmp_path):
    decided = {"decisions": {"good": 10, "defective": 10}, "image_f1_max": 2 / 3}
    runs = [
        make(figures={"pixel_ap": 0.123, "image_f1_max": 0.8}),
        make(method="vae", figures=decided | {"pixel_ap": 0.321}),
    ]
    source = html(compared(*runs), beside=tmp_path)
    first, folded = source.split("<summary>All figures</summary>")
    assert "0.123" not in first and folded.count("0.123") == 2
    # Calling every image defective gives no figure.
    assert "0.800" in folded and "0.667" not in folded


def test_the_command_prints_the_table_that_it_writes(make, tmp_path):
    out = tmp_path / "out"
    done = run_command("compare", make(), make(method="vae"), "--output", out)
    assert done.returncode == 0 and f"page: {out / 'compare.html'}" in done.stderr
    assert done.stdout == (out / "compare.md").read_text()
    assert "error: no run was given" in refusal("compare", "--output", tmp_path / "none")
    assert not (tmp_path / "none").exists()
