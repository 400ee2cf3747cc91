"""Backends have the same functions, and others are refused."""

import ast
from pathlib import Path

import keras
import pytest

import keras_fisher as kf
from keras_fisher.backend import finite_difference
from tests import reference
from tests.processes import start

FOLDER = Path(kf.__file__).parent / "backend"

SCRIPT = """
import keras
keras.backend.backend = lambda: "openvino"  # without its packages, Keras itself would fail first
import pytest

import keras_fisher
"""


@pytest.mark.slow
def test_other_backends_are_refused_at_import():
    failed = start("-c", SCRIPT)
    _, errors = failed.communicate()
    assert failed.returncode != 0
    message = errors.splitlines()[-1]
    assert message.startswith("ImportError: keras_fisher supports the Keras backends tensorflow, ")
    assert "jax and torch. Received: KERAS_BACKEND='openvino'" in message


def exported(backend):
    imports = ast.parse((FOLDER / backend / "__init__.py").read_text()).body[1:]
    return sorted(alias.name for node in imports for alias in node.names)


def parameters(backend, module):
    """The parameters of each public function of a file."""
    functions = ast.parse((FOLDER / backend / module).read_text()).body
    return {
        node.name: [argument.arg for argument in (*node.args.args, *node.args.kwonlyargs)]
        for node in functions
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    }


def test_all_backends_export_the_same_names():
    assert exported("tensorflow") == exported("jax") == exported("torch")


def test_the_penalty_and_random_numbers_take_the_same_parameters():
    for module in ("penalty.py", "random.py"):
        expected = parameters("tensorflow", module)
        assert parameters("jax", module) == parameters("torch", module) == expected


@pytest.mark.parametrize(
    ("dtypes", "precision"),
    [
        (["float32"], "float32"),
        (["float32", "bfloat16", "string"], "bfloat16"),
        (["bfloat16", "float16"], "float16"),
        (["float64"], "float64" if reference.IS_TENSORFLOW else "float32"),
        ([], "float32"),
    ],
)
def test_the_precision_is_that_of_the_coarsest_layer(dtypes, precision):
    assert finite_difference.find_precision(dtypes) == precision


def test_the_precision_of_a_loaded_model_is_that_of_its_layers(tmp_path):
    policy = keras.dtype_policies.DTypePolicy("mixed_bfloat16")
    net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, dtype=policy)])
    kf.FisherPenaltyModel(net).save(tmp_path / "model.keras")
    assert keras.models.load_model(tmp_path / "model.keras")._precision == "bfloat16"
