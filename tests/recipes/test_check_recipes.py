"""The runs that `tools/check_recipes.py` trains of each recipe."""

import importlib

import pytest

from tests.recipes.test_plans import NAMES, planned
from tools import check_recipes


@pytest.mark.parametrize("name", NAMES)
def test_every_kind_of_run_is_checked_after_the_one_it_begins_with(name):
    runs = check_recipes.kinds(importlib.import_module(name).RECIPE)
    names = [run.name for run in runs]
    for index, run in enumerate(runs):
        assert not run.initial or run.initial in names[:index]
    found = {(run.part, run.network, run.penalty, run.alpha > 0) for run in runs}
    assert found == {(r.part, r.network, r.penalty, r.alpha > 0) for r in planned(name, "paper")}
    assert all(run.batch_size <= check_recipes.BATCH_SIZE for run in runs)
