"""What is installed: the package with its configs, which works in any folder."""

import os
import subprocess
import sys

import pytest
from helpers.paths import ROOT

# In a folder with nothing in it: the list of commands, and a config that builds on another.
USES = """
import recon_ad, recon_ad.config, recon_ad.report.html
print(recon_ad.__file__)
print(recon_ad.load_config("configs/folder.py:method=knn,smoke").encoder.weights)
print(recon_ad.load_config("folder:smoke").data.source)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The files of a wheel, built without pip and a network."""
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
