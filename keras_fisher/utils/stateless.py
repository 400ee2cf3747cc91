"""Code that reads and assigns Keras variables, run without any of them moving."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras


class Stateless(keras.StatelessScope):
    """A scope in which variables read and take other values than their own.

    Unlike in a scope of Keras, a variable that has no value here has that of the scope around.

    Args:
        values: Pairs of a variable and the value to read it as.
        collect_losses: Whether `add_loss` inside of it counts.
        fixed: Variables that keep their value here even where they are assigned to.
    """

    def __init__(
        self,
        values: Iterable[tuple[keras.Variable, Any]] = (),
        collect_losses: bool = False,
        fixed: Iterable[keras.Variable] = (),
    ) -> None:
        super().__init__(state_mapping=list(values), collect_losses=collect_losses)
        self._assigned: dict[int, keras.Variable] = {}
        self._fixed = {id(variable) for variable in fixed}

    @property
    def assigned(self) -> list[keras.Variable]:
        """The variables that were assigned to, in the order in which they first were."""
        return list(self._assigned.values())

    def add_update(self, update: tuple[keras.Variable, Any]) -> None:
        if id(update[0]) in self._fixed:
            return
        super().add_update(update)
        self._assigned.setdefault(id(update[0]), update[0])

    def get_current_value(self, variable: keras.Variable) -> Any:
        value = super().get_current_value(variable)
        if value is None and self.original_scope is not None:
            value = self.original_scope.get_current_value(variable)
        return value
