"""What tables say of several runs."""

import numpy as np
import pandas as pd
from experiment.results import curvature, tables

SCHEME = {"part": "digits", "noise": 0.0, "noise_source": "uniform", "method": "fp"}


def frame(*runs):
    return pd.DataFrame([SCHEME | run for run in runs])


def test_differences_are_paired_by_seed_and_have_a_standard_error():
    ours = frame(*({"seed": s, "accuracy": a} for s, a in ((0, 0.5), (1, 0.7), (2, 0.9))))
    theirs = frame(*({"seed": s, "accuracy": a} for s, a in ((2, 0.86), (0, 0.48), (1, 0.67))))
    # 2, 3 and 4 points: a deviation of 1, over the root of 3.
    assert tables.DifferenceCell("accuracy", theirs)(ours) == "+3.0 ± 0.6"


def test_seeds_that_only_one_side_has_are_left_out():
    ours, theirs = frame({"seed": 0, "accuracy": 0.5}), frame({"seed": 1, "accuracy": 0.4})
    cell = tables.DifferenceCell("accuracy", theirs)
    assert cell(ours) == tables.NOTHING
    both = pd.concat([ours, frame({"seed": 1, "accuracy": 0.35})])
    assert cell(both) == "-5.0"


def test_parts_may_have_different_numbers_of_seeds():
    few = frame(*({"seed": s} for s in (0, 1)))
    assert tables.write_seeds(few) == "2 seeds: mean ± standard deviation."
    assert tables.write_seeds(few[:1]) == "1 seed."
    many = frame(*({"seed": s, "part": "images"} for s in (0, 1, 2)))
    assert tables.write_seeds(pd.concat([few, many])).startswith("2 to 3 seeds: mean")


def test_a_seed_that_is_nan_is_not_left_out():
    ours = frame({"seed": 0, "accuracy": 0.5}, {"seed": 1, "accuracy": np.nan})
    theirs = frame({"seed": 0, "accuracy": 0.4}, {"seed": 1, "accuracy": 0.4})
    assert tables.DifferenceCell("accuracy", theirs)(ours) == tables.NOTHING


def test_a_value_is_chosen_by_the_first_seed_if_the_others_have_the_chosen_one_alone():
    # 0.1 was chosen from a smaller grid, and trained with a second seed.
    grid = choices(**{"0.1": 0.5, "0.3": 0.7, "1": 0.6})
    second = choices(**{"0.1": 0.9}).assign(seed=1)
    assert set(tables.choose_value(pd.concat([grid, second]))["value"]) == {0.3}
    third = choices(**{"0.3": 0.1}).assign(seed=2)
    assert set(tables.choose_value(pd.concat([grid, second, third]))["value"]) == {0.3}


def test_a_value_is_chosen_by_all_seeds_of_a_complete_grid():
    grids = [
        choices(**{"0.1": 0.5, "0.3": 0.6}),
        choices(**{"0.1": 0.8, "0.3": 0.6}).assign(seed=1),
    ]
    assert set(tables.choose_value(pd.concat(grids))["value"]) == {0.1}


def choices(**accuracies):
    return frame(
        *(
            {"value": float(value), "seed": 0, "validation_accuracy": accuracy}
            for value, accuracy in accuracies.items()
        )
    )


def test_a_best_value_at_the_edge_of_its_grid_is_warned_of():
    inside = choices(**{"0.1": 0.5, "0.3": 0.7, "1": 0.6})
    assert tables.write_edges(inside) == ""
    rising = choices(**{"0.1": 0.5, "0.3": 0.7, "1": 0.8})
    assert "The best value of FP in digits, 1, is the largest of its grid" in tables.write_edges(
        rising
    )
    falling = choices(**{"0.1": 0.9, "0.3": 0.7, "1": 0.8})
    assert "0.1, is the smallest of its grid: a smaller one" in tables.write_edges(falling)
    assert tables.write_edges(choices(**{"0.1": 0.9})) == ""


def test_each_noise_source_has_a_best_value_of_its_own():
    aggregate = choices(**{"0.1": 0.9, "0.3": 0.7, "1": 0.8}).assign(noise_source="aggregate")
    worse = choices(**{"0.1": 0.2, "0.3": 0.4, "1": 0.3}).assign(noise_source="worse")
    runs = pd.concat([aggregate, worse], ignore_index=True)
    chosen = tables.choose_values(runs).set_index("noise_source")["value"]
    assert chosen.to_dict() == {"aggregate": 0.1, "worse": 0.3}
    edges = tables.write_edges(runs)
    assert "of FP in digits with aggregate noise, 0.1, is the smallest" in edges
    assert "worse" not in edges


def test_curves_are_compared_at_the_least_loss_that_all_reach():
    losses = [np.array([4.0, 1.0]), np.array([8.0, 2.0, 0.5])]
    values = [np.array([10.0, 20.0]), np.array([5.0, 7.0, 9.0])]
    # At a loss of 1: the end of the first curve, and half-way (in logarithms) on the second.
    assert curvature.interpolate_at_common_loss(losses, values) == [20.0, 8.0]


def test_a_curve_that_begins_below_the_common_loss_has_no_value_there():
    losses = [np.array([4.0, 1.0]), np.array([0.5, 0.2])]
    first, second = curvature.interpolate_at_common_loss(losses, losses)
    assert first == 1.0
    assert np.isnan(second)
