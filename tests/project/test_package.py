"""The installed package with its configs, which works in any folder."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv

import pytest
from helpers.paths import ROOT

# In an empty folder: the list of commands, and a config that builds on another one.
USES = """
import recon_ad, recon_ad.config, recon_ad.report.html
print(recon_ad.__file__)
print(recon_ad.load_config("configs/folder.py:method=knn,smoke").encoder.weights)
print(recon_ad.load_config("folder:smoke").data.source)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Return the files of a wheel, built without pip and a network."""
    folder = tmp_path_factory.mktemp("built")
    build = ["egg_info", f"--egg-base={folder}", "build_py", f"--build-lib={folder / 'lib'}"]
    subprocess.run(
        [sys.executable, "-W", "ignore", "setup.py", "-q", *build],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    return folder / "lib"


def test_a_wheel_holds_every_module_config_and_file_of_the_report(installed):
    def files(root):
        found = {p.relative_to(root) for p in root.rglob("*") if p.is_file()}
        return {path for path in found if path.suffix != ".pyc"}

    held = files(installed / "recon_ad")
    assert held == files(ROOT / "recon_ad") | {
        path.relative_to(ROOT) for path in (ROOT / "configs").glob("*.py")
    }
    assert {path.name for path in installed.iterdir()} == {"recon_ad"}


def test_what_is_installed_works_in_any_folder(installed, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(installed)}

    def python(*arguments):
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path, env=environment, check=True, capture_output=True, text=True,
        ).stdout.splitlines()  # fmt: skip

    assert python("-c", USES) == [
        str(installed / "recon_ad" / "__init__.py"), "random", "synthetic",
    ]  # fmt: skip
    assert any(line.split()[:1] == ["train"] for line in python("-m", "recon_ad"))


@pytest.mark.slow
def test_what_is_installed_trains_reports_and_exports_in_a_fresh_environment(
    installed, chess_folder, tmp_path
):
    environment = tmp_path / "environment"
    venv.create(environment, symlinks=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    shutil.copytree(installed / "recon_ad", packages / "recon_ad")
    # The other packages are those of the tests, after the environment's own.
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"))
    variables = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}

    def python(*arguments):
        return subprocess.run(
            [environment / "bin" / "python", *arguments],
            cwd=tmp_path, env=variables, check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip

    place = python("-c", "import recon_ad; print(recon_ad.__file__)").strip()
    assert place == str(packages / "recon_ad" / "__init__.py")
    config = f"folder:path={chess_folder},method=cae,smoke"
    python("-m", "recon_ad.train", "--config", config, "--workdir", "run")
    for file in ("report.html", "model.onnx", "metrics.json", "detector/MODEL_CARD.md"):
        assert (tmp_path / "run" / file).is_file(), file
