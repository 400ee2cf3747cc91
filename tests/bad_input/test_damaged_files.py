"""Files that were cut, exchanged or forged: a sentence that names them, and nothing is changed."""

import dataclasses
import json
import pickle
import shutil
from pathlib import Path

import h5py
import keras
import noisy_cifar100
import numpy as np
import pytest
from experiment import command, queue
from experiment.errors import SettingsError
from experiment.files import replace_file, write_text
from experiment.results.report import write as write_report
from experiment.run import record

import keras_fisher as kf
from tests.recipes.tiny import OPTIONS, Killed, Killing
from tests.run_folders import arrays

ARGUMENTS = [*OPTIONS, "--seeds", "0", "--methods", "baseline"]


def run(out, *arguments):
    command.main(noisy_cifar100.RECIPE, [*ARGUMENTS, *arguments, "--out", str(out)])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished recipe."""
    out = tmp_path_factory.mktemp("finished")
    run(out)
    return out


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """The folder of a recipe that was killed after a checkpoint."""

    out = tmp_path_factory.mktemp("interrupted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
        patch.setattr(queue, "EpochBar", lambda *_: Killing(2))
        with pytest.raises(Killed):
            run(out)
    return out


@pytest.fixture
def copied(tmp_path):
    """Copies the folder of a recipe, and finds a file in it."""

    def copy(out, pattern):
        shutil.copytree(out, tmp_path / "out")
        (path,) = (tmp_path / "out").glob(pattern)
        return tmp_path / "out", path

    return copy


def state(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(out, *arguments):
    """What a recipe says as it ends, which leaves its folder alone."""
    before = state(out)
    with pytest.raises(SystemExit) as caught:
        run(out, *arguments)
    assert state(out) == before
    assert str(caught.value.code).startswith("error: ")
    return str(caught.value.code)


def half(content):
    return content[: len(content) // 2]


def change(key, value):
    """Gives a key of an object another value."""
    return lambda content: json.dumps(json.loads(content) | {key: value}).encode()


HISTORY = {"history": {"val_accuracy": [0.5]}, "best": {}, "start": {}}
FINISHED = {
    "cut": ("*/settings", half),
    "of another program": ("*/settings", lambda _: b"{}"),
    "of another version": ("*/settings", change("run", {"epochs": 4})),
    "of other epochs": ("*/results", change("history", {"loss": [1.0]})),
    "without figures": ("*/results", change("best", {})),
    "empty": ("*/time", lambda _: b""),
}
INTERRUPTED = {
    "cut": ("progress.json", half),
    "with no seconds": ("progress.json", change("seconds", None)),
    "of other epochs": ("progress.json", change("state", HISTORY)),
    "cut weights": ("epoch-*.weights.h5", half),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", FINISHED)
def test_damaged_files_of_a_finished_run_are_named(finished, copied, case):
    name, damage = FINISHED[case]
    out, path = copied(finished, f"{name}.json")
    path.write_bytes(damage(path.read_bytes()))
    assert f"{path} is damaged" in refused(out)


@pytest.mark.slow
@pytest.mark.parametrize("case", INTERRUPTED)
def test_damaged_checkpoints_are_named(interrupted, copied, case):
    name, damage = INTERRUPTED[case]
    out, path = copied(interrupted, f"*/{name}")
    path.write_bytes(damage(path.read_bytes()))
    assert f"{path} is damaged" in refused(out)


def test_a_checkpoint_of_another_model_is_named(interrupted, copied):
    out, path = copied(interrupted, "*/epoch-*.weights.h5")
    other = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    other.save_weights(path)
    assert f"{path} is damaged" in refused(out)


def test_a_checkpoint_that_is_gone_is_named(interrupted, copied):
    out, path = copied(interrupted, "*/epoch-*.weights.h5")
    path.unlink()
    assert str(path) in refused(out)


@pytest.mark.parametrize("name", ["../x.weights.h5", "/etc/x.weights.h5", "passwd", None])
def test_a_checkpoint_lies_in_the_folder_of_its_run(interrupted, copied, name):
    out, path = copied(interrupted, "*/progress.json")
    path.write_bytes(change("checkpoint", name)(path.read_bytes()))
    assert f"names a checkpoint {name!r}" in refused(out)


FOUND = {"noise": 0.5, "over": ["alpha"], "penalty": "fp", "learning_rate": 0.1, "alpha": 1}


@pytest.mark.parametrize(
    "found",
    [
        {"penalty": "fp", "learning_rate": 0.1, "alpha": 1},
        [FOUND | {"penalty": "seeds"}],
        [FOUND | {"over": ["lr"]}],
        [FOUND | {"learning_rate": "0.1"}],
        [FOUND | {"alpha": float("nan")}],
    ],
)
def test_a_forged_search_is_named(tmp_path, found):
    (tmp_path / "chosen.json").write_text(json.dumps({"mlp_digits": found}))
    with pytest.raises(SystemExit, match=r"error: .*chosen\.json is damaged"):
        run(tmp_path / "out", "--tuned", str(tmp_path))
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit, match=r"error: .*file"):
        run(tmp_path / "file" / "out")


def test_processes_that_write_one_file_at_the_same_time_do_not_meet(tmp_path):
    path, inner = tmp_path / "results.json", tmp_path / "inner"

    def write(part):
        part.write_text("the first")
        write_text(path, "the second")  # another process, from beginning to end
        assert path.read_text() == "the second"
        inner.touch()

    replace_file(path, write)
    assert path.read_text() == "the first"
    assert inner.exists()
    assert not list(tmp_path.glob("part-*"))


def test_a_file_that_cannot_be_written_leaves_no_part(tmp_path):
    def fail(part):
        part.write_text("half")
        raise OSError("no more")

    with pytest.raises(OSError, match="could not be written: no more"):
        replace_file(tmp_path / "results.json", fail)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_run_that_a_recipe_does_not_know_is_named(finished):
    recipe = dataclasses.replace(noisy_cifar100.RECIPE, table=lambda runs: runs["nothing"])
    with pytest.raises(SettingsError, match=r"must hold runs of noisy_cifar100.*KeyError"):
        write_report(recipe, [finished], finished)


@pytest.mark.slow
def test_a_full_disk_leaves_the_last_checkpoint(finished, interrupted, copied, monkeypatch):
    out, path = copied(interrupted, "*/epoch-*.weights.h5")
    monkeypatch.setattr(record, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    usage = shutil.disk_usage(out)._replace(free=1000)
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda _: usage)
        with pytest.raises(SystemExit, match=r"error: .* could not be written: No space left"):
            run(out)
    assert path.exists()
    assert not list(out.glob("*/part-*"))
    run(out)
    (path,) = out.glob("*/last.weights.h5")
    (whole,) = finished.glob("*/last.weights.h5")
    assert arrays(path) == arrays(whole)


# ---- Nothing that is read can run code -----------------------------------------------------------


class Bomb:
    """Unpickled, it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, "ran")


