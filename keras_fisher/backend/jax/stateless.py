"""Code that reads and assigns Keras variables, as functions that JAX can transform."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import keras

from keras_fisher.backend.types import Tensor
from keras_fisher.utils.stateless import Stateless


class Pure:
    """Turns a function into one without side effects, of variables' values and other arguments.

    It returns the function's result and the values that the function has assigned.

    Args:
        function: A function that may read and assign Keras variables.
        variables: The variables whose values are arguments.
    """

    def __init__(
        self, function: Callable[..., Any], variables: Sequence[keras.Variable] = ()
    ) -> None:
        self.assigned: list[keras.Variable] = []
        self._function, self._variables = function, variables

    def __call__(self, values: Sequence[Tensor], *arguments: Any) -> tuple[Any, list[Tensor]]:
        pairs = zip(self._variables, values, strict=True)
        with Stateless(pairs, collect_losses=True) as scope:
            result = self._function(*arguments)
        self.assigned = scope.assigned
        return result, [scope.get_current_value(variable) for variable in self.assigned]

    def assign(self, values: Sequence[Tensor]) -> None:
        """Assigns the values that a call has returned to their variables."""
        for variable, value in zip(self.assigned, values, strict=True):
            variable.assign(value)

    def assign_state(self, values: Sequence[Tensor]) -> None:
        """Assigns the values that a call has returned, except those of `variables`.

        With JAX, Keras drops assignments to trainable weights in a forward pass: the optimizer
        updates the weights from their values before it.
        """
        given = {id(variable) for variable in self._variables}
        for variable, value in zip(self.assigned, values, strict=True):
            if id(variable) not in given:
                variable.assign(value)


def run_abstractly(function: Callable[..., None], *arguments: Any) -> None:
    """Runs a function on shapes and dtypes alone.

    It computes no values. Outside a compiled function, JAX would compile every operation for
    itself.
    """
    find_read_variables(function, *arguments)


def find_read_variables(function: Callable[..., Any], *arguments: Any) -> list[keras.Variable]:
    """Returns the variables that a function reads; runs it as `run_abstractly` does."""
    read: dict[int, keras.Variable] = {}

    def run(*abstract: Any) -> None:
        with _ReadVariables() as scope:
            function(*abstract)
        read.update(scope.read)

    jax.eval_shape(run, *arguments)
    return list(read.values())


class _ReadVariables(Stateless):
    """A scope that records which variables are read in it."""

    def __init__(self) -> None:
        super().__init__(collect_losses=True)
        self.read: dict[int, keras.Variable] = {}

    def get_current_value(self, variable: keras.Variable) -> Tensor | None:
        self.read[id(variable)] = variable
        return super().get_current_value(variable)


def cond(condition: Tensor, if_true: Callable[[], Any], if_false: Callable[[], Any]) -> Any:
    """Runs one of two functions; keeps the assignments to variables."""
    if not isinstance(condition, jax.core.Tracer):
        return if_true() if condition else if_false()
    branches = [_Branch(function) for function in (if_true, if_false)]
    assigned = {id(v): v for branch in branches for v in branch.pure.assigned}

    def run(branch: _Branch) -> tuple[Any, list[Tensor]]:
        result, values = branch()
        own = {id(v): value for v, value in zip(branch.pure.assigned, values, strict=True)}
        return result, [own.get(key, v.value) for key, v in assigned.items()]

    result, values = jax.lax.cond(condition, lambda: run(branches[0]), lambda: run(branches[1]))
    for variable, value in zip(assigned.values(), values, strict=True):
        variable.assign(value)
    return result


class _Branch:
    """A function that is traced once; calls repeat the trace."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.pure = Pure(function)
        self._jaxpr, shape = jax.make_jaxpr(lambda: self.pure([]), return_shape=True)()
        self._tree = jax.tree.structure(shape)

    def __call__(self) -> tuple[Any, list[Tensor]]:
        flat = jax.core.eval_jaxpr(self._jaxpr.jaxpr, self._jaxpr.consts)
        return jax.tree.unflatten(self._tree, flat)


class Compiled:
    """A function compiled for one structure of arguments, and for any values of its variables.

    Args:
        function: A function of structures of arrays.
        arguments: Example arguments.
    """

    def __init__(self, function: Callable[..., Any], arguments: Sequence[Any]) -> None:
        self._variables = find_read_variables(function, *arguments)
        self._pure = Pure(function, self._variables)
        self._run = jax.jit(self._pure)

    def __call__(self, *arguments: Any) -> Any:
        result, values = self._run([v.value for v in self._variables], *arguments)
        self._pure.assign(values)
        return result
