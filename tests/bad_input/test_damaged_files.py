"""Files that were cut, exchanged or forged: a sentence that names them, and nothing is changed."""

import copy
import dataclasses
import json
import pickle
import shutil
import types
from pathlib import Path

import h5py
import keras
import noisy_cifar100
import numpy as np
import pytest
import tensorflow as tf
from experiment import command, progress, record, results, training
from experiment.data import load
from experiment.devices import Devices
from experiment.errors import SettingsError
from experiment.files import inside, read_json, replace, write_text
from experiment.report import write as write_report
from experiment.running import claim

import keras_fisher as kf
from tests.recipes.tiny import OPTIONS, Killed, tiny, trained
from tests.run_folders import differences
from tools import report

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

    class Killing(progress.EpochBar):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 2:
                raise Killed

    out = tmp_path_factory.mktemp("interrupted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
        patch.setattr(training, "EpochBar", Killing)
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


DAMAGES = {
    "cut": half,
    "empty": lambda content: b"",
    "other JSON": lambda content: b'["nothing"]',
    "without its keys": lambda content: b"{}",
    "no text": lambda content: bytes(range(256)),
    "a pickle": lambda content: pickle.dumps({"run": 1}),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["recipe", "*/settings", "*/results"])
def test_damaged_files_of_a_finished_run_are_named(finished, copied, name, damage):
    out, path = copied(finished, f"{name}.json")
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    assert f"{path} is damaged" in refused(out)


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_report_names_them_too(finished, copied, damage):
    out, path = copied(finished, "*/time.json")
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.raises(SystemExit, match=r"error: .*time\.json is damaged"):
        report.main([str(out), "--out", str(out.parent / "together")])


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["progress.json", "epoch-*.weights.h5"])
def test_damaged_checkpoints_are_named(interrupted, copied, name, damage):
    out, path = copied(interrupted, f"*/{name}")
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    message = refused(out)
    assert str(path) in message
    assert "is damaged" in message


FORGED = {
    "*/settings": [{"run": 3}, {"run": None}, {"run": [1]}],
    "*/results": [{"best": None}, {"best": {}}, {"best": []}, {"best": {"test_accuracy": "x"}}],
}


