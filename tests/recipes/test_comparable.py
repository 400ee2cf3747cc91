"""Which runs may stand in one table."""

import dataclasses
import importlib

import pytest
from experiment.errors import SettingsError
from experiment.plan import setting
from experiment.results import comparison

from tests.recipes.tiny import RECIPE_NAMES, tiny


def check(runs):
    comparison.check_comparable(map(setting.describe, runs))


@pytest.mark.matrix
@pytest.mark.parametrize("name", RECIPE_NAMES)
@pytest.mark.parametrize("preset", ["demo", "small", "paper"])
def test_all_runs_of_every_preset_may(name, preset):
    recipe = importlib.import_module(name).RECIPE
    check(recipe.plan_all_runs(recipe.presets[preset]))


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 5},
        {"num_train": 140},
        {"drops": (2,)},
        {"dataset": "cifar10"},
        {"network": "vgg11"},
        {"weight_decay": 0.1},
        {"augment": "flip"},
    ],
)
def test_methods_are_compared_on_one_task(change):
    baseline, penalised = tiny("baseline"), tiny("fp", value=0.1, alpha=0.1, learning_rate=0.1)
    check([baseline, penalised])
    with pytest.raises(SettingsError, match=f"must have the same task.*{next(iter(change))} is "):
        check([baseline, dataclasses.replace(penalised, **change)])


def test_a_value_sets_one_thing():
    check([tiny(value=alpha, alpha=alpha) for alpha in (0.1, 0.2)])
    check([tiny(value=alpha, alpha=alpha / 32) for alpha in (0.1, 0.2)])
    check([tiny(value=rate, learning_rate=rate) for rate in (0.1, 0.2)])
    with pytest.raises(SettingsError, match=r"differ only in alpha.*learning_rate is 0\.1 and 0"):
        check([tiny(value=x, alpha=x, learning_rate=x) for x in (0.1, 0.2)])
    with pytest.raises(SettingsError, match=r"differ only in alpha.*update_freq is 1 and 2"):
        check([tiny(value=x, alpha=x, update_freq=x) for x in (1, 2)])


def test_runs_that_go_on_from_others_have_epochs_of_their_own():
    first = tiny("high", epochs=2)
    check([first, tiny("after_high", initial=first.name)])
