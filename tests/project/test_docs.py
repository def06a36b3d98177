"""The documents' form: lengths, versions, a page for each method, tables, and the built site."""

import importlib.util
import json
import re
import subprocess
import sys
import tomllib

import pytest
import yaml
from helpers.paths import ROOT

from benchmarks import documents
from recon_ad.methods import METHODS

DOCS = ROOT / "docs"
CELL = {"dataset": "grid", "method": "knn", "variant": "", "wall_seconds": 60.0}


def test_the_first_pages_are_short():
    for name, most in (("README.md", 150), ("BUILD.md", 100)):
        assert len((ROOT / name).read_text().splitlines()) <= most, name


def test_the_version_is_the_same_everywhere():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    released = re.findall(r"^## \[([\d.]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert (cited["version"], released[0]) == (version, version)


def test_every_method_has_a_page():
    pages = {path.stem for path in (DOCS / "methods").glob("*.md")} - {"index", "encoders"}
    assert pages == {name for name in METHODS if "." not in name}
    for name in pages:
        text = (DOCS / "methods" / f"{name}.md").read_text()
        assert f"<!-- detectors {name} -->" in text and "**When not to use it.**" in text, name


def test_tables_of_figures_are_written_from_cells():
    cells = [
        CELL | {"seed": seed, "image_auroc": value, "pixel_auroc": 0.5}
        for seed, value in enumerate((0.9, 0.8))
    ]
    cells += [CELL | {"variant": "random weights", "seed": 0, "image_auroc": 0.1}]
    text = "a\n<!-- detectors knn -->\nold\n<!-- end -->\nb\n"
    written = documents.written(text, cells)
    assert "| *grid* | 2 | .850 | .500 | – |" in written and "\nold" not in written
    assert documents.written(written, cells) == written
    # What is not run yet has a row in no table.
    assert "Not run yet." in documents.written(text, [])
    everything = documents.table(cells, "all")
    assert (
        "| `knn` | .850 / .500 / – | – / – | – | – | – | – |" in everything
        and "vae" not in everything
    )


def test_tables_of_figures_are_current():
    assert {path.name for path in documents.documents()} >= {"README.md", "index.md", "knn.md"}
    source = ROOT / "results" / "detectors.json"
    if not source.is_file():
        pytest.skip("results/detectors.json is not there")
    cells = json.loads(source.read_text())["cells"]
    for path in documents.documents():
        text = path.read_text()
        assert documents.written(text, cells) == text, "run python -m benchmarks.documents"


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("mkdocs"), reason="mkdocs is not installed")
def test_the_site_builds_and_loads_nothing_from_elsewhere(tmp_path):
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 40
    for page in pages:
        html = page.read_text()
        loaded = re.findall(r"<(?:script|img|iframe)[^>]* src=\"?(https?:[^\s\">]*)", html)
        loaded += re.findall(r"<link[^>]* href=\"?(https?:[^\s\">]*)", html)
        assert not loaded, page
    reference = (tmp_path / "reference" / "api.html").read_text()
    assert 'id="recon_ad.api.fit"' in reference
