"""Which runs the recipes plan, and what they make of finished ones."""

import dataclasses
import importlib
import math
from typing import Literal, get_args, get_origin, get_type_hints

import noisy_cifar100
import numpy as np
import pandas as pd
import pytest
import suboptimal_lr
from experiment import command
from experiment.errors import SettingsError
from experiment.plan.recipe import tune
from experiment.plan.setting import Penalty, Run
from experiment.results import picture, tables
from experiment.results.finished_runs import make_frame
from experiment.results.tables import choose_value
from experiment.run import measures, model
from experiment.run.label_figures import FIGURES

from keras_fisher.penalties import PENALTIES
from tests import reference
from tests.recipes.tiny import RECIPE_NAMES, tiny

# A quick run of tests takes the first, which has few methods.
NAMES = RECIPE_NAMES[::-1]
GP = ("gp", "gp-x", "gp-r")


def recipe(name):
    return importlib.import_module(name).RECIPE


def planned(name, preset):
    return recipe(name).plan_all_runs(recipe(name).presets[preset])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("preset", ["demo", "small", "paper"])
def test_every_run_has_a_folder_of_its_own_and_comes_after_those_it_needs(name, preset):
    runs = planned(name, preset)
    names = [run.name for run in runs]
    assert len(set(names)) == len(runs) > 0
    for index, run in enumerate(runs):
        assert not run.initial or run.initial in names[:index]
        assert run.network in model.NETWORKS
        assert run.measures.keys() <= {*measures.CURVES, *measures.LOGGERS}
        assert {*run.at_start, *run.at_best} <= measures.FUNCTIONS.keys()


@reference.several_steps_only
@pytest.mark.parametrize("name", NAMES)
def test_steps_run_at_a_time_fill_an_epoch(name):
    for preset in ("demo", "small", "paper"):
        command.check_steps(planned(name, preset))


@pytest.mark.parametrize("name", NAMES)
def test_name_of_a_recipe_is_that_of_its_script(name):
    assert recipe(name).name == name
    assert {"demo", "small", "paper"} == recipe(name).presets.keys()


# ---- Options -------------------------------------------------------------------------------------


def another(given, choices):
    """Another value that an option might have."""
    if isinstance(given, tuple) and choices:
        return given[:-1] or tuple(choice for choice in choices if choice not in given)
    if isinstance(given, tuple):
        return tuple(another(number, ()) for number in given) or (1,)
    if choices:
        return next(choice for choice in choices if choice != given)
    return given + 1 if isinstance(given, int) else 1.01 * given or 0.25


def choices_of(hint):
    """The literals of a type, or of the items of a tuple."""
    inner = get_args(hint)[0] if get_origin(hint) is tuple else hint
    return get_args(inner) if get_origin(inner) is Literal else ()


@pytest.mark.matrix
@pytest.mark.parametrize("name", NAMES)
def test_every_option_changes_what_is_run_in_some_preset(name):
    options, at_work = set(), set()
    for settings in recipe(name).presets.values():
        for part, setting in settings.items():
            runs = recipe(name).plan_all_runs({part: setting})
            for option, hint in get_type_hints(type(setting)).items():
                if option == "varies":
                    continue  # It goes with the values.
                value = another(getattr(setting, option), choices_of(hint))
                changed = dataclasses.replace(setting, **{option: value})
                options.add(option)
                if recipe(name).plan_all_runs({part: changed}) != runs:
                    at_work.add(option)
    assert options == at_work


@pytest.mark.parametrize(
    ("name", "option"),
    [
        *((name, f"--{penalty}") for name in ("optimal_lr", "delayed_penalty") for penalty in GP),
        ("penalty_cost", "--update-freq"),
        ("early_phase", "--update-freq"),
        ("every_iteration", "--update-freq"),
        ("fisher_vs_hessian", "--update-freq"),
        ("curvature_trajectory", "--update-freq"),
        ("early_to_final_curvature", "--update-freq"),
    ],
)
def test_an_option_that_would_do_nothing_is_not_offered(name, option):
    with pytest.raises(SettingsError, match=f"Unrecognized options of .*Received: {option} 3"):
        command.parse(recipe(name), [option, "3"])


@pytest.mark.parametrize("preset", ["demo", "small", "paper"])
def test_an_option_that_no_chosen_part_has_is_refused_by_name(preset):
    approximations = recipe("approximations")
    given = ["--preset", preset, "--alphas", "1"]
    with pytest.raises(SettingsError, match=r"Unrecognized options of figure12; .*: --alphas 1"):
        command.parse(approximations, [*given, "--only", "figure12"])
    settings = command.parse(approximations, [*given, "--only", "figure12", "figure13"])[0]
    assert settings["figure13"].alphas == (1.0,)


# ---- Choosing a value ----------------------------------------------------------------------------


def plan_of(finished, values=(0.1, 0.2, 0.3), seeds=(5, 6)):
    return tune(tiny(), values, seeds, finished)


