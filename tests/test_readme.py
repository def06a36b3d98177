"""The figures in README are those of results/, and its links lead somewhere.

Each row of a table with measured figures, and each sentence with some, is made again from the JSON
that it names. A row that is not made here fails, too.
"""

import json
import re
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
WORDS = " ".join(README.split())
# A number that stands by itself: none of a name, a size such as 128×128, or an ordinal.
NUMBER = re.compile(r"(?<![\w./×])-?(?:\d+(?:,\d{3})*(?:\.\d+)?|\.\d+)(?:e-\d+)?(?![×\w]|\.\w)")


def results(name):
    return json.loads((ROOT / "results" / f"{name}.json").read_text())


def cells(name):
    """A table's cells by their names, without the seed."""
    return {c["name"].removesuffix("-seed0"): c for c in results(name)["cells"]}


def short(value):
    """As .985, or – for none."""
    return "–" if value is None else f"{value:.3f}".removeprefix("0")


def printed(value):
    """A paper's figure, whose digits are decimal ones: .7975 is .798."""
    return str(Decimal(str(value)).quantize(Decimal("0.001"), ROUND_HALF_UP))


def power(value, digits=0):
    """As 2e-7."""
    return f"{value:.{digits}e}".replace("e-0", "e-")


def figures(cell, *keys):
    return [short(cell[key]) for key in keys]


def rows(first):
    """The rows of the table whose first header begins so, as lists of cells, by their first."""
    (at,) = [m.start() for m in re.finditer(rf"^\| {re.escape(first)}", README, re.MULTILINE)]
    table = README[at:].split("\n\n")[0].splitlines()
    split = [[c.strip() for c in line.strip("|").split("|")] for line in table[2:]]
    return {row[0]: row[1:] for row in split}


def numbers(*texts):
    """Those of a text, without its code and the addresses of its links."""
    text = re.sub(r"`[^`]*`|\]\([^)]*\)", "", " | ".join(texts))
    return NUMBER.findall(text)


def agree(found, made):
    """Each row begins as a made one and has its numbers, in this order."""
    beginnings = {row: [start for start in made if row.startswith(start)] for row in found}
    assert all(len(starts) == 1 for starts in beginnings.values()), beginnings
    assert len(found) == len(made), set(made) - {starts[0] for starts in beginnings.values()}
    for row, (start,) in beginnings.items():
        assert numbers(*found[row]) == made[start], row


def test_numbers_are_found():
    given = "`a 1` 7.5; 27 ms of 128×128, 95th, 2e-7 (.985), 1,685 -0.00 ViT-S/14 [2](x/3.md) 0.7."
    assert numbers(given) == ["7.5", "27", "2e-7", ".985", "1,685", "-0.00", "2", "0.7"]


def test_runs():
    made = {}
    for name, run in results("runs").items():
        made[name] = [
            f"{run['training']['steps'] * run['batch_size']:,}", f"{run['train_seconds']:.0f} s",
            f"{run['training']['explained_variance']:.2f}",
        ]  # fmt: skip
        for key in ("image_auroc", "pixel_auroc", "aupro_30", "iou_max_oracle", "patch_auroc"):
            value = run.get(key)
            made[name].append("–" if value is None else f"{value:.3f}")
    assert rows("run |") == made


def cae_step():
    row = {row["variant"]: row for row in results("cae_step")["rows"]}
    by = ("lowered", "plain", "pytorch")
    speeds = [row[variant][name] for name in by for variant in ("synthetic", "industrial")]
    yield "training step of the CAE", [f"{speed:.0f}" for speed in speeds]


def frameworks():
    row = {row["what"]: row for row in results("frameworks_cpu")["rows"]}
    methods = ("cae", "ssim_ae", "vit_recon")
    for start, what, by in (
        ("training, patches/s", "training", ("JAX", "PyTorch eager", "PyTorch compiled")),
        (
            "their inference, patches/s",
            "inference",
            ("JAX", "PyTorch eager", "PyTorch compiled", "ONNX Runtime"),
        ),
    ):
        found = [row[f"{what} of `{method}`"]["figures"] for method in methods]
        yield start, [f"{figures[name]['median']:.0f}" for name in by for figures in found]
    ours, others = [], []
    for what, digits, fastest in (
        ("value", 1, "pytorch_msssim"),
        ("gradient", 0, "PyTorch compiled"),
    ):
        found = row[f"SSIM {what} of 1x1024x1024x1"]
        assert found["fastest_other"] == fastest and len(found["figures"]) == 7
        ours.append(f"{found['figures']['JAX']['median']:.{digits}f}")
        others.append(f"{found['figures'][fastest]['median']:.0f}")
    yield "mean SSIM of 1×1024×1024×1", ours + others


