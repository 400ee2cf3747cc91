"""One penalised optimisation step on eq. 3: from a batch to the gradients of loss and penalty.

`PenalisedStep.take` is the step. `_differentiate` computes the gradient of the loss, plus alpha
times the gradient of the penalty, which is kept between steps and recomputed when due.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import keras
from keras import ops

from keras_fisher import backend
from keras_fisher.backend.types import (
    MicroBatch,
    PenaltyGradients,
    Replica,
    StepKind,
    Tensor,
    Values,
)
from keras_fisher.likelihoods import Likelihood
from keras_fisher.penalties import Penalty
from keras_fisher.training.batch import (
    ConnectedWeights,
    FloatingInputs,
    MeanNll,
    MicroBatches,
    count_share,
    map_dense,
    take_smaller,
)
from keras_fisher.training.health import StepHealth
from keras_fisher.training.labels import (
    BatchLabels,
    LabelSeedGenerator,
    MicroBatchSeedGenerator,
    offset_seed,
)
from keras_fisher.training.state import PenaltyState
from keras_fisher.utils.batches import count_examples
from keras_fisher.utils.labels import get_labels
from keras_fisher.utils.masks import find_data


class Trainee(Protocol):
    """The interface of a model to a step; its private members are internal to this package."""

    optimizer: keras.optimizers.Optimizer
    likelihood: Likelihood
    weights: list[keras.Variable]
    trainable_weights: list[keras.Variable]

    @property
    def _replayed_variables(self) -> list[keras.Variable]:
        """Variables that are restored before a further forward pass, such as seeds."""

    @property
    def _precision(self) -> str:
        """The coarsest dtype that its layers compute in."""

    @property
    def _statistics(self) -> list[keras.Variable]:
        """Variables that a skipped step leaves unchanged: statistics of layers, metrics."""

    def _compute_training_loss(
        self, x: Any, y: Any, sample_weight: Any, replica: Replica
    ) -> tuple[Tensor, Tensor]:
        """Returns the loss, scaled by the optimizer, and the outputs of a forward pass."""

    def _call_at(self, weights: Sequence[Tensor], others: Values, x: Any) -> Tensor:
        """Returns the outputs at other variable values; changes no variable."""

    def _pass_differentiated_twice(self) -> contextlib.AbstractContextManager[Any]:
        """A context for the forward pass of the loss, if it is differentiated twice."""

    def _apply_gradients(self, gradients: Sequence[Tensor | None]) -> None:
        """Applies one optimizer step."""


@dataclasses.dataclass(frozen=True)
class PenaltySettings:
    """The penalty and how to differentiate it, as in `FisherPenaltyModel`."""

    penalty: Penalty
    penalty_batch_size: int | float | None
    micro_batch_size: int | None
    gradient: str

    @property
    def shares_forward_pass(self) -> bool:
        """Whether the penalty uses the forward pass of the loss."""
        return self.penalty_batch_size is None and self.micro_batch_size is None

    @property
    def is_by_inputs(self) -> bool:
        """Whether the gradient is taken with respect to the inputs."""
        return self.penalty.wrt == "inputs"


class Batch(NamedTuple):
    """A replica's part of a mini-batch."""

    x: Any
    y: Any
    sample_weight: Any
    replica: Replica

    @classmethod
    def unpack(cls, data: Any, replica: Replica | None = None) -> Batch:
        """Creates a batch from the output of Keras's data adapters."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        return cls(x, y, sample_weight, replica or Replica(count_examples(x)))


class PenalisedStep:
    """Takes the steps of a model.

    Args:
        model: The model to train.
        settings: The penalty and how to differentiate it.
        state: The state that is kept between steps.
        health: The record of failed steps.
        label_seed: The generator of seeds for drawn labels.
    """

    def __init__(
        self,
        model: Trainee,
        settings: PenaltySettings,
        state: PenaltyState,
        health: StepHealth,
        label_seed: LabelSeedGenerator,
    ) -> None:
        self._model, self._settings, self._state, self._health = model, settings, state, health
        self._label_seed = label_seed

    # ---- The kind of step --------------------------------------------------------------------

    def take(self, data: Any, kind: StepKind | None = None, replica: Replica | None = None) -> None:
        """Takes a step on a mini-batch; with alpha 0, the plain step of Keras.

        Args:
            data: The mini-batch, or a replica's part of it.
            kind: The kind of step; `None` to choose it on the device, from the variables.
            replica: The replica; the optimizer sums gradients over replicas. `None` for one device.
        """
        if replica is None:  # otherwise `choose_kind` has done this for all replicas
            self._state.follow_schedule()
        statistics = self._model._statistics if self._health.skips else []
        before = [(variable, ops.copy(variable)) for variable in statistics]
        batch = Batch.unpack(data, replica)
        self._state.see_batch(batch.replica.total)
        gradients = self._differentiate(batch, kind)
        if self._scales_dynamically:
            gradients = batch.replica.align_non_finite(gradients)
        self._apply(gradients)
        is_finite = self._health.record_step(self._state, self._scales_dynamically)
        for variable, value in before:
            variable.assign(ops.where(is_finite, ops.convert_to_tensor(variable), value))
        self._state.count_step()

    def choose_kind(self) -> Tensor:
        """Sets alpha from its schedule, and returns the `StepKind` of the next step, a scalar."""
        self._state.follow_schedule()
        none, kept, new = (kind.value for kind in StepKind)
        penalised = ops.where(self._state.is_due(), new, kept)
        return ops.where(self._state.alpha > 0.0, penalised, none)

    # ---- Gradients ---------------------------------------------------------------------------

    def _differentiate(self, batch: Batch, kind: StepKind | None) -> list[Tensor | None]:
        """Returns the gradient of eq. 3; recomputes its second term when due."""
        if kind is None:
            is_penalised = self._state.alpha > 0.0
            is_new = ops.logical_and(is_penalised, self._state.is_due())
        else:
            is_penalised, is_new = kind != StepKind.NO_PENALTY, kind == StepKind.NEW_PENALTY
        connected = ConnectedWeights()
        together = self._settings.shares_forward_pass
        differentiate = (
            self._differentiate_in_one_pass if together else self._differentiate_in_two_passes
        )
        of_loss = batch.replica.zero_without_examples(differentiate(batch, is_new, connected))
        backend.cond(is_new, lambda: self._measure_balance(of_loss, batch.replica), lambda: None)
        gradients = backend.cond(
            is_penalised,
            lambda: self._add_penalty(of_loss, connected.indices, batch.replica.count),
            lambda: of_loss,
        )
        return connected.restore(gradients)

    def _differentiate_in_one_pass(
        self, batch: Batch, is_new: Tensor | bool, connected: ConnectedWeights
    ) -> list[Tensor]:
        """Returns the gradient of the loss; a new penalty uses the same forward pass."""
        return backend.cond(
            is_new,
            lambda: connected.select(self._renew_penalty_with_loss(batch)),
            lambda: connected.select(self._differentiate_loss(batch)),
        )

    def _differentiate_in_two_passes(
        self, batch: Batch, is_new: Tensor | bool, connected: ConnectedWeights
    ) -> list[Tensor]:
        """Returns the gradient of the loss; a new penalty uses a separate forward pass."""
        replayed = self._copy_replayed()
        gradients = self._differentiate_loss(batch)
        backend.cond(
            is_new,
            lambda: self._state.keep(self._penalise_first_examples(batch, replayed)),
            lambda: None,
        )
        return connected.select(gradients)

    def _differentiate_loss(self, batch: Batch) -> list[Tensor | None]:
        """Returns the gradient of the plain loss."""
        return backend.differentiate(
            lambda: self._model._compute_training_loss(*batch)[0], self._model.trainable_weights
        )

    def _renew_penalty_with_loss(self, batch: Batch) -> list[Tensor | None]:
        """Returns the gradient of the plain loss, and keeps the gradient of the penalty."""
        is_exact = self._settings.gradient == "exact"

        def evaluate(_: Sequence[Tensor], x: Any) -> tuple[Tensor, Tensor]:
            twice = self._model._pass_differentiated_twice
            with twice() if is_exact else contextlib.nullcontext():
                return self._model._compute_training_loss(x, *batch[1:])

        replayed = self._copy_replayed()
        found = self._penalise_at_once(
            batch.x,
            self._make_labels(batch.y, self._find_data(batch), self._label_seed),
            replayed,
            evaluate,
            self._model.trainable_weights,
            batch.replica,
        )
        self._state.keep(found)
        assert found.of_loss is not None
        return found.of_loss

    def _copy_replayed(self) -> Values:
        """Copies the variables that a forward pass changes: seeds (of dropout), statistics."""
        return [(v, ops.copy(v)) for v in self._model._replayed_variables]

    def _find_data(self, batch: Batch) -> Tensor | None:
        """Returns a mask of the data in the batch, as opposed to padding; `None` for all."""
        return find_data(self._model.likelihood, get_labels(batch.y), batch.sample_weight)

    def _penalise_first_examples(self, batch: Batch, replayed: Values) -> PenaltyGradients:
        """Differentiates the penalty on the first examples, in a separate forward pass."""
        size, replica = self._take_first(batch.replica, count_examples(batch.x))
        x, y, where = map_dense(
            lambda t: t[:size], (batch.x, get_labels(batch.y), self._find_data(batch))
        )
        weights = [ops.copy(variable) for variable in self._model.trainable_weights]
        if self._settings.micro_batch_size is not None:
            return self._penalise_in_micro_batches((x, y, where), replayed, weights, replica)
        return self._penalise_at_once(
            x,
            self._make_labels(y, where, self._label_seed),
            replayed,
            lambda at, inputs: (None, self._model._call_at(at, replayed, inputs)),
            weights,
            replica,
        )

    def _take_first(self, replica: Replica, examples: int | Tensor) -> tuple[int | Tensor, Replica]:
        """Returns the number of examples to penalise here, and a replica of these."""
        size = self._settings.penalty_batch_size
        if size is None:
            return examples, replica
        # A share of this batch, as XLA does not know the size of a full one; `MeanNll` corrects.
        if isinstance(size, float):
            return replica.take_first(count_share(replica.total, size))
        return replica.take_first(take_smaller(size, replica.total))

    def _penalise_at_once(
        self,
        x: Any,
        labels: BatchLabels,
        replayed: Values,
        evaluate: Callable[[Sequence[Tensor], Any], tuple[Tensor | None, Tensor]],
        weights: Sequence[Tensor],
        replica: Replica,
    ) -> PenaltyGradients:
        """Differentiates the penalty on all of `x`; `evaluate` returns the loss and outputs."""
        inputs, mean = FloatingInputs(x), self._make_mean(replica)
        arguments = (
            weights,
            inputs.list_tensors() if self._settings.is_by_inputs else None,
            self._find_loss_scale(),
        )

        def objective(
            at: Sequence[Tensor], at_inputs: Sequence[Tensor]
        ) -> tuple[Tensor | None, Tensor]:
            loss, outputs = evaluate(at, inputs.replace(at_inputs))
            return loss, mean(*labels.nll(outputs))

        def shifted_nll(at: Sequence[Tensor], at_inputs: Sequence[Tensor]) -> Tensor:
            outputs = self._model._call_at(at, replayed, inputs.replace(at_inputs))
            return mean(*labels.nll(outputs))

        if self._settings.gradient == "exact":
            return backend.differentiate_penalty(objective, *arguments, replica)
        return backend.differentiate_penalty_by_difference(
            objective, shifted_nll, *arguments, self._model._precision, replica
        )

    def _penalise_in_micro_batches(
        self,
        examples: tuple[Any, Tensor | None, Tensor | None],
        replayed: Values,
        weights: Sequence[Tensor],
        replica: Replica,
    ) -> PenaltyGradients:
        """Differentiates the penalty on (x, y, data mask), one micro-batch at a time."""
        assert self._settings.micro_batch_size is not None
        parts = MicroBatches(count_examples(examples[0]), self._settings.micro_batch_size)
        statistics = {id(weight) for weight in self._model.weights}
        seed = self._label_seed.next()

        def make_part(index: Tensor) -> MicroBatch:
            own = [
                (v, value if id(v) in statistics else offset_seed(value, index))
                for v, value in replayed
            ]
            x, y, where = parts.take(index, examples)
            inputs = FloatingInputs(x)
            labels = self._make_labels(y, where, MicroBatchSeedGenerator(seed, index))
            fractions: Any = None

            def nll(at: Sequence[Tensor], at_inputs: Sequence[Tensor]) -> Tensor:
                nonlocal fractions
                outputs = self._model._call_at(at, own, inputs.replace(at_inputs))
                values, found = labels.nll(outputs)
                if fractions is None:  # kept for further passes, like labels
                    fractions = ops.ones_like(values) if found is None else found
                return replica.add_up(parts.mean(index, values))

            def count_data() -> list[Tensor]:
                with_data = ops.cast(fractions > 0, fractions.dtype)
                return [parts.sum(index, fractions), parts.sum(index, with_data)]

            return MicroBatch(
                nll, count_data, inputs.list_tensors() if self._settings.is_by_inputs else None
            )

        return backend.differentiate_penalty_in_parts(
            make_part,
            parts.count,
            weights,
            self._make_mean(replica).scale,
            wrt_inputs=self._settings.is_by_inputs,
            exact=self._settings.gradient == "exact",
            scale=self._find_loss_scale(),
            precision=self._model._precision,
            replica=replica,
        )

    def _make_labels(
        self, y: Tensor | None, where: Tensor | None, seed: keras.random.SeedGenerator
    ) -> BatchLabels:
        return BatchLabels(self._model.likelihood, self._settings.penalty, y, seed, where)

    def _make_mean(self, replica: Replica) -> MeanNll:
        """Returns a mean over these examples with the same expected penalty as a full batch."""
        full = ops.convert_to_tensor(self._state.full_size)
        if isinstance(self._settings.penalty_batch_size, int):
            full = take_smaller(self._settings.penalty_batch_size, full)
        return MeanNll(full, replica)

    def _measure_balance(self, of_loss: Sequence[Tensor], replica: Replica) -> None:
        """Compares the new gradient of the penalty with that of the loss."""
        scale = self._find_loss_scale()
        norm = ops.sqrt(backend.squared_norm(replica.sum(of_loss)))
        norm = norm if scale is None else norm / ops.cast(scale, norm.dtype)
        self._state.balance.measure(norm, self._state.penalty_gradient_norm)

    # ---- The optimizer -----------------------------------------------------------------------

    def _add_penalty(
        self, gradients: Sequence[Tensor], indices: Sequence[int], replicas: int = 1
    ) -> list[Tensor]:
        """Adds alpha times the replica's share of the kept gradient, with the loss scale."""
        scale = self._find_loss_scale()
        alpha = self._state.balance.limit(ops.convert_to_tensor(self._state.alpha))
        factor = alpha * (1.0 if scale is None else scale)
        kept = [ops.convert_to_tensor(self._state.gradients[index]) for index in indices]
        return [
            g + ops.cast((ops.cast(factor, k.dtype) / replicas) * k, g.dtype)
            for g, k in zip(gradients, kept, strict=True)
        ]

    def _apply(self, gradients: Sequence[Tensor | None]) -> None:
        """Applies the gradients with the optimizer, unless the step is skipped."""

        def apply() -> None:
            self._model._apply_gradients(gradients)

        # A dynamic loss scale skips steps itself, and must see gradients that overflow.
        if self._health.skips and not self._scales_dynamically:
            is_finite = self._health.check_gradients(gradients, self._state)
            backend.cond(is_finite, apply, lambda: None)
        else:
            apply()

    def _find_loss_scale(self) -> Tensor | None:
        """Returns the loss scale that the optimizer expects in gradients; `None` for 1."""
        scale = self._model.optimizer.scale_loss(1.0)
        return None if isinstance(scale, float) and scale == 1.0 else ops.convert_to_tensor(scale)

    @property
    def _scales_dynamically(self) -> bool:
        return isinstance(self._model.optimizer, keras.optimizers.LossScaleOptimizer)
