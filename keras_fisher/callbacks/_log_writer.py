"""The base class of callbacks that write into `logs`."""

from __future__ import annotations

import abc
import copy
import math
import warnings
from collections.abc import Collection
from typing import Any, Self

import numpy as np
from keras.callbacks import Callback, TensorBoard

from keras_fisher.backend.private_api.keras import find_callback_list, record_epoch_summaries


class CopyableCallback(Callback):
    """A callback whose copies share its data, and start without a model."""

    def __getstate__(self) -> dict[str, Any]:
        """Returns the attributes of a copy."""
        return {**self.__dict__, "_model": None}

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # A tf.data.Dataset has no deep copy, and arrays need none.
        return copy.copy(self)


def _is_nan(best: Any) -> bool:
    return isinstance(best, float | np.floating) and math.isnan(best)


class LogWriter(CopyableCallback, abc.ABC):
    """A callback that writes into `logs` before all other callbacks read them.

    For each event, Keras passes one `logs` to the callbacks in their order. `History`, `CSVLogger`
    and `EarlyStopping` would miss values that are written after them, so writers move to the front
    of the callback list when training begins.

    TensorBoard reads `logs` too, but with `update_freq=n` it drops epochs whose last step is not a
    multiple of n. Writers make it write every epoch.
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
        calling = find_callback_list(self)
        if calling is not None:
            # A new list, since Keras is iterating over the old one. The sort is stable.
            self._peers = sorted(calling.callbacks, key=lambda c: not isinstance(c, LogWriter))
            calling.callbacks = self._peers
            self._check_peers()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        for board in self._boards:
            record_epoch_summaries(board)
        for peer in self._peers:
            is_ours = getattr(peer, "monitor", None) in self._list_keys()
            if is_ours and _is_nan(getattr(peer, "best", None)):
                # Keras takes the first value as the best, and no later one is better than NaN.
                peer.best = None

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._peers = []

    @abc.abstractmethod
    def _list_keys(self) -> Collection[str]:
        """Returns the names that it writes into `logs`."""

    def _check_peers(self) -> None:
        """Raises if another callback writes the same names, or this one is listed twice."""
        for peer in self._peers[self._peers.index(self) + 1 :]:
            keys = peer._list_keys() if isinstance(peer, LogWriter) else ()
            if same := sorted({*self._list_keys()} & {*keys}):
                other = f'. Set `callback.key = "test_{same[0]}"`, say, in one of them'
                raise ValueError(
                    "`callbacks` must write different names into the logs. Received: two callbacks "
                    f"that write {', '.join(same)}, or one twice{other * hasattr(peer, 'key')}"
                )

    @property
    def _boards(self) -> list[TensorBoard]:
        """The TensorBoards of this training."""
        return [peer for peer in self._peers if isinstance(peer, TensorBoard)]

    def _warn_of_nan(self, value: float, when: str) -> None:
        """Warns, once per training, if the measured value is NaN."""
        if math.isnan(value) and not self._has_warned:
            self._has_warned = True
            warnings.warn(f"{type(self).__name__} measured NaN {when}", stacklevel=2)
