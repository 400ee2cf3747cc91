"""Archives of finished runs: tables, and recipes that train no run again."""

import dataclasses
import json

import pytest
from experiment import command, queue
from experiment.errors import SettingsError
from experiment.plan import setting
from experiment.results import archive, finished_runs
from suboptimal_lr import RECIPE

from tests.recipes.tiny import OPTIONS
from tools import report

METHODS = ("--methods", "baseline", "fp", "--learning-rate", "0.01")


def run(out, *options):
    command.main(RECIPE, [*OPTIONS, *METHODS, *options, "--out", str(out)])


@pytest.fixture(scope="module")
def archived(tmp_path_factory):
    """A folder of two finished runs, and their archive."""
    out = tmp_path_factory.mktemp("finished")
    run(out)
    report.main([str(out), "--archive", str(out / "data")])
    return out, out / "data" / "suboptimal_lr.jsonl"


def test_the_table_of_an_archive_is_that_of_the_folder(archived, tmp_path):
    out, path = archived
    report.main([str(path), "--out", str(tmp_path)])
    assert (tmp_path / "table.md").read_text() == (out / "table.md").read_text()
    assert (tmp_path / "figure.png").exists()


def test_no_run_of_an_archive_is_trained_again(archived, tmp_path, monkeypatch):
    out, path = archived
    monkeypatch.setattr(queue, "train", None)
    run(tmp_path, "--finished", str(path))
    assert (tmp_path / "table.md").read_text() == (out / "table.md").read_text()
    assert {p.parent.name for p in tmp_path.glob("*/results.json")} == {
        run["name"] for run in finished_runs.read([path])
    }


def test_a_dry_run_counts_only_the_runs_that_are_to_be_trained(archived, tmp_path, capsys):
    out, path = archived
    run(tmp_path / "new", "--fp", "0.03", "0.5", "--finished", str(path), "--dry-run")
    shown = capsys.readouterr().out
    assert shown.startswith("2 of 3 runs are finished. The others:\n\n")
    assert "| mlp | digits | 1 | 4 |" in shown
    assert not (tmp_path / "new").exists()
    run(out, "--dry-run")
    assert capsys.readouterr().out == "2 of 2 runs are finished.\n"
    with pytest.raises(SystemExit, match=r"`--finished`: .* has other settings"):
        run(tmp_path / "new", "--epochs", "5", "--finished", str(path), "--dry-run")


@pytest.mark.slow
def test_a_run_that_is_planned_late_is_restored_too(archived, tmp_path, monkeypatch):
    seeds = ("--seeds", "0", "1", "--methods", "fp")
    run(tmp_path / "first", *seeds)
    report.main([str(tmp_path / "first"), "--archive", str(tmp_path / "data")])
    trained, train = [], queue.train
    monkeypatch.setattr(
        queue, "train", lambda run, *others: trained.append(run.name) or train(run, *others)
    )
    # With another alpha, which learns nothing, the second seed is planned after the first.
    data = str(tmp_path / "data" / "suboptimal_lr.jsonl")
    run(tmp_path / "second", *seeds, "--fp", "0.03", "1000", "--finished", data)
    assert trained == ["mlp_digits-fp-1000-seed0"]


def test_runs_of_an_archive_with_other_settings_are_refused(archived, tmp_path):
    with pytest.raises(SystemExit, match=r"`--finished`: .* has other settings \(.*epochs is 4"):
        run(tmp_path, "--epochs", "5", "--finished", str(archived[1]))
    assert not [*tmp_path.glob("*/results.json")]


def test_a_run_whose_weights_another_begins_with_is_trained_anew(archived, tmp_path):
    runs = finished_runs.read([archived[1]])
    first, second = map(setting.get_run, runs)
    planned = [first, dataclasses.replace(second, value=9.0, initial=first.name)]
    assert archive.restore(planned, runs, tmp_path) == []
    assert archive.restore([first], runs, tmp_path) == [first.name]


def test_a_setting_that_an_archive_does_not_know_has_its_default(archived, tmp_path):
    lines = [json.loads(line) for line in archived[1].read_text().splitlines()]
    for line in lines:
        del line["penalty_batch_size"]
    path = tmp_path / "suboptimal_lr.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    assert [run["penalty_batch_size"] for run in finished_runs.read([path])] == [0, 0]


def test_a_damaged_archive_is_named(archived, tmp_path):
    path = tmp_path / "suboptimal_lr.jsonl"
    path.write_text(archived[1].read_text()[:-100])
    with pytest.raises(SettingsError, match=rf"{path} is damaged"):
        finished_runs.read([path])


@pytest.mark.parametrize("key", ["versions", "seconds", "curves"])
def test_a_run_that_lacks_something_is_named(archived, tmp_path, key):
    lines = [json.loads(line) for line in archived[1].read_text().splitlines()]
    del lines[-1][key]
    path = tmp_path / "suboptimal_lr.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(SystemExit, match=rf"error: {path} is damaged.*lacks {key}"):
        run(tmp_path / "out", "--finished", str(path))


def test_numbers_are_shortened():
    shortened = archive.shorten({"a": [0.123456789, 123456.789, None, 3], "b": "0.123456789"}, 4)
    assert shortened == {"a": [0.1235, 123500.0, None, 3], "b": "0.123456789"}
