"""A scope that runs code without changing Keras variables."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import keras

if TYPE_CHECKING:
    from keras_fisher.backend.types import Tensor


class Stateless(keras.StatelessScope):
    """A scope in which variables have other values than their own.

    Unlike in Keras's scope, a variable without a value here has its value in the enclosing scope.

    Args:
        values: Pairs of a variable and its value in the scope.
        collect_losses: Whether to collect losses from `add_loss`.
        fixed: Variables that ignore assignments in the scope.
    """

    def __init__(
        self,
        values: Iterable[tuple[keras.Variable, Tensor]] = (),
        collect_losses: bool = False,
        fixed: Iterable[keras.Variable] = (),
    ) -> None:
        super().__init__(state_mapping=list(values), collect_losses=collect_losses)
        self._assigned: dict[int, keras.Variable] = {}
        self._fixed = {id(variable) for variable in fixed}

    @property
    def assigned(self) -> list[keras.Variable]:
        """The assigned variables, in the order of their first assignment."""
        return list(self._assigned.values())

    def add_update(self, update: tuple[keras.Variable, Tensor]) -> None:
        if id(update[0]) in self._fixed:
            return
        super().add_update(update)
        self._assigned.setdefault(id(update[0]), update[0])

    def get_current_value(self, variable: keras.Variable) -> Tensor | None:
        value = super().get_current_value(variable)
        if value is None and self.original_scope is not None:
            value = self.original_scope.get_current_value(variable)
        return value
