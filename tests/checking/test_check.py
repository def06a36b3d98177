"""`python -m recon_ad.check`: silent on a sound folder, and a message for each problem."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.commands import refusal, run_command, run_process
from helpers.layouts import saved
from PIL import Image
from scipy import ndimage

from recon_ad.checking.check import as_text, check_folder
from recon_ad.checking.confounders import Figure
from recon_ad.checking.look import ImageLook
from recon_ad.checking.similar import _nearest, series
from recon_ad.data import folder_source, split_holdout
from recon_ad.errors import UserError
from recon_ad.metrics import auroc, levels
from recon_ad.metrics.auroc_interval import least_auroc

SIZE = (96, 128)
COUNT = 20  # training images, good test images, and defective ones


def picture(*seed, size=SIZE) -> np.ndarray:
    """Draw a surface of slow and fast noise with varying light and strength."""
    rng = np.random.default_rng(seed)
    slow = ndimage.gaussian_filter(rng.normal(size=size), 6, mode="wrap")
    fast = ndimage.gaussian_filter(rng.normal(size=size), 1, mode="wrap")
    shades = rng.uniform(100, 140)
    shades = shades + rng.uniform(20, 35) * slow / slow.std()
    shades = shades + rng.uniform(5, 20) * fast / fast.std()
    return np.clip(shades, 0, 255).astype(np.uint8)


def load(path: Path) -> np.ndarray:
    return np.array(Image.open(path))


def mask(number: int, defect: str = "scratch") -> str:
    return f"ground_truth/{defect}/{number:03d}_mask.png"


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    """Write a folder without problems."""
    root = tmp_path_factory.mktemp("sound")
    for i in range(COUNT):
        saved(root / f"train/good/{i:03d}.png", picture(0, i))
        saved(root / f"test/good/{i:03d}.png", picture(1, i))
        image, marked = picture(2, i), np.zeros(SIZE, np.uint8)
        row, column = 10 + 3 * i, 100 - 4 * i
        marked[row : row + 4, column : column + 18] = 255
        saved(root / f"test/scratch/{i:03d}.png", np.where(marked, 255 - image, image))
        saved(root / mask(i), marked)
    return root


@pytest.fixture
def folder(sound, tmp_path) -> Path:
    """Return a copy to spoil."""
    return shutil.copytree(sound, tmp_path / "set")


def assert_found(root: Path, *, mend=None, look=None) -> None:
    """Assert a folder's findings: words of each, and the beginnings of its lines."""
    report = check_folder(root)
    assert report.mend == bool(mend)
    for expected, to_mend in ((mend or {}, True), (look or {}, False)):
        findings = [finding for finding in report.findings if finding.mend == to_mend]
        assert len(findings) == len(expected), findings
        for words, starts in expected.items():
            (lines,) = (finding.files for finding in findings if words in finding.text)
            assert len(lines) == len(starts), lines
            for line, start in zip(lines, starts, strict=True):
                assert line.startswith(start)


def test_a_sound_folder_is_silent_and_counted(sound):
    report = check_folder(sound)
    assert report.findings == () and not report.mend
    text = as_text(report)
    for words in (
        "No problems",
        f"{'test, scratch':<32}{COUNT:>4}  {COUNT} with a mask",
        f"train   96 × 128 ({COUNT})",
        f"train   gray, 8 bits ({COUNT})",
    ):
        assert words in text


