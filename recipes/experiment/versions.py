"""The versions that a result depends on."""

import importlib.metadata
from collections.abc import Container

import keras

BACKENDS = ("tensorflow", "jax")


def versions() -> dict[str, str]:
    """The installed version of each package, that of the Keras backend among them."""
    packages = ("keras-fisher", "keras", keras.backend.backend(), "numpy")
    return {package: importlib.metadata.version(package) for package in packages}


def backend_of(versions: Container[str]) -> str:
    """The Keras backend among some packages."""
    return next((name for name in BACKENDS if name in versions), "unknown")
