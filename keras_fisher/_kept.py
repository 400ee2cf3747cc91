"""The penalty's gradient between recomputations, and when to recompute it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

_NEVER = -1


class KeptGradient:
    """The latest gradient of the penalty (without alpha), kept and reused (section 2).

    It is recomputed at steps 0, `update_freq`, 2 `update_freq`, …, and at once where the latest of
    these was missed because alpha was 0 or the gradient was not finite.

    The variables are no weights of the model: they appear in none of its weight lists or counts.
    """

    def __init__(self, update_freq: int) -> None:
        self.update_freq = update_freq
        self.step = _counter("step", 0)
        self.computed_at = _counter("computed_at", _NEVER)
        self.gradients: list[keras.Variable] = []

    def allocate(self, weights: Sequence[keras.Variable]) -> None:
        """Makes room for a gradient of each weight, unless there is room for these already."""
        wanted = [(tuple(w.shape), _dtype(w)) for w in weights]
        if [(tuple(g.shape), _dtype(g)) for g in self.gradients] == wanted:
            return
        self.gradients = [
            keras.Variable(ops.zeros(shape, dtype), dtype=dtype, trainable=False, name="kept")
            for shape, dtype in wanted
        ]
        self.computed_at.assign(_NEVER)

    def is_due(self) -> Any:
        """Returns whether this step recomputes, a boolean scalar."""
        step = ops.convert_to_tensor(self.step)
        scheduled = step - step % self.update_freq
        return ops.less(self.computed_at, scheduled) | ops.equal(self.computed_at, _NEVER)

    def keep(self, gradients: Sequence[Any]) -> None:
        """Keeps new gradients, which count as computed only if they are all finite."""
        for kept, gradient in zip(self.gradients, gradients, strict=True):
            kept.assign(gradient)
        finite = ops.all(ops.stack([ops.all(ops.isfinite(g)) for g in gradients]))
        self.computed_at.assign(ops.where(finite, self.step, _NEVER))

    def count_step(self) -> None:
        """Counts one training step."""
        self.step.assign_add(1)

    def save(self, store: Any) -> None:
        """Writes the state into a Keras weight store."""
        store["step"] = ops.convert_to_numpy(self.step)
        store["computed_at"] = ops.convert_to_numpy(self.computed_at)
        for index, gradient in enumerate(self.gradients):
            store[f"gradient_{index}"] = ops.convert_to_numpy(gradient)

    def load(self, store: Any, weights: Sequence[keras.Variable]) -> None:
        """Reads the state back; a gradient of other weights is left to be recomputed."""
        self.allocate(weights)
        self.step.assign(store["step"][()])
        names = [f"gradient_{index}" for index in range(len(self.gradients))]
        fits = f"gradient_{len(names)}" not in store and all(
            name in store and tuple(store[name].shape) == tuple(gradient.shape)
            for name, gradient in zip(names, self.gradients, strict=True)
        )
        if fits:
            for name, gradient in zip(names, self.gradients, strict=True):
                gradient.assign(store[name])
        self.computed_at.assign(store["computed_at"][()] if fits else _NEVER)


def _counter(name: str, value: int) -> keras.Variable:
    return keras.Variable(value, dtype="int64", trainable=False, name=name)


def _dtype(variable: keras.Variable) -> str:
    return keras.backend.result_type(variable.dtype, "float32")
