"""What a command is said to cost."""

import importlib
from pathlib import Path

import pytest
import wrong_labels
from experiment.plan.cost import cost_measure, count_steps, estimate_cost
from experiment.run import measures
from experiment.run.data import load_data

ROOT = Path(__file__).parents[2]


def rows(text):
    """The rows of a Markdown table, as tuples of what is in its columns."""
    lines = [line.strip("|") for line in text.splitlines() if line.startswith("| ")]
    return [tuple(cell.strip() for cell in line.split("|")) for line in lines[1:]]


def test_the_page_of_results_says_what_every_paper_preset_costs_today():
    section = (ROOT / "docs" / "results.md").read_text().partition("## What the paper's size costs")
    table = section[2].partition("\n## ")[0]
    written = [row for row in rows(table) if set(row[0]) != {"-"}]
    expected = []
    for path in (ROOT / "recipes").glob("*.py"):
        recipe = importlib.import_module(path.stem).RECIPE
        for *first, plain in rows(estimate_cost(recipe, recipe.presets["paper"], {})):
            network, data_set, runs, epochs, _ = first
            million = f"{int(plain.replace(',', '')) / 1e6:.2f}"
            expected.append((f"`{path.name}`", network, data_set, runs, epochs, million))
    assert sorted(written) == sorted(expected)


@pytest.mark.parametrize(("fold", "steps"), [(1, 2), (2, 3)])
def test_the_steps_of_a_fold_are_counted(fold, steps):
    setting = wrong_labels.PRESETS["small"]["mlp_digits_noise50"]
    # Of 129 examples, the first fold holds out 65, which leaves two mini-batches of 32.
    run = setting.make_run(part="part", method="method", folds=2, fold=fold, num_train=129)
    assert count_steps(run) == load_data(run).steps_per_epoch == steps


def test_every_measure_has_a_cost():
    run = wrong_labels.PRESETS["small"]["mlp_digits_noise50"].make_run(part="part", method="method")
    costs = {key: cost_measure(key, {}, run) for key in (*measures.CURVES, *measures.LOGGERS)}
    assert {key for key, cost in costs.items() if not cost} == {
        *("batch_accuracy", "penalty_ratio", "held_out_labels")  # the last one without folds
    }
    with pytest.raises(KeyError, match="unknown"):
        cost_measure("unknown", {}, run)
