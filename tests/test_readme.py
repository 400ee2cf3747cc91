"""The README promises nothing that does not run."""

import re
from pathlib import Path

import keras

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def test_the_examples_run_as_printed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    examples = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(examples) == 4
    exec(compile("".join(examples), "README.md", "exec"), {})
    plain = keras.models.load_model("plain.keras")
    assert isinstance(plain, keras.Sequential)


def test_the_files_that_it_shows_are_there():
    root = Path(__file__).parent.parent
    assert all((root / path).exists() for path in re.findall(r"!\[[^]]*\]\(([^)]*)\)", README))
