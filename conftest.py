"""What the tests and the examples in docstrings have in common."""

import math

import pytest


@pytest.fixture(autouse=True)
def no_progress_bar(monkeypatch):
    """However slow the machine, no bar stands among what an example prints."""
    from keras_fisher.traces import progress  # after `tests/conftest.py` has chosen its threads

    monkeypatch.setattr(progress, "_SECONDS_BEFORE_IT_SHOWS", math.inf)
