"""The versions that a result depends on."""

import importlib.metadata

import keras


def versions() -> dict[str, str]:
    """The installed version of each package, that of the Keras backend among them."""
    packages = ("keras-fisher", "keras", keras.backend.backend(), "numpy")
    return {package: importlib.metadata.version(package) for package in packages}
