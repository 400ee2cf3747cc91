"""Training on one device or on several replicas, on one machine or several."""

from __future__ import annotations

import abc
import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from keras_fisher.backend.private_api.keras import (
    disable_rematerialisation,
    find_unseeded_generator,
    is_rematerialised,
    list_all_layers,
)
from keras_fisher.backend.tensorflow import replicas
from keras_fisher.backend.tensorflow.registry import KERNELS, free_with_graphs
from keras_fisher.backend.trainer import BaseTrainer
from keras_fisher.backend.types import StepKind, Tensor
from keras_fisher.utils.arguments import check_mean
from keras_fisher.utils.batches import count_examples
from keras_fisher.utils.messages import warn_once
from keras_fisher.utils.optimizers import list_optimizers

_OF_OPTIMIZERS = (
    *("gradient_accumulation_steps", "ema_overwrite_frequency"),
    *("clipnorm", "clipvalue", "global_clipnorm"),
)
_MEANS = ("sum_over_batch_size", "mean")


class Trainer(BaseTrainer):
    """A model whose `fit` and `evaluate` run on one device and under `tf.distribute` strategies.

    Under a strategy, the kind of step is chosen outside the replicas, so that all take the same
    one, and metrics are read once for all replicas, as several machines require.
    """

    test_function: Any
    # The kind of the current or traced step; `None` if variables determine it.
    _kind: StepKind | None = None

    @property
    @abc.abstractmethod
    def _is_penalty_off(self) -> bool:
        """Whether the next steps are known to have no penalty."""

    @property
    @abc.abstractmethod
    def _is_built_before_training(self) -> bool:
        """Whether the model is built and about to train."""

    @property
    def _is_distributed(self) -> bool:
        return replicas.is_distributed(self.distribute_strategy)

    @property
    def _replayed_variables(self) -> list[keras.Variable]:
        """Variables that are restored before a second forward pass, also for unseeded draws."""
        # A compiled step is traced again after its first unseeded draw.
        unseeded = find_unseeded_generator(create=self.run_eagerly)
        return [*self._moved_variables, *([] if unseeded is None else [unseeded.state])]

    def _variables_scope(self) -> contextlib.AbstractContextManager[Any]:
        return self.distribute_strategy.scope()

    def train_step(self, data: Any) -> dict[str, Any]:
        """Takes a training step."""
        with free_with_graphs():
            self._take_step(data, self._kind)
            return self.get_metrics_result()

    def test_step(self, data: Any) -> dict[str, Any]:
        """Evaluates a batch."""
        with free_with_graphs():
            return super().test_step(data)

    def predict_step(self, data: Any) -> Any:
        """Predicts a batch."""
        with free_with_graphs():
            return super().predict_step(data)

    def _take_step_on_replica(self, kind: StepKind, data: Any) -> None:
        x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        self._take_step(data, kind, replicas.SyncReplica(count_examples(x)))

    def _pass_differentiated_twice(self) -> contextlib.AbstractContextManager[Any]:
        """Ignores `keras.RematScope`, as TensorFlow computes again in the first derivative only."""
        layers = list_all_layers(self)
        if is_rematerialised(layers):
            warn_once(
                "keras.RematScope is ignored where a FisherPenaltyModel differentiates twice: "
                "TensorFlow cannot compute activations again there. To save memory, use "
                "micro_batch_size, or gradient='finite_difference'."
            )
        return disable_rematerialisation(layers)

    @contextlib.contextmanager
    def _further_pass(self) -> Iterator[None]:
        """Raises if a layer reads a trained variable, and so ignores the weights of the pass.

        It disables `keras.RematScope`: such layers would read the variables in the backward pass.
        """
        with disable_rematerialisation(list_all_layers(self)), tf.GradientTape() as tape:
            yield
        found = {id(variable) for variable in tape.watched_variables()}
        for weight in self.trainable_weights:
            if found & {id(v) for v in (weight.value, *getattr(weight.value, "values", ()))}:
                raise NotImplementedError(
                    f"The weight {weight.path!r} of the model is used by a tf.function that was "
                    "traced before training, such as a layer's own `call`, so the penalty cannot "
                    "take it at other values. Remove the tf.function, or use gradient='exact' "
                    "without penalty_batch_size and micro_batch_size."
                )

    def _apply_gradients(self, gradients: Sequence[Tensor]) -> None:
        """Applies one optimizer step."""
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Configures training; raises for options that Keras cannot combine with replicas."""
        super().compile(*args, **kwargs)
        if self._is_distributed:
            _check_arguments(self)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Tensor:
        """Returns the loss, a scalar even on a replica without examples."""
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        if not self._is_distributed:
            return loss
        for given in keras.tree.flatten(self.loss):
            _check_per_example(given, keras.tree.flatten(y)[0], keras.tree.flatten(y_pred)[0])
        return ops.sum(loss)

    def make_train_function(self, force: bool = False) -> Any:
        """Creates the function that trains on a batch."""
        if self.train_function is not None and not force:
            return self.train_function
        KERNELS.free_with(self)
        if not self._is_distributed:
            self.train_function = self._choose_on_host()
            return self.train_function
        self.train_function = replicas.run_on_replicas(
            self.distribute_strategy,
            self._choose_step_kind,
            [functools.partial(self._take_step_on_replica, kind) for kind in StepKind],
            self.get_metrics_result,
            self.run_eagerly,
        )
        return self.train_function

    def _choose_on_host(self) -> Callable[[Any], dict[str, Any]]:
        """Returns a function that trains on a batch from an iterator, plainly while alpha is 0.

        The plain and the penalised step are each traced on first use.
        """
        functions = {}
        for kind in (None, StepKind.NO_PENALTY):
            super().make_train_function(force=True)
            functions[kind] = self.train_function

        def train(iterator: Any) -> dict[str, Any]:
            self._kind = StepKind.NO_PENALTY if self._is_penalty_off else None
            try:
                return functions[self._kind](iterator)
            finally:
                self._kind = None

        return train

    def make_test_function(self, force: bool = False) -> Any:
        """Creates the function that evaluates a batch."""
        if not self._is_distributed:
            return super().make_test_function(force)
        if self.test_function is None or force:
            self.test_function = replicas.run_on_replicas(
                self.distribute_strategy,
                lambda: 0,
                [self.test_step],
                self.get_metrics_result,
                self.run_eagerly,
            )
        return self.test_function

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Builds metrics and optimizer before training.

        On one device, Keras leaves this to the first trace of the step, which TensorFlow then
        discards.
        """
        is_late = self.run_eagerly or not self._is_built_before_training
        if is_late and not self._is_distributed:
            super()._maybe_symbolic_build(iterator, data_batch)
            return
        if iterator is not None and not self._is_distributed:
            spec = iterator._distributed_dataset.element_spec
            # An omitted optional input has no shape.
            data_batch = keras.tree.map_structure(
                lambda s: s if hasattr(s, "shape") else None, spec
            )
        elif iterator is not None:
            dataset = iterator.data_adapter.get_tf_dataset()
            data_batch = replicas.take_first_part(self.distribute_strategy, dataset)
        with self.distribute_strategy.scope(), free_with_graphs():
            self._symbolic_build(data_batch=data_batch)


