"""Versions of installed packages, without importing any of them."""

from importlib import metadata


def installed(*packages: str) -> dict[str, str]:
    """Return the versions of those of the packages that are installed."""
    found = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
