import json
import subprocess
import sys
import time
from pathlib import Path

import noisy_cifar100
import pytest
import search
from experiment import command, results

from tests.recipes.tiny import OPTIONS

ARGUMENTS = [*OPTIONS, "--seeds", "0", "1", "--methods", "baseline", "fp"]
RECIPE = Path(__file__).parents[2] / "recipes" / "noisy_cifar100.py"


def run(out, *arguments):
    command.main(noisy_cifar100.RECIPE, [*ARGUMENTS, *arguments, "--out", str(out)])
    return [{k: v for k, v in r.items() if k != "seconds"} for r in results.read([out])]


def test_runs_side_by_side_end_as_one_after_another_even_if_killed(tmp_path):
    together = [sys.executable, RECIPE, *ARGUMENTS, "--jobs", "2", "--out", tmp_path / "together"]
    begun = subprocess.Popen(together, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "together").rglob("checkpoint*")) and begun.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    begun.kill()
    begun.wait()
    expected = run(tmp_path / "alone")
    assert run(tmp_path / "together", "--jobs", "2") == expected
    assert len(expected) == 4


def test_a_search_has_other_ways_to_share_its_runs(tmp_path, capsys):
    with pytest.raises(SystemExit, match=r"`--jobs` must be 1 .* in a search"):
        command.main(search.RECIPE, ["--jobs", "2", "--out", str(tmp_path)], run_all=search.search)


@pytest.mark.parametrize("jobs", ["0", "-1", "some"])
def test_at_least_one_run_at_a_time(jobs, capsys):
    with pytest.raises(SystemExit):
        command.main(noisy_cifar100.RECIPE, ["--jobs", jobs])
    assert "--jobs" in capsys.readouterr().err


def test_the_settings_of_runs_do_not_tell_how_many_ran_at_a_time(tmp_path):
    run(tmp_path, "--seeds", "0", "--methods", "baseline")
    (written,) = tmp_path.rglob("settings.json")
    assert "jobs" not in json.loads(written.read_text())["run"]
