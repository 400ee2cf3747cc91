"""The estimated cost of a command, in training steps."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from experiment.plan.recipe import Finished, Recipe
from experiment.plan.setting import MEMORISED, UNIFORM, Run, Setting
from experiment.results.tables import write_markdown

# The numbers of training and test examples.
IMAGES = {
    "digits": (1258, 539),
    "cifar10": (50_000, 10_000),
    "cifar100": (50_000, 10_000),
    "tiny_imagenet32": (100_000, 10_000),
    "imagenet2012": (1_281_167, 50_000),
    "sentences": (1500, 500),
}
# Costs in plain steps on the same number of examples, from docs/performance.md.
PENALTY, PENALTY_OF_A_PART, FISHER, PROBE, EVALUATION = 8 / 3, 3.0, 1.2, 1.0, 1 / 3
# The costs of the measures of `fisher_examples` training examples.
TRACES = {
    "fisher_trace": FISHER,
    "early_fisher_trace": FISHER,
    "minibatch_fisher_trace": 1.0,
    "gradient_norm": 1.0,
    "hessian_trace": 30 * PROBE,
}
ALPHA_RANGE = 8 * (1 + PENALTY)  # on eight mini-batches


PLAIN_STEP = 128  # examples
COLUMNS = ("network", "data set", "runs", "epochs", "steps", "in plain steps")
NOTE = f"""
Time: the last column times the time of a plain step, a forward and a backward pass over
{PLAIN_STEP} examples, on your machine. The column counts a computation of the penalty as 8/3
plain steps (3 on part of a mini-batch), an evaluation as a third, Tr(F) as 1.2, and a
probe of Tr(H) as one, all on the same examples. Mini-batches of another size count in
proportion.
Networks with batch normalisation take a third of 100 steps more in each epoch."""


class Cost(NamedTuple):
    """The cost of runs of one network on one data set."""

    network: str
    dataset: str
    runs: int
    epochs: int
    steps: int
    plain_steps: float


def estimate_cost(recipe: Recipe, settings: Mapping[str, Setting], finished: Finished) -> str:
    """Returns a Markdown table of the cost of the unfinished runs."""
    planned = recipe.plan_all_runs(settings, finished)
    unfinished = [run for run in planned if run.name not in finished]
    done = len(planned) - len(unfinished)
    heading = f"{done} of {len(planned)} runs are finished."
    if not unfinished:
        return heading
    table = write_markdown(COLUMNS, map(write_cells, sum_costs(unfinished)))
    return f"{heading} The others:\n\n{table}{NOTE}" if done else f"{table}{NOTE}"


def sum_costs(runs: Iterable[Run]) -> list[Cost]:
    """Returns the cost of runs for each network and data set."""
    groups: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in runs:
        groups[run.network, run.dataset].append(run)
    return [
        Cost(
            *key,
            runs=len(group),
            epochs=sum(run.epochs for run in group),
            steps=sum(run.epochs * count_steps(run) for run in group),
            plain_steps=sum(map(count_plain_steps, group)),
        )
        for key, group in groups.items()
    ]


def write_cells(cost: Cost) -> list[str]:
    return [str(value) if isinstance(value, str) else f"{value:,.0f}" for value in cost]


def count_steps(run: Run) -> int:
    """Returns the number of mini-batches in an epoch."""
    trained = count_examples(run) - count_held_out(run)
    return run.steps_per_epoch or math.ceil(trained / run.batch_size)


def count_examples(run: Run) -> int:
    """Returns the number of training examples, with those of a cross-validation's part."""
    return run.num_train or IMAGES[run.dataset][0] - run.validation_size


def count_held_out(run: Run) -> int:
    """Returns how many training examples the part of a cross-validation has."""
    return len(range(run.fold - 1, count_examples(run), run.folds)) if run.folds else 0


def count_plain_steps(run: Run) -> float:
    """Returns the cost of a run, in plain steps."""
    steps = run.epochs * count_steps(run)
    watched = run.validation_size or run.test_size or IMAGES[run.dataset][1]
    evaluated = run.epochs * watched / run.batch_size
    once = [*run.at_start.items(), *run.at_best.items()]
    measured = sum(cost_trace(key, arguments, run) for key, arguments in once) + sum(
        cost_measure(key, arguments, run) for key, arguments in run.measures.items()
    )
    labels = run.epochs * (EVALUATION * run.monitored / run.batch_size + 2 * run.gradient_batches)
    own = steps * count_step_cost(run) + EVALUATION * evaluated + measured + labels
    return own * run.batch_size / PLAIN_STEP


def count_step_cost(run: Run) -> float:
    """Returns the cost of an average step, in plain steps, by counting passes."""
    if run.radius:
        return 2.0
    share = 1 - run.penalty_from / run.epochs
    return 1 + cost_penalty(run) * share if run.alpha else 1.0


def cost_penalty(run: Any) -> float:
    """Returns the mean cost of the penalty in a step, in plain steps."""
    is_share = isinstance(run.penalty_batch_size, float)
    share = run.penalty_batch_size / (1 if is_share else run.batch_size)
    return (PENALTY_OF_A_PART * share if share else PENALTY) / run.update_freq


def cost_measure(key: str, arguments: Mapping[str, Any], run: Run) -> float:
    """Returns the cost of a measure in a whole training, in plain steps."""
    if key in TRACES:
        return cost_trace(key, arguments, run) * count_measurements(arguments, run)
    examples, is_drawn = count_examples(run), run.noise_source == UNIFORM
    wrong = min(MEMORISED, int(run.noise * examples)) if is_drawn else MEMORISED
    predicted = {  # examples in each epoch
        "batch_accuracy": 0,
        "penalty_ratio": 0,
        "noisy_val_accuracy": run.validation_size,
        "label_accuracies": (run.test_size or IMAGES[run.dataset][1])
        + (run.validation_size + wrong) * (wrong > 0),
        "held_out_labels": count_held_out(run),
    }
    if key in predicted:
        return run.epochs * EVALUATION * predicted[key] / run.batch_size
    once = {
        "proposed_alpha": ALPHA_RANGE,
        # With the loss and the gradient norm, at six epochs.
        "label_scores": 6 * (2 * EVALUATION + FISHER) * examples / run.batch_size,
    }
    return once[key]


def cost_trace(key: str, arguments: Mapping[str, Any], run: Run) -> float:
    """Returns the cost of one measurement of a trace or a norm, in plain steps."""
    examples = arguments.get("num_examples", run.fisher_examples or run.batch_size)
    cost = PROBE * arguments["num_probes"] if "num_probes" in arguments else TRACES[key]
    return cost * examples / run.batch_size


def count_measurements(arguments: Mapping[str, Any], run: Run) -> float:
    """Returns how often a trace or a norm is measured in a training."""
    if "loss_threshold" in arguments:
        return 1
    if "freq" in arguments:
        return run.epochs * count_steps(run) / arguments["freq"]
    return run.epochs / arguments.get("every_epochs", 1)
