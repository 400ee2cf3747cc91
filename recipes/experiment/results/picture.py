"""Curves and scatter plots of finished runs, in one style."""

from __future__ import annotations

import re
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
from matplotlib.ticker import MaxNLocator

from experiment.files import replace_file
from experiment.results.tables import TITLES

# The palette of Okabe and Ito, which colour-blind readers can distinguish.
COLOURS = {
    "eta_star": "#009e73",
    "baseline": "#000000",
    "mixup": "#cc79a7",
    "gp_x": "#e69f00",
    "gp": "#56b4e9",
    "fp": "#d55e00",
    "gp_r": "#0072b2",
}
STYLES = {"eta_star": "--", "baseline": ":", "gp_x": "-.", "gp": (0, (5, 1)), "gp_r": (0, (1, 1))}
BLUE_TO_RED = LinearSegmentedColormap.from_list("", ["#1b6fb5", "#8c6bb1", "#c51b1b"])
COUNTED = ("epoch", "iteration", "continuations")  # integer axes
LABELS = {
    "accuracy": "training accuracy",
    "val_accuracy": "validation accuracy",
    "fisher_trace": "Tr(F)",
    "minibatch_fisher_trace": r"Tr(F$^B$)",
    "hessian_trace": "Tr(H)",
    "gradient_norm": "norm of the mini-batch gradient",
}
# The meanings of the words in part names.
WORDS = {
    "mlp": "MLP",
    "simple_cnn": "SimpleCNN",
    "vgg11": "VGG-11",
    "wide_resnet": "Wide ResNet",
    "densenet": "DenseNet",
    "resnet8_bn": "ResNet-8 with batch normalisation",
    "resnet8": "ResNet-8",
    "resnet56": "ResNet-56",
    "cifar100": "CIFAR-100",
    "cifar10": "CIFAR-10",
    "c100": "CIFAR-100",
    "c10": "CIFAR-10",
    "tiny_imagenet": "Tiny ImageNet",
    "imagenet": "ImageNet",
    "digits": "digits",
    "noise20": "20% noise",
    "noise25": "25% noise",
    "noise40": "40% noise",
    "noise50": "50% noise",
    "noise": "noisy labels",
    "aggregate": "aggregate human labels",
    "random1": "first human labels",
    "worse": "worse human labels",
    "small_rate": "small learning rate",
    "large_batch": "large batch",
    "bert": "BERT",
    "sentences": "sentences",
    "all_images": "all images",
    "rates": "learning rates",
    "batches": "batch sizes",
}


def make_panels(rows: int, columns: int, *, width: float = 4.2, height: float = 3.3) -> Any:
    """Creates a figure and its axes, an array of shape (rows, columns)."""
    size = (width * columns, height * rows + 0.5)
    return plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")


def save(figure: Figure, path: Path) -> None:
    """Writes the picture in one step; axes without positive values are not logarithmic."""
    for axis in figure.axes:
        if axis.get_xscale() == "log" and not np.isfinite(axis.dataLim.minposx):
            axis.set_xscale("linear")
        if axis.get_yscale() == "log" and not np.isfinite(axis.dataLim.minposy):
            axis.set_yscale("linear")
    replace_file(path, lambda part: figure.savefig(part, dpi=100))
    plt.close(figure)


def label_axes(axis: Axes, title: str = "", x: str = "epoch", y: str = "") -> None:
    """Labels a panel, and expands the name of a part in its title."""
    axis.set_title(write_part(title), fontsize=10)
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    if x in COUNTED:
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    if y in COUNTED:
        axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(alpha=0.3)


def write_part(text: str) -> str:
    """Expands part names in a text: "simple_cnn_c10" becomes "SimpleCNN, CIFAR-10"."""
    words = "|".join(WORDS)
    part = rf"(?<![a-z0-9])(?:{words})(?:_(?:{words}))*(?![a-z0-9_])"
    return re.sub(
        part, lambda found: ", ".join(WORDS[word] for word in re.findall(words, found[0])), text
    )


def get_histories(runs: pd.DataFrame, key: str) -> np.ndarray:
    """Returns the logged values of runs at each epoch, an array of shape (runs, epochs)."""
    return np.array([history[key] for history in runs["history"]], float)


def draw_curve(
    axis: Axes, runs: pd.DataFrame, key: str, colour: Any, name: str = "", style: Any = "-"
) -> None:
    """Draws logged values over epochs: the mean over seeds, and a one-deviation band."""
    if not runs.empty:
        values = get_histories(runs, key)
        draw_band(axis, np.arange(1, values.shape[1] + 1), values, colour, name, style)


def draw_methods(
    row: Sequence[Axes], title: str, runs: Mapping[str, pd.DataFrame], keys: Sequence[str]
) -> None:
    """Draws a panel for each key, with one curve per method."""
    for axis, key in zip(row, keys, strict=True):
        for method, group in runs.items():
            style = STYLES.get(method, "-")
            draw_curve(axis, group, key, COLOURS[method], TITLES[method], style)
        label_axes(axis, title, y=LABELS[key])


def draw_band(
    axis: Axes, x: Any, values: np.ndarray, colour: Any, name: str, style: Any = "-"
) -> None:
    """Draws the mean of curves, an array of shape (runs, points), and a one-deviation band."""
    mean = values.mean(axis=0)
    axis.plot(x, mean, color=colour, ls=style, lw=1.6, label=name or None)
    if len(values) > 1:
        spread = values.std(axis=0, ddof=1)
        axis.fill_between(x, mean - spread, mean + spread, color=colour, alpha=0.12, lw=0)


def draw_point(axis: Axes, xs: pd.Series, ys: pd.Series, colour: Any, name: str) -> None:
    """Draws the mean of two quantities over runs, with bars of one standard deviation."""
    spread = {"xerr": xs.std(), "yerr": ys.std()} if len(xs) > 1 else {}
    axis.errorbar(
        xs.mean(), ys.mean(), **spread, fmt="o", color=colour, label=name, capsize=3, ms=7
    )


def pick_shades(count: int) -> Any:
    """Returns colours from blue to red, for values in ascending order; a single one is red."""
    return BLUE_TO_RED(np.linspace(0, 1, count) if count > 1 else np.ones(count))


def shade(groups: Iterable[tuple[Any, Any]]) -> Iterable[tuple[Any, Any, Any]]:
    """Yields `(colour, key, group)`, with colours from blue to red."""
    groups = list(groups)
    colours = pick_shades(len(groups))
    return [(colour, *group) for colour, group in zip(colours, groups, strict=True)]


def draw_legend(figure: Figure, axes: Iterable[Axes], **others: Any) -> None:
    """Draws one legend below the panels, for all named artists and for `others`."""
    handles = {
        name: handle
        for axis in axes
        for handle, name in zip(*axis.get_legend_handles_labels(), strict=True)
    } | others
    column = 0.7 + 0.08 * max(map(len, handles), default=0)  # inches: a handle, plus each letter
    figure.legend(
        handles.values(),
        handles.keys(),
        loc="outside lower center",
        ncols=min(len(handles), max(1, int(figure.get_figwidth() / column))),
        frameon=False,
    )
