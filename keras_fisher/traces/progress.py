"""Progress bars shown only for slow measurements."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

import keras

from keras_fisher.traces.data import Batch, length

_SECONDS_BEFORE_IT_SHOWS = 5.0


class DelayedProgress:
    """A progress bar shown only after a few seconds.

    Args:
        total: The number of units to do; `None` if unknown.
        unit: The name of a unit.
    """

    def __init__(self, total: int | None, unit: str) -> None:
        self._total, self._unit = total, unit
        self._started, self._done = time.monotonic(), 0
        self._bar: keras.utils.Progbar | None = None

    def add(self, units: int) -> None:
        """Records that so many more units are done."""
        self._done += units
        is_long = time.monotonic() - self._started > _SECONDS_BEFORE_IT_SHOWS
        if self._bar is None and is_long and self._done != self._total:
            self._bar = keras.utils.Progbar(self._total, unit_name=self._unit)
        if self._bar is not None:
            self._bar.update(self._done, finalize=False)

    def finish(self) -> None:
        """Ends the line of the bar, if it is shown."""
        if self._bar is not None:
            self._bar.update(self._done, finalize=True)


def show_progress(batches: Iterable[Batch], total: int | None) -> Iterator[Batch]:
    """Yields the batches, and shows a progress bar over examples after a few seconds."""
    progress = DelayedProgress(total, "example")
    for batch in batches:
        yield batch
        progress.add(length(batch[0]))
    progress.finish()
