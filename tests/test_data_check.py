"""`python -m recon_ad.data check`: silent on a sound folder, names what spoils one."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from recon_ad.data import folder_source, split_holdout
from recon_ad.data.checking.check import as_text, check_folder
from recon_ad.data.checking.confounders import Figure, least_auroc
from recon_ad.data.checking.look import ImageLook
from recon_ad.data.checking.similar import _nearest, series
from recon_ad.errors import UserError
from recon_ad.metrics import auroc, levels

SIZE = (96, 128)
TRAIN, GOOD, BAD = 20, 20, 20
MASK = "ground_truth/scratch/{:03d}_mask.png"


def picture(seed, *, size=SIZE) -> np.ndarray:
    """A surface: slow and fast noise, whose light and strength vary from image to image."""
    rng = np.random.default_rng(seed)
    slow = ndimage.gaussian_filter(rng.normal(size=size), 6, mode="wrap")
    fast = ndimage.gaussian_filter(rng.normal(size=size), 1, mode="wrap")
    levels = rng.uniform(100, 140)
    levels = levels + rng.uniform(20, 35) * slow / slow.std()
    levels = levels + rng.uniform(5, 20) * fast / fast.std()
    return np.clip(levels, 0, 255).astype(np.uint8)


def save(path: Path, image: np.ndarray, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **options)


def load(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    """A folder with nothing wrong in it."""
    root = tmp_path_factory.mktemp("sound")
    for i in range(TRAIN):
        save(root / f"train/good/{i:03d}.png", picture([0, i]))
    for i in range(GOOD):
        save(root / f"test/good/{i:03d}.png", picture([1, i]))
    for i in range(BAD):
        image, mask = picture([2, i]), np.zeros(SIZE, np.uint8)
        row, column = 10 + 3 * i, 100 - 4 * i
        mask[row : row + 4, column : column + 18] = 255
        save(root / f"test/scratch/{i:03d}.png", np.where(mask, 255 - image, image))
        save(root / MASK.format(i), mask)
    return root


@pytest.fixture
def folder(sound, tmp_path) -> Path:
    """A copy to spoil."""
    return shutil.copytree(sound, tmp_path / "set")


def only_finding(root: Path):
    """The one thing found."""
    report = check_folder(root)
    assert len(report.findings) == 1, [f.text for f in report.findings]
    return report.findings[0]


def test_a_sound_folder_is_silent_and_counted(sound):
    report = check_folder(sound)
    assert report.findings == ()
    assert not report.mend
    text = as_text(report)
    assert "Nothing wrong" in text
    assert f"{'test, scratch':<32}{BAD:>4}  {BAD} with a mask" in text
    assert f"train   96 × 128 ({TRAIN})" in text
    assert f"train   gray, 8 bits ({TRAIN})" in text
    assert "mean brightness" in text


def truncated(root):
    file = root / "train/good/004.png"
    file.write_bytes(file.read_bytes()[:2000])
    return ["train/good/004.png: cannot be decoded"]


def empty_file(root):
    (root / "test/scratch/003.png").write_bytes(b"")
    return ["test/scratch/003.png: is an empty file"]


def broken_mask(root):
    (root / MASK.format(3)).write_bytes(b"no image")
    return [f"{MASK.format(3)}: is not an image"]


def mask_of_another_size(root):
    save(root / MASK.format(5), load(root / MASK.format(5))[:-1])
    return [f"{MASK.format(5)} has 95 × 128 and its image 96 × 128"]


def train_image_in_test(root):
    # Another kind of file with the same pixels.
    save(root / "test/good/100.bmp", load(root / "train/good/007.png"))
    return ["train/good/007.png = test/good/100.bmp"]


def train_image_as_jpeg_in_test(root):
    save(root / "test/good/100.jpg", load(root / "train/good/007.png"), quality=60)
    return ["train/good/007.png = test/good/100.jpg"]


def train_image_halved_in_test(root):
    image = Image.open(root / "train/good/007.png")
    image = image.resize((image.width * 3 // 4, image.height * 3 // 4), Image.Resampling.LANCZOS)
    save(root / "test/good/100.jpg", np.asarray(image), quality=90)
    return ["train/good/007.png = test/good/100.jpg"]


def one_image_under_two_labels(root):
    shutil.copy(root / "test/good/002.png", root / "test/scratch/100.png")
    save(root / MASK.format(100), load(root / MASK.format(1)))
    return ["test/good/002.png = test/scratch/100.png"]


def channels_that_do_not_go_together(root):
    image = load(root / "train/good/001.png")
    np.save(root / "train/good/001.npy", np.stack([image, image], axis=-1))
    (root / "train/good/001.png").unlink()
    return ["train/good/001.npy has 2 channels"]


def region_of_another_size(root):
    save(root / "roi/train/good/002.png", np.full((96, 127), 255, np.uint8))
    return ["roi/train/good/002.png: the region of interest has 96 × 127 pixels"]


@pytest.mark.parametrize(
    "spoil",
    [
        truncated,
        empty_file,
        broken_mask,
        mask_of_another_size,
        train_image_in_test,
        train_image_as_jpeg_in_test,
        train_image_halved_in_test,
        one_image_under_two_labels,
        channels_that_do_not_go_together,
        region_of_another_size,
    ],
)
def test_what_has_to_be_mended_is_named(folder, spoil):
    expected = spoil(folder)
    finding = only_finding(folder)
    assert finding.mend
    assert len(finding.files) == len(expected)
    for line, start in zip(finding.files, expected, strict=True):
        assert line.startswith(start)


def missing_mask(root):
    (root / MASK.format(6)).unlink()
    return "no mask", ["test/scratch/006.png"]


def empty_mask(root):
    save(root / MASK.format(6), np.zeros(SIZE, np.uint8))
    return "empty", [MASK.format(6)]


def inverted_mask(root):
    save(root / MASK.format(6), 255 - load(root / MASK.format(6)))
    return "inverted", [f"{MASK.format(6)} marks 99%"]


def large_mask(root):
    mask = np.zeros(SIZE, np.uint8)
    mask[4:-4, 4:-20] = 255
    save(root / MASK.format(6), mask)
    return "more than half", [f"{MASK.format(6)} marks 74%"]


def soft_mask(root):
    mask = load(root / MASK.format(6)).copy()
    mask[40, 40], mask[40, 41] = 100, 200
    save(root / MASK.format(6), mask)
    return "gray levels", [f"{MASK.format(6)} has 2 such pixels, 1 of them counting as good"]


def mask_of_three_levels(root):
    mask = load(root / MASK.format(6)).copy()
    mask[40, 40] = 200
    save(root / MASK.format(6), mask)
    return "gray levels", [f"{MASK.format(6)} has 1 such pixel"]


def mask_of_a_good_image(root):
    mask = f"{MASK.format(1)}".replace("scratch", "good")
    save(root / mask, load(root / MASK.format(1)))
    return "in a good image", [mask]


def mask_of_no_image(root):
    save(root / MASK.format(77), load(root / MASK.format(1)))
    return "to no test image", [MASK.format(77)]


def no_masks(root):
    shutil.rmtree(root / "ground_truth")
    return "No defective test image has a mask", []


def black_image(root):
    save(root / "train/good/009.png", np.zeros(SIZE, np.uint8))
    return "nearly the same value", ["train/good/009.png is all black"]


def odd_size(root):
    save(root / "train/good/009.png", picture([9], size=(48, 64)))
    return "smaller or larger", ["train/good/009.png has 48 × 64"]


def one_rgb_image(root):
    image = load(root / "train/good/009.png")
    save(root / "train/good/009.png", np.stack([image, image, 255 - image], axis=-1))
    return "1 image of 60 has 3 channels", ["train/good/009.png"]


def one_image_of_16_bits(root):
    save(root / "train/good/009.png", load(root / "train/good/009.png").astype(np.uint16) * 257)
    return "differ in type", ["train/good/009.png is uint16"]


def twelve_bits_in_sixteen(root):
    for file in [*root.glob("train/*/*.png"), *root.glob("test/*/*.png")]:
        save(file, load(file).astype(np.uint16) * 16)
    return "--config.data.input_range='(0,4095)'", []


def copy_within_train(root):
    shutil.copy(root / "train/good/002.png", root / "train/good/copy.png")
    return "more than once in train", ["train/good/002.png = train/good/copy.png"]


def copy_within_test(root):
    save(root / "test/good/copy.jpg", load(root / "test/good/003.png"), quality=80)
    return "more than once in test", ["test/good/003.png = test/good/copy.jpg"]


def brighter_defects(root):
    for file in root.glob("test/scratch/*.png"):
        save(file, np.clip(load(file) * 1.0 + 25, 0, 255).astype(np.uint8))
    return "without any model", [
        "mean brightness: image AUROC 0.9",
        "distance to mean train image: image AUROC 0.9",
    ]


def defects_stored_otherwise(root):
    for file in root.glob("test/scratch/*.png"):
        save(file.with_suffix(".jpg"), load(file), quality=97)
        file.unlink()
    return "stored otherwise", [
        "file size: image AUROC 0.9",
        "kind of file: image AUROC 1.00 (more are JPEG)",
    ]


def no_good_test_images(root):
    shutil.rmtree(root / "test/good")
    return "There are no good test images", []


def no_defective_test_images(root):
    shutil.rmtree(root / "test/scratch")
    shutil.rmtree(root / "ground_truth")
    return "There are no defective test images", []


def another_suffix(root):
    (root / "train/good/009.gif").write_bytes(b"GIF89a")
    return "left out for the suffix", ["train/good/009.gif"]


def image_in_no_known_place(root):
    save(root / "train/bad/000.png", picture([8]))
    return "will not be used", ["train/bad/000.png"]


@pytest.mark.parametrize(
    "spoil",
    [
        missing_mask,
        empty_mask,
        inverted_mask,
        large_mask,
        soft_mask,
        mask_of_three_levels,
        mask_of_a_good_image,
        mask_of_no_image,
        no_masks,
        black_image,
        odd_size,
        one_rgb_image,
        one_image_of_16_bits,
        twelve_bits_in_sixteen,
        copy_within_train,
        copy_within_test,
        brighter_defects,
        defects_stored_otherwise,
        no_good_test_images,
        no_defective_test_images,
        another_suffix,
        image_in_no_known_place,
    ],
)
def test_what_is_worth_a_look_is_named(folder, spoil):
    fragment, expected = spoil(folder)
    finding = only_finding(folder)
    assert not finding.mend
    assert fragment in finding.text
    assert len(finding.files) == len(expected), finding.files
    for line, start in zip(finding.files, expected, strict=True):
        assert line.startswith(start)


def test_labels_empty_masks_of_good_images_and_palettes_are_no_mistakes(folder):
    labels = load(folder / MASK.format(2)) // 255
    labels[:, :100] *= 2
    save(folder / MASK.format(2), labels)
    save(folder / MASK.format(3).replace("scratch", "good"), np.zeros(SIZE, np.uint8))
    # Nobody reads it, so it stops nothing.
    (folder / MASK.format(4).replace("scratch", "good")).write_bytes(b"no image")
    classes = load(folder / MASK.format(4)) // 255
    classes[:, :92] *= 2
    palette = Image.fromarray(classes, "P")
    palette.putpalette([0, 0, 0, 0, 128, 0, 64, 0, 0])
    palette.save(folder / MASK.format(4))
    assert check_folder(folder).findings == ()


def test_a_copy_in_12_bits_is_found_and_dark_images_are_not_constant(folder):
    twelve_bits_in_sixteen(folder)
    image = 1500 + load(folder / "train/good/000.png").astype(np.int32) // 6
    noise = np.random.default_rng(0).integers(-4, 5, SIZE)
    save(folder / "train/good/000.png", image.astype(np.uint16))
    save(folder / "test/good/100.png", (image + noise).astype(np.uint16))
    texts = [finding.text for finding in check_folder(folder).findings]
    assert len(texts) == 2
    assert "in train and in test" in texts[0]


def test_one_image_of_8_bits_among_12_in_16_does_not_make_the_others_dark(folder):
    twelve_bits_in_sixteen(folder)
    image = load(folder / "train/good/000.png")
    noise = np.random.default_rng(0).integers(0, 20, SIZE)  # 1 of 256 levels: as good as constant
    save(folder / "train/good/000.png", (image // 16).astype(np.uint8))
    save(folder / "train/good/001.png", (1000 + noise).astype(np.uint16))
    types, constant = check_folder(folder).findings
    assert types.files == ("train/good/000.png is uint8",)
    assert constant.files == ("train/good/001.png is all gray, 25%",)


def test_photographs_of_a_part_in_a_fixture_are_not_told_one_by_one(folder):
    still = picture([7])
    for file in folder.glob("train/good/*.png"):
        noise = np.random.default_rng(int(file.stem)).normal(0, 1, SIZE)
        save(file, np.clip(still + noise, 0, 255).astype(np.uint8))
    finding = only_finding(folder)
    assert f"{TRAIN} of {TRAIN} training images" in finding.text
    assert not finding.mend


def test_few_test_images_give_no_alarm_whatever_their_figures(folder):
    brighter_defects(folder)
    for kept, defect in ((3, "good"), (2, "scratch")):
        for i in range(kept, GOOD):
            (folder / f"test/{defect}/{i:03d}.png").unlink()
            if defect == "scratch":
                (folder / MASK.format(i)).unlink()
    for i in range(2):  # apart without a doubt
        file = folder / f"test/scratch/{i:03d}.png"
        save(file, np.clip(load(file) * 1.0 + 60, 0, 255).astype(np.uint8))
    report = check_folder(folder)
    assert report.findings == ()
    assert "1.00  defective: brighter (too few images to tell)" in as_text(report)


def test_the_lower_end_of_an_auroc_is_above_the_truth_one_time_in_a_hundred():
    # Normal scores a distance of 1.19 apart have an AUROC of 0.8.
    rng = np.random.default_rng(0)
    labels = np.repeat([False, True], [15, 25])
    above = 0
    for _ in range(2000):
        figure = auroc(levels(rng.normal(1.1902 * labels), labels))
        above += least_auroc(max(figure, 0.5), 15, 25) > 0.8
    assert above <= 2000 * 0.02
    assert least_auroc(1.0, 2, 3) < 0.5 < least_auroc(1.0, 10, 10) < least_auroc(1.0, 50, 50)


def test_series_that_names_tell_are_found_and_the_pattern_works(folder, tmp_path):
    shutil.rmtree(folder / "train/good")
    for part in range(5):
        still = picture([5, part]).astype(np.float64)
        for shot in range(6):
            # Each shot of a part in other light, so that they are no copies.
            light = np.clip(still * (0.7 + 0.1 * shot), 0, 255).astype(np.uint8)
            save(folder / f"train/good/cam1-{shot}{part}7-{200 + part}-x.png", light)
    finding = only_finding(folder)
    assert "5 series" in finding.text and not finding.mend
    pattern = finding.text.split("--config.holdout.group='")[1][:-1]
    split = split_holdout(
        folder_source(folder).train, fraction=0.2, group=pattern, few=10, gap=0, min_side=8
    )
    assert len(split.heldout) == 6
    assert len({record.name.split("-")[2] for record in split.heldout}) == 1


def seen(name: str, thumb: np.ndarray) -> ImageLook:
    return ImageLook(Path(name), name, "", SIZE, 1, "uint8", 255.0, False, 1, 0.5, 0.1, 0.1, b"",
                     thumb.astype(np.float32))  # fmt: skip


def look_alikes(lots_of_pairs) -> list[ImageLook]:
    """Two images of each picture, in the lots given; names tell lot, half of the plant, number."""
    rng = np.random.default_rng(0)
    looks, number = [], iter(rng.permutation(1000))
    for lots in lots_of_pairs:
        thumb = rng.uniform(0, 255, (32, 32))
        for lot in lots:
            name = f"{'ab'[lot % 2]}_{lot}_{next(number)}.png"
            looks.append(seen(name, thumb + rng.normal(0, 5, (32, 32))))
    return looks


def test_of_several_parts_of_a_name_the_finest_is_the_series():
    told = series(look_alikes([(i % 8, i % 8) for i in range(40)]))
    assert told.groups == 8
    assert told.agreement == 1


def test_names_that_go_with_the_look_of_less_than_half_of_the_images_are_no_series():
    pairs = [(i % 8, i % 8 if i < 16 else (i + 3) % 8) for i in range(40)]
    assert series(look_alikes(pairs)) is None


@pytest.mark.parametrize(
    ("value", "at_least", "told"),
    [(0.85, 0.74, True), (0.75, 0.7, False), (1.0, 0.56, False)],
)
def test_figures_are_told_of_where_they_are_high_and_not_by_chance(value, at_least, told):
    assert Figure("contrast", value, at_least, "higher").tells_apart == told


def test_names_that_tell_nothing_of_the_look_are_no_series(folder):
    for i, file in enumerate(sorted(folder.glob("train/good/*.png"))):
        file.rename(file.with_name(f"cam{i % 4}_{i}.png"))
    assert check_folder(folder).findings == ()


def test_the_nearest_vector_is_that_of_the_plain_computation(monkeypatch):
    monkeypatch.setattr("recon_ad.data.checking.similar._BLOCK", 7)
    rng = np.random.default_rng(0)
    vectors = rng.normal(100, 3, (25, 40)).astype(np.float32)
    among = np.arange(4, 20)
    apart = np.sqrt(np.mean((vectors[:, None] - vectors[None, :]) ** 2, axis=-1, dtype=np.float64))
    np.fill_diagonal(apart, np.inf)
    found = list(_nearest(vectors, among))
    assert [j for j, _ in found] == (4 + apart[:, 4:20].argmin(axis=1)).tolist()
    np.testing.assert_allclose([rms for _, rms in found], apart[:, 4:20].min(axis=1), rtol=1e-4)


def test_a_plain_folder_of_good_images_is_told_as_far_as_it_goes(sound, tmp_path):
    shutil.copytree(sound / "train/good", tmp_path / "mine")
    report = check_folder(tmp_path / "mine")
    assert report.findings == ()
    text = as_text(report)
    assert f"{'train':<32}{TRAIN:>4}" in text
    assert "there are no test images" in text
    shutil.copy(tmp_path / "mine/003.png", tmp_path / "mine/again.png")
    assert only_finding(tmp_path / "mine").files == ("003.png = again.png",)


def test_a_folder_whose_training_images_are_all_broken_is_told_of(folder):
    for file in folder.glob("train/good/*"):
        file.write_bytes(b"no image")
    report = check_folder(folder)
    assert len(only_finding(folder).files) == TRAIN
    assert report.mend


def test_a_plain_folder_with_defects_in_it_is_refused_as_in_training(sound, tmp_path):
    shutil.copytree(sound / "test/scratch", tmp_path / "defects")
    with pytest.raises(UserError, match="put the good images into train/good"):
        check_folder(tmp_path)


def test_without_training_images_there_is_one_sentence(tmp_path):
    (tmp_path / "train/good").mkdir(parents=True)
    with pytest.raises(UserError, match="holds no images"):
        check_folder(tmp_path)


def command(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "recon_ad.data", *map(str, arguments)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_command_prints_and_its_status_says_whether_to_mend(sound, folder):
    result = command("check", sound.parent, "--category", sound.name)
    assert result.returncode == 0, result.stderr
    assert "Nothing wrong" in result.stdout
    truncated(folder)
    missing_mask(folder)
    result = command(f"--category={folder.name}", "check", folder.parent)
    assert result.returncode == 3, result.stderr
    first, second = result.stdout.split("To be looked at")
    assert " 1. 1 file cannot be used" in first
    assert "\n      train/good/004.png: cannot be decoded" in first
    assert " 2. 1 defective test image has no mask" in second


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no command was given"),
        (["chekc", "."], "'chekc' is no command"),
        (["check"], "no folder was given"),
        (["check", "a", "b"], "one folder too many: 'b'"),
        (["check", "/no/such/folder"], "/no/such/folder: there is no such folder"),
    ],
)
def test_a_mistake_in_the_command_is_one_sentence(arguments, said):
    result = command(*arguments)
    assert result.returncode == 2
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_checking_needs_no_jax(sound):
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['check', 'check', {str(sound)!r}]\n"
        "try:\n"
        "    runpy.run_module('recon_ad.data', run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        "assert not {'jax', 'jaxlib', 'flax'} & set(sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_grid_gives_no_alarm(real_data):
    assert check_folder(real_data / "mvtec_ad" / "grid").findings == ()


def test_nanofibres_has_no_good_test_images(real_data):
    finding = only_finding(real_data / "nanotwice" / "nanofibres")
    assert "no image figure" in finding.text and not finding.mend


def test_ball_screw_is_confounded_and_in_series(real_data):
    report = check_folder(real_data / "bsdata", category="ball_screw")
    assert not report.mend
    by_text = {finding.text[:20]: finding for finding in report.findings}
    assert len(by_text) == 2
    assert "mean brightness: image AUROC 0.85 (darker)" in by_text["Defective test image"].files
    # Ten places on the screw, the third field of the name.
    assert "10 series" in by_text["The training images "].text


def test_magnetic_tile_has_empty_masks_repeated_shots_and_series(real_data):
    root = real_data / "mtd" / "magnetic_tile"
    empty, copies, told = check_folder(root).findings
    assert len(empty.files) == 4 and all("uneven" in name for name in empty.files)
    assert "more than once in test" in copies.text
    assert "test/crack/exp5_num_85642.jpg = test/crack/exp5_num_86031.jpg" in copies.files
    # A tile was photographed in six exposures, one after the other, and the numbers tell when.
    assert r"'(\d*)\d{3}\D*$'" in told.text


def test_a_folder_in_which_nothing_decodes_is_told(tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.png").write_text("no image")
    report = check_folder(tmp_path)
    assert report.mend and "3 files cannot be used" in as_text(report)
