"""Training with stateless functions of all variables, as JAX requires."""

from __future__ import annotations

import abc
import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
from keras import ops

from keras_fisher.backend.jax.stateless import Pure
from keras_fisher.backend.trainer import BaseTrainer
from keras_fisher.backend.types import StepKind, Tensor
from keras_fisher.utils.stateless import Stateless

Groups = tuple[list[keras.Variable], ...]
State = Sequence[list[Tensor]]
TrainFunction = Callable[[State, Iterator[Any]], tuple[dict[str, Any], State]]


class Trainer(BaseTrainer):
    """A model whose step assigns variables, but runs as a stateless function.

    On several devices (`keras.distribution.DataParallel`) a step covers the whole batch, also if
    the devices belong to several processes.
    """

    @abc.abstractmethod
    def _own_variables(self) -> list[keras.Variable]:
        """The variables that a step changes and Keras does not track."""

    # The ids of the untrained variables when training was last prepared.
    _other_variables: tuple[int, ...] | None = None

    @property
    def non_trainable_variables(self) -> list[keras.Variable]:
        """All variables except trained ones, including the state of the penalty."""
        return [*self._moved_variables, *self._own_variables()]

    @property
    def _replayed_variables(self) -> list[keras.Variable]:
        """Variables that are restored before a second forward pass."""
        return self._moved_variables

    @property
    def _moved_variables(self) -> list[keras.Variable]:
        return super().non_trainable_variables

    @property
    def _assigned_before_replay(self) -> list[keras.Variable]:
        """Variables that a second forward pass must not assign again: none.

        Keras drops assignments to trainable weights in a forward pass (see `Pure.assign_state`),
        and the gradient is taken through the assignment.
        """
        return []

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """Returns the outputs for batches of any size; each process those for its own `x`."""
        with _unset_distribution():
            return super().predict(*args, **kwargs)

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Saves the model; one of several processes may do so."""
        with _unset_distribution():
            super().save(*args, **kwargs)

    def save_weights(self, *args: Any, **kwargs: Any) -> None:
        """Saves the weights; one of several processes may do so."""
        with _unset_distribution():
            super().save_weights(*args, **kwargs)

    def make_train_function(self, force: bool = False) -> None:
        """Creates the function that trains on `steps_per_execution` batches from an iterator.

        On a CPU, XLA runs the code inside a branch or a loop on a single core, so the host chooses
        the kind of each step and dispatches steps one by one. On other devices, all steps go into
        one dispatch, and the host never waits for the device.
        """
        self._check_distribution()
        force = force or self._has_other_variables()
        if self.train_function is not None and not force:
            return
        super().make_train_function(force)
        if self.run_eagerly or not self.jit_compile:
            return
        has_own_step = type(self).train_step is not Trainer.train_step  # overridden in a subclass
        if jax.default_backend() == "cpu":
            if not has_own_step:
                self.train_function = self._choose_on_host()
        elif self.steps_per_execution > 1:
            self.train_function = self._dispatch_at_once(self.train_function)

    def make_test_function(self, force: bool = False) -> None:
        """Creates the function that evaluates the model on batches from an iterator."""
        self._check_distribution()
        super().make_test_function(force)

    def _check_distribution(self) -> None:
        """Raises if each process would train on its own batches.

        Raises:
            ValueError: if the weights are those of several processes, and no distribution is set.
        """
        if keras.distribution.distribution() is None and any(
            not weight.value.is_fully_addressable for weight in self.weights
        ):
            raise ValueError(
                "`fit` and `evaluate` must be called under the `keras.distribution` that the model "
                "was created under, else each process uses its own batches only. Received: a model "
                f"spread over {jax.process_count()} processes, and no distribution. Call "
                "`keras.distribution.set_distribution`, or use the scope of the distribution"
            )

    def _has_other_variables(self) -> bool:
        """Returns whether the untrained variables have changed since the last call."""
        others = tuple(id(variable) for variable in self.non_trainable_variables)
        has_changed = self._other_variables not in (None, others)
        self._other_variables = others
        return has_changed

    def _choose_on_host(self) -> TrainFunction:
        deciding = self._own_variables()
        decide = jax.jit(lambda values: Pure(self._choose_step_kind, deciding)(values)[0])
        places = [[id(v) for v in self.non_trainable_variables].index(id(v)) for v in deciding]
        steps = [
            jax.jit(
                functools.partial(self._step_of_kind, kind),
                donate_argnums=0,
                out_shardings=self._shardings(),
            )
            for kind in StepKind
        ]

        def train(state: State, iterator: Iterator[Any]) -> tuple[dict[str, Any], State]:
            logs: dict[str, Any] | None = None
            for batch in itertools.islice(iterator, self.steps_per_execution):
                kind = int(decide([state[1][place] for place in places]))
                logs, state = steps[kind](state, batch)
            if logs is None:
                raise StopIteration
            return logs, state

        return train

    def _shardings(self) -> Any:
        """The sharding of logs and state over devices, if any."""
        if keras.distribution.distribution() is None:
            return None
        return None, self._get_state_sharding_spec()

    def _dispatch_at_once(self, one_by_one: TrainFunction) -> TrainFunction:
        def take_steps(state: State, batches: Any) -> tuple[dict[str, Any], State]:
            def step(state: State, batch: Any) -> tuple[State, dict[str, Any]]:
                logs, state = self.train_step(state, batch)
                return state, logs

            state, logs = jax.lax.scan(step, state, batches)
            return jax.tree.map(lambda values: values[-1], logs), state

        compiled = jax.jit(take_steps, donate_argnums=0, out_shardings=self._shardings())

        def train(state: State, iterator: Iterator[Any]) -> tuple[dict[str, Any], State]:
            batches = list(itertools.islice(iterator, self.steps_per_execution))
            shapes = [[leaf.shape for leaf in jax.tree.leaves(batch)] for batch in batches]
            if len(batches) < self.steps_per_execution or any(s != shapes[0] for s in shapes):
                return one_by_one(state, iter(batches))
            return compiled(state, jax.tree.map(_stack, *batches))

        return train

    def train_step(self, state: State, data: Any) -> tuple[dict[str, Any], State]:
        """Takes a stateless training step: returns the logs and the new values of all variables."""
        return self._step_of_kind(None, state, data)

    def _step_of_kind(
        self, kind: StepKind | None, state: State, data: Any
    ) -> tuple[dict[str, Any], State]:
        groups = self._list_groups()
        pairs = [
            pair
            for group, values in zip(groups, state, strict=True)
            for pair in zip(group, values, strict=True)
        ]
        with Stateless(pairs, collect_losses=True) as scope:
            self._take_step(data, kind)
            logs = self.get_metrics_result()
        return logs, tuple([scope.get_current_value(v) for v in group] for group in groups)

    def _list_groups(self) -> Groups:
        """The variables in Keras's groups."""
        return (
            self.trainable_variables,
            self.non_trainable_variables,
            self.optimizer.variables,
            self.metrics_variables,
        )

    def _apply_gradients(self, gradients: Sequence[Tensor]) -> None:
        """Applies one optimizer step."""
        weights, own = self.trainable_variables, self.optimizer.variables
        values = [[ops.convert_to_tensor(v) for v in group] for group in (own, weights)]
        found = self.optimizer.stateless_apply(values[0], list(gradients), values[1])
        for group, new in zip((weights, own), found, strict=True):
            for variable, value in zip(group, new, strict=True):
                variable.assign(value)


@contextlib.contextmanager
def _unset_distribution() -> Iterator[None]:
    """Unsets the distribution, so that one of several processes can act without the others.

    Under a distribution, Keras spreads what it predicts over all processes, and creates variables
    while it saves an optimizer, which waits for all processes.
    """
    distribution = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(distribution)


def _stack(*arrays: Tensor) -> Tensor:
    on_host = all(isinstance(array, np.ndarray) for array in arrays)
    return np.stack(arrays) if on_host else jnp.stack(arrays)