def test_pickles_are_not_run(interrupted, copied, tmp_path):
    out, path = copied(interrupted, "*/epoch-*.weights.h5")
    path.write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    refused(out)
    pickle.loads(path.read_bytes())  # to see that it would have
    assert (tmp_path / "ran").exists()
    (tmp_path / "ran").unlink()
    with h5py.File(path, "w") as file:
        file["layers"] = np.void(pickle.dumps(Bomb(tmp_path / "ran")))
    refused(out)
    assert not (tmp_path / "ran").exists()


def test_a_saved_model_runs_no_code_of_its_own(tmp_path):
    backbone = keras.Sequential([keras.Input((2,)), keras.layers.Lambda(lambda x: x + 1.0)])
    backbone.add(keras.layers.Dense(2))
    kf.FisherPenaltyModel(backbone).save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="safe_mode"):
        keras.models.load_model(tmp_path / "model.keras")


def test_a_state_of_a_callback_is_numbers():
    trace = kf.callbacks.FisherTrace((np.zeros((2, 4)), None))
    for state in ({"history": [["__import__('os')", 0, 0, 0]]}, {"history": 3}, {}):
        with pytest.raises((ValueError, TypeError, KeyError)):
            trace.set_state({"random_state": [], "first_epoch_end": 0} | {"history": None} | state)
