"""The versions that a result depends on."""

import importlib.metadata

PACKAGES = ("keras-fisher", "keras", "tensorflow", "numpy")


def versions() -> dict[str, str]:
    """The installed version of each package."""
    return {package: importlib.metadata.version(package) for package in PACKAGES}
