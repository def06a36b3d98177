"""Every command in README, BUILD, CONTRIBUTING and docs/ is run here, or has a reason not to be.

This covers commands in blocks, and complete ones in the text; one with "…" is not complete. A
command that occurs in several documents is run once.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.commands import run_command
from helpers.lines import rows_of
from helpers.parts import SHAPE, body, save, spot
from helpers.paths import ROOT

EXPORT = "python -m recon_ad.export --detector runs/my_part/detector --output part.onnx"
# In this order, in one folder. The only change is that training is small and needs no weights.
# Commands of recon_ad run in this process, the others in the shell.
RUN = (
    "python -m recon_ad.check my_part",
    "python -m recon_ad.train --config configs/folder.py:path=my_part,scale=cpu"
    " --workdir runs/my_part",
    "python -m recon_ad.evaluate --workdir runs/my_part",
    "python -m recon_ad.predict --detector runs/my_part/detector --input new_images"
    " --output judged",
    "python -m recon_ad.calibrate --detector runs/my_part/detector --normals more_good_images"
    " --fpr 0.01",
    "python -m recon_ad.classify --detector runs/my_part/detector --images FOLDER"
    " --labels labels.csv",
    EXPORT,
    "python -m recon_ad.predict --onnx part.onnx --input new_images --output judged",
    "python -m recon_ad.export --detector D/detector --output M.onnx --batch 16 --layout nchw"
    " --dtype float32",
    "python -m benchmarks.studies.agreement --detector D/detector --data DATASET",
    "python -m benchmarks.summary",
    "python -m benchmarks.report",
    "python -m recon_ad.compare runs/a runs/b --output runs/compared",
    "python -m recon_ad.sweep --config configs/folder.py:path=my_part --workdir runs/sweep"
    " --sweep method=cae,vae --sweep seed=0,1,2",
    "python -m recon_ad.train --config configs/folder.py:path=my_part --workdir runs/aligned"
    " --config.part.align=True --config.part.background=auto",
    "python -m recon_ad.train --workdir runs/features --config"
    " configs/folder.py:method=knn,encoder=vit_small_patch14_dinov2,weights=FILE,path=my_part",
    "python -m recon_ad.train --config configs/folder.py:path=my_part,method=examples.linear_ae"
    " --workdir runs/linear --config.method.n_z=8",
    "python -m recon_ad.evaluate --workdir runs/linear --methods=examples.linear_ae",
    "python -m recon_ad.export --detector runs/linear/detector --output linear.onnx"
    " --methods=examples.linear_ae",
    "launch/local.sh 2 --config configs/demo.py:smoke --workdir runs/two",
    "JAX_NUM_CPU_DEVICES=4 launch/local.sh 2 --config configs/demo.py:smoke --workdir runs/eight",
)
# These run until they are stopped, which happens once they have written the given file.
WATCH = {
    "python -m recon_ad.inspect --onnx part.onnx --watch FOLDER --output line": "line/line.sqlite",
    "python -m recon_ad.monitor --line line [--reference 500,8001..8500] [--webhook URL] "
    "[--certificate FILE]": ("line/dashboard.html"),
}
# The test that runs it, or why none does, by the beginning of the command.
ELSEWHERE = {
    "make demo": "of minutes; devices/test_hosts.py trains the same config shorter",
    "make test": "this is it",
    "make test-all": "this is it",
    "make docs": "an installation; project/test_docs.py builds the site",
    "make lint": "no test, but run before each change; see CONTRIBUTING",
    "make PYTHON=python3.12 test": "an installation",
    "make bench": "of an hour, beside PyTorch and anomalib; project/test_benchmarks.py",
    "python -m benchmarks.gpu_compile": "of minutes, with a plugin; project/test_gpu_compile.py",
    "python -m benchmarks.documents": "writes these documents; project/test_docs.py",
    "python -m benchmarks.robustness": "of an hour; project/test_robustness.py",
    "python -m benchmarks.frameworks": "of minutes, beside PyTorch; project/test_benchmarks.py",
    "pip install": "an installation",
    "pip wheel": "project/test_package.py, without pip",
    "source .venv/bin/activate": "a shell's own",
    "python3.11 -m venv .venv": "an installation, as `make` does it before any test",
    ".venv/bin/pip install": "an installation, as `make` does it before any test",
    "python -m recon_ad.train --config configs/public.py": "a download; data/test_tfds.py",
    "python -m recon_ad.reproduce": "an hour; tables/test_run.py",
    "python -m recon_ad.weights --fetch": "a download; pretrained/test_hub.py",
    "python -m recon_ad.certify": "of minutes; certification/test_run.py",
    "trtexec": "a GPU with TensorRT",
    "sbatch": "a cluster; devices/test_launchers.py checks the script up to srun",
    "NAME=part": "a cluster; devices/test_launchers.py checks the manifest",
}
WHOLE = re.compile(
    r"([A-Z_]+=\S+ )*"
    r"(make |pip |sbatch |trtexec |launch/\S+ |python -m (benchmarks|recon_ad\.\S+ ))"
)


DOCUMENTS = [
    *(ROOT / f"{name}.md" for name in ("README", "BUILD", "CONTRIBUTING", "SECURITY")),
    *sorted((ROOT / "docs").rglob("*.md")),
]


def excused(command):
    return any(re.match(rf"{re.escape(start)}(?![-\w])", command) for start in ELSEWHERE)


def documented():
    for path in DOCUMENTS:
        text = path.read_text()
        for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL):
            for line in re.sub(r"\s*\\\n\s*", " ", block).splitlines():
                if command := line.split(" #")[0].strip():
                    yield command
        rest = " ".join(re.sub(r"```.*?```", "", text, flags=re.DOTALL).split())
        for code in re.findall(r"`([^`]+)`", rest):
            if WHOLE.match(code) and "…" not in code:
                yield code


SMALL = (
    "--config.train.steps=6 --config.train.batch_size=4 --config.train.eval_every=3"
    " --config.optim.warmup=0 --config.evaluation.bootstrap=20 --config.evaluation.panels=1"
)
TILES = (
    "--config.data.patch_size=32 --config.inference.stride=32 --config.train.heldout_patches=16"
    " --config.method.width=0.25 --config.method.n_z=8"
)


def small(command):
    """Return the same command with fields that make training small, and without downloads."""
    for given, instead in (
        ("weights=FILE", "weights=random,side=56"), ("D/", "runs/my_part/"),
        (" DATASET", " my_part"), ("cae,vae --sweep seed=0,1,2", "cae --sweep seed=0"),
        ("--workdir runs/features", "--workdir runs/features --stop_after=train"),
        ("--workdir runs/eight", "--workdir runs/eight --stop_after=train"),
    ):  # fmt: skip
        command = command.replace(given, instead)
    command = re.sub(r" \[[^]]*\]", "", command).replace(" FOLDER", " new_images")
    if "path=my_part" in command:
        command += f" {SMALL}"
    # An encoder has its own patch size.
    tiled = "configs/folder.py" in command and "encoder=" not in command
    return f"{command} {TILES}" if tiled else command


def test_every_command_is_run_or_says_why_not():
    given = list(documented())
    assert len(given) > 20
    here = {*RUN, *WATCH}
    unknown = [c for c in given if c not in here and not excused(c)]
    assert not unknown, f"in no list of this file: {unknown}"
    files = [f for reason in ELSEWHERE.values() for f in re.findall(r"\w+/test_\w+\.py", reason)]
    assert files and all((ROOT / "tests" / name).is_file() for name in files)
    gone = [c for c in here if c not in given]
    gone += [start for start in ELSEWHERE if not any(c.startswith(start) for c in given)]
    assert not gone, f"no longer in the documents: {gone}"


@pytest.fixture
def user(tmp_path):
    """Prepare a user's folder: the repository, images, and two finished runs."""
    for name in ("benchmarks", "configs", "examples", "launch", "recon_ad"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "results", tmp_path / "results")
    for i in range(12):
        save(tmp_path / f"my_part/train/good/{i:02d}.png", body(i))
    for i in range(3):
        save(tmp_path / f"my_part/test/good/{i}.png", body(20 + i))
        damaged, truth = spot(body(30 + i), (40, 60))
        save(tmp_path / f"my_part/test/scratch/{i}.png", damaged)
        mask = (truth * 255).astype("uint8").reshape(*SHAPE, 1)
        save(tmp_path / f"my_part/ground_truth/scratch/{i}_mask.png", mask)
        save(tmp_path / f"more_good_images/{i}.png", body(40 + i))
    labels = ["path,label"]
    for i in range(5):
        save(tmp_path / f"new_images/{i}.png", spot(body(50 + i), (40, 60))[0])
        save(tmp_path / f"new_images/dusty{i}.png", body(60 + i))
        labels += [f"{i}.png,defect", f"dusty{i}.png,harmless"]
    (tmp_path / "labels.csv").write_text("\n".join(labels))
    return tmp_path


