"""The README promises nothing that does not run."""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import keras
import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_examples_run_as_printed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(EXAMPLES) == 4
    exec(compile("".join(EXAMPLES), "README.md", "exec"), {})
    plain = keras.models.load_model("plain.keras")
    assert isinstance(plain, keras.Sequential)


def test_the_files_that_it_shows_are_there():
    root = Path(__file__).parent.parent
    assert all((root / path).exists() for path in re.findall(r"!\[[^]]*\]\(([^)]*)\)", README))


# What the text says to install for the examples, and to leave out of them.
INSTALLATIONS = {
    "tensorflow": ("    pip install '.[tensorflow,recipes]'\n", None),
    "jax": ("With `.[jax,recipes]` and `KERAS_BACKEND=jax`", "keras.callbacks.TensorBoard"),
}


@pytest.fixture
def folder():
    """A folder that is gone afterwards: an environment takes gigabytes."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.mark.slow
@pytest.mark.parametrize("backend", INSTALLATIONS)
def test_the_examples_run_after_the_installation_that_is_documented(folder, backend):
    text, left_out = INSTALLATIONS[backend]
    assert text in README
    python = folder / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    extras = f".[{backend},recipes]"
    subprocess.run([python, "-m", "pip", "install", "--quiet", extras], check=True, cwd=ROOT)
    lines = "".join(EXAMPLES).splitlines()
    kept = [line for line in lines if left_out is None or left_out not in line]
    (folder / "examples.py").write_text("\n".join(kept))
    hidden = ("KERAS_BACKEND", "PYTHONPATH")
    environment = {k: v for k, v in os.environ.items() if k not in hidden}
    if backend != "tensorflow":  # which is what Keras takes by itself
        environment["KERAS_BACKEND"] = backend
    subprocess.run([python, "examples.py"], check=True, cwd=folder, env=environment)
    assert (folder / "plain.keras").exists()