def _check_per_example(given: Any, y: Any, y_pred: Any) -> None:
    """Raises if a loss is a scalar, which Keras does not divide by the number of replicas."""
    loss = keras.losses.get(given)
    if isinstance(loss, keras.losses.Loss):
        y, y_pred = (ops.convert_to_tensor(part, dtype=loss.dtype) for part in (y, y_pred))
    compute = getattr(loss, "call", loss)
    if callable(compute) and not ops.shape(compute(y, y_pred)):
        raise ValueError(
            "`loss` must return a value for each example under tf.distribute. "
            f"Received: {given}, which returns a scalar"
        )


def _check_arguments(model: keras.Model) -> None:
    if type(model).train_step is not Trainer.train_step:
        raise ValueError(
            "`train_step` must be that of FisherPenaltyModel under tf.distribute, where replicas "
            f"take its steps together. Received: {type(model).__name__}, which overrides it"
        )
    refused = [
        ("steps_per_execution", model.steps_per_execution, 1),
        ("jit_compile", bool(model.jit_compile), False),
        *(
            (name, getattr(optimizer, name, None), None)
            for optimizer in list_optimizers(model.optimizer)
            for name in _OF_OPTIMIZERS
        ),
    ]
    for name, given, accepted in refused:
        if given != accepted:
            raise ValueError(
                f"`{name}` must be {accepted} under tf.distribute, where Keras fails with it or "
                f"behaves differently than on one device. Received: {name}={given}"
            )
    check_mean(model.loss, _MEANS, "as replicas may have parts of unequal size")