def test_what_has_to_be_mended_is_named(folder):
    file = folder / "train/good/004.png"
    file.write_bytes(file.read_bytes()[:2000])
    (folder / "test/scratch/003.png").write_bytes(b"")
    (folder / mask(4)).write_bytes(b"no image")
    saved(folder / "roi/train/good/002.png", np.full((96, 127), 255, np.uint8))
    saved(folder / mask(5), load(folder / mask(5))[:-1])
    # A file of another kind with the same pixels, and two files with almost the same picture.
    saved(folder / "test/good/100.bmp", load(folder / "train/good/007.png"))
    saved(folder / "test/good/101.jpg", load(folder / "train/good/008.png"), quality=60)
    smaller = Image.open(folder / "train/good/009.png").resize((96, 72), Image.Resampling.LANCZOS)
    smaller.save(folder / "test/good/102.jpg", quality=90)
    shutil.copy(folder / "test/good/002.png", folder / "test/scratch/100.png")
    saved(folder / mask(100), load(folder / mask(1)))
    np.save(folder / "train/good/001.npy", np.stack([load(folder / "train/good/001.png")] * 2, -1))
    (folder / "train/good/001.png").unlink()
    mend = {
        "4 files cannot be used": [
            "train/good/004.png: cannot be decoded",
            "test/scratch/003.png: is an empty file",
            f"{mask(4)}: is not an image",
            "roi/train/good/002.png: the region of interest has 96 × 127 pixels",
        ],
        "1 mask differs in size": [f"{mask(5)} has 95 × 128 and its image 96 × 128"],
        "pixel by pixel, is in train and in test": ["train/good/007.png = test/good/100.bmp"],
        "re-encoded, rescaled or taken twice, is in train and in test (2 pictures)": [
            "train/good/008.png = test/good/101.jpg",
            "train/good/009.png = test/good/102.jpg",
        ],
        "in test under different labels": ["test/good/002.png = test/scratch/100.png"],
        "1 image cannot be read together": ["train/good/001.npy has 2 channels"],
    }
    assert_found(folder, mend=mend)


def test_what_is_worth_a_look_is_named(folder):
    (folder / mask(1)).rename(folder / mask(77))
    saved(folder / mask(2), np.zeros(SIZE, np.uint8))
    saved(folder / mask(3), 255 - load(folder / mask(3)))
    large = np.zeros(SIZE, np.uint8)
    large[4:-4, 4:-20] = 255
    saved(folder / mask(4), large)
    for number, shades in ((5, (100, 200)), (6, (200,))):
        marked = load(folder / mask(number))
        marked[40, 40 : 40 + len(shades)] = shades
        saved(folder / mask(number), marked)
    saved(folder / mask(7, "good"), load(folder / mask(7)))
    image, train = load(folder / "train/good/011.png"), folder / "train/good"
    saved(train / "009.png", np.zeros(SIZE, np.uint8))
    saved(train / "010.png", picture(9, size=(48, 64)))
    saved(train / "011.png", np.stack([image, image, 255 - image], axis=-1))
    saved(train / "012.png", load(train / "012.png").astype(np.uint16) * 257)
    shutil.copy(train / "002.png", train / "copy.png")
    saved(folder / "train/bad/000.png", picture(8))
    saved(folder / "test/good/copy.jpg", load(folder / "test/good/003.png"), quality=80)
    (train / "009.gif").write_bytes(b"GIF89a")
    look = {
        "1 defective test image has no mask": ["test/scratch/001.png"],
        "1 mask is empty": [mask(2)],
        "1 mask seems inverted": [f"{mask(3)} marks 99%"],
        "1 mask covers more than half": [f"{mask(4)} marks 74%"],
        "2 masks have gray levels": [
            f"{mask(5)} has 2 such pixels, 1 of them counting as good",
            f"{mask(6)} has 1 such pixel",
        ],
        "in a good image": [mask(7, "good")],
        "to no test image": [mask(77)],
        "1 image has nearly the same value": ["train/good/009.png is all black"],
        "much smaller or larger": ["train/good/010.png has 48 × 64"],
        "1 image of 62 has 3 channels": ["train/good/011.png"],
        "differ in type": ["train/good/012.png is uint16"],
        "more than once in train": ["train/good/002.png = train/good/copy.png"],
        "more than once in test": ["test/good/003.png = test/good/copy.jpg"],
        "left out because of the suffix": ["train/good/009.gif"],
        "outside the folders": ["train/bad/000.png"],
    }
    assert_found(folder, look=look)


def brighter_defects(root: Path, by: float = 25) -> None:
    for file in root.glob("test/scratch/*.png"):
        saved(file, np.clip(load(file) + by, 0, 255).astype(np.uint8))


