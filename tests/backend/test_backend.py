import subprocess
import sys

SCRIPT = """
import keras
keras.backend.backend = lambda: "torch"  # without its packages, Keras itself would fail first
import keras_fisher
"""


def test_other_backends_are_refused_at_import():
    command = [sys.executable, "-c", SCRIPT]
    failed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert failed.returncode != 0
    message = failed.stderr.splitlines()[-1]
    assert message.startswith("ImportError: keras_fisher supports the Keras backends tensorflow ")
    assert "and jax. Received: KERAS_BACKEND='torch'" in message