def profile():
    rows = results("profile")["rows"]
    assert [row["method"] for row in rows] == ["cae", "ssim_ae", "vit_recon"]
    yield (
        "largest costs of a training step",
        [f"{100 * cost['share']:.0f}" for row in rows for cost in row["largest"]],
    )


def aupro():
    small, large = results("aupro")["rows"]
    assert large["maps"] == "81 maps of 512x512"
    apart = max(small["difference"], large["difference"])
    times = f"{large['seconds']:.2f}", f"{large['seconds_anomalib']:.1f}"
    yield "AUPRO of 81 maps of 512×512", [*times, power(apart)]


def ssim():
    found = [row for row in results("ssim")["rows"] if row["images"] == "8x256x256x3"]
    value, gradient = ({**row["milliseconds"]} for row in found)
    ours = f"{value.pop('recon_ad'):.1f}", f"{gradient.pop('recon_ad'):.0f}"
    assert len(value) == 5
    assert min(value, key=value.get) == "kornia"
    assert min(gradient, key=gradient.get) == "pytorch_msssim"
    yield "SSIM map", [*ours, *(f"{min(row.values()):.0f}" for row in (value, gradient))]


def inference():
    row = {(r["method"], r["contender"], r["images"]): r for r in results("inference")["rows"]}
    contenders = ("onnxruntime", "openvino", "jax", "pytorch")
    ours = [(method, by) for by in contenders for method in ("cae", "ssim_ae")]
    theirs = [(method, "anomalib") for method in ("fre", "padim", "ganomaly")]
    for start, images, key, digits in (
        ("from decoded image to mask", 1, "ms_per_image", 1),
        ("the same, eight at once", 8, "ms_per_image", 1),
        ("most memory, eight images", 8, "peak_mib", 0),
    ):
        made = [f"{row[method, by, images][key]:.{digits}f}" for method, by in ours]
        yield start, made + [f"{row[method, by, images][key]:.0f}" for method, by in theirs]


def encoder():
    found = results("encoder")
    row = {(r["encoder"], r["side"], r["images"]): r for r in found["rows"]}
    for start, name, side, digits in (
        ("encoder, DeiT-Tiny at 224 px", "deit_tiny_patch16_224", 224, 0),
        ("DINOv2 with registers, ViT-S/14 at 392 px", "vit_small_patch14_reg4_dinov2", 392, 1),
    ):
        speeds = [row[name, side, images][by] for by in ("jax", "timm") for images in (1, 8)]
        made = [f"{speed:.{digits}f}" for speed in speeds]
        yield start, made + [power(max(r["apart"] for r in found["compared"]))] * (side == 224)


def agreement():
    runs = [run["against_jax"] for run in results("agreement").values()]
    against = [by[name] for by in runs for name in ("onnxruntime", "openvino", "c++")]
    differ = sum(row["labels_that_differ"] + row["region_counts_that_differ"] for row in against)
    images = sum(by["c++"]["images"] for by in runs)
    apart = max(row["largest_relative_score_difference"] for row in against)
    yield "decisions on all test images", [str(differ), str(images), power(apart, 1)]


def registration():
    part = results("registration")
    absent = part["flag"]["registered_although_not_there"].values()
    assert sum(row["registered"] for row in absent) == 0
    assert part["flag"]["not_registered_although_there"] == 0
    error, other = part["corner_error_px"], part["opencv_guil"]
    yield "finding a moved part", [
        f"{error['median']:.2f}", f"{error['p95']:.2f}", f"{part['ms_per_image']:.0f}",
        str(sum(row["pictures"] for row in absent)), str(part["pictures"]), str(other["side"]),
        *(f"{pick(other['corner_error_px']):.0f}" for pick in (min, max)),
        f"{round(other['ms_per_image'], -1):,.0f}",
    ]  # fmt: skip


