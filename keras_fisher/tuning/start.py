"""A starting range for alpha, from the gradients of the penalty and of the loss."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_fisher import backend, penalties
from keras_fisher.backend.types import Replica, Tensor
from keras_fisher.likelihoods import Likelihood
from keras_fisher.model import FisherPenaltyModel
from keras_fisher.penalties import Penalty
from keras_fisher.traces.data import Batch, check_data, length, minibatches
from keras_fisher.traces.labels import Labels
from keras_fisher.traces.meter import Meter, get_backbone
from keras_fisher.traces.per_example.forward import leave_unchanged
from keras_fisher.training.batch import FloatingInputs, MeanNll, take_smaller
from keras_fisher.training.labels import BatchLabels
from keras_fisher.tuning import grids
from keras_fisher.utils import arguments
from keras_fisher.utils.batches import count_examples

# The alpha to start from, as a share of the one at which both gradients have the same norm.
_SHARE = 0.2


class AlphaRange(NamedTuple):
    """A range of alphas to search.

    Attributes:
        alphas: The values, in ascending order.
        value: The middle of the range, v.
        balance: The alpha at which alpha times the gradient of the penalty has the norm of the
            gradient of the loss, the mean over mini-batches.
        stderr: The standard error of `balance`.
    """

    alphas: tuple[float, ...]
    value: float
    balance: float
    stderr: float


def alpha_range(
    model: keras.Model,
    data: Any,
    *,
    penalty: str | Penalty | None = None,
    num: int = 10,
    num_batches: int = 8,
    batch_size: int = 128,
    likelihood: Likelihood | None = None,
    seed: int | None = None,
) -> AlphaRange:
    """Proposes alphas to search, from the norm of the penalty's gradient in a few mini-batches.

    The penalty begins to dominate training at the alpha where alpha times its gradient has the norm
    of the gradient of the loss,

        ||d/dw (1/B) sum_i l(x_i, y_i)|| / ||d/dw P||,

    where P is the penalised squared norm (eq. 3), and the loss is the compiled one, with sample
    weights and regularisers. Both are taken in training mode, as in a step of training. The
    proposed range is centred on a fifth of this alpha.

    Measure on the plain model, once its training loss has fallen by about a tenth. At the initial
    weights the penalty's gradient may be ten times smaller, and near the maximum of Tr(F) it is
    much larger. The range gives the scale of alpha for an unusual loss or penalty. It does not
    account for generalisation. In `docs/results.md` the best alphas for the default `update_freq`
    are near its middle. For a penalty at every step they are about ten times the middle with SGD,
    and hundreds of times with Adam. Use `find_alpha` to find them.

    A `FisherPenaltyModel` with an integer `penalty_batch_size` n has a penalty about B / n times as
    large as on the whole batch of B examples. For such a model the alphas are multiplied by n / B.

    Examples:
        >>> import keras, numpy as np, keras_fisher as kf
        >>> keras.utils.set_random_seed(0)
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        >>> model.compile(keras.optimizers.SGD(0.1), loss)
        >>> x, y = np.random.rand(64, 4), np.random.randint(0, 3, 64)
        >>> history = model.fit(x, y, epochs=2, verbose=0)
        >>> found = kf.tuning.alpha_range(model, (x, y), num_batches=4, batch_size=16, seed=0)
        >>> len(found.alphas), found.alphas[0] < found.value < found.alphas[-1]
        (10, True)

    Args:
        model: A Keras model with one output; it may be uncompiled, or a `FisherPenaltyModel`. The
            loss of an uncompiled model is the mean negative log-likelihood.
        data: Arrays `(x, y)`, or a dataset of such batches (`tf.data.Dataset`,
            `keras.utils.PyDataset` or torch `DataLoader`), with at least `num_batches`
            mini-batches. The first ones are taken, so shuffle data that are sorted, for example by
            class.
        penalty: The penalty, as in `FisherPenaltyModel`; `None` for that of `model`, or "fp" if it
            has none.
        num: The number of alphas to propose.
        num_batches: The number of mini-batches to measure on.
        batch_size: The mini-batch size for arrays, as in training.
        likelihood: The model's likelihood; `None` infers it from the compiled loss.
        seed: The seed of drawn labels; `None` for a random one.

    Returns:
        An `AlphaRange`.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if `data` holds too few mini-batches or no labels, the model has no known
            likelihood, or the gradient of the penalty or of the loss is 0 or not finite.
    """
    arguments.check_integer("num", num, low=2)
    arguments.check_integer("num_batches", num_batches, low=1)
    arguments.check_integer("batch_size", batch_size, low=1)
    is_penalised = isinstance(model, FisherPenaltyModel)
    if penalty is None:
        penalty = model.penalty if is_penalised else "fp"
    size = model.penalty_batch_size if is_penalised else None
    meter = BalanceMeter(
        model,
        penalty=penalty,
        penalty_batch_size=size if isinstance(size, int) else None,
        likelihood=likelihood,
        seed=seed,
    )
    check_data(data, 1, batch_size, needs_labels=True)
    if isinstance(data, tuple | list) and length(data[0]) < num_batches * batch_size:
        raise _make_too_few_error(num_batches, length(data[0]) // batch_size)
    balance = meter(_take_first(minibatches(data, None, batch_size), num_batches))
    if not 0.0 < balance.value < np.inf:
        raise ValueError(
            "The gradients of `penalty` and of the loss on `data` must be finite and not 0. "
            f"Received: penalty={penalty!r}, with a ratio of {balance.value:g}"
        )
    value = _SHARE * balance.value
    return AlphaRange(grids.alphas(value, num), value, balance.value, balance.stderr)


def _take_first(batches: Iterator[Batch], num_batches: int) -> Iterator[Batch]:
    """Yields the first mini-batches; raises if there are fewer."""
    found = 0
    for batch in itertools.islice(batches, num_batches):
        found += 1
        yield batch
    if found < num_batches:
        raise _make_too_few_error(num_batches, found)


def _make_too_few_error(num_batches: int, found: int) -> ValueError:
    return ValueError(
        "`num_batches` must be at most the number of mini-batches in `data`. "
        f"Received: num_batches={num_batches} and {found} mini-batches. Give fewer, or "
        "set `batch_size` to that of your training"
    )


class BalanceMeter(Meter):
    """Measures the alpha at which the gradients of penalty and loss have the same norm."""

    def __init__(
        self,
        model: keras.Model,
        *,
        penalty: str | Penalty = "fp",
        penalty_batch_size: int | None = None,
        likelihood: Likelihood | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(model, likelihood)
        self._penalty, self._penalty_batch_size = penalties.get(penalty), penalty_batch_size
        self._generator = keras.random.SeedGenerator(arguments.check_seed(seed))

    def _compile(self) -> None:
        self._balance = backend.compile_function(self._batch_balance)

    def _prepare(self, batch: Batch) -> tuple[Any, Any]:
        """Returns the inputs, and the labels of the penalty with the data of the loss."""
        x, labels = super()._prepare(batch)
        y, weight = (
            () if part is None else keras.tree.map_structure(ops.convert_to_tensor, part)
            for part in batch[1:]
        )
        return x, (labels, y, weight)

    def _measure(self, batches: Iterator[Any], by_weight: bool) -> np.ndarray:
        found = [self._balance(x, *labels) for x, labels in batches]
        return np.stack([ops.convert_to_numpy(balance)[None] for balance in found])

    def _training_loss(
        self, x: Any, y: Any, outputs: Tensor, weight: Any, labels: Labels
    ) -> Tensor:
        if not self._model.compiled:
            return self._likelihood.mean_nll(labels.y, outputs, labels.present)
        weight = None if isinstance(weight, tuple) else weight
        return self._model.compute_loss(x=x, y=y, y_pred=outputs, sample_weight=weight)

    def _batch_balance(self, x: Any, labels: Labels, y: Any, weight: Any) -> Tensor:
        inputs, size = FloatingInputs(x), count_examples(x)
        held = BatchLabels(
            self._likelihood, self._penalty, labels.y, self._generator, labels.present
        )
        mean = MeanNll(size, Replica(size))

        def objective(_: Sequence[Tensor], floating: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
            given = inputs.replace(floating)
            backbone = get_backbone(self._model)
            # In a scope, Keras takes the weights of regularisers from its values.
            values = [(w, ops.convert_to_tensor(w)) for w in self._model.trainable_weights]
            with leave_unchanged(backbone, values, collect_losses=True):
                outputs = backbone(given, training=True)
                loss = self._training_loss(given, y, outputs, weight, labels)
            return loss, mean(*held.nll(outputs))

        weights = self._model.trainable_weights
        wrt = inputs.list_tensors() if self._penalty.wrt == "inputs" else None
        found = backend.differentiate_penalty(objective, weights, wrt)
        assert found.of_loss is not None
        balance = ops.sqrt(
            backend.squared_norm(found.of_loss) / backend.squared_norm(found.of_penalty)
        )
        if self._penalty_batch_size is None:
            return balance
        part = take_smaller(self._penalty_batch_size, size)
        return balance * ops.cast(part, balance.dtype) / ops.cast(size, balance.dtype)
