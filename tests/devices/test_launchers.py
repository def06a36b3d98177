"""Launchers start the same command on every host, and fail at once where something is missing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers.paths import LOCAL_LAUNCHER, ROOT

from recon_ad.errors import UserError
from recon_ad.runtime import mesh as meshes
from recon_ad.runtime import stopping


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"COORDINATOR_ADDRESS": "a:1"}, "JAX_NUM_PROCESSES and JAX_PROCESS_ID must be set"),
        ({"NUM_PROCESSES": 2, "PROCESS_ID": 0}, "JAX_COORDINATOR_ADDRESS must be set"),
        ({"COORDINATOR_ADDRESS": "a:1", "NUM_PROCESSES": 2, "PROCESS_ID": 2}, "PROCESS_ID is 2"),
        ({"COORDINATOR_ADDRESS": "a:1", "NUM_PROCESSES": "two", "PROCESS_ID": 0}, "give numbers"),
    ],
)
def test_a_host_that_lacks_a_variable_ends_in_one_sentence(monkeypatch, given, says):
    for name, value in given.items():
        monkeypatch.setenv(f"JAX_{name}", str(value))
    with pytest.raises(UserError, match=says):
        meshes.initialize_distributed()


SLURM = ROOT / "launch" / "slurm.sbatch"
KUBERNETES = ROOT / "launch" / "kubernetes" / "job.sh"
FLAGS = ("--config", "configs/demo.py:smoke", "--workdir", "w")
POD = {"NAME": "grid", "IMAGE": "registry.example/recon_ad:1", "HOSTS": "4", "CLAIM": "shared"}


def launch(script, *arguments, cwd=ROOT, **environment):
    return subprocess.run(
        [shutil.which("bash"), str(script), *arguments],
        env={"PATH": os.environ["PATH"], **environment},
        cwd=cwd, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("script", "arguments", "environment", "says"),
    [
        (LOCAL_LAUNCHER, (), {}, "the number of processes comes first"),
        (LOCAL_LAUNCHER, FLAGS, {}, "the number of processes comes first"),
        (LOCAL_LAUNCHER, ("2",), {}, "flags of recon_ad.train are missing"),
        (LOCAL_LAUNCHER, ("2", *FLAGS), {"PATH": "/nowhere"}, "no python on PATH"),
        (SLURM, FLAGS, {}, "SLURM_JOB_ID"),
        (SLURM, (), {"SLURM_JOB_ID": "1"}, "flags of recon_ad.train are missing"),
        (SLURM, FLAGS, {"SLURM_JOB_ID": "1", "PYTHON": "nopython"}, "no nopython on PATH"),
        *((KUBERNETES, FLAGS, POD | {name: ""}, name) for name in POD),
        (KUBERNETES, FLAGS, POD | {"HOSTS": "0"}, "HOSTS is 0"),
        (KUBERNETES, FLAGS, POD | {"RUN_AS": "0"}, "RUN_AS is 0"),
        (KUBERNETES, ["--config", "a\nb"], POD, "a line break"),
        (KUBERNETES, FLAGS, POD | {"NAME": "My_run"}, "NAME is My_run"),
        (KUBERNETES, (), POD, "flags of recon_ad.train are missing"),
    ],
)
def test_launchers_fail_at_once_where_something_is_missing(script, arguments, environment, says):
    done = launch(script, *arguments, **environment)
    assert done.returncode != 0
    assert says in done.stderr and len(done.stderr.splitlines()) == 1
    assert not done.stdout


# Replaces python: it prints its arguments and ends as its process number determines.
FAKE = """#!/usr/bin/env bash
[[ $1 != -c ]] || {{ echo 12345; exit; }}
echo "$JAX_PROCESS_ID of $JAX_NUM_PROCESSES at $JAX_COORDINATOR_ADDRESS: $*"
case $JAX_PROCESS_ID in
  0) {first} ;;
  1) {second} ;;
