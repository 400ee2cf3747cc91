"""What Keras's own `fit` lacks for a step that sums over replicas, on one machine or on several."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from keras_fisher import autodiff

_OF_OPTIMIZERS = ("gradient_accumulation_steps", "clipnorm", "clipvalue", "global_clipnorm")
_MEANS = ("sum_over_batch_size", "mean")


class DistributedModel(keras.Model, abc.ABC):
    """A model whose `fit` and `evaluate` run on one device and under strategies of tf.distribute.

    Under a strategy the choice between kinds of steps is made outside of the replicas, which then
    all take the same one; and metrics are read once for all replicas, as several machines need.
    """

    @abc.abstractmethod
    def _step_on_replicas(self) -> Any:
        """Which of `_steps_on_replicas` all replicas are to take now, an integer."""

    @abc.abstractmethod
    def _steps_on_replicas(self) -> Sequence[Callable[[Any], Any]]:
        """The kinds of training steps, each a function of a replica's part of a batch."""

    train_function: Any
    test_function: Any

    @property
    def _is_distributed(self) -> bool:
        return autodiff.is_distributed(self.distribute_strategy)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Configures training, without what Keras cannot do on replicas."""
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
    ) -> Any:
        """Returns the loss, a scalar even of a replica that has no examples."""
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        if not self._is_distributed:
            return loss
        is_function = callable(self.loss) and not isinstance(self.loss, keras.losses.Loss)
        if is_function and not ops.shape(self.loss(y, y_pred)):
            raise ValueError(
                "`loss` must return a value for each example under tf.distribute, or be a "
                f"keras.losses.Loss. Received: {self.loss}, which returns a scalar"
            )
        return ops.sum(loss)

    def make_train_function(self, force: bool = False) -> Any:
        """Makes what trains on a batch."""
        if not self._is_distributed:
            return super().make_train_function(force)
        if self.train_function is None or force:
            self.train_function = autodiff.on_replicas(
                self.distribute_strategy,
                self._step_on_replicas,
                self._steps_on_replicas(),
                self.get_metrics_result,
                self.run_eagerly,
            )
        return self.train_function

    def make_test_function(self, force: bool = False) -> Any:
        """Makes what evaluates a batch."""
        if not self._is_distributed:
            return super().make_test_function(force)
        if self.test_function is None or force:
            self.test_function = autodiff.on_replicas(
                self.distribute_strategy,
                lambda: 0,
                [self.test_step],
                self.get_metrics_result,
                self.run_eagerly,
            )
        return self.test_function

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        if not self._is_distributed:
            super()._maybe_symbolic_build(iterator, data_batch)
            return
        if iterator is not None:
            dataset = iterator.data_adapter.get_tf_dataset()
            data_batch = autodiff.first_part(self.distribute_strategy, dataset)
        with self.distribute_strategy.scope():
            self._symbolic_build(data_batch=data_batch)


def _check_arguments(model: keras.Model) -> None:
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)  # of a loss scale
    refused = {
        "steps_per_execution": (model.steps_per_execution, 1),
        "jit_compile": (bool(model.jit_compile), False),
        **{name: (getattr(optimizer, name, None), None) for name in _OF_OPTIMIZERS},
    }
    for name, (given, accepted) in refused.items():
        if given != accepted:
            raise ValueError(
                f"`{name}` must be {accepted} under tf.distribute, where Keras fails with it or "
                f"does something else than on one device. Received: {name}={given}"
            )
    reduction = getattr(model.loss, "reduction", _MEANS[0])
    if reduction not in _MEANS:
        raise ValueError(
            "`loss` must be a mean over the batch (reduction='sum_over_batch_size') under "
            f"tf.distribute, where replicas may have parts of unequal size. Received: "
            f"reduction={reduction!r}"
        )
