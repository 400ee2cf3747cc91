"""Callbacks whose values every other callback finds in `logs`."""

from __future__ import annotations

import math
import sys
import warnings
from types import FrameType
from typing import Any

from keras.callbacks import Callback, CallbackList, TensorBoard

from keras_fisher.callbacks._copying import CopyableCallback


class LogWriter(CopyableCallback):
    """A callback that writes into `logs`, for every other to read, wherever it is listed.

    Keras hands one `logs` from callback to callback in the order of their list, made anew for
    each event. What comes later is missed by `History`, `CSVLogger` and `EarlyStopping` alike, so
    writers move to the front of the list that calls them when training begins.

    TensorBoard reads them too, but with `update_freq=n` it drops each epoch whose last step is no
    n-th one. Writers let it write every epoch.
    """

    def __init__(self) -> None:
        super().__init__()
        self._peers: list[Callback] = []
        self._has_warned = False

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_peers": []}

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._has_warned = False
        self._peers = []
        calling = self._calling_list()
        if calling is not None:
            # A new list, since Keras is iterating over the old one. The sort is stable.
            self._peers = sorted(calling.callbacks, key=lambda c: not isinstance(c, LogWriter))
            calling.callbacks = self._peers

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        for board in self._boards:
            _record(board)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._peers = []

    @property
    def _boards(self) -> list[TensorBoard]:
        """The TensorBoards of this training."""
        return [peer for peer in self._peers if isinstance(peer, TensorBoard)]

    def _calling_list(self) -> CallbackList | None:
        """The list that this callback is called from: Keras tells a callback its model only."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            caller = frame.f_locals.get("self")
            if isinstance(caller, CallbackList) and any(c is self for c in caller.callbacks):
                return caller
            frame = frame.f_back
        return None

    def _warn_of_nan(self, value: float, when: str) -> None:
        """Warns, once in a training, if what was measured is NaN."""
        if math.isnan(value) and not self._has_warned:
            self._has_warned = True
            warnings.warn(f"{type(self).__name__} measured NaN {when}", stacklevel=2)


def _record(board: TensorBoard) -> None:
    """Turns summaries on until the next batch."""
    if board.update_freq == "epoch":
        return
    # Keras turns them off after all steps but each n-th, before it writes the epoch, and has no
    # public way to do otherwise. The pair is one that `_pop_writer` closes.
    board._pop_writer()
    contexts = (
        board._train_writer.as_default(board._global_train_batch),
        board.summary.record_if(True),
    )
    for context in contexts:
        context.__enter__()
    board._prev_summary_state.append(contexts)
