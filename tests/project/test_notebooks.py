"""Notebooks run from top to bottom, shortened; in git they hold no outputs."""

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
# What replaces their parameters, and the cells whose output is a picture or a page.
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
MINUTES = 20  # that one of them may take where other work runs beside


def read(path):
    return nbformat.read(path, as_version=nbformat.NO_CONVERT)


def parameters(notebook):
    (cell,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    return cell


def shortened(notebook, values):
    """The notebook with other parameters; each has to be one that it has."""
    cell = parameters(notebook)
    tree = ast.walk(ast.parse(cell.source))
    known = {node.id for node in tree if isinstance(node, ast.Name)}
    assert set(values) <= known, values
    cell.source += "".join(f"\n{name} = {value!r}" for name, value in values.items())
    return notebook


def outputs(notebook):
    """By the cell's id."""
    return {cell.id: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}


def printed(notebook, cell):
    """The text that a cell printed."""
    return "".join(o.text for o in outputs(notebook)[cell] if o.output_type == "stream")


def run(name, work, monkeypatch):
    """The notebook, executed as Jupyter does it."""
    # The kernel and what it starts; small programs are kept too, as the commands do.
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    folder = ROOT / "notebooks"
    notebook = shortened(read(folder / f"{name}.ipynb"), SHORT[name] | {"WORK": str(work)})
    client = NotebookClient(
        notebook, timeout=60 * MINUTES, resources={"metadata": {"path": str(folder)}}
    )
    client.execute(env=os.environ | {"IPYTHONDIR": str(work / "ipython")})
    every = [output for found in outputs(notebook).values() for output in found]
    assert [o.text for o in every if o.get("name") == "stderr"] == []
    drawn = set()
    for cell, found in outputs(notebook).items():
        for data in (output.get("data", {}) for output in found):
            if "image/png" in data:
                pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data["image/png"]))))
                assert pixels[..., :3].std() > 5, f"{cell} is blank"
            if data.keys() & {"image/png", "text/html"}:
                drawn.add(cell)
    assert drawn == PICTURES[name]
    return notebook


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_in_git_is_bare_and_names_nothing_of_a_machine(path):
    text = path.read_text()
    notebook = read(path)
    nbformat.validate(notebook)
    # One way of writing it, so that a change shows what has changed.
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


def test_every_notebook_is_run_and_begins_in_the_same_way():
    assert [path.stem for path in NOTEBOOKS] == sorted(SHORT)
    begins = {
        next(c.source for c in read(path).cells if c.cell_type == "code") for path in NOTEBOOKS
    }
    assert len(begins) == 1


def test_the_first_cell_fetches_what_is_not_there(tmp_path):
    setup = next(c.source for c in read(NOTEBOOKS[0]).cells if c.cell_type == "code")
    elsewhere, origin = tmp_path / "elsewhere", tmp_path / "origin"
    elsewhere.mkdir()

    def begin(source):
        environment = os.environ | {"PYTHONPATH": ""}
        command = [sys.executable, "-c", source + "\nprint(Path.cwd())"]
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
    # The second time it is there.
    for _ in range(2):
        done = begin(given)
        assert done.returncode == 0, done.stderr
        assert done.stdout.split()[-1] == str(elsewhere / "recon_ad")
        assert (elsewhere / "recon_ad" / "configs" / "folder.py").is_file()


@pytest.mark.slow
def test_quickstart(tmp_path, monkeypatch):
    notebook = run("01_quickstart", tmp_path, monkeypatch)
    assert "the same map after loading: True" in printed(notebook, "save")
    by_onnx, by_jax = (float(x) for x in re.findall(r"\d\.\d+", printed(notebook, "deployed")))
    assert by_onnx == pytest.approx(by_jax, rel=1e-4)


@pytest.mark.slow
def test_own_images(tmp_path, monkeypatch):
    notebook = run("02_own_images", tmp_path, monkeypatch)
    assert re.search(r"train +12$", printed(notebook, "check"), re.MULTILINE)
    assert "image AUROC" in printed(notebook, "figures")
    assert re.search(r"now +threshold", printed(notebook, "calibrate"))
    assert re.search(r"^6 images: \d anomalous", printed(notebook, "predict"), re.MULTILINE)


@pytest.mark.slow
def test_paper_tables(tmp_path, monkeypatch):
    notebook = run("03_paper_tables", tmp_path, monkeypatch)
    (shown,) = outputs(notebook)["compare"]
    rows = shown.data["text/markdown"].splitlines()
    assert rows[2].startswith("| live | 2 |") and rows[3].startswith("| cached | 700 |")
    assert "0.7975" in rows[4]


@pytest.mark.slow
def test_vit(tmp_path, monkeypatch):
    notebook = run("04_vit", tmp_path, monkeypatch)
    for cell in ("weights", "figures"):
        assert "RANDOM WEIGHTS" in printed(notebook, cell)
    markdown = outputs(notebook)["figures"][-2].data["text/markdown"]
    assert [line.split(" | ")[0] for line in markdown.splitlines()[2:]] == [
        "| knn", "| vit_flow", "| vit_recon",
    ]  # fmt: skip


@pytest.mark.slow
def test_production_line(tmp_path, monkeypatch):
    notebook = run("05_production_line", tmp_path, monkeypatch)
    registered = printed(notebook, "register")
    assert "part:    registered True" in registered and "no part: registered False" in registered
    assert "70 of 70 images judged; 0 parts were not registered" in printed(notebook, "line")
    assert "images are darker than they were" in printed(notebook, "charts")