def test_what_tells_defects_without_any_model_is_named(folder):
    brighter_defects(folder)
    lines = [
        "mean brightness: image AUROC 0.9",
        "distance to mean train image: image AUROC 0.9",
    ]
    assert_found(folder, look={"without any model": lines})
    for file in folder.glob("test/scratch/*.png"):
        saved(file.with_suffix(".jpg"), load(file), quality=97)
        file.unlink()
    lines += ["file size: image AUROC 0.8", "kind of file: image AUROC 1.00 (more are JPEG)"]
    assert_found(folder, look={"stored in another way": lines})


def test_what_is_missing_for_figures_is_named(folder):
    shutil.rmtree(folder / "ground_truth")
    look = {"No defective test image has a mask": []}
    assert_found(folder, look=look)
    good = (folder / "test/good").rename(folder.parent / "aside")
    assert_found(folder, look=look | {"No good test images": []})
    shutil.rmtree(folder / "test/scratch")
    good.rename(folder / "test/good")
    assert_found(folder, look={"No defective test images": []})


def test_labels_empty_masks_palettes_and_names_unlike_the_look_are_no_mistakes(folder):
    for i, file in enumerate(sorted(folder.glob("train/good/*.png"))):
        file.rename(file.with_name(f"cam{i % 4}_{i}.png"))
    labels = load(folder / mask(2)) // 255
    labels[:, :100] *= 2
    saved(folder / mask(2), labels)
    saved(folder / mask(3, "good"), np.zeros(SIZE, np.uint8))
    # Nothing reads it, so it stops nothing.
    (folder / mask(4, "good")).write_bytes(b"no image")
    classes = load(folder / mask(4)) // 255
    classes[:, :92] *= 2
    palette = Image.fromarray(classes, "P")
    palette.putpalette([0, 0, 0, 0, 128, 0, 64, 0, 0])
    palette.save(folder / mask(4))
    assert_found(folder)


def test_three_pages_of_gray_are_not_read_as_one(folder):
    gray = load(folder / "test/scratch/000.png")
    pages = [Image.fromarray(page) for page in (gray[::-1], gray[:, ::-1])]
    saved(folder / "test/scratch/000.tif", gray, save_all=True, append_images=pages)
    (folder / "test/scratch/000.png").unlink()
    assert_found(folder, mend={"cannot be read together": ["test/scratch/000.tif has 3 channels"]})


