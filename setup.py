"""Package build: the folder configs/ becomes recon_ad/configs; all else is in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["recon_ad*"]), "recon_ad.configs"],
    package_dir={"recon_ad.configs": "configs"},
)
