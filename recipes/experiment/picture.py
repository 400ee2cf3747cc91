"""Curves and scatters of finished runs, in one style."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from experiment.files import replace_file
from experiment.tables import TITLES

COLOURS = {
    "eta_star": "#2a9d4a",
    "baseline": "#333333",
    "mixup": "#8c6bb1",
    "gp_x": "#e08214",
    "gp": "#7f6a4d",
    "fp": "#c51b1b",
    "gp_r": "#1b6fb5",
}
BLUE_TO_RED = LinearSegmentedColormap.from_list("", ["#1b6fb5", "#8c6bb1", "#c51b1b"])
LABELS = {
    "accuracy": "training accuracy",
    "val_accuracy": "validation accuracy",
    "fisher_trace": "Tr(F)",
    "minibatch_fisher_trace": r"Tr(F$^B$)",
    "hessian_trace": "Tr(H)",
    "gradient_norm": "norm of the mini-batch gradient",
}


def make_panels(rows: int, columns: int, *, width: float = 4.2, height: float = 3.3) -> Any:
    """A figure and its axes, an array of shape (rows, columns)."""
    size = (width * columns, height * rows + 0.5)
    return plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")


def save(figure: Figure, path: Path) -> None:
    """Writes the picture in one step; an axis on which nothing is above 0 is not logarithmic."""
    for axis in figure.axes:
        if axis.get_xscale() == "log" and not np.isfinite(axis.dataLim.minposx):
            axis.set_xscale("linear")
        if axis.get_yscale() == "log" and not np.isfinite(axis.dataLim.minposy):
            axis.set_yscale("linear")
    replace_file(path, lambda part: figure.savefig(part, dpi=100))
    plt.close(figure)


def label_axes(axis: Axes, title: str = "", x: str = "epoch", y: str = "") -> None:
    axis.set_title(title, fontsize=10)
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    axis.grid(alpha=0.3)


def get_histories(runs: pd.DataFrame, key: str) -> np.ndarray:
    """What runs logged at each epoch, an array of shape (runs, epochs)."""
    return np.array([history[key] for history in runs["history"]], float)


def draw_curve(
    axis: Axes, runs: pd.DataFrame, key: str, colour: Any, name: str = "", style: str = "-"
) -> None:
    """What runs logged at each epoch: the mean over seeds, and a band of one deviation."""
    if not runs.empty:
        values = get_histories(runs, key)
        draw_band(axis, np.arange(1, values.shape[1] + 1), values, colour, name, style)


def draw_methods(
    row: Sequence[Axes], title: str, runs: Mapping[str, pd.DataFrame], keys: Sequence[str]
) -> None:
    """A panel for each key, with the curves of some methods."""
    for axis, key in zip(row, keys, strict=True):
        for method, group in runs.items():
            draw_curve(axis, group, key, COLOURS[method], TITLES[method])
        label_axes(axis, title, y=LABELS[key])


def draw_band(
    axis: Axes, x: Any, values: np.ndarray, colour: Any, name: str, style: str = "-"
) -> None:
    """The mean of curves, an array of shape (runs, points), and a band of one deviation."""
    mean = values.mean(axis=0)
    axis.plot(x, mean, color=colour, ls=style, lw=1.6, label=name or None)
    if len(values) > 1:
        spread = values.std(axis=0, ddof=1)
        axis.fill_between(x, mean - spread, mean + spread, color=colour, alpha=0.12, lw=0)


def draw_point(axis: Axes, xs: pd.Series, ys: pd.Series, colour: Any, name: str) -> None:
    """The mean of two figures over runs, with bars of one standard deviation."""
    spread = {"xerr": xs.std(), "yerr": ys.std()} if len(xs) > 1 else {}
    axis.errorbar(
        xs.mean(), ys.mean(), **spread, fmt="o", color=colour, label=name, capsize=3, ms=7
    )


def pick_shades(count: int) -> Any:
    """Colours from blue to red, for values in rising order; a single one is red."""
    return BLUE_TO_RED(np.linspace(0, 1, count) if count > 1 else np.ones(count))


def shade(groups: Iterable[tuple[Any, Any]]) -> Iterable[tuple[Any, Any, Any]]:
    """Each key and group with a colour from blue to red: `(colour, key, group)`."""
    groups = list(groups)
    colours = pick_shades(len(groups))
    return [(colour, *group) for colour, group in zip(colours, groups, strict=True)]


def draw_legend(figure: Figure, axes: Iterable[Axes], **others: Any) -> None:
    """One legend below the panels, of all that has a name, and of others by theirs."""
    handles = {
        name: handle
        for axis in axes
        for handle, name in zip(*axis.get_legend_handles_labels(), strict=True)
    } | others
    column = 0.7 + 0.08 * max(map(len, handles), default=0)  # inches: the handle, and each letter
    figure.legend(
        handles.values(),
        handles.keys(),
        loc="outside lower center",
        ncols=min(len(handles), max(1, int(figure.get_figwidth() / column))),
        frameon=False,
    )