def test_a_value_is_chosen_with_the_first_seed_and_kept_for_the_others():
    runs, best = plan_of({})
    assert ([(r.alpha, r.seed) for r in runs], best) == ([(0.1, 5), (0.2, 5), (0.3, 5)], None)
    accuracies = (0.5, 0.7, 0.6)
    finished = {r.name: a for r, a in zip(runs, accuracies, strict=True)}
    runs, best = plan_of(finished)
    assert (best.value, best.alpha) == (0.2, 0.2)
    assert [(r.alpha, r.seed, r.data_seed) for r in runs[3:]] == [(0.2, 6, 6)]


def test_of_values_that_are_as_good_plan_and_table_choose_the_smallest():
    runs, _ = plan_of({}, values=(0.3, 0.1, 0.2), seeds=(5,))
    found = {r.name: 0.9 if r.value < 0.3 else 0.5 for r in runs}
    assert plan_of(found, values=(0.3, 0.2, 0.1), seeds=(5,))[1].value == 0.1
    scores = [(r.seed, r.value, found[r.name]) for r in runs]
    frame = pd.DataFrame(scores, columns=["seed", "value", "validation_accuracy"])
    assert choose_value(frame)["value"].tolist() == [0.1]


def test_a_single_value_needs_no_choice():
    runs, best = plan_of({}, values=(0.1,))
    assert [(r.value, r.seed) for r in runs] == [(0.1, 5), (0.1, 6)]
    assert best == runs[0]


def test_small_rate_is_eta_star_over_its_factor_and_eta_star_is_that_of_best_validation():
    setting = dataclasses.replace(
        suboptimal_lr.PRESETS["small"]["simple_cnn_c10"],
        seeds=(0,),
        learning_rate=0.0,
        learning_rates=(0.1, 0.3),
        slower=30.0,
    )
    first = suboptimal_lr.plan("part", setting, {})
    assert [(r.method, r.learning_rate) for r in first] == [("eta_star", 0.1), ("eta_star", 0.3)]
    finished = {r.name: 1 - r.learning_rate for r in first}
    rest = suboptimal_lr.plan("part", setting, finished)[2:]
    assert {r.method for r in rest} == set(suboptimal_lr.METHODS[1:])
    assert {r.learning_rate for r in rest} == {0.1 / 30}


def test_small_rate_that_is_given_needs_no_eta_star():
    setting = dataclasses.replace(
        suboptimal_lr.PRESETS["small"]["simple_cnn_c10"], learning_rate=0.007, methods=("fp",)
    )
    runs = suboptimal_lr.plan("part", setting, {})
    assert {(r.method, r.learning_rate) for r in runs} == {("fp", 0.007)}


# ---- The paper's numbers -------------------------------------------------------------------------


def test_table_1_has_every_setting_and_every_column():
    runs = planned("suboptimal_lr", "paper")
    assert {run.part for run in runs} == {
        "wide_resnet_tiny_imagenet",
        "densenet_c100",
        "vgg11_c100",
        "wide_resnet_c100",
        "simple_cnn_c10",
    }
    for part in {run.part for run in runs}:
        methods = [run.method for run in runs if run.part == part]
        counts = {method: methods.count(method) for method in suboptimal_lr.METHODS}
        alphas = 5 if part == "wide_resnet_tiny_imagenet" else 10
        penalised = dict.fromkeys(("gp_x", "gp", "fp", "gp_r"), alphas)
        assert counts == {"eta_star": 5, "baseline": 1} | penalised


def test_augmentation_is_that_of_tables_1_and_2():
    def augmented(name):
        return {run.part for run in planned(name, "paper") if run.augment == "flip_and_crop"}

    assert augmented("suboptimal_lr") == {"wide_resnet_tiny_imagenet"}
    assert augmented("optimal_lr") == {run.part for run in planned("suboptimal_lr", "paper")}


def test_table_3_spans_the_ranges_of_appendix_g3():
    runs = [r for r in planned("noisy_cifar100", "paper") if r.noise == 0.25]
    of_vgg = [r for r in runs if r.part == "vgg11_c100"]
    assert [r.value for r in of_vgg if r.method == "gp_x"] == [10, 30, 100, 300, 1000]
    assert [r.mixup_beta for r in of_vgg if r.method == "mixup"] == [0.4, 0.8, 1.6, 3.2, 6.4]
    assert all(r.weight_decay == 0 for r in runs)
    assert {r.drops for r in of_vgg} == {(80, 120, 160, 200, 240, 280)}


def test_recipes_know_every_penalty():
    assert get_args(Penalty) == tuple(PENALTIES)
    assert PENALTIES.keys() <= tables.TITLES.keys() & picture.COLOURS.keys()