def test_a_copy_in_12_bits_is_found_and_dark_images_are_not_constant(folder):
    for file in [*folder.glob("train/*/*.png"), *folder.glob("test/*/*.png")]:
        saved(file, load(file).astype(np.uint16) * 16)
    twelve_bits = {"--config.data.input_range='(0,4095)'": []}
    image = 1500 + load(folder / "train/good/000.png") // 6
    noise = np.random.default_rng(0).integers(0, 9, SIZE, np.uint16)
    saved(folder / "train/good/000.png", image + np.uint16(4))
    saved(folder / "test/good/100.png", image + noise)
    copies = {"in train and in test": ["train/good/000.png = test/good/100.png"]}
    assert_found(folder, mend=copies, look=twelve_bits)

    # One 8-bit image among them does not make the others dark.
    (folder / "test/good/100.png").unlink()
    saved(folder / "train/good/002.png", (load(folder / "train/good/002.png") // 16).astype("u1"))
    saved(folder / "train/good/001.png", 1000 + 2 * noise)  # 1 of 256 levels, as good as constant
    look = {
        "differ in type": ["train/good/002.png is uint8"],
        "nearly the same value": ["train/good/001.png is all gray, 25%"],
    }
    assert_found(folder, look=look)


def test_photographs_of_a_part_in_a_fixture_are_not_named_one_by_one(folder):
    still = picture(7)
    for file in folder.glob("train/good/*.png"):
        noise = np.random.default_rng(int(file.stem)).normal(0, 1, SIZE)
        saved(file, np.clip(still + noise, 0, 255).astype(np.uint8))
    assert_found(folder, look={f"{COUNT} of {COUNT} training images": []})


def test_few_test_images_give_no_alarm_whatever_their_figures(folder):
    for kept, defect in ((3, "good"), (2, "scratch")):
        for i in range(kept, COUNT):
            (folder / f"test/{defect}/{i:03d}.png").unlink()
            (folder / mask(i)).unlink(missing_ok=True)
    (folder / mask(2)).unlink(missing_ok=True)
    brighter_defects(folder, by=85)  # clearly separable
    report = check_folder(folder)
    assert report.findings == ()
    assert "1.00  defective: brighter (too few images to tell)" in as_text(report)


def test_the_lower_end_of_an_auroc_is_above_the_truth_one_time_in_a_hundred():
    # Normal scores with a distance of 1.19 have an AUROC of 0.8.
    rng = np.random.default_rng(0)
    labels = np.repeat([False, True], [15, 25])
    above = 0
    for _ in range(1000):
        figure = auroc(levels(rng.normal(1.1902 * labels), labels))
        above += least_auroc(max(figure, 0.5), 15, 25) > 0.8
    assert above <= 1000 * 0.02
    assert least_auroc(1.0, 2, 3) < 0.5 < least_auroc(1.0, 10, 10) < least_auroc(1.0, 50, 50)


def test_series_in_the_names_are_found_and_the_pattern_works(folder):
    shutil.rmtree(folder / "train/good")
    for part in range(5):
        still = picture(5, part).astype(np.float64)
        for shot in range(6):
            # Each shot of a part has different light, so that they are not copies.
            light = np.clip(still * (0.7 + 0.1 * shot), 0, 255).astype(np.uint8)
            saved(folder / f"train/good/cam1-{shot}{part}7-{200 + part}-x.png", light)
    assert_found(folder, look={"5 series": []})
    (finding,) = check_folder(folder).findings
    pattern = finding.text.split("--config.holdout.group='")[1][:-1]
    train = folder_source(folder).train
    held = split_holdout(train, fraction=0.2, group=pattern, few=10, gap=0, min_side=8).heldout
    assert len(held) == 6 and len({record.name.split("-")[2] for record in held}) == 1


def look_alikes(lots_of_pairs) -> list[ImageLook]:
    """Write two images of each picture to the given lots; names have lot, plant half and number."""
    rng = np.random.default_rng(0)
    looks, number = [], iter(rng.permutation(1000))
    for lots in lots_of_pairs:
        thumb = rng.uniform(0, 255, (32, 32))
        for lot in lots:
            name = f"{'ab'[lot % 2]}_{lot}_{next(number)}.png"
            noisy = (thumb + rng.normal(0, 5, (32, 32))).astype(np.float32)
            look = (Path(name), name, "", SIZE, 1, "uint8", 255.0, False, 1, 0.5, 0.1, 0.1, b"")
            looks.append(ImageLook(*look, noisy))
    return looks


def test_the_series_is_the_finest_part_of_a_name_that_goes_with_the_look():
    found = series(look_alikes([(i % 8, i % 8) for i in range(40)]))
    assert found.groups == 8 and found.agreement == 1
    less_than_half = [(i % 8, i % 8 if i < 16 else (i + 3) % 8) for i in range(40)]
    assert series(look_alikes(less_than_half)) is None


def test_figures_are_reported_where_they_are_high_and_not_by_chance():
    for value, at_least, expected in ((0.85, 0.74, True), (0.75, 0.7, False), (1.0, 0.56, False)):
        assert Figure("contrast", value, at_least, "higher").tells_apart == expected


def test_the_nearest_vector_is_that_of_the_plain_computation(monkeypatch):
    monkeypatch.setattr("recon_ad.checking.similar._BLOCK", 7)
    rng = np.random.default_rng(0)
    vectors = rng.normal(100, 3, (25, 40)).astype(np.float32)
    among = np.arange(4, 20)
    apart = np.sqrt(np.mean((vectors[:, None] - vectors[None, :]) ** 2, axis=-1, dtype=np.float64))
    np.fill_diagonal(apart, np.inf)
    found = list(_nearest(vectors, among))
    assert [j for j, _ in found] == (4 + apart[:, 4:20].argmin(axis=1)).tolist()
    np.testing.assert_allclose([rms for _, rms in found], apart[:, 4:20].min(axis=1), rtol=1e-4)


def test_a_plain_folder_of_good_images_is_checked_as_far_as_it_goes(sound, tmp_path):
    shutil.copytree(sound / "train/good", tmp_path / "mine")
    report = check_folder(tmp_path / "mine")
    assert report.findings == ()
    text = as_text(report)
    assert f"{'train':<32}{COUNT:>4}" in text and "no test images" in text
    shutil.copy(tmp_path / "mine/003.png", tmp_path / "mine/again.png")
    assert_found(tmp_path / "mine", look={"more than once in train": ["003.png = again.png"]})


def test_folders_without_a_usable_image_have_to_be_mended_or_get_a_sentence(folder, tmp_path):
    for file in folder.glob("train/good/*"):
        file.write_bytes(b"no image")
    assert_found(folder, mend={f"{COUNT} files cannot be used": ["train/good/"] * COUNT})
    shutil.copytree(folder / "train/good", tmp_path / "mine")
    report = check_folder(tmp_path / "mine")
    assert report.mend and f"{COUNT} files cannot be used" in as_text(report)
    shutil.copytree(folder / "test/scratch", tmp_path / "a/defects")
    with pytest.raises(UserError, match="put the good images into train/good"):
        check_folder(tmp_path / "a")
    (tmp_path / "b/train/good").mkdir(parents=True)
    with pytest.raises(UserError, match="contains no images"):
        check_folder(tmp_path / "b")


def test_the_status_of_the_command_depends_on_whether_something_has_to_be_mended(sound, folder):
    result = run_command("check", sound.parent, "--category", sound.name)
    assert result.returncode == 0, result.stderr
    assert "No problems" in result.stdout
    (folder / "train/good/004.png").write_bytes(b"no image")
    (folder / mask(6)).unlink()
    result = run_command("check", f"--category={folder.name}", folder.parent)
    assert result.returncode == 3, result.stderr
    first, second = result.stdout.split("Please check")
    assert " 1. 1 file cannot be used" in first
    assert "\n      train/good/004.png: is not an image" in first
    assert " 2. 1 defective test image has no mask" in second


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no folder was given"),
        (["a", "b"], "one folder too many: 'b'"),
    ],
)
def test_a_mistake_in_the_command_is_one_sentence(arguments, words):
    assert words in refusal("check", *arguments)


