"""Backends have the same functions, and others are refused."""

import ast
from pathlib import Path

import pytest

import keras_fisher
from tests.processes import start

FOLDER = Path(keras_fisher.__file__).parent / "backend"

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
