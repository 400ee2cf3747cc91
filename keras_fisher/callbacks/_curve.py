"""Callbacks that follow one measure through training."""

from __future__ import annotations

import abc
import math
from typing import Any, ClassVar

from keras_fisher.callbacks._measuring import Measuring
from keras_fisher.callbacks._state import from_json, to_json
from keras_fisher.traces import Estimate


class Curve(Measuring, abc.ABC):
    """Follows one measure: in `logs`, in `history` and, by steps, in TensorBoard.

    Attributes:
        key: The name of the measure in `logs` and in TensorBoard.
        history: All measurements of the training, a list of `(step, Estimate)`.
    """

    key: ClassVar[str]
    history: list[tuple[int, Estimate]]

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"history": list(self.history)}

    def get_state(self) -> dict[str, Any]:
        """Returns what the callback remembers of the training, in values that JSON has."""
        drawn = self._random_state if self._meter is None else self._meter.random_state
        return {"history": [to_json(*measured) for measured in self.history], "random_state": drawn}

    def set_state(self, state: dict[str, Any]) -> None:
        """Takes up what `get_state` returned; the next fit goes on from there."""
        self.history = [from_json(measured) for measured in state["history"]]
        self._random_state = state["random_state"]
        self._is_restored = True

    def _look(self, logs: dict[str, Any] | None) -> None:
        self.history.append(self._measure())
        if self.freq != "epoch":
            self._write_summaries(*self.history[-1])

    def _values(self) -> dict[str, float]:
        return {self.key: self.history[-1][1].value if self.history else math.nan}

    def _forget(self) -> None:
        self.history = []

    def _write_summaries(self, step: int, estimate: Estimate) -> None:
        for board in self._boards:
            # Its own writer: TensorBoard reads one file of a folder at a time, and does not
            # come back to one after it went on to the next. `record_if`, since with
            # update_freq=n it has summaries off but for each n-th batch.
            with board._train_writer.as_default(), board.summary.record_if(True):
                board.summary.scalar(self.key, estimate.value, step=step)
