"""Markdown tables of finished runs: the choice of runs, and the format of their figures."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from scipy import stats

from experiment.plan.setting import UNIFORM

NOTHING = "-"
NOISE = ("noise", "noise_source")  # the columns that say which labels runs are trained on
Method = TypeVar("Method", bound=str)
TITLES = {
    "eta_star": "η*",
    "baseline": "baseline",
    "mixup": "mixup",
    "gp_x": "GP_x",
    "gp": "GP",
    "fp": "FP",
    "gp_r": "GP_r",
}
# The note below tables with a test accuracy and the largest Tr(F).
FIGURES_NOTE = (
    "Test accuracy at the best validation point; where nothing is held out, the test images take "
    "the place of validation. The largest Tr(F) from the end of the first epoch on."
)
DIFFERENCES_NOTE = "Differences are means over seeds, with their standard error."


# ---- Choice of runs ------------------------------------------------------------------------------


def choose_value(runs: pd.DataFrame) -> pd.DataFrame:
    """Returns the runs of one method with the value of best mean validation accuracy (G.2).

    Only the seeds with the most values count: the first one where the others were trained with the
    chosen value alone, and all of them in a search.
    """
    values = runs.groupby("seed")["value"].transform("nunique")
    means = runs[values == values.max()].groupby("value")["validation_accuracy"].mean()
    return runs[runs["value"] == means.idxmax()]


def choose_values(runs: pd.DataFrame) -> pd.DataFrame:
    """Returns the runs with the chosen value of each part, noise and method."""
    groups = runs.groupby(["part", *NOISE, "method"])
    return pd.concat([choose_value(group) for _, group in groups])


def split_methods(
    runs: pd.DataFrame, methods: Iterable[Method]
) -> dict[str, dict[Method, pd.DataFrame]]:
    """Returns the runs of each part and method, in the order of `methods`; may be empty."""
    return {
        part: {method: group[group["method"] == method] for method in methods}
        for part, group in runs.groupby("part")
    }


# ---- Cells ---------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Cell(abc.ABC):
    """Formats one column of a group of runs as a table cell."""

    column: str

    @abc.abstractmethod
    def __call__(self, runs: pd.DataFrame) -> str: ...


@dataclasses.dataclass(frozen=True)
class MeanCell(Cell):
    """The mean, with the standard deviation if there are several runs."""

    digits: int = 1
    scale: float = 1

    def __call__(self, runs: pd.DataFrame) -> str:
        values = self.scale * runs[self.column].astype(float)
        if values.empty or values.isna().any():
            return NOTHING
        spread = f" ± {values.std():.{self.digits}f}" if len(values) > 1 else ""
        return f"{values.mean():.{self.digits}f}{spread}"


@dataclasses.dataclass(frozen=True)
class PercentCell(MeanCell):
    """The mean in percent."""

    scale: float = 100


@dataclasses.dataclass(frozen=True)
class DifferenceCell(Cell):
    """The mean difference to other runs of the same seeds, with its standard error.

    Runs of one seed share initial weights, order and held-out examples, so their differences vary
    less than the figures themselves.
    """

    others: pd.DataFrame
    scale: float = 100  # percent

    def __call__(self, runs: pd.DataFrame) -> str:
        return write_mean(self.scale * pair_seeds(runs, self.others, self.column), sign="+")


def write_mean(values: pd.Series, sign: str = "") -> str:
    """Returns the mean, with its standard error if there are several values; "-" if one is NaN."""
    if values.empty or values.isna().any():
        return NOTHING
    error = f" ± {values.sem():.1f}" if len(values) > 1 else ""
    return f"{values.mean():{sign}.1f}{error}"


def pair_seeds(runs: pd.DataFrame, others: pd.DataFrame, column: str) -> pd.Series:
    """Returns the differences of a column between runs of the same seed, by seed."""
    ours, theirs = (some.set_index("seed")[column].astype(float) for some in (runs, others))
    seeds = ours.index.intersection(theirs.index)
    return ours[seeds] - theirs[seeds]


@dataclasses.dataclass(frozen=True)
class SettingCell(Cell):
    """A setting that runs have in common, such as alpha; "-" if it is 0."""

    def __call__(self, runs: pd.DataFrame) -> str:
        return f"{runs[self.column].iloc[0]:.4g}" if runs[self.column].any() else NOTHING


def fill_cells(runs: pd.DataFrame, cells: Mapping[str, Cell]) -> list[str]:
    """Returns the texts of the cells for a group of runs."""
    return [cell(runs) for cell in cells.values()]


def name_value(varied: str, value: float) -> str:
    """Returns the name of a varied value, such as "learning rate 0.1"."""
    return f"{varied.replace('_', ' ')} {value:g}"


def write_noise(noise: float, source: str) -> str:
    """Returns the fraction of labels that are drawn, or the name of the human annotation."""
    return f"{noise:.0%}" if source == UNIFORM else source


def write_seeds(runs: pd.DataFrame) -> str:
    """Describes the number of seeds of a table, whose parts may have different ones."""
    counts = runs.groupby("part")["seed"].nunique()
    seeds = " to ".join(str(count) for count in sorted({counts.min(), counts.max()}))
    return f"{seeds} seed{'s: mean ± standard deviation' if counts.max() > 1 else ''}."


def write_edges(runs: pd.DataFrame) -> str:
    """Returns a warning for each method whose best value is at an edge of its grid (G.2).

    The optimum may then lie outside the grid.
    """
    warnings = []
    for (part, noise, source, method), group in runs.groupby(["part", *NOISE, "method"]):
        tried, best = sorted(set(group["value"])), choose_value(group)["value"].iloc[0]
        if len(tried) > 1 and best in (tried[0], tried[-1]):
            edge, advice = ("smallest", "smaller") if best == tried[0] else ("largest", "larger")
            is_noisy = noise or source != UNIFORM
            of_noise = f" with {write_noise(noise, source)} noise" if is_noisy else ""
            warnings.append(
                f"The best value of {TITLES.get(method, method)} in {part}{of_noise}, {best:g}, is "
                f"the {edge} of its grid: a {advice} one may be better.\n"
            )
    return "".join(f"\n{warning}" for warning in warnings)


def write_markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Formats a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


# ---- Correlations --------------------------------------------------------------------------------


def correlate(x: Any, y: Any, method: str = "pearson") -> float:
    """Returns a correlation coefficient, "pearson" or "spearman"; NaN for constant values."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return np.nan
    function = {"pearson": stats.pearsonr, "spearman": stats.spearmanr}[method]
    return float(function(x, y).statistic)


def correlate_logarithms(x: Any, y: Any) -> float:
    """Returns Pearson's coefficient of the logarithms, over points where both are positive."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    positive = (x > 0) & (y > 0)
    return correlate(np.log(x[positive]), np.log(y[positive]))