esac
"""


def fake_python(folder, text):
    fake = folder / "python"
    fake.write_text(text)
    fake.chmod(0o755)


def launch_fakes(folder, first, second):
    fake_python(folder, FAKE.format(first=first, second=second))
    return launch(LOCAL_LAUNCHER, "2", *FLAGS, PATH=f"{folder}:{os.environ['PATH']}")


def test_what_all_processes_find_wrong_is_printed_once(tmp_path):
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = launch(LOCAL_LAUNCHER, "2", "--workdir", str(tmp_path), PATH=path, TMPDIR=str(tmp_path))
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert sum("--config is missing" in line for line in lines) == 1, lines
    processes = [line.split(" ended")[0] for line in sorted(lines[1:])]
    assert processes == [f"launch: process {i} of 2" for i in (0, 1)]
    assert not any(tmp_path.iterdir())
    # An error that only one of them finds is also printed.
    says = "echo error: {} >&2; exit 2"
    done = launch_fakes(tmp_path, says.format("a"), says.format("b"))
    assert {"error: a", "error: b"} <= set(done.stderr.splitlines())


def test_the_local_launcher_only_sets_the_environment(tmp_path):
    done = launch_fakes(tmp_path, "exit 0", "exit 0")
    assert (done.returncode, done.stderr) == (0, "")
    given = f"-m recon_ad.train {' '.join(FLAGS)}"
    expected = [f"{i} of 2 at localhost:12345: {given}" for i in (0, 1)]
    assert sorted(done.stdout.splitlines()) == expected


@pytest.mark.parametrize(
    ("first", "second", "status", "says"),
    [
        ("sleep 2; exit 134", "kill -9 $$", 137, "process 1 of 2 was killed by signal 9 (KILL)"),
        ("exit 2", "sleep 2; exit 134", 2, "process 0 of 2 ended with exit status 2"),
        ("exit 75", "exit 75", 75, "process 0 of 2 stopped as requested"),
        ("exit 0", "sleep 1; exit 1", 1, "process 1 of 2 ended with exit status 1"),
    ],
)
def test_the_local_launcher_says_which_process_died_first(tmp_path, first, second, status, says):
    done = launch_fakes(tmp_path, first, second)
    assert done.returncode == status
    lines = [line for line in done.stderr.splitlines() if line.startswith("launch: ")]
    assert any(says in line for line in (lines if status == 75 else lines[:1])), done.stderr


def test_the_cells_for_colab_fail_at_once_or_run_the_same_command(tmp_path):
    text = (ROOT / "launch" / "colab.md").read_text()
    install, run = (part.split("```")[0] for part in text.split("```bash\n%%bash\n")[1:])
    fake_python(tmp_path, '#!/usr/bin/env bash\nprintf "%s\\n" "$@"\n')
    (tmp_path / "recon_ad").mkdir()
    path = f"{tmp_path}:{os.environ['PATH']}"
    images = {"IMAGES": "/my part"}
    for cell, given, name in ((install, {}, "CODE"), (run, {}, "IMAGES"), (run, images, "WORKDIR")):
        done = launch("-c", cell, cwd=tmp_path, PATH=path, **given)
        assert done.returncode != 0 and f"{name}: is not set" in done.stderr
        assert not done.stdout
    done = launch("-c", run, cwd=tmp_path, PATH=path, WORKDIR="/runs/a b", **images)
    assert done.stdout.splitlines() == [
        "-m", "recon_ad.train", "--config", "configs/folder.py:path=/my part",
        "--workdir", "/runs/a b",
    ]  # fmt: skip


@pytest.mark.parametrize("gpus", ["0", "8"])
def test_the_kubernetes_job_gives_each_pod_its_place(gpus):
    flags = ["--config", 'configs/folder.py:path=/data/my "new" part', "--workdir", "/data/runs/a"]
    done = launch(KUBERNETES, *flags, **POD, GPUS=gpus)
    assert done.returncode == 0, done.stderr
    service, job = yaml.safe_load_all(done.stdout)
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    assert service["metadata"]["name"] == job["metadata"]["name"] == pod["subdomain"] == "grid"
    selector = {"batch.kubernetes.io/job-name": "grid"}
    expected = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": selector}
    assert service["spec"] == expected
    assert spec["completionMode"] == "Indexed" and spec["completions"] == spec["parallelism"] == 4
    # A failure policy needs pods that are replaced, not restarted, and the run's exit status.
    assert pod["restartPolicy"] == "Never"
    rules = [rule for rule in spec["podFailurePolicy"]["rules"] if "onExitCodes" in rule]
    actions = {rule["onExitCodes"]["values"][0]: rule["action"] for rule in rules}
    assert actions == {2: "FailJob", stopping.REQUEUE: "Ignore"}
    (container,) = pod["containers"]
    assert container["command"] == ["python", "-m", "recon_ad.train", *flags]
    (port,) = container["ports"]
    place = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    # The first pod's name under the service, and the port that it opens.
    address = {"name": "JAX_COORDINATOR_ADDRESS", "value": f"grid-0.grid:{port['containerPort']}"}
    assert container["env"] == [
        address,
        {"name": "JAX_NUM_PROCESSES", "value": "4"},
        {"name": "JAX_PROCESS_ID", "valueFrom": {"fieldRef": {"fieldPath": place}}},
    ]
    limits = {"memory": "32Gi", "nvidia.com/gpu": int(gpus)}
    assert container["resources"] == {"requests": {"cpu": 4, "memory": "32Gi"}, "limits": limits}
    assert pod["securityContext"]["runAsNonRoot"] and not pod["automountServiceAccountToken"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_one_pod_alone_is_no_distributed_run():
    done = launch(KUBERNETES, *FLAGS, **(POD | {"HOSTS": "1"}))
    _, job = yaml.safe_load_all(done.stdout)
    assert job["spec"]["template"]["spec"]["containers"][0]["env"] == []
