"""What the tables of single recipes say, on curves made by hand."""

import math

import approximations
import choosing_alpha
import curvature_trajectory
import early_to_final_curvature
import every_iteration
import noisy_cifar100
import numpy as np
import pandas as pd
import pytest
from experiment.results import picture
from experiment.results.finished_runs import make_frame
from experiment.run.measures import ProposedAlpha

from tests.recipes.test_plans import found_of, planned


def test_gradient_norms_are_averaged_before_their_ratio_is_taken():
    # At the last epoch both norms are small, and their ratio is 3.
    history = {"clean_gradient_norm": [9.0, 9.0, 4.0, 0.03], "noisy_gradient_norm": [1, 1, 8, 0.01]}
    assert noisy_cifar100.average_ratio(history) == pytest.approx(4.03 / 8.01)
    history["noisy_gradient_norm"][-1] = math.nan
    assert math.isnan(noisy_cifar100.average_ratio(history))


def test_iterations_are_compared_with_the_same_seed():
    # With the first seed, the large rate reaches the 80 of the small one, though not the mean, 100.
    values = {(0.003, 0): (80, 10), (0.003, 1): (120, 10), (0.03, 0): (90, 85), (0.03, 1): (5, 5)}
    runs = pd.DataFrame([*values], columns=["value", "seed"]).assign(method="learning_rate")
    runs = runs.assign(
        trace=[np.array(trace, float) for trace in values.values()],
        largest=[float(max(trace)) for trace in values.values()],
    )
    reached = every_iteration.add_reached(runs, 0.003)["reached"]
    assert reached.tolist() == [1, 1, 2, 0]
    assert every_iteration.write_largest(reached[2:]) == "2"
    runs.at[3, "trace"] = np.array([5, math.nan])
    assert every_iteration.write_largest(every_iteration.add_reached(runs, 0.003)["reached"]) == "-"


def test_pairs_that_are_not_measured_are_counted():
    larger, smaller = np.array([100.0, 110.0]), np.array([50.0, 105.0])
    write, compare = curvature_trajectory.write_share, curvature_trajectory.compare_pairs
    assert write(compare(larger, smaller)) == "75%"
    assert write(compare(larger, np.array([50.0, math.nan]))) == "100% (2 of 4 pairs)"
    assert write(compare(larger, np.array([math.nan]))) == "-"


def test_continuations_are_averaged_over_each_first_training():
    traces = {(0, 100): 1.0, (0, 101): 3.0, (1, 200): 10.0, (1, 201): 20.0}
    runs = pd.DataFrame([*traces], columns=["data_seed", "seed"])
    runs = runs.assign(hessian_trace=traces.values(), trace_at_loss=math.nan, test_accuracy=0.5)
    means = early_to_final_curvature.average_continuations(runs)
    assert means[["seed", "hessian_trace"]].to_numpy().tolist() == [[0, 2], [1, 15]]
    assert means["trace_at_loss"].isna().all()


def test_the_baseline_of_a_panel_is_that_of_its_part(tmp_path, monkeypatch):
    found = found_of(planned("approximations", "small"))
    for run in found:  # The parts differ in length.
        if run["part"] == "figure13_all_images":
            run["history"] = {key: curve[:4] for key, curve in run["history"].items()}
    lengths = []
    monkeypatch.setattr(
        picture,
        "draw_curve",
        lambda axis, runs, key, *_: lengths.append({len(h[key]) for h in runs["history"]}),
    )
    approximations.figure(make_frame(found), tmp_path / "figure.png")
    assert all(len(length) == 1 for length in lengths)


def test_the_proposed_alpha_is_measured_once_also_after_a_resumption():
    first, resumed = ProposedAlpha(None, None), ProposedAlpha(None, None)
    resumed.set_state(first.get_state())
    assert math.isnan(resumed.value)
    first.value = 0.02
    resumed.set_state(first.get_state())
    logs = {"loss": 0.0}
    resumed.on_epoch_end(3, logs)
    assert logs["proposed_alpha"] == 0.02


def test_the_gain_by_a_limit_is_averaged_over_each_setting():
    runs = found_of(planned("choosing_alpha", "demo"))
    # Alpha 0.1 is the best; 10 ends at 0.1, and with the limit at 0.3 or 0.9.
    for run in runs:
        ends = {"fp": {0.1: 0.8, 10.0: 0.1}, "limited": {10.0: 0.3}}
        run["final"]["test_accuracy"] = ends.get(run["method"], {}).get(run["value"], 0.79)
    more = [run | {"seed": seed, "final": dict(run["final"])} for run in runs for seed in (1, 2)]
    other = [run | {"part": "other", "final": dict(run["final"])} for run in runs]
    for run in other:
        if (run["method"], run["value"]) == ("limited", 10.0):
            run["final"]["test_accuracy"] = 0.9
    text = choosing_alpha.write_guard(make_frame(runs + more + other))
    # 20 points in three seeds of one setting, 80 points in one seed of the other.
    assert "| more than 5 points below, alpha larger than the best | 4 | " in text
    assert "| +50.0 ± 30.0 |" in text
