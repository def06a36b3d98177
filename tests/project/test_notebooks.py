"""Notebooks run from top to bottom in a shortened form; in git they have no outputs."""

import ast
import base64
import io
import os
import re
import subprocess
import sys

import nbformat
import numpy as np
import pytest
from helpers.paths import ROOT
from nbclient import NotebookClient
from PIL import Image

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# Replacements of their parameters, and the cells whose output is a picture or a page.
FIELDS = {
    "train.batch_size": 4, "train.heldout_patches": 16, "evaluation.bootstrap": 20,
    "evaluation.panels": 1, "method.width": 0.25, "method.n_z": 8,
}  # fmt: skip
SHORT = {
    "01_quickstart": {"CONFIG": "configs/demo.py:smoke", "STEPS": 2},
    "02_own_images": {
        "STEPS": 2,
        "FLAGS": ("--config.data.patch_size=64", *(f"--config.{k}={v}" for k, v in FIELDS.items())),
        "FOILS": 1,
        "PIECES": 12,
    },
    "03_paper_tables": {"STEPS": 2, "FIELDS": FIELDS | {"inference.stride": 128, "data.side": 384}},
    "04_vit": {
        "WEIGHTS": "random",
        "SIDE": 64,
        "STEPS": 2,
        "FOILS": 1,
        "PIECES": 6,
        "FIELDS": {"encoder.blocks": (0, 1), "vit_flow.steps": 2},
    },
    "05_production_line": {"GOOD_PARTS": 12, "STEPS": 2, "REFERENCE": 40, "FADING": 30},
}
PICTURES = {
    "01_quickstart": {"images", "curve", "judge", "thresholds", "masks"},
    "02_own_images": {"look", "pictures", "report", "threshold", "overlays"},
    "03_paper_tables": {"draw", "maps", "bergmann", "live-maps"},
    "04_vit": {"judge", "figures"},
    "05_production_line": {"parts", "register", "judge", "charts", "dashboard"},
}
# Patterns of the words that cells print or show.
SAID = {
    "01_quickstart": {"save": "the same map after loading: True"},
    "02_own_images": {
        "check": r"train +12$",
        "figures": "image AUROC",
        "calibrate": r"now +threshold",
        "predict": r"^6 images: \d anomalous",
    },
    "03_paper_tables": {"compare": r"^\| live \| 2 \|.*\n\| cached \| 700 \|.*\n.*0\.7975"},
    "04_vit": {
        "weights": "RANDOM WEIGHTS",
        "figures": (
            r"RANDOM WEIGHTS(?s:.*)-\|\n\| knn .*\n\| subspace .*"
            r"\n\| vit_flow .*\n\| vit_recon .*\s*\Z"
        ),
    },
    "05_production_line": {
        "register": r"part:    registered True(?s:.*)no part: registered False",
        "line": "70 of 70 images judged; 0 parts were not registered",
        "charts": "images are darker than before",
    },
}
MINUTES = 20  # for one of them, even if other work runs beside it


def read(path):
    return nbformat.read(path, as_version=nbformat.NO_CONVERT)


def shortened(notebook, values):
    """Return the notebook with other parameters, each of which it must have."""
    (cell,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    tree = ast.walk(ast.parse(cell.source))
    assert set(values) <= {node.id for node in tree if isinstance(node, ast.Name)}, values
    cell.source += "".join(f"\n{name} = {value!r}" for name, value in values.items())
    return notebook


def said(outputs):
    """Return the text that a cell printed, then the text that it shows."""
    printed = [o.text for o in outputs if o.output_type == "stream"]
    shown = [o.data["text/markdown"] for o in outputs if "text/markdown" in o.get("data", {})]
    return "".join(printed + shown)


@pytest.mark.slow
@pytest.mark.parametrize("name", SHORT)
def test_a_notebook_runs_as_jupyter_runs_it(name, tmp_path, monkeypatch):
    # For the kernel and its processes. Small programs are cached too, as the commands do.
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    folder = ROOT / "notebooks"
    notebook = shortened(read(folder / f"{name}.ipynb"), SHORT[name] | {"WORK": str(tmp_path)})
    resources = {"metadata": {"path": str(folder)}}
    client = NotebookClient(notebook, timeout=60 * MINUTES, resources=resources)
    client.execute(env=os.environ | {"IPYTHONDIR": str(tmp_path / "ipython")})
    outputs = {cell.id: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}
    drawn = set()
    for cell, found in outputs.items():
        assert [o.text for o in found if o.get("name") == "stderr"] == []
        for data in (output.get("data", {}) for output in found):
            if "image/png" in data:
                pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data["image/png"]))))
                assert pixels[..., :3].std() > 5, f"{cell} is blank"
            if data.keys() & {"image/png", "text/html"}:
                drawn.add(cell)
    assert drawn == PICTURES[name]
    for cell, pattern in SAID[name].items():
        assert re.search(pattern, said(outputs[cell]), re.MULTILINE), said(outputs[cell])
    if "deployed" in outputs:
        by_onnx, by_jax = map(float, re.findall(r"\d\.\d+", said(outputs["deployed"])))
        assert by_onnx == pytest.approx(by_jax, rel=1e-4)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_in_git_is_bare_and_names_nothing_of_a_machine(path):
    text = path.read_text()
    notebook = read(path)
    nbformat.validate(notebook)
    # A single way of writing it, so that a diff shows only real changes.
    assert text == nbformat.writes(notebook).rstrip("\n") + "\n"
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    for cell in notebook.cells:
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", cell.id), "a name, and no random number"
        assert set(cell.metadata) <= {"tags"}
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None, cell.id
        assert not re.search(r"(?<![\w.}*])/[a-z]\w*/|~/|\.\./|https?:", cell.source), cell.id
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    assert re.search(r"\d+ (seconds|minutes) on two CPU cores", notebook.cells[0].source)


def first_cell(path):
    return next(c.source for c in read(path).cells if c.cell_type == "code")


def test_every_notebook_is_run_and_begins_in_the_same_way():
    assert [path.stem for path in NOTEBOOKS] == sorted(SHORT)
    assert len({first_cell(path) for path in NOTEBOOKS}) == 1


def test_the_first_cell_fetches_what_is_not_there(tmp_path):
    setup = first_cell(NOTEBOOKS[0])
    elsewhere, origin = tmp_path / "elsewhere", tmp_path / "origin"
    elsewhere.mkdir()

    def begin(source):
        command = [sys.executable, "-c", source + "\nprint(Path.cwd())"]
        environment = os.environ | {"PYTHONPATH": ""}
        return subprocess.run(
            command, cwd=elsewhere, env=environment, capture_output=True, text=True, check=False
        )

    refused = begin(setup)
    assert refused.returncode == 1 and "set REPOSITORY" in refused.stderr
    (origin / "configs").mkdir(parents=True)
    (origin / "configs" / "folder.py").touch()
    git = ["git", "-C", str(origin), "-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "a"]):
        subprocess.run([*git, *arguments], check=True)
    given = setup.replace('REPOSITORY = ""', f'REPOSITORY = "file://{origin}"')
    # The second time it already exists.
    for _ in range(2):
        done = begin(given)
        assert done.returncode == 0, done.stderr
        assert done.stdout.split()[-1] == str(elsewhere / "recon_ad")
        assert (elsewhere / "recon_ad" / "configs" / "folder.py").is_file()
