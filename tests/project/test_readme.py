"""Links in the documents have targets, and the page of results matches its files."""

import json
import re

import nbformat
import pytest
from helpers.paths import ROOT

from benchmarks import report
from recon_ad.errors import UserError

FOLDERS = (".", ".github", "results", "deploy/cpp", "launch", "notebooks", "docs/**")
DOCUMENTS = sorted(
    {
        path.relative_to(ROOT)
        for folder in FOLDERS
        for suffix in ("md", "ipynb")
        for path in ROOT.glob(f"{folder}/*.{suffix}")
    }
)


def text_of(name):
    """Return the document, or a notebook's text."""
    if name.suffix == ".md":
        return (ROOT / name).read_text()
    cells = nbformat.read(ROOT / name, as_version=nbformat.NO_CONVERT).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


@pytest.mark.parametrize("name", DOCUMENTS, ids=str)
def test_links_and_named_files_lead_somewhere(name):
    text = text_of(name)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        page = (ROOT / name).parent / file if file else ROOT / name
        assert page.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}
            assert anchor in anchors, target
    for path in re.findall(r"`((?:tests|benchmarks|examples|configs|results)/[\w/.]+)`", text):
        assert (ROOT / path).exists(), path


def test_the_page_of_results_is_current(tmp_path):
    results = ROOT / "results"
    assert (results / "README.md").read_text() == report.page(results), (
        "run python -m benchmarks.report"
    )
    # A file without a section on the page is rejected by name.
    (tmp_path / "new.json").write_text(json.dumps({}))
    with pytest.raises(UserError, match="no section for new"):
        report.page(tmp_path)
