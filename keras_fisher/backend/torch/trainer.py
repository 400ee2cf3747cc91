"""Training one step after the other, on one device."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import torch
from keras import ops

from keras_fisher.backend.private_api.keras import (
    disable_rematerialisation,
    find_unseeded_generator,
    is_stateless,
    list_all_layers,
)
from keras_fisher.backend.torch.modules import copy_inputs, make_stateless
from keras_fisher.backend.torch.seeds import mix_seeds
from keras_fisher.backend.trainer import BaseTrainer
from keras_fisher.backend.types import StepKind, Tensor
from keras_fisher.utils.messages import warn_once


class Trainer(BaseTrainer):
    """A model whose step runs uncompiled, on one device."""

    @property
    @abc.abstractmethod
    def _draw_seeds(self) -> list[Tensor | keras.Variable]:
        """Integers that differ between steps and micro-batches, for PyTorch's own draws."""

    _is_penalised = False  # whether the current step has a penalty

    @property
    def _replayed_variables(self) -> list[keras.Variable]:
        """Variables that are restored before a second forward pass, also for unseeded draws."""
        unseeded = find_unseeded_generator(create=self._is_penalised)
        return [*self._moved_variables, *([] if unseeded is None else [unseeded.state])]

    def make_train_function(self, force: bool = False) -> Any:
        """Creates the function that trains on a batch; it is not compiled.

        A function compiled by PyTorch cannot be differentiated twice.
        """
        if self.train_function is not None and not force:
            return self.train_function
        super().make_train_function(force)
        if self.jit_compile:
            warn_once(
                "jit_compile=True compiles `evaluate` and `predict` on PyTorch, but not the "
                "training step of a FisherPenaltyModel: compiled functions have no second "
                "derivatives there."
            )
            self.train_function = lambda data: self.train_step(data[0])
        return self.train_function

    def train_step(self, data: Any) -> dict[str, Any]:
        """Takes a training step."""
        kind = StepKind(int(self._choose_step_kind()))
        self._is_penalised = kind != StepKind.NO_PENALTY
        try:
            self._take_step(data, kind)
        finally:
            self._is_penalised = False
        return self.get_metrics_result()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the model; all passes of a penalised step have the same draws."""
        if not self._is_penalised:
            return super().__call__(*args, **kwargs)
        is_further = is_stateless()  # a pass for the penalty only
        with (
            _seed_draws(self._draw_seeds),
            copy_inputs(self),
            make_stateless(self) if is_further else contextlib.nullcontext(),
            # Layers that compute again in the backward pass would have this step's weights.
            disable_rematerialisation(list_all_layers(self) if is_further else ()),
        ):
            return super().__call__(*args, **kwargs)

    def _apply_gradients(self, gradients: Sequence[Tensor]) -> None:
        """Applies one optimizer step."""
        with torch.no_grad():
            self.optimizer.apply(gradients, self.trainable_weights)


@contextlib.contextmanager
def _seed_draws(seeds: Sequence[Tensor | keras.Variable]) -> Iterator[None]:
    """Seeds PyTorch's own generator inside the context, and restores it.

    Unseeded dropout draws from it rather than from a `keras.random.SeedGenerator`, and so do
    modules of `torch.nn`.
    """
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(mix_seeds([int(ops.convert_to_numpy(seed)) for seed in seeds]))
        yield
