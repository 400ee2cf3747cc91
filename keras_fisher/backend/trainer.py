"""The base of the backends' trainers."""

from __future__ import annotations

import abc
import contextlib
from typing import Any

import keras

from keras_fisher.backend.types import Replica, StepKind, Tensor


class BaseTrainer(keras.Model, abc.ABC):
    """A model whose step computes all gradients itself and hands them to the optimizer."""

    train_function: Any
    _is_distributed: Any = False

    @abc.abstractmethod
    def _take_step(
        self, data: Any, kind: StepKind | None = None, replica: Replica | None = None
    ) -> None:
        """Takes a training step on a batch, or on a replica's part of it.

        Without a kind, variables determine it.
        """

    @abc.abstractmethod
    def _choose_step_kind(self) -> Tensor:
        """Returns the `StepKind` of the next step, an integer."""

    @property
    def _moved_variables(self) -> list[keras.Variable]:
        """Variables that a forward pass changes: statistics of layers, generator states."""
        return self.non_trainable_variables

    @property
    def _assigned_before_replay(self) -> list[keras.Variable]:
        """Variables that a second forward pass reuses and must not assign again.

        A layer may assign its own trainable weights in a forward pass, as `SpectralNormalization`
        does. The gradient is then taken at the assigned weights.
        """
        return self.trainable_weights

    def _pass_differentiated_twice(self) -> contextlib.AbstractContextManager[Any]:
        """A context for the model's forward pass of a step, if it is differentiated twice."""
        return contextlib.nullcontext()

    def _further_pass(self) -> contextlib.AbstractContextManager[Any]:
        """A context for another forward pass of a step, at other weights than the variables."""
        return contextlib.nullcontext()

    def _variables_scope(self) -> contextlib.AbstractContextManager[Any]:
        """The scope in which to create variables."""
        return contextlib.nullcontext()
