"""Processes that share the runs of a folder."""

import time

import early_to_final_curvature
import noisy_cifar100
import pytest
import search
from experiment import command, errors, queue
from experiment.devices import Devices
from experiment.progress import Progress
from experiment.results import finished_runs

from tests.processes import killed, printed, start
from tests.recipes.tiny import OPTIONS, tiny

ARGUMENTS = [*OPTIONS, "--epochs", "8", "--methods", "fp"]
# The recipe with a checkpoint after every epoch, in its own processes too, which begin with it.
RECIPE = """
import sys
import noisy_cifar100
from experiment import command
from experiment.run import record

record.SECONDS_BETWEEN_CHECKPOINTS = 0.0
if __name__ == "__main__":
    command.main(noisy_cifar100.RECIPE, sys.argv[1:])
"""


def run(out, *arguments):
    command.main(noisy_cifar100.RECIPE, [*ARGUMENTS, *arguments, "--out", str(out)])
    return [{k: v for k, v in r.items() if k != "seconds"} for r in finished_runs.read([out])]


def kill_after_a_checkpoint(process, out):
    """Kills a command that trains, and returns the folders of the runs that it was in."""
    deadline = time.monotonic() + 60
    while not list(out.rglob("progress.json")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.communicate()
    return [path.parent for path in out.rglob("progress.json")]


@pytest.mark.slow
def test_jobs_end_as_one_process_would_even_if_killed(tmp_path):
    script, out = tmp_path / "recipe.py", tmp_path / "together"
    script.write_text(RECIPE)
    seeds = ("--seeds", "0", "0", "1", "--jobs", "2")
    begun = kill_after_a_checkpoint(start(script, *ARGUMENTS, *seeds, "--out", out), out)
    assert begun
    assert not any((folder / "results.json").exists() for folder in begun)
    expected = run(tmp_path / "alone", "--seeds", "0", "1")
    assert run(out, *seeds) == expected
    assert len(expected) == 2


@pytest.mark.slow
def test_the_runs_of_a_process_that_was_killed_are_trained_by_the_others(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(queue, "help_train", killed)
    assert len(run(tmp_path, "--jobs", "2", "--seeds", "0", "1")) == 2
    said = capsys.readouterr().err
    assert "1 of 2 processes ended early" in said
    assert "`--jobs` 2" in said


@pytest.mark.slow
def test_the_same_command_shares_the_runs_that_are_left(tmp_path):
    script, out = tmp_path / "recipe.py", tmp_path / "together"
    script.write_text(RECIPE)
    options = (*ARGUMENTS, "--seeds", "0", "1", "2", "--out", out)
    tables = [printed(process) for process in [start(script, *options) for _ in range(2)]]
    assert tables[0] == tables[1]
    expected = run(tmp_path / "alone", "--seeds", "0", "1", "2")
    assert [
        {k: v for k, v in r.items() if k != "seconds"} for r in finished_runs.read([out])
    ] == expected
    for folder in out.glob("*-seed*"):  # Each was trained once.
        assert len(list((folder / "tensorboard").glob("events.*"))) == 3


def test_a_run_that_begins_with_another_waits_for_it():
    setting = early_to_final_curvature.PRESETS["demo"]
    names = [r.name for r in queue.list_ready(early_to_final_curvature.RECIPE, setting, {})]
    assert names == ["mlp_digits-high-0.03-seed0", "mlp_digits-low-0.005-seed0"]
    ready = queue.list_ready(early_to_final_curvature.RECIPE, setting, {names[1]: 0.5})
    assert {run.initial for run in ready} == {"", names[1]}


def test_workers_of_one_training_leave_no_run_to_others(tmp_path, monkeypatch):
    def train(*_):
        raise errors.LockedError("another one")

    monkeypatch.setattr(queue, "train_one", train)
    settings = noisy_cifar100.PRESETS["demo"]
    with pytest.raises(errors.LockedError):
        queue.train_all(
            noisy_cifar100.RECIPE, settings, tmp_path, Devices(workers=2), is_shown=False
        )


def test_a_search_has_other_ways_to_share_its_runs(tmp_path, capsys):
    with pytest.raises(SystemExit, match=r"`--jobs` must be 1 .* in a search"):
        command.main(search.RECIPE, ["--jobs", "2", "--out", str(tmp_path)], train=search.search)


@pytest.mark.parametrize("jobs", ["0", "-1", "some"])
def test_at_least_one_run_at_a_time(jobs, capsys):
    with pytest.raises(SystemExit) as caught:
        command.main(noisy_cifar100.RECIPE, ["--jobs", jobs])
    assert "--jobs" in f"{capsys.readouterr().err}{caught.value}"


def test_a_run_of_another_process_moves_only_the_bar_of_all_runs():
    run = tiny()
    with Progress([run, run]) as progress:
        progress.begin(run)
        progress.skip(run.epochs)
        assert (progress._own.n, progress._all.n) == (0, run.epochs)
        progress.resume(run.name, 2)
        assert (progress._own.n, progress._all.n) == (2, run.epochs + 2)


def test_the_bar_counts_runs_that_are_planned_after_a_choice():
    run = tiny()
    with Progress([run]) as progress:
        progress.plan([run, run, run])
        progress.finished = 1
        progress.begin(run)
        assert progress._all.desc == "run 2 of 3: "
        assert progress._all.total == 3 * run.epochs