def test_a_late_penalty_has_the_alpha_that_was_best_from_the_beginning():
    module = importlib.import_module("delayed_penalty")
    setting = dataclasses.replace(
        module.PRESETS["small"]["simple_cnn_c10"],
        seeds=(0,),
        learning_rates=(0.1,),
        fp=(0.01, 0.02),
    )
    first = module.plan("part", setting, {})
    finished = {r.name: r.alpha for r in first}
    late = [r for r in module.plan("part", setting, finished) if r.penalty_from]
    assert {r.alpha for r in late} == {0.02}
    assert [(r.penalty_from, r.max_penalty_ratio) for r in late] == [
        *((start, 0.0) for start in setting.starts),
        *((start, setting.max_penalty_ratio) for start in setting.limited),
    ]
    assert setting.limited
    assert module.name_penalty(64, 0.7) == "FP after 64 epochs, max_penalty_ratio=0.7"
    with pytest.raises(SettingsError, match=r"`--limited` must be at least 1 and below 100"):
        dataclasses.replace(setting, limited=(100,))


# ---- Networks ------------------------------------------------------------------------------------


@pytest.mark.matrix
@pytest.mark.parametrize("name", model.NETWORKS)
def test_every_network_takes_a_width(name):
    if name == "bert":
        pytest.importorskip("keras_hub")
    shape = {"resnet18": (64, 64, 3), "bert": (16,)}.get(name, (32, 32, 3))
    widths = (4, 8) if name == "bert" else (2, 4)  # BERT has four heads
    narrow, wider = (model.build_network(name, shape, 7, width, seed=0) for width in widths)
    assert narrow.output_shape == wider.output_shape == (None, 7)
    assert narrow.count_params() < wider.count_params()


def test_width_0_is_the_networks_own():
    sizes = [
        model.build_network("mlp", (8, 8, 1), 10, width, 0).count_params() for width in (0, 256)
    ]
    assert sizes[0] == sizes[1]


# ---- Tables and figures --------------------------------------------------------------------------


def finished(run: Run):
    """A result that a run might have had."""
    generator = np.random.default_rng(sum(map(ord, run.name)))
    keys = ["accuracy", "val_accuracy", "loss", "fisher_trace", "fisher_trace_peak"]
    keys += ["minibatch_fisher_trace", "test_accuracy", "noisy_val_accuracy"]
    keys += ["hessian_trace", "gradient_norm", "early_fisher_trace", "gradient_norm_ratio"]
    for group in ("clean", "noisy"):
        keys += [f"{group}_accuracy", f"{group}_gradient_norm"]
    keys += [*FIGURES, "loss_auroc", "norm_auroc"]
    history = {key: list(generator.uniform(0.1, 1, run.epochs)) for key in keys}
    estimate = {"value": 1.0, "stderr": 0.1, "count": 10}
    steps = range(1, 41) if "batch_accuracy" in run.measures else range(10, 41, 10)
    points = [[step, float(generator.uniform(0.1, 1)), 0.1, 8] for step in steps]
    accuracies = [[step, 0.1 * (step % 10)] for step in steps]
    return {
        "name": run.name,
        **dataclasses.asdict(run),
        "history": history,
        "curves": {
            **{key: {"history": points} for key in run.measures},
            "batch_accuracy": {"history": accuracies},
        },
        "start": dict.fromkeys(run.at_start, estimate),
        "best": {
            "validation_accuracy": max(history["val_accuracy"]),
            "test_accuracy": float(generator.uniform(0.1, 1)),
            "epoch": 1,
            **dict.fromkeys(run.at_best, estimate),
        },
        "final": {"test_accuracy": 0.5, **{key: values[-1] for key, values in history.items()}},
        "seconds": 10.0,
    }


def found_of(runs):
    """Results of runs, cut short."""
    short = [dataclasses.replace(run, epochs=12, drops=()) for run in runs]
    return sorted((finished(run) for run in short), key=lambda result: result["name"])


def table_of(name, found):
    return recipe(name).table(make_frame(found)).replace("figure ", "figure")


@pytest.mark.matrix
@pytest.mark.parametrize("name", NAMES)
def test_table_and_figure_show_every_part(name, tmp_path):
    runs = planned(name, "paper")
    found = found_of(run for run in runs if run.seed in (0, 1, 100, 101))
    table = table_of(name, found)
    assert all(part in table for part in recipe(name).presets["paper"])
    assert "nan" not in table
    recipe(name).figure(make_frame(found), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 5000


@pytest.mark.matrix
@pytest.mark.parametrize("name", NAMES)
def test_a_method_alone_has_a_table_and_a_figure(name, tmp_path):
    runs = planned(name, "demo")
    for method in {run.method for run in runs}:
        found = found_of(run for run in runs if run.method == method)
        assert found[0]["part"] in table_of(name, found)
        recipe(name).figure(make_frame(found), tmp_path / "figure.png")


def test_a_batch_size_is_written_out():
    table = table_of("large_batch", found_of(planned("large_batch", "paper")))
    assert "| large batch | 1280 |" in table


def test_several_seeds_are_written_as_mean_and_standard_deviation():
    runs = [tiny("fp", noise=0.5, seed=seed, alpha=0.1, value=0.1) for seed in (0, 1)]
    found = [finished(run) for run in runs]
    for result, accuracy in zip(found, (0.5, 0.6), strict=True):
        result["best"]["test_accuracy"] = accuracy
    assert f"{55:.1f} ± {100 * math.sqrt(0.005):.1f}" in noisy_cifar100.table(make_frame(found))