def drifts():
    found = results("drifts")
    chart = found["references"]["500"]
    false = {
        kind: {name: row["false_alarms_per_10000"][kind] for name, row in chart.items()}
        for kind in ("as_it_is", "reference_taken_for_the_truth")
    }
    ours, trusting = false.values()
    apart = ours.pop("rejected, events"), trusting.pop("score, distribution")
    low_and_high = [f"{pick(ours.values()):.1f}" for pick in (min, max)]
    their_low_and_high = [f"{pick(trusting.values()):.1f}" for pick in (min, max)]
    yield "alarms on a line without drift", [
        *low_and_high, f"{apart[0]:.1f}", *their_low_and_high, f"{apart[1]:.0f}",
    ]  # fmt: skip

    def delay(name, drift):
        row = chart[name]["delay"][drift]
        return [f"{row[key]:,.0f}" for key in ("median", "p95")]

    darker = [row["delay"]["brightness −5%"]["median"] for row in chart.values()]
    assert all(median is None or median > 1000 for median in darker)
    mean, spread = found["statistics"]["good"]["brightness"]
    creep = delay("score, distribution", "score creep, 10% of the median by 1,000 images")
    yield "drifts of magnetic tiles", [
        "0.7", *delay("sharpness, ewma", "blur, σ 0.7 px"),
        "20", *delay("rejected, events", "burst: 20% rejects in 100 images"),
        "10", "1,000", *creep,
        "5", f"{100 * spread / mean:.0f}", "1,000",
    ]  # fmt: skip


def line():
    found = results("line")
    disturbed, calm = found["disturbed"], found["undisturbed"]
    assert (disturbed["broken"], disturbed["killed"]) == (100, 10)
    assert disturbed["rows"] == disturbed["images"] == 2000
    latency = calm["paced"]["latency_s"]
    times = [f"{latency[key]:.2f}" for key in ("median", "p99")]
    yield "a line that is killed ten times", [f"{calm['images_per_second']:.1f}", *times]


def start():
    found = results("start")
    times = [f"{found[f'first_step_seconds_{cache}']:.0f}" for cache in ("warm", "cold")]
    yield "the demo's first step", times
    yield "share of training that waits", [f"{100 * found['waited_for_data']:.2f}"]


def test_speed_and_agreement():
    made = {}
    for of in (
        *(cae_step, frameworks, profile),
        *(aupro, ssim, inference, encoder, agreement, registration, drifts, line, start),
    ):
        made.update(of())
    agree(rows("what | ours"), made)


def test_pretrained_features():
    vit = cells("vit")
    three = ("image_auroc", "pixel_auroc", "aupro_30")

    def row(of):
        """All three of two sets, only those of pixels of ball screws."""
        shown = ("grid", three), ("magnetic_tile", three), ("ball_screw", three[1:])
        return [" / ".join(figures(of[data], *keys)) for data, keys in shown]

    made = {}
    for name in ("knn", "vit_flow", "vit_recon"):
        alone = {data: vit[f"{data}-{name}"] for data in ("grid", "magnetic_tile", "ball_screw")}
        made[f"`{name}`"] = [*row(alone), f"{alone['grid']['wall_seconds']:.0f} s"]
        start = f"one `{name}` for all" + " three" * (name == "knn")
        made[start] = [*row(vit[f"all-{name}-oneforall"]["per_category"]), ""]
    random = {
        data: [short(vit[f"{data}-{name}-randomweights"]["image_auroc"])
               for name in ("knn", "vit_flow", "vit_recon")]
        for data in ("grid", "magnetic_tile")
    }  # fmt: skip
    start = "random weights: `knn`, `vit_flow`, `vit_recon` (image AUROC)"
    made[start] = [*(", ".join(found) for found in random.values()), "", ""]
    pixels = [f"{data}-ssim_ae" for data in ("grid", "magnetic_tile")]
    sets = [" / ".join(figures(vit[name], *three)) for name in pixels]
    made["`ssim_ae` on pixels"] = [*sets, "", f"{vit[pixels[0]]['wall_seconds']:.0f} s"]
    names = ("cae", "vae", "aae", "l2_ae", "ssim_ae", "ssim_l1", "dae")
    best = max(names, key=lambda name: vit[f"magnetic_tile-{name}"]["image_auroc"])
    figure = short(vit[f"magnetic_tile-{best}"]["image_auroc"])
    start = "best of seven autoencoders on pixels (image AUROC)"
    made[start] = ["", f"{figure} ({best})", "", ""]
    assert rows("| grid | magnetic tiles") == made