@pytest.mark.parametrize(
    ("name", "change"), [(name, change) for name in FORGED for change in FORGED[name]]
)
def test_values_of_another_kind_are_named(finished, copied, name, change):
    out, path = copied(finished, f"{name}.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert f"{path} is damaged" in refused(out)


@pytest.mark.parametrize(
    "change",
    [
        {"curves": []},
        {"curves": None},
        {"curves": {"loss": 3}},
        {"state": None},
        {"state": {}},
        {"state": {"history": 3}},
        {"seconds": "x"},
    ],
)
def test_progress_of_another_kind_is_named(interrupted, copied, change):
    out, path = copied(interrupted, "*/progress.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    message = refused(out)
    assert str(path) in message
    assert "damaged" in message


def test_a_checkpoint_of_another_model_is_named(interrupted, copied):
    out, path = copied(interrupted, "*/epoch-*.weights.h5")
    other = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    other.save_weights(path)
    assert "is damaged, or of another model" in refused(out)


def test_a_checkpoint_that_is_gone_is_named(interrupted, copied):
    out, path = copied(interrupted, "*/epoch-*.weights.h5")
    path.unlink()
    assert str(path) in refused(out)


@pytest.mark.parametrize(
    "name", ["../x.weights.h5", "/etc/x.weights.h5", "x/y.weights.h5", "passwd", "", "..", 3, None]
)
def test_a_checkpoint_lies_in_the_folder_of_its_run(interrupted, copied, name):
    out, path = copied(interrupted, "*/progress.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"checkpoint": name}))
    assert f"names a file {name!r}" in refused(out)


FOUND = {"noise": 0.5, "over": ["alpha"], "penalty": "fp", "learning_rate": 0.1, "alpha": 1}


@pytest.mark.parametrize(
    "found",
    [
        None,
        {},
        [None],
        [{}],
        [FOUND | {"penalty": "seeds"}],
        [FOUND | {"penalty": []}],
        [FOUND | {"penalty": ""}],
        [FOUND | {"over": ["lr"]}],
        [FOUND | {"over": "lr"}],
        [FOUND | {"over": []}],
        [FOUND | {"over": ["lr"], "penalty": "", "alpha": 0, "learning_rate": 0}],
        [FOUND | {"noise": None}],
        [FOUND | {"learning_rate": "0.1"}],
        [FOUND | {"alpha": 0}],
        [FOUND | {"alpha": -1}],
        [FOUND | {"alpha": float("nan")}],
        [FOUND, FOUND | {"more": 1}],
        {"penalty": "fp", "learning_rate": 0.1, "alpha": 1},
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


def test_names_are_plain(tmp_path):
    assert inside(tmp_path, "épocas 🙂.json", ".json") == tmp_path / "épocas 🙂.json"
    for name in ("a/b.json", "../b.json", "b.json/", "b\\0.txt", b"b.json"):
        with pytest.raises(SettingsError, match="names a file"):
            inside(tmp_path, name, ".json")


def test_what_is_read_is_an_object(tmp_path):
    path = tmp_path / "é.json"
    path.write_text(json.dumps({"épocas": 3}), encoding="utf-8")
    assert read_json(path, épocas=int) == {"épocas": 3}
    with pytest.raises(SettingsError, match="lacks 'seeds'"):
        read_json(path, seeds=int)
    with pytest.raises(SettingsError, match="lacks 'épocas'"):
        read_json(path, épocas=dict)
    path.write_text("[" * 100_000)
    with pytest.raises(SettingsError, match="is damaged"):
        read_json(path)


def test_processes_that_write_one_file_at_the_same_time_do_not_meet(tmp_path):
    path, inner = tmp_path / "results.json", tmp_path / "inner"

    def write(part):
        part.write_text("the first")
        write_text(path, "the second")  # another process, from beginning to end
        assert path.read_text() == "the second"
        inner.touch()

    replace(path, write)
    assert path.read_text() == "the first"
    assert inner.exists()
    assert not list(tmp_path.glob("part-*"))


def test_a_file_that_cannot_be_written_leaves_no_part(tmp_path):
    def fail(part):
        part.write_text("half")
        raise OSError("no more")

    with pytest.raises(OSError, match="could not be written: no more"):
        replace(tmp_path / "results.json", fail)
    assert not list(tmp_path.iterdir())


# ---- Every value of every file -------------------------------------------------------------------

DELETED = object()
VALUES = [DELETED, None, "x", -1, 10**400, [], {}, True, float("nan"), 0.5, [1], ["x"], {"x": 1}]


def places(content):
    """The way to every value: keys and indices."""
    if isinstance(content, dict | list):
        for key, inner in content.items() if isinstance(content, dict) else enumerate(content):
            yield (key,)
            yield from ((key, *rest) for rest in places(inner))


def changed(content, place, value):
    content = copy.deepcopy(content)
    inner = content
    for key in place[:-1]:
        inner = inner[key]
    if value is DELETED:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    return content


def damaged(path):
    """Damages each value of a file in turn, in each way."""
    whole = path.read_text()
    content = json.loads(whole)
    for place in places(content):
        for value in VALUES:
            path.write_text(json.dumps(changed(content, place, value)))
            yield place, value
    path.write_text(whole)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A run that measures all there is, with its folders: killed after an epoch, and finished."""
    kinds = {key: {"num_examples": 8} for key in ("fisher_trace", "gradient_norm")}
    kinds["early_fisher_trace"] = {"loss_threshold": 2.2, "num_examples": 8}
    once = {"fisher_trace": {"num_examples": 8}}
    run = tiny(
        **{"measures": kinds | {"batch_accuracy": {}}, "at_start": once, "at_best": once},
        **{"noise": 0.5, "monitored": 60, "gradient_batches": 1, "epochs": 2, "num_train": 70},
    )
    killed, finished = (tmp_path_factory.mktemp(name) for name in ("killed", "finished"))
    claim(killed / run.name, run, Devices())

    class Killing(progress.EpochBar):
        def on_epoch_end(self, epoch, logs=None):
            raise Killed

    tf.config.run_functions_eagerly(True)  # a few steps
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
        patch.setattr(training, "EpochBar", Killing)
        with pytest.raises(Killed):
            trained(run, killed)
    shutil.copytree(killed, finished, dirs_exist_ok=True)
    trained(run, finished)
    tf.config.run_functions_eagerly(False)
    return run, killed, finished


@pytest.mark.parametrize("name", ["settings", "results", "time"])
def test_every_damaged_value_of_a_finished_run_is_named_or_does_no_harm(measured, copied, name):
    out, path = copied(measured[2], f"*/{name}.json")
    said = {}
    for place, value in damaged(path):
        try:
            noisy_cifar100.table(results.read([out]))
        except SettingsError as error:
            said[*place, repr(value)] = str(error)
    assert len(said) >= 10
    assert [place for place in said if f"{path} is damaged" not in said[place]] == []


def test_every_damaged_value_of_a_checkpoint_is_named_or_does_no_harm(measured, copied):
    run = measured[0]
    path = copied(measured[1], "*/progress.json")[1]
    data, said = load(run), {}
    model = types.SimpleNamespace(load_weights=Path.read_bytes)  # quicker than a model
    for place, value in damaged(path):
        restored = record.Record(path.parent, run, data, training._curves(run, data))
        try:
            restored.restore(model)
        except (SettingsError, FileNotFoundError) as error:
            said[*place, repr(value)] = str(error)
        else:
            assert restored.first_epoch == 1
            assert restored._best_weights().name == "best-0.weights.h5"
    assert len(said) > 100
    assert [place for place in said if str(path.parent) not in said[place]] == []


def test_a_method_that_a_recipe_does_not_know_is_named(finished, copied):
    out, path = copied(finished, "*/settings.json")
    content = json.loads(path.read_text())
    path.write_text(json.dumps(changed(content, ("run", "penalty"), "l2")))
    assert "it lacks one of fp, gp, gp_x, gp_r as 'penalty' in 'run'" in refused(out)
    broken = dataclasses.replace(noisy_cifar100.RECIPE, table=lambda runs: {}[runs[0]["method"]])
    path.write_text(json.dumps(content))
    with pytest.raises(
        SettingsError, match=r"must hold runs of noisy_cifar100.*KeyError: 'baseline'"
    ):
        write_report(broken, [out], out)


def test_a_full_disk_leaves_the_last_checkpoint(interrupted, copied, monkeypatch):
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
    whole = out.parent / "whole"
    run(whole)
    assert differences(out, whole) == []


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
            trace.set_state({"random_state": [], "peak": 0, "early": 0} | {"history": None} | state)
