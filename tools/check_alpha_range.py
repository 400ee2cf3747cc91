"""Does the range that `alpha_range` proposes hold the best alpha of a finished search?

    python recipes/search.py --preset demo --out runs/search_digits
    python tools/check_alpha_range.py runs/search_digits

For each setting that was searched: trains the plain model until its loss has fallen by a tenth,
asks for a range there, and prints it beside the alpha of best validation accuracy.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import keras

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes"))

from experiment import data, picture, results, training
from experiment.errors import SettingsError
from experiment.recipe import Result
from experiment.setting import Run

import keras_fisher as kf

FALLEN = 0.9  # of the loss at the first weights
MOST_EPOCHS = 50


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    description, _, usage = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=description, epilog=usage, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path, help="folders of finished searches")
    given = parser.parse_args(arguments)
    try:
        searches = [runs for folder in given.folders for runs in searches_in(folder)]
        rows = [row(runs) for runs in searches]
    except (SettingsError, OSError) as error:
        sys.exit(f"error: {error}")
    header = [
        *("network", "data set", "noise", "penalty"),
        *("epochs before", "balance", "range", "best", "inside"),
    ]
    print(picture.markdown(header, rows))


def searches_in(folder: Path) -> list[list[Result]]:
    """The runs with an alpha above 0 of each search over alpha."""
    found = results.read_of("search", [folder])
    penalised = [run for run in found if run["alpha"]]
    if not penalised:
        raise SettingsError(
            f"`folders` must be of searches over alpha. Received: {folder}, where alpha is 0"
        )
    keys = ("part", "noise", "penalty", "learning_rate")
    return list(results.grouped(penalised, *keys).values())


def row(runs: Sequence[Result]) -> list[str]:
    """The range of one search, and whether the best of its alphas lies in it."""
    best = results.chosen(runs)[0]
    epochs, found = measured(best)
    low, high = found.alphas[0], found.alphas[-1]
    return [
        best["network"],
        best["dataset"],
        f"{best['noise']:.0%}",
        best["penalty"],
        str(epochs),
        f"{found.balance:.3g} ± {found.stderr:.1g}",
        f"{low:.3g} to {high:.3g}",
        f"{best['alpha']:.3g}",
        "yes" if low <= best["alpha"] <= high else "no",
    ]


def measured(result: Result) -> tuple[int, kf.tuning.AlphaRange]:
    """How long the plain model was trained, and the range that is proposed there."""
    fields = {field.name: result[field.name] for field in dataclasses.fields(Run)}
    run = Run(**fields | {"alpha": 0.0, "drops": tuple(fields["drops"])})
    source = data.load(run)
    model = training.build_model(run, source)
    started = model.evaluate(*source.training, verbose=0, return_dict=True)["loss"]
    fallen = StopAtLoss(FALLEN * started)
    model.fit(
        source.batches(0),
        epochs=MOST_EPOCHS,
        steps_per_epoch=source.steps_per_epoch,
        shuffle=False,
        verbose=2,
        callbacks=[fallen],
    )
    found = kf.tuning.alpha_range(
        model, source.training, penalty=run.penalty, batch_size=run.batch_size, seed=0
    )
    return fallen.epochs, found


class StopAtLoss(keras.callbacks.Callback):
    """Ends the training after the first epoch whose loss is low enough."""

    def __init__(self, loss: float) -> None:
        super().__init__()
        self.loss, self.epochs = loss, 0

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.epochs = epoch + 1
        if (logs or {})["loss"] <= self.loss:
            self.model.stop_training = True


if __name__ == "__main__":
    main()
