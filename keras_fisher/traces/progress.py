"""A progress bar shown only for slow measurements."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

import keras

from keras_fisher.traces.data import Batch, length

_SECONDS_BEFORE_IT_SHOWS = 5.0


def show_progress(batches: Iterable[Batch], total: int | None) -> Iterator[Batch]:
    """Yields the batches, and shows a progress bar over examples after a few seconds."""
    started, done, bar = time.monotonic(), 0, None
    for batch in batches:
        yield batch
        done += length(batch[0])
        is_long = time.monotonic() - started > _SECONDS_BEFORE_IT_SHOWS
        if bar is None and is_long and done != total:
            bar = keras.utils.Progbar(total, unit_name="example")
        if bar is not None:
            bar.update(done, finalize=False)
    if bar is not None:
        bar.update(done, finalize=True)
