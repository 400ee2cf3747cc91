"""How the methods for wrong labels are tuned and compared."""

import dataclasses

import alternatives
import numpy as np
import pytest
from experiment import command
from experiment.results import comparison
from experiment.results.finished_runs import make_frame

from tests.data.human import write_data
from tests.recipes.test_plans import found_of, table_of

RECIPE = alternatives.RECIPE
PART = "mlp_digits_noise50"
SETTING = alternatives.PRESETS["small"][PART]


def plan(finished, **changes):
    return alternatives.plan(PART, dataclasses.replace(SETTING, **changes), finished)


def result(run, clean, noisy, test, memorised=None):
    """A finished run of four epochs with these curves."""
    found = found_of([run])[0] | {"epochs": 4}
    curves = {"val_accuracy": clean, "noisy_val_accuracy": noisy, "test_accuracy": test}
    curves["memorised_accuracy"] = memorised or [0.0] * 4
    found["final"]["test_accuracy"] = test[-1]
    return found | {"history": curves}


def flat(value):
    return [value] * 4


@pytest.mark.parametrize("preset", ["small", "paper"])
def test_no_method_has_more_values_to_choose_from_than_another(preset):
    for part, setting in alternatives.PRESETS[preset].items():
        runs = alternatives.plan(part, setting, {})
        tuned = [run for run in runs if run.method != "baseline"]
        counts = {m: sum(run.method == m for run in tuned) for m in {r.method for r in tuned}}
        assert set(counts.values()) == {3} if preset == "small" and "c10" in part else {5}
        assert {run.seed for run in tuned} == {setting.seeds[0]}


def test_a_method_changes_what_it_is_named_after():
    runs = {run.method: run for run in plan({}, seeds=(0,))}
    plain = runs["baseline"]
    changed = {
        method: {
            field.name
            for field in dataclasses.fields(run)
            if getattr(run, field.name) != getattr(plain, field.name)
        }
        - {"method", "value"}
        for method, run in runs.items()
    }
    assert changed == {
        "baseline": set(),
        "smoothing": {"label_smoothing"},
        "mixup": {"mixup_beta"},
        "gce": {"gce_q"},
        "elr": {"elr"},
        "sam": {"radius"},
        "asam": {"radius", "sharpness"},
        "gnp": {"radius", "sharpness"},
        "fp": {"alpha"},
        "fp_often": {"alpha", "update_freq", "penalty_batch_size"},
        "gp_r": {"alpha", "penalty"},
        "fp_gce": {"alpha", "gce_q"},
        "fp_elr": {"alpha", "elr"},
        "fp_mixup": {"alpha", "mixup_beta"},
    }


@pytest.mark.parametrize("alphas", [(0.1, 0.3, 1.0), (0.1, 0.3)])
def test_a_value_is_chosen_by_each_kind_of_labels(alphas):
    few = {"methods": ("fp",), "fp": alphas, "seeds": (0, 1)}
    first = plan({}, **few)
    curves = {0.1: (0.5, 0.6), 0.3: (0.9, 0.4), 1.0: (0.7, 0.3)}
    found = [result(run, *map(flat, curves[run.alpha]), flat(0.5)) for run in first]
    finished = {one["name"]: alternatives.score(one) for one in found}
    rest = plan(finished, **few)[len(alphas) :]
    assert [(run.alpha, run.seed) for run in rest] == [(0.3, 1), (0.1, 1)]
    # The table takes the same values, though the second seed contradicts.
    found += [result(run, flat(0.1 / run.alpha), flat(run.alpha), flat(run.alpha)) for run in rest]
    comparison.check_comparable(found)
    frame = alternatives.add_figures(make_frame(found))
    for labels, alpha in (("clean", 0.3), ("noisy", 0.1)):
        chosen = alternatives.choose(frame, labels)
        assert [*zip(chosen["value"], chosen["seed"], strict=True)] == [(alpha, 0), (alpha, 1)]


def test_scores_are_means_over_the_last_fifth_of_the_epochs():
    clean = [0.9] * 8 + [0.4, 0.6]
    history = {"val_accuracy": clean, "noisy_val_accuracy": [0.9] * 8 + [0.1, 0.2]}
    assert alternatives.score({"history": history}) == pytest.approx((0.5, 0.15))
    del history["noisy_val_accuracy"]
    assert alternatives.score({"history": history}) == pytest.approx((0.5, 0.5))


