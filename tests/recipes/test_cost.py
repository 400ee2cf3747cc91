"""What a command is said to cost."""

import pytest
import wrong_labels
from experiment.plan.cost import cost_measure, count_plain_steps, count_steps
from experiment.run import measures
from experiment.run.data import load_data


@pytest.mark.parametrize(("fold", "steps"), [(1, 2), (2, 3)])
def test_the_steps_of_a_fold_are_counted(fold, steps):
    setting = wrong_labels.PRESETS["small"]["mlp_digits_noise50"]
    # Of 129 examples, the first fold holds out 65, which leaves two mini-batches of 32.
    run = setting.make_run(part="part", method="method", folds=2, fold=fold, num_train=129)
    assert count_steps(run) == load_data(run).steps_per_epoch == steps


def test_an_epoch_costs_the_same_with_mini_batches_of_any_size():
    setting = wrong_labels.PRESETS["small"]["mlp_digits_noise50"]
    runs = [
        setting.make_run(part="part", method="method", num_train=128, batch_size=size, alpha=0.1)
        for size in (32, 64)
    ]
    small, large = map(count_plain_steps, runs)
    assert small == large > runs[0].epochs


def test_every_measure_has_a_cost():
    run = wrong_labels.PRESETS["small"]["mlp_digits_noise50"].make_run(part="part", method="method")
    costs = {key: cost_measure(key, {}, run) for key in (*measures.CURVES, *measures.LOGGERS)}
    assert {key for key, cost in costs.items() if not cost} == {
        *("batch_accuracy", "penalty_ratio", "held_out_labels")  # the last one without folds
    }
    with pytest.raises(KeyError, match="unknown"):
        cost_measure("unknown", {}, run)
