import gc
import logging
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Tests run side by side on small nets, where more threads than processes only wait for each other.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")

import keras
import pytest

# It warns of functions that were traced often, with those of all tests before.
logging.getLogger("tensorflow").setLevel(logging.ERROR)


LONG_EXAMPLES = ("find_alpha", "GridSearch")  # searches, of several trainings each


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(items):
    """Marks all cases but the first of a test with the mark `matrix` as slow, and long examples."""
    seen = set()
    for item in items:
        if item.name.startswith("keras_fisher.tuning.") and item.name.endswith(LONG_EXAMPLES):
            item.add_marker("slow")
        if item.get_closest_marker("matrix"):
            test = (item.path, item.originalname)
            if test in seen:
                item.add_marker("slow")
            seen.add(test)


@pytest.fixture(autouse=True)
def fresh_state():
    """Every test starts with the same random state and leaves Keras's global settings alone."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    yield
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(policy)


@pytest.fixture(scope="module", autouse=True)
def quick_collections():
    """Has Python's garbage collector look no more at what modules of tests leave behind.

    TensorFlow keeps every graph, Keras Tuner collects garbage after each trial, and the more there
    is to look at the longer that takes.
    """
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture
def float64(fresh_state, monkeypatch):
    """Everything in the test computes in double precision."""
    from tests.double_precision import BIT64_TO_BIT32_DTYPE, use_double_precision

    monkeypatch.setitem(BIT64_TO_BIT32_DTYPE, "float64", "float64")  # restored after the test
    use_double_precision()
    if keras.backend.backend() != "jax":
        yield
        return
    import jax

    with jax.enable_x64(True):
        yield


@pytest.fixture
def own_registry(monkeypatch):
    """Rules that a test registers are gone after it."""
    from keras_fisher.rules import registry

    monkeypatch.setattr(registry, "_RULES", dict(registry._RULES))


@pytest.fixture
def eagerly():
    """Steps are not compiled, which takes less time where there are few."""
    from tests import reference  # after the threads have been chosen

    with reference.run_eagerly():
        yield