def test_checking_needs_no_jax(sound):
    done = run_process("check", sound, PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0, done.stderr
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "recon_ad.checking" in imported and not {"jax", "jaxlib", "flax"} & imported


@pytest.mark.slow
def test_real_folders_have_the_findings_that_were_looked_up_in_them(real_data):
    assert_found(real_data / "mvtec_ad" / "grid")
    assert_found(real_data / "nanotwice" / "nanofibres", look={"no image figure": []})
    report = check_folder(real_data / "bsdata", category="ball_screw")
    grouped, figures = report.findings
    assert not report.mend and "mean brightness: image AUROC 0.85 (darker)" in figures.files
    assert "10 series" in grouped.text  # positions on the screw, the third field of the name
    empty, copies, grouped = check_folder(real_data / "mtd" / "magnetic_tile").findings
    assert len(empty.files) == 4 and all("uneven" in name for name in empty.files)
    assert "more than once in test" in copies.text
    assert "test/crack/exp5_num_85642.jpg = test/crack/exp5_num_86031.jpg" in copies.files
    # A tile was photographed in six successive exposures, as the numbers show.
    assert r"'(\d*)\d{3}\D*$'" in grouped.text


def test_a_name_with_a_line_break_forges_no_line(tmp_path):
    for name in ("a.png", "b\nforged: 1 row.png"):
        Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / name)
    told = as_text(check_folder(tmp_path))
    assert "b\\nforged: 1 row.png" in told and "\nforged" not in told
