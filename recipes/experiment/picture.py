"""Curves, scatters and Markdown tables, in one style."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from experiment.files import replace
from experiment.recipe import Result
from experiment.results import of

TITLES = {
    "eta_star": "η*",
    "baseline": "baseline",
    "mixup": "mixup",
    "gp_x": "GP_x",
    "gp": "GP",
    "fp": "FP",
    "gp_r": "GP_r",
}
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
# Of tables with a test accuracy and the largest Tr(F).
FIGURES_NOTE = (
    "Test accuracy at the best validation point; where nothing is held out, the test images take "
    "the place of validation. The largest Tr(F) from the end of the first epoch on."
)
LABELS = {
    "accuracy": "training accuracy",
    "val_accuracy": "validation accuracy",
    "fisher_trace": "Tr(F)",
    "minibatch_fisher_trace": r"Tr(F$^B$)",
    "hessian_trace": "Tr(H)",
    "gradient_norm": "norm of the mini-batch gradient",
}


def panels(rows: int, columns: int, *, width: float = 4.2, height: float = 3.3) -> Any:
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
    replace(path, lambda part: figure.savefig(part, dpi=100))
    plt.close(figure)


def label(axis: Axes, title: str = "", x: str = "epoch", y: str = "") -> None:
    """Names the axes."""
    axis.set_title(title, fontsize=10)
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    axis.grid(alpha=0.3)


def curve(
    axis: Axes, results: Sequence[Result], key: str, colour: Any, name: str = "", style: str = "-"
) -> None:
    """What was logged at each epoch: the mean over seeds, and a band of one standard deviation."""
    if not results:
        return
    values = np.array([result["history"][key] for result in results], float)
    band(axis, np.arange(1, values.shape[1] + 1), values, colour, name, style)


def methods(
    row: Sequence[Axes],
    title: str,
    runs: Mapping[str, Sequence[Result]],
    names: Sequence[str],
    keys: Sequence[str],
) -> None:
    """A panel for each key, with the curves of some methods."""
    for axis, key in zip(row, keys, strict=True):
        for name in names:
            curve(axis, runs.get(name, []), key, COLOURS[name], TITLES[name])
        label(axis, title, y=LABELS[key])


def band(axis: Axes, x: Any, values: np.ndarray, colour: Any, name: str, style: str = "-") -> None:
    """The mean of curves, an array of shape (runs, points), and a band of one deviation."""
    mean = values.mean(axis=0)
    axis.plot(x, mean, color=colour, ls=style, lw=1.6, label=name or None)
    if len(values) > 1:
        spread = values.std(axis=0, ddof=1)
        axis.fill_between(x, mean - spread, mean + spread, color=colour, alpha=0.12, lw=0)


def smoothed(values: Sequence[float], window: int) -> np.ndarray:
    """The moving average over a window that is cut off at the ends."""
    ones = np.ones(min(window, len(values)))
    return np.convolve(values, ones, "same") / np.convolve(np.ones(len(values)), ones, "same")


def point(
    axis: Axes,
    results: Sequence[Result],
    x: Callable[[Result], Any],
    y: Callable[[Result], Any],
    colour: Any,
    name: str,
    marker: str = "o",
) -> None:
    """The mean of two figures over seeds, with bars of one standard deviation."""
    xs, ys = of(results, x), of(results, y)
    spread = {"xerr": xs.std(ddof=1), "yerr": ys.std(ddof=1)} if len(xs) > 1 else {}
    axis.errorbar(
        xs.mean(), ys.mean(), **spread, fmt=marker, color=colour, label=name, capsize=3, ms=7
    )


def shades(count: int) -> Any:
    """Colours from blue to red, for values in rising order; a single one is red."""
    return BLUE_TO_RED(np.linspace(0, 1, count) if count > 1 else np.ones(count))


def shaded(groups: Mapping[Any, Any]) -> Iterable[tuple[Any, tuple[Any, Any]]]:
    """Each group with its key, and a colour from blue to red."""
    return zip(shades(len(groups)), groups.items(), strict=True)


def legend(figure: Figure, axes: Iterable[Axes], **others: Any) -> None:
    """One legend below the panels, of all that has a name, and of others by theirs."""
    named = {
        name: handle
        for axis in axes
        for handle, name in zip(*axis.get_legend_handles_labels(), strict=True)
    } | others
    column = 0.7 + 0.08 * max(map(len, named), default=0)  # inches: the handle, and each letter
    figure.legend(
        named.values(),
        named.keys(),
        loc="outside lower center",
        ncols=min(len(named), max(1, int(figure.get_figwidth() / column))),
        frameon=False,
    )


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def seeds_note(results: Sequence[Result]) -> str:
    """How many seeds are behind a table."""
    seeds = len({result["seed"] for result in results})
    return f"{seeds} seed{'s: mean ± standard deviation' if seeds > 1 else ''}."
