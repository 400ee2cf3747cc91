"""What a model provides to the backend's trainer and to `PenalisedStep`."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Sequence
from typing import Any

import keras
from keras import ops

from keras_fisher import backend
from keras_fisher.backend.finite_difference import find_precision
from keras_fisher.backend.private_api.keras import list_all_layers
from keras_fisher.backend.types import Replica, StepKind, Tensor, Values
from keras_fisher.training import model_checks
from keras_fisher.training.health import StepHealth
from keras_fisher.training.labels import LabelSeedGenerator, check_labels_in_graph
from keras_fisher.training.state import PenaltyState
from keras_fisher.training.step import PenalisedStep
from keras_fisher.training.wrapper import BackboneWrapper
from keras_fisher.utils.batches import count_examples
from keras_fisher.utils.labels import fill_ignored_labels, get_labels
from keras_fisher.utils.stateless import Stateless


class PenalisedModel(BackboneWrapper):
    """Takes the steps of a model that minimises eq. 3.

    Attributes:
        likelihood: The likelihood whose gradient is penalised.
    """

    likelihood: Any
    _step: PenalisedStep
    _state: PenaltyState
    _health: StepHealth
    _label_seed: LabelSeedGenerator
    _evaluating = False  # whether `evaluate` or a validation runs
    # The ids of the weights that have been trained since `compile`.
    _trained_weights: tuple[int, ...] | None = None
    # The state of Python's generator before the pass of the loss.
    _python_state: tuple[Any, ...] | None = None

    def _take_step(
        self, data: Any, kind: StepKind | None = None, replica: Replica | None = None
    ) -> None:
        """Takes one optimisation step on eq. 3."""
        if not self.backbone.built:
            self(keras.utils.unpack_x_y_sample_weight(data)[0], training=False)
        # A branch of the traced step cannot create variables.
        model_checks.check_trainable(self.backbone)
        self._check_trained_weights()
        self._trained_weights = tuple(map(id, self.trainable_weights))
        self._state.allocate(self.trainable_weights)
        if not self.optimizer.built:
            self.optimizer.build(self.trainable_weights)
        self._is_taking_step = True
        try:
            self._step.take(data, kind, replica)
        finally:
            self._is_taking_step = False

    def _check_trained_weights(self) -> None:
        """Raises if other weights are trainable than at the steps since `compile`."""
        weights = tuple(map(id, self.trainable_weights))
        if self._trained_weights not in (None, weights):
            raise ValueError(
                "Call `compile` again after changing which weights are trainable (by freezing, "
                f"unfreezing, quantizing or adapting layers). Received: {len(weights)} trainable "
                f"weights that differ from the {len(self._trained_weights)} trained so far"
            )

    @property
    def _is_penalty_off(self) -> bool:
        return self._state.is_off

    def _choose_step_kind(self) -> Tensor:
        return self._step.choose_kind()

    def _compute_training_loss(
        self, x: Any, y: Any, sample_weight: Any, replica: Replica
    ) -> tuple[Tensor, Tensor]:
        """Returns the loss to differentiate and the outputs; updates the metrics.

        On several replicas the losses add up to the mean over all examples.
        """
        self._python_state = random.getstate()
        y_pred = self(x, training=True)
        loss = self.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight)
        loss = replica.restore_mean(loss)
        tracker = next(metric for metric in self.metrics if metric.name == "loss")
        tracker.update_state(loss, sample_weight=count_examples(x))
        self.compute_metrics(x, y, y_pred, sample_weight=sample_weight)
        loss = replica.add_up(loss)
        self._health.observe(loss, y_pred, replica)
        return self.optimizer.scale_loss(loss), y_pred

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Tensor:
        """Returns the plain loss; a label outside the classes fails the step.

        Under XLA, which has no assertions, the loss of such a label is NaN instead.
        """
        model_checks.check_labelled(y)
        bound = self.likelihood.class_bound(get_labels(y), y_pred)
        labels = check_labels_in_graph(self.likelihood, y, y_pred)
        loss = super().compute_loss(x, labels, y_pred, sample_weight, training)
        if bound is None:
            return loss
        values = fill_ignored_labels(self.likelihood, get_labels(y))
        return backend.nan_unless_below(loss, values, bound)

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, Any]:
        """Updates the metrics, after checking that the batch has labels."""
        model_checks.check_labelled(y)
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def _call_at(self, weights: Sequence[Tensor], others: Values, x: Any) -> Tensor:
        """Returns the training-mode outputs at other variable values; changes no variable."""
        values = [*zip(self.trainable_weights, weights, strict=True), *others]
        scope = Stateless(values, fixed=self._assigned_before_replay)
        with self._further_pass(), scope, self._replay_python_draws():
            return self(x, training=True)

    @contextlib.contextmanager
    def _replay_python_draws(self) -> Iterator[None]:
        """Repeats what layers such as `AugMix` draw with Python's `random`."""
        state = random.getstate()
        random.setstate(self._python_state or state)
        try:
            yield
        finally:
            random.setstate(state)

    @property
    def _precision(self) -> str:
        # A loaded model has another policy than its layers.
        return find_precision(layer.compute_dtype for layer in list_all_layers(self.backbone))

    @property
    def _statistics(self) -> list[keras.Variable]:
        return [*self.non_trainable_weights, *self.metrics_variables]

    @property
    def _is_built_before_training(self) -> bool:
        return self.backbone.built and not self._evaluating

    def _own_variables(self) -> list[keras.Variable]:
        return [*self._state.variables, *self._health.variables]

    def _random_states(self) -> list[keras.Variable]:
        """The states of all seed generators, dropout's included, which Keras does not save."""
        weights = {id(weight) for weight in self.weights}
        return [v for v in self._moved_variables if id(v) not in weights]

    @property
    def _draw_seeds(self) -> list[Tensor | keras.Variable]:
        return [*ops.convert_to_numpy(self._label_seed.state), self._state.step]