def test_cross_entropy_stops_early_at_the_best_epoch_of_each_kind_of_labels():
    (run,) = plan({}, methods=("baseline",), seeds=(0,))
    curves = {
        "clean": [0.1, 0.7, 0.5, 0.4],
        "noisy": [0.1, 0.2, 0.3, 0.1],
        "test": [0.2, 0.75, 0.6, 0.45],
        "memorised": [0.1, 0.3, 0.5, 0.9],
    }
    frame = alternatives.add_figures(make_frame([result(run, *curves.values())]))
    shown = {
        labels: alternatives.stop_early(frame, labels)[["final_test_accuracy", "memorised"]]
        for labels in ("clean", "noisy")
    }
    np.testing.assert_array_equal(shown["clean"], [[0.75, 0.3]])
    np.testing.assert_array_equal(shown["noisy"], [[0.6, 0.5]])
    # 75 minus 60 points.
    assert "| the epoch of cross-entropy | 1 | 15.0 | 15.0 |" in alternatives.write_regrets(frame)


def test_regret_is_what_the_noisy_choice_loses():
    few = {"methods": ("fp", "sam"), "fp": (0.1, 0.3), "sam": (0.1,), "seeds": (0,)}
    test = {("fp", 0.1): 0.8, ("fp", 0.3): 0.9, ("sam", 0.1): 0.7}
    found = [
        result(run, flat(run.value), flat(1 - run.value), flat(test[run.method, run.value]))
        for run in plan({}, **few)
    ]
    text = alternatives.write_regrets(alternatives.add_figures(make_frame(found)))
    assert "| alpha of FP | 1 | 10.0 | 10.0 |" in text
    assert "| the hyperparameters of all methods | 1 | 5.0 | 10.0 |" in text  # of 10 and 0
    assert "| the epoch of cross-entropy | 0 | - | - |" in text


def test_methods_of_one_setting_are_averaged_before_the_settings():
    # The means of two settings are 1 and 3; five methods are not five independent cases.
    assert alternatives.summarise([[2.0, 0.0, 1.0], [3.0, 3.0], []]) == ["2", "2.0 ± 1.0", "3.0"]


def test_at_equal_cost_a_method_of_twice_the_cost_has_half_the_epochs():
    few = {"methods": ("baseline", "sam", "fp"), "seeds": (0,), "sam": (0.1,), "fp": (0.1,)}
    test = [0.1, 0.2, 0.3, 0.4]
    found = [result(run, test, test, test) for run in plan({}, **few)]
    frame = alternatives.add_figures(make_frame(found)).set_index("method")
    # FP on the whole batch at every tenth step: 1 + (8 / 3) / 10 passes, and 4 / 1.27 = 3.2.
    assert frame["cost"].to_dict() == pytest.approx({"baseline": 1, "sam": 2, "fp": 1 + 0.8 / 3})
    assert frame["equal_cost"].to_dict() == {"baseline": 0.4, "sam": 0.2, "fp": 0.3}
    dropping = make_frame([one | {"drops": (2,)} for one in found])
    assert alternatives.add_figures(dropping)["equal_cost"].isna().all()


def test_a_number_of_examples_does_not_become_a_share_beside_one():
    few = {"methods": ("fp", "fp_often"), "seeds": (0,), "fp": (0.1,), "penalty_batch_size": 8}
    curves = [flat(0.5)] * 3
    frame = make_frame([result(run, *curves) for run in plan({}, **few)])
    cost = alternatives.add_figures(frame).set_index("method")["cost"]
    # 3 plain passes on 8 of 32 examples, at every tenth step and at every step.
    assert cost.to_dict() == pytest.approx({"fp": 1.075, "fp_often": 1.75})


# ---- Human labels --------------------------------------------------------------------------------

HUMAN = {"simple_cnn_c10_aggregate", "simple_cnn_c10_random1", "simple_cnn_c10_worse"}


def parse(*options):
    return command.parse(RECIPE, ["--preset", "small", *options])[0]


def test_parts_without_their_human_labels_are_skipped_and_named(monkeypatch, tmp_path, capsys):
    monkeypatch.delenv("CIFAR_N_DIR", raising=False)
    assert {*parse()} == {*alternatives.PRESETS["small"]} - HUMAN
    said = capsys.readouterr().err
    assert all(part in said for part in HUMAN)
    monkeypatch.setenv("CIFAR_N_DIR", str(tmp_path))  # an empty folder
    assert not HUMAN & {*parse()}
    write_data(tmp_path, "cifar10")
    capsys.readouterr()
    assert {*parse()} == {*alternatives.PRESETS["small"]}
    assert not capsys.readouterr().err


def test_a_part_that_is_asked_for_is_not_skipped(monkeypatch):
    monkeypatch.delenv("CIFAR_N_DIR", raising=False)
    assert {*parse("--only", "simple_cnn_c10_worse")} == {"simple_cnn_c10_worse"}


def test_table_shows_each_noise_of_a_part_on_its_own():
    runs = [run for noise in (0.2, 0.5) for run in plan({}, noise=noise, methods=("baseline",))]
    table = table_of("alternatives", found_of(runs))
    assert f"| {PART} | 20% | cross-entropy |" in table
    assert f"| {PART} | 50% | cross-entropy |" in table
