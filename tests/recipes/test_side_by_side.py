import json
import time

import noisy_cifar100
import pytest
import search
from experiment import command, results, side_by_side

from tests.processes import killed, start
from tests.recipes.tiny import OPTIONS, tiny

ARGUMENTS = [*OPTIONS, "--epochs", "8", "--methods", "fp"]
# The recipe with a checkpoint after every epoch, in its own processes too, which begin with it.
RECIPE = """
import sys
import noisy_cifar100
from experiment import command, record

record.SECONDS_BETWEEN_CHECKPOINTS = 0.0
if __name__ == "__main__":
    command.main(noisy_cifar100.RECIPE, sys.argv[1:])
"""


def run(out, *arguments):
    command.main(noisy_cifar100.RECIPE, [*ARGUMENTS, *arguments, "--out", str(out)])
    return [{k: v for k, v in r.items() if k != "seconds"} for r in results.read([out])]


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


def test_runs_side_by_side_end_as_one_after_another_even_if_killed(tmp_path):
    script, out = tmp_path / "recipe.py", tmp_path / "together"
    script.write_text(RECIPE)
    seeds = ("--seeds", "0", "0", "1", "--jobs", "2")
    begun = kill_after_a_checkpoint(start(script, *ARGUMENTS, *seeds, "--out", out), out)
    assert begun
    assert not any((folder / "results.json").exists() for folder in begun)
    expected = run(tmp_path / "alone", "--seeds", "0", "1")
    assert run(out, *seeds) == expected
    assert len(expected) == 2


def test_runs_side_by_side_are_each_trained_once_whatever_is_listed_twice():
    runs = [tiny(seed=seed) for seed in (0, 1, 0, 2, 1)]
    ready = side_by_side._ready(runs, {runs[3].name: {}}, [runs[1]])
    assert ready == [runs[0]]


def test_a_process_that_is_killed_is_told_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(side_by_side, "_train", killed)
    with pytest.raises(SystemExit, match=r"error: A process .* was killed.*`--jobs`.*Received: 2"):
        run(tmp_path, "--jobs", "2")


def test_a_search_has_other_ways_to_share_its_runs(tmp_path, capsys):
    with pytest.raises(SystemExit, match=r"`--jobs` must be 1 .* in a search"):
        command.main(search.RECIPE, ["--jobs", "2", "--out", str(tmp_path)], run_all=search.search)


@pytest.mark.parametrize("jobs", ["0", "-1", "some"])
def test_at_least_one_run_at_a_time(jobs, capsys):
    with pytest.raises(SystemExit):
        command.main(noisy_cifar100.RECIPE, ["--jobs", jobs])
    assert "--jobs" in capsys.readouterr().err


def test_help_says_where_runs_are_not_trained_side_by_side(capsys):
    with pytest.raises(SystemExit):
        command.main(noisy_cifar100.RECIPE, ["--help"])
    assert "not with --distribute, nor in a search" in " ".join(capsys.readouterr().out.split())


def test_the_settings_of_runs_do_not_tell_how_many_ran_at_a_time(tmp_path):
    run(tmp_path, "--seeds", "0", "--methods", "baseline", "--epochs", "1")
    (written,) = tmp_path.rglob("settings.json")
    assert "jobs" not in json.loads(written.read_text())["run"]
