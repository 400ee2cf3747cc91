"""Files that several processes write, each whole."""

import json
import pathlib

import pytest

from keras_fisher.utils.files import write_json


def test_processes_that_write_one_file_at_the_same_time_do_not_meet(tmp_path, monkeypatch):
    path, replace = tmp_path / "state.json", pathlib.Path.replace

    def replace_late(part, target):
        monkeypatch.setattr(pathlib.Path, "replace", replace)
        write_json(path, "the second")  # another process, from beginning to end
        assert json.loads(path.read_text()) == "the second"
        return replace(part, target)

    monkeypatch.setattr(pathlib.Path, "replace", replace_late)
    write_json(path, "the first")
    assert json.loads(path.read_text()) == "the first"
    assert list(tmp_path.iterdir()) == [path]


def test_a_value_that_json_lacks_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "state.json", 1)
    with pytest.raises(TypeError):
        write_json(tmp_path / "state.json", object())
    assert [path.read_text() for path in tmp_path.iterdir()] == ["1"]
