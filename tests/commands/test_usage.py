"""Help texts: the list of commands, and --help."""

import re
import subprocess
import sys

import pytest
from helpers.commands import run_command, run_process
from helpers.paths import ROOT

from recon_ad import usage

FOUND = {f.stem for f in (ROOT / "recon_ad").glob("*.py") if " cli.run(main" in f.read_text()}


def test_the_list_has_every_command_with_its_first_sentence():
    done = run_command("__main__")
    assert done.returncode == 0 and set(usage.COMMANDS) == FOUND
    listed = dict(line.split(maxsplit=1) for line in done.stdout.splitlines()[2:])
    assert list(listed) == list(usage.COMMANDS)
    for name, sentence in listed.items():
        assert (ROOT / "recon_ad" / f"{name}.py").read_text().startswith(f'"""{sentence}\n')
    assert max(map(len, done.stdout.splitlines())) <= usage.WIDTH
    assert run_command("__main__", "-h").stdout == done.stdout


@pytest.mark.parametrize(
    ("word", "says"),
    [("train", "python -m recon_ad.train"), ("paint", "python -m recon_ad alone")],
)
def test_the_list_takes_no_word(word, says):
    done = run_command("__main__", word, "--config=demo")
    assert (done.returncode, done.stdout) == (2, "") and says in done.stderr


@pytest.mark.parametrize("name", sorted(FOUND))
def test_help_fits_a_screen_has_a_line_for_each_flag_and_is_no_failure(name):
    done = run_command(name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    source = (ROOT / "recon_ad" / f"{name}.py").read_text()
    assert lines[0] == source.splitlines()[0].removeprefix('"""')
    assert any(line.startswith(f"    python -m recon_ad.{name}") for line in lines)
    assert lines[-1] == f"More: python -m recon_ad.{name} --helpfull"
    assert len(lines) <= 24 and max(map(len, lines)) <= usage.WIDTH
    flags = [line.split()[0] for line in lines if line.startswith("  --")]
    own = re.findall(r"flags\.DEFINE_\w+\(\s*\"(\w+)\"", source)
    own += ["config", "config.FIELD"] * ("config_flag(" in source)
    own += ["methods"] * ("methods_flag()" in source)
    own += ["detector", "onnx", "runtime", "category", "methods"] * ("detector_flags()" in source)
    assert sorted(flags) == sorted(f"--{flag}" for flag in own)
    for flag in re.findall(r'_string\(\s*"(\w+)", None[^)]*required=True', source):
        assert re.search(rf"^  --{flag} .* Required\.$", done.stdout, re.MULTILINE)


def test_help_is_asked_for_by_a_flag_and_not_by_what_follows_the_flags():
    for asked in (["-h"], ["--help"], ["--workdir", "w", "-?"]):
        assert usage.asks_for_help(["train", *asked])
    for given in ([], ["help"], ["--", "--help"], ["--helpfull"], ["--output=--help"]):
        assert not usage.asks_for_help(["train", *given])


def test_help_on_a_narrow_terminal_wraps_below_its_column(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    lines = run_command("train", "--help").stdout.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("  --config "))
    column = lines[start].index(lines[start].split(maxsplit=1)[1])
    assert lines[start + 1].startswith(" " * column) and lines[start + 1][column] != " "
    assert all(len(line) <= 60 for line in lines[start:])


def test_the_command_that_was_renamed_says_so():
    helped = run_command("data", "--help")
    assert helped.returncode == 0 and "recon_ad.check" in helped.stdout
    before = run_command("data", "check", "FOLDER")
    assert before.returncode == 2 and "python -m recon_ad.check FOLDER" in before.stderr


def test_the_list_is_a_process_that_imports_no_jax():
    assert run_process("__main__").returncode == 0
    code = "import sys, recon_ad.__main__, recon_ad.usage; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
