"""What the recipes make of runs that all went to NaN."""

import math

import pytest
from experiment.results.finished_runs import make_frame

from tests.recipes.test_plans import NAMES, found_of, planned, recipe, table_of

NUMBERS = ("accuracy", "epoch", "count")  # what stays one: keys end with these ...
NAN = "test_accuracy"  # ... but not this one


def diverged(figures):
    """The same with nothing measured; JSON has null for NaN."""
    if isinstance(figures, dict):
        is_nan = {key: key == NAN and isinstance(value, float) for key, value in figures.items()}
        return {
            key: math.nan if is_nan[key] else value if key.endswith(NUMBERS) else diverged(value)
            for key, value in figures.items()
        }
    if isinstance(figures, list):
        return [number if isinstance(number, int) else diverged(number) for number in figures]
    return None


def found(name):
    runs = found_of(planned(name, "demo"))
    measured = ("history", "curves", "start", "best", "final")
    return [run | {key: diverged(run[key]) for key in measured} for run in runs]


@pytest.mark.matrix
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore:All-NaN slice:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:Mean of empty slice:RuntimeWarning")
def test_runs_that_all_diverged_have_a_table_and_a_figure(name, tmp_path):
    runs = found(name)
    assert runs[0]["part"] in table_of(name, runs)
    recipe(name).figure(make_frame(runs), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").exists()