def test_beside_the_papers():
    schneider, bergmann, covision = map(cells, ("schneider2022", "bergmann2019", "covision"))
    vit, two = cells("vit"), ("pixel_auroc", "aupro_30")
    chess = [short(schneider[f"chess-{m}"]["iou_max_oracle"]) for m in ("cae", "vae", "aae")]
    steps = {schneider[f"chess-{m}"]["steps"] for m in ("cae", "vae", "aae")}
    pair = [bergmann[f"nanofibres-{m}"]["pixel_auroc"] for m in ("ssim_ae", "l2_ae")]
    parts = ("asitlies", "aligned", "alignedwithoutground")
    made = {
        "Schneider et al. 2022": [*chess, *map(str, steps)],
        "Bergmann et al. 2019": [short(value) for value in pair],
        "*grid*, pixel AUROC and AUPRO": [
            *figures(bergmann["grid-ssim_ae"], *two), *figures(bergmann["grid-l2_ae"], *two)
        ],
        "Preste, *transistor*": [],
        "Buzzega et al.": [short(covision[f"ball_screw-dae-{p}"]["pixel_auroc"]) for p in parts],
        "anomalib 2.6, *grid*": [
            figure
            for name in ("vit_recon", "knn", "vit_flow")
            for figure in figures(vit[f"grid-{name}"], "image_auroc", "pixel_auroc")
        ],
    }  # fmt: skip
    agree({first: row[1:] for first, row in rows("| theirs").items()}, made)
    # What is cited stands in results/, too, where a table of ours has it.
    cited = {first: row[0] for first, row in rows("| theirs").items()}
    papers = [schneider[f"chess-{m}"]["paper"]["iou_max_oracle"] for m in ("cae", "vae", "aae")]
    for start, values in (
        ("Schneider", papers),
        ("Bergmann", [bergmann[f"nanofibres-{m}"]["paper"]["pixel_auroc"]
                      for m in ("ssim_ae", "l2_ae")]),
        ("*grid*", [bergmann[f"grid-{m}"]["paper"][key]
                    for m in ("ssim_ae", "l2_ae") for key in two]),
    ):  # fmt: skip
        (text,) = [theirs for first, theirs in cited.items() if first.startswith(start)]
        assert [float(n) for n in numbers(text)] == pytest.approx(values, abs=6e-4)
    for name in ("aupro", "inference"):
        assert results(name)["versions"]["anomalib"].startswith("2.7.")


def minutes(name):
    return f"{sum(c['wall_seconds'] or 0 for c in results(name)['cells']) / 60:.0f}"


