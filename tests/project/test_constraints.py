"""The constraints files pin every package that pyproject.toml asks for, at a version it allows."""

import re
import tomllib

import pytest
from helpers.paths import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

OWN = "recon_ad"  # extras that include other extras


def asked_for():
    """Return the requirements of the package and of the extra dev with those it includes."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    listed = [*project["dependencies"], *extras["dev"], *extras["export"], *extras["openvino"]]
    return [r for r in map(Requirement, listed) if r.name != OWN]


@pytest.mark.parametrize("version", ["3.11", "3.12"])
def test_each_requirement_has_one_exact_version(version):
    lines = (ROOT / "constraints" / f"python{version}.txt").read_text().splitlines()
    assert all(re.fullmatch(r"[\w.-]+==[\w.+!]+", line) for line in lines)
    pinned = {canonicalize_name(name): v for name, v in (line.split("==") for line in lines)}
    assert len(pinned) == len(lines)
    for requirement in asked_for():
        assert pinned[canonicalize_name(requirement.name)] in requirement.specifier
