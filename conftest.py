"""What the tests and the examples in docstrings have in common."""

import importlib.util
import math

import pytest

# Files that import a backend, which may not be installed.
FILES = {
    "jax": ["keras_fisher/backend/jax/*", "tests/jax_*.py"],
    "tensorflow": [
        "keras_fisher/backend/tensorflow/*",
        "keras_fisher/backend/private_api/tensorflow.py",
        "keras_fisher/data/tensorflow_*.py",
        "keras_fisher/data/tiny_imagenet.py",
        "tests/backend/tensorflow/*",
        "tests/replicas.py",
        "tests/workers.py",
    ],
    "torch": ["keras_fisher/backend/torch/*", "keras_fisher/backend/private_api/torch.py"],
}
collect_ignore_glob = [
    pattern
    for package, patterns in FILES.items()
    if importlib.util.find_spec(package) is None
    for pattern in patterns
]


@pytest.fixture(autouse=True)
def no_progress_bar(monkeypatch):
    """However slow the machine, no bar stands among what an example prints."""
    from keras_fisher.traces import progress  # after `tests/conftest.py` has chosen its threads

    monkeypatch.setattr(progress, "_SECONDS_BEFORE_IT_SHOWS", math.inf)