def begin(command, folder):
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment.pop("JAX_NUM_CPU_DEVICES", None)
    return subprocess.Popen(
        ["bash", "-c", small(command)],
        cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def end(command, process):
    printed, _ = process.communicate()
    assert process.returncode == 0, f"{command}\n{printed}"


def carry_out(command, folder):
    python, _, module, *arguments = shlex.split(small(command))
    if (python, module.partition(".")[0]) == ("python", "recon_ad"):
        done = run_command(module.partition(".")[2], *arguments, cwd=folder)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    else:
        end(command, begin(command, folder))


@pytest.mark.slow
def test_commands_run_as_they_are_written(user):
    for command in RUN:
        if " runs/a " in command:
            for name in "ab":
                shutil.copytree(user / "runs/my_part", user / "runs" / name)
        carry_out(command, user)
    for file in (
        "runs/my_part/report.html", "runs/my_part/model.onnx", "judged/predictions.csv",
        "runs/my_part/classifier.json", "part.onnx", "M.onnx", "runs/compared/compare.html",
        "runs/sweep/compare.html", "runs/features/detector/detector.json", "linear.onnx",
        "runs/two/metrics.json", "runs/eight/detector/detector.json",
        "runs/aligned/model.part.safetensors",
    ):  # fmt: skip
        assert (user / file).is_file(), file
    images = len(list((user / "new_images").iterdir()))
    assert len((user / "judged" / "predictions.csv").read_text().splitlines()) == 1 + images
    for command, file in WATCH.items():
        process, stop = begin(f"exec {command}", user), time.monotonic() + 120
        while process.poll() is None and time.monotonic() < stop:
            # The line first writes an empty table.
            if (user / file).exists() and len(rows_of(user / "line")) == images:
                break
            time.sleep(0.2)
        process.terminate()
        end(command, process)
        assert (user / file).is_file()
    assert len(rows_of(user / "line")) == images


@pytest.mark.slow
def test_python_runs_as_it_is_written(user, monkeypatch):
    blocks = [
        (path.stem, code)
        for path in DOCUMENTS
        for code in re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)
    ]
    # A page may use what another one has made.
    blocks.sort(key=lambda block: block[0] != "own_images")
    monkeypatch.chdir(user)
    names = {"image": body(20)}
    for page, code in blocks:
        if page == "deployment":
            carry_out(EXPORT.replace("my_part", "python"), user)
        exec(code.replace("folder.py", "folder.py:smoke"), names)
    assert names["prediction"].anomaly_map.shape == SHAPE
    assert float(names["deployed"](body(20)).score) == pytest.approx(
        float(names["detector"](body(20)).score), rel=1e-4
    )
