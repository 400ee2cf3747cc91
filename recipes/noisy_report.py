"""The table and the picture of `noisy_cifar100.py`, from the results of its runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

TITLES = {"baseline": "baseline", "mixup": "mixup", "gp_x": "GP_x", "fp": "FP", "gp_r": "GP_r"}
COLOURS = {
    "baseline": "#333333",
    "mixup": "#8c6bb1",
    "gp_x": "#e08214",
    "fp": "#c51b1b",
    "gp_r": "#1b6fb5",
}

# Table 3: test accuracy in percent at the best validation point, in the order of TITLES. Its second
# network goes by three names in the paper: Wide ResNet in section 4.1, ResNet-52 in the table and
# ResNet-50 in figure 9.
PAPER = {
    (0.25, "vgg11"): (41.74, 52.31, 45.94, 60.18, 58.46),
    (0.25, "wide_resnet"): (53.30, 61.61, 52.70, 58.31, 57.60),
    (0.5, "vgg11"): (30.05, 39.15, 34.26, 51.33, 50.33),
    (0.5, "wide_resnet"): (43.35, 51.71, 42.99, 47.99, 50.08),
}

Run = dict[str, Any]
NOTHING = "-"


def table(runs: Sequence[Run]) -> str:
    """Markdown: for each noise and network the three figures of every method, and the paper's."""
    lines = [
        "| noise | network | figure | " + " | ".join(TITLES.values()) + " |",
        "|---|---|---|" + "---|" * len(TITLES),
    ]
    chosen = best_values(runs)
    groups = sorted({(run["noise"], run["network"]) for run in runs})
    for noise, network in groups:
        for title, figure in FIGURES.items():
            cells = [_cell(chosen.get((noise, network, method), []), figure) for method in TITLES]
            lines.append(f"| {noise:.0%} | {network} | {title} | " + " | ".join(cells) + " |")
        values = [_value(chosen.get((noise, network, method), [])) for method in TITLES]
        lines.append(f"| {noise:.0%} | {network} | alpha or beta | " + " | ".join(values) + " |")
    for (noise, network), accuracies in PAPER.items():
        cells = [f"{accuracy:.2f}" for accuracy in accuracies]
        lines.append(f"| {noise:.0%} | {network} | paper, table 3 | " + " | ".join(cells) + " |")
    seeds = len({run["seed"] for run in runs})
    note = (
        f"\nPercent; {seeds} seed{'s: mean ± standard deviation' if seeds > 1 else ''}. Where "
        "several values of alpha or beta were run, the one of best validation accuracy.\n"
    )
    return "\n".join(lines) + "\n" + note


FIGURES: dict[str, Callable[[Run], float]] = {
    "test accuracy at best validation": lambda run: run["best"]["test_accuracy"],
    "test accuracy at the end": lambda run: run["final"]["test_accuracy"],
    "wrong labels memorised at the end": lambda run: run["final"]["noisy_accuracy"],
}


def best_values(runs: Sequence[Run]) -> dict[tuple[float, str, str], list[Run]]:
    """The runs of the best value of each method, by mean validation accuracy (appendix G.2)."""
    by_value: dict[tuple[float, str, str], dict[float, list[Run]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for run in runs:
        by_value[run["noise"], run["network"], run["method"]][run["value"]].append(run)
    return {
        key: max(
            values.values(),
            key=lambda of_value: np.mean([r["best"]["validation_accuracy"] for r in of_value]),
        )
        for key, values in by_value.items()
    }


def _cell(runs: Sequence[Run], figure: Callable[[Run], float]) -> str:
    if not runs:
        return NOTHING
    values = 100 * np.array([figure(run) for run in runs])
    spread = f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else ""
    return f"{values.mean():.1f}{spread}"


def _value(runs: Sequence[Run]) -> str:
    return f"{runs[0]['value']:g}" if runs and runs[0]["method"] != "baseline" else NOTHING


def figure(runs: Sequence[Run], path: Path) -> None:
    """Draws figures 5 and 9: one row for each noise and network, one colour for each method."""
    chosen = best_values(runs)
    groups = sorted({(run["noise"], run["network"]) for run in runs})
    fig, axes = plt.subplots(
        len(groups), 4, figsize=(15, 3.6 * len(groups) + 0.5), squeeze=False, layout="constrained"
    )
    for row, (noise, network) in zip(axes, groups, strict=True):
        for method in TITLES:
            _draw(row, method, chosen.get((noise, network, method), []))
        _label(row, f"{network}, {noise:.0%} noise")
    handles = [
        *[plt.Line2D([], [], color=COLOURS[m], label=title) for m, title in TITLES.items()],
        plt.Line2D([], [], color="grey", label="clean labels"),
        plt.Line2D([], [], color="grey", ls="--", label="wrong labels"),
    ]
    fig.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    fig.savefig(path, dpi=100)
    plt.close(fig)


def _draw(row: Any, method: str, runs: Sequence[Run]) -> None:
    if not runs:
        return
    colour = COLOURS[method]
    _curve(row[0], runs, "val_accuracy", colour, "-")
    for group, style in (("clean", "-"), ("noisy", "--")):
        _curve(row[1], runs, f"{group}_accuracy", colour, style)
        _curve(row[2], runs, f"{group}_gradient_norm", colour, style)
    _curve(row[3], runs, "gradient_norm_ratio", colour, "-")


def _curve(axis: Any, runs: Sequence[Run], key: str, colour: str, style: str) -> None:
    """The mean over seeds, with a band of one standard deviation."""
    values = np.array([run["history"][key] for run in runs])
    epochs = np.arange(1, values.shape[1] + 1)
    mean = values.mean(axis=0)
    axis.plot(epochs, mean, color=colour, ls=style, lw=1.6)
    if len(runs) > 1:
        spread = values.std(axis=0, ddof=1)
        axis.fill_between(epochs, mean - spread, mean + spread, color=colour, alpha=0.12, lw=0)


def _label(row: Any, name: str) -> None:
    titles = (
        f"validation accuracy\n{name}",
        "training accuracy\non clean and on wrong labels",
        "norm of the mini-batch gradient\non clean and on wrong labels",
        "ratio of gradient norms\nclean to wrong",
    )
    for axis, title in zip(row, titles, strict=True):
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("epoch")
        axis.grid(alpha=0.3)
    row[0].set_ylim(bottom=0)
    row[1].set_ylim(0, 1.02)
    row[2].set_ylim(bottom=0)