def sentences():
    """Those with figures outside of tables."""
    of = cells("schneider2022")
    iou = {name: f"{cell['iou_max_oracle']:.3f}" for name, cell in of.items()}
    papers = {
        name: printed(cell["paper"]["iou_max_oracle"])
        for name, cell in of.items() if "iou_max_oracle" in cell["paper"]
    }  # fmt: skip
    order = ("aae", "cae", "vae")
    yield (
        f"the AAE reaches a best IoU of {iou['chess-aae']}, the CAE {iou['chess-cae']}, the VAE"
        f" {iou['chess-vae']} (the paper: {', '.join(papers[f'chess-{m}'] for m in order)},"
    )
    (noise,) = {iou[f"noise-{m}"] for m in order}
    yield f"all three {noise} ({', '.join(papers[f'noise-{m}'] for m in order)})"
    granular = [c["pixel_auroc"] for name, c in of.items() if name.startswith("granular")]
    yield f"pixel AUROCs of {min(granular):.2f} to {max(granular):.2f}."
    apart = {m: of[f"chess-{m}"]["code"]["frechet"] for m in order}
    yield "squared Fréchet distances of {aae:.0f} and {vae:.0f}".format(**apart)
    yield f"{minutes('schneider2022')} minutes in all"
    of = cells("bergmann2019")
    fibres = {m: of[f"nanofibres-{m}"] for m in ("ssim_ae", "l2_ae")}
    pair = [
        (f"{c['pixel_auroc']:.3f}", f"{c['paper']['pixel_auroc']:.3f}") for c in fibres.values()
    ]
    yield f"reaches a pixel AUROC of {pair[0][0]} (paper: {pair[0][1]} after"
    yield f"the L2 autoencoder {pair[1][0]} ({pair[1][1]})"
    times = [f"{c['wall_seconds'] / 60:.0f}" for c in fibres.values()]
    yield f"they took {' and '.join(times)} minutes"
    ssim, squared = of["grid-ssim_ae"], of["grid-l2_ae"]
    (each,) = {f"{c['wall_seconds'] / 60:.0f}" for c in (ssim, squared)}
    yield f"On *grid*, {each} minutes each,"
    yield (
        f"the SSIM autoencoder has {ssim['pixel_auroc']:.3f} and an AUPRO of"
        f" {ssim['aupro_30']:.3f} (0.94 and 0.849), the L2 autoencoder"
        f" {squared['pixel_auroc']:.3f} and {squared['aupro_30']:.3f} (0.90 and 0.582)"
    )
    of = {name.removeprefix("ball_screw-dae-"): c for name, c in cells("covision").items()}
    pair = {
        name: [short(of[name][key]) for key in ("pixel_auroc", "aupro_30")]
        for name in ("asitlies", "aligned", "alignedwithoutground", "notmoved")
    }
    yield (
        "pixel AUROC and AUPRO are {} and {} as they lie, {} and {} aligned, {} and {} without the"
        " ground; {} and {} where they were not moved"
    ).format(*(figure for two in pair.values() for figure in two))
    heat = of["alignedwithoutground"]["classifier"]
    means = [short(heat[of]["auroc"]["mean"]) for of in ("threshold", "hu")]
    yield f"from {heat['labels']} labelled images raises the image AUROC on the others from " + (
        " to ".join(means)
    )
    knn = results("classifier")["detectors"]["knn"]["labels"]["50"]
    means = [f"{knn[of]['auroc']['mean']:.2f}".removeprefix("0") for of in ("threshold", "hu")]
    yield f"from some 50 labels on (AUROC {' → '.join(means)})"
    share = results("inference")["ssim_in_onnxruntime"]["residual_of_network"]
    yield f"the SSIM residual costs {100 * share:.0f} % of its network's time"
    yield (
        f"the denoising one has a pixel AUROC of {pair['notmoved'][0]}, where `knn` has"
        f" {short(cells('vit')['ball_screw-knn']['pixel_auroc'])}"
    )
    tiles = [
        cells("vit")[f"magnetic_tile-{name}"]
        for name in ("ssim_ae", "cae", "vae", "aae", "l2_ae", "ssim_l1", "dae")
    ]
    ends = {
        key: " to ".join(short(end([cell[key] for cell in tiles])) for end in (min, max))
        for key in ("image_auroc", "pixel_auroc")
    }
    yield f"(image AUROC {ends['image_auroc']}, pixel AUROC {ends['pixel_auroc']};"
    ratios = [
        row["times_as_fast"]
        for row in results("frameworks_cpu")["rows"] if row["what"].startswith("training")
    ]  # fmt: skip
    yield f"train at {min(ratios):.2f} to {max(ratios):.2f} times the rate of the fastest PyTorch"


def test_sentences():
    missing = [sentence for sentence in sentences() if sentence not in WORDS]
    assert not missing, f"results/ say: {missing}"


@pytest.mark.parametrize("name", ["README.md", "BUILD.md", "CONTRIBUTING.md"])
def test_links_lead_somewhere(name):
    text = (ROOT / name).read_text()
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in anchors, target
        elif "://" not in target:
            assert (ROOT / target).exists(), target


def test_every_result_is_shown():
    """Each file of figures is named by README, itself or by its page."""
    for path in (ROOT / "results").glob("*.json"):
        page = path.with_suffix(".md")
        assert {f"results/{path.name}", f"results/{page.name}"} & set(
            re.findall(r"\]\(([^)\s]+)\)", README)
        ), path.name
