"""Re-estimation of batch-normalisation statistics before each evaluation."""

from __future__ import annotations

import collections
import contextlib
import functools
import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_fisher import backend
from keras_fisher.backend.private_api.keras import list_all_layers, list_torch_modules
from keras_fisher.backend.types import Tensor
from keras_fisher.callbacks._log_writer import CopyableCallback
from keras_fisher.traces import check_data
from keras_fisher.traces.data import length, minibatches
from keras_fisher.traces.meter import get_backbone
from keras_fisher.utils import arguments
from keras_fisher.utils.stateless import Stateless


class BatchNormRecalibration(CopyableCallback):
    """Re-estimates the statistics of batch normalisation before each evaluation.

    The moving mean and variance of each layer become the averages of the mini-batch mean and
    variance in training mode, over the first `num_batches` mini-batches of training data, at the
    current weights. Appendix G.2 does this for testing, with 100 batches. Moving averages instead
    mix in the statistics of earlier weights. A layer that is called several times, as in a
    siamese network, averages over its calls.

    It acts at the beginning of each evaluation: validation within `fit`, and
    `model.evaluate(..., callbacks=[...])`. All other variables, including the states of random
    generators, stay unchanged, and so do frozen layers. If the model has no layer to recalibrate,
    or keeps the running statistics of a PyTorch module, the callback warns once.

    Examples:
        >>> import keras, numpy as np, keras_fisher as kf
        >>> keras.utils.set_random_seed(0)
        >>> x, y = np.random.rand(64, 4), np.random.randint(0, 3, 64)
        >>> norm = keras.layers.BatchNormalization()
        >>> model = keras.Sequential([keras.Input((4,)), norm, keras.layers.Dense(3)])
        >>> model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        >>> fresh = kf.callbacks.BatchNormRecalibration((x, y), batch_size=64)
        >>> loss = model.evaluate(x, y, callbacks=[fresh], verbose=0)
        >>> np.allclose(norm.moving_mean, x.mean(axis=0))
        True

    Args:
        data: Training data: arrays `(x,)` or `(x, y)`, or a dataset of such batches
            (`tf.data.Dataset`, `keras.utils.PyDataset` or torch `DataLoader`), which is read from
            its beginning each time. Labels are not used. Of arrays, it takes random examples, the
            same ones each time. A dataset must be shuffled: mini-batches of one class have other
            statistics than those of training.
        num_batches: The maximum number of mini-batches to average over. A smaller last mini-batch
            is dropped.
        batch_size: The mini-batch size for arrays; a dataset keeps its own.

    Raises:
        TypeError: if `data` or a number has the wrong type.
        ValueError: if `num_batches` or `batch_size` is below 1, or `data` is empty.
    """

    def __init__(self, data: Any, num_batches: int = 100, *, batch_size: int = 128) -> None:
        super().__init__()
        self.num_batches = arguments.check_integer("num_batches", num_batches, low=1)
        self.batch_size = batch_size
        check_data(data, 1, batch_size, needs_labels=False)
        is_array = isinstance(data, tuple | list)
        self._data = _draw_examples(data, num_batches * batch_size) if is_array else data
        self._pass: _TrainingPass | None = None
        self._has_warned = False

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_pass": None}

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        self._pass = None  # It is compiled for one model.

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        layers = _batch_norms(self.model)
        if not self._has_warned:
            for message in _list_limits(self.model, layers):
                self._has_warned = True
                warnings.warn(message, stacklevel=2)
        if layers:
            self._recalibrate(layers)

    def _recalibrate(self, layers: Sequence[keras.layers.BatchNormalization]) -> None:
        if self._pass is None:
            self._pass = _TrainingPass(get_backbone(self.model))
        statistics = [v for layer in layers for v in (layer.moving_mean, layer.moving_variance)]
        batches = minibatches(self._data, None, self.batch_size)
        with _average_calls(layers, self._pass.calls):
            states = self._pass(x for x, *_ in itertools.islice(batches, self.num_batches))
            seen = [[ops.convert_to_numpy(state[id(v)]) for v in statistics] for state in states]
        for variable, values in zip(statistics, zip(*seen, strict=True), strict=True):
            variable.assign(np.mean(values, axis=0, dtype="float64"))


def _batch_norms(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    # `model.layers` does not list the layers inside layers and backbones.
    return [
        layer
        for layer in list_all_layers(model)
        if isinstance(layer, keras.layers.BatchNormalization) and layer.built and layer.trainable
    ]


def _list_limits(
    model: keras.Model, layers: Sequence[keras.layers.BatchNormalization]
) -> Iterator[str]:
    """Yields a message for each thing that the callback leaves as it is."""
    if not layers:
        yield (
            "BatchNormRecalibration has no effect: "
            f"{model.name!r} has no trainable BatchNormalization layer"
        )
    for wrapper in list_torch_modules(model):
        if any(name.endswith("running_mean") for name, _ in wrapper.module.named_buffers()):
            yield (
                "BatchNormRecalibration keeps the running statistics of torch modules: it "
                f"recalibrates layers of Keras only. Received: the layer {wrapper.name!r}"
            )


def _draw_examples(arrays: Sequence[Any], number: int) -> tuple[Any]:
    """Returns random examples of x: arrays may be sorted by class, which `fit` shuffles."""
    x = arrays[0]
    rows = np.random.default_rng(0).permutation(length(x))[:number]

    def take(array: Any) -> np.ndarray | None:
        return None if array is None else ops.convert_to_numpy(array)[rows]

    return (keras.tree.map_structure(take, x),)


class _TrainingPass:
    """Runs forward passes in training mode that leave the model unchanged."""

    def __init__(self, model: keras.Model) -> None:
        self._model = model
        self._variables = model.non_trainable_variables
        self._compiled = backend.compile_function(self._step)
        self.calls: collections.Counter[int] = collections.Counter()  # of layers by id, in a pass

    def __call__(self, inputs: Iterable[Any]) -> Iterator[dict[int, Tensor]]:
        """Yields the variables' values by id after each pass, from which the next pass starts."""
        state = [ops.copy(v) for v in self._variables]
        for x in inputs:
            state = self._compiled(state, x)
            yield dict(zip(map(id, self._variables), state, strict=True))

    def _step(self, state: Sequence[Tensor], x: Any) -> list[Tensor]:
        self.calls.clear()
        # A compiled function treats the first axis of every argument as the batch axis.
        state = [ops.reshape(s, v.shape) for s, v in zip(state, self._variables, strict=True)]
        scope = Stateless(zip(self._variables, state, strict=True))
        with scope, backend.keep_modules(self._model):
            self._model(x, training=True)
        return [scope.get_current_value(v) for v in self._variables]


@contextlib.contextmanager
def _average_calls(
    layers: Sequence[keras.layers.BatchNormalization], calls: collections.Counter[int]
) -> Iterator[None]:
    """Replaces moving averages by means over a layer's calls on the latest mini-batch."""
    momenta = [layer.momentum for layer in layers]

    def count_call(
        layer: keras.layers.BatchNormalization,
        call: Callable[..., Tensor],
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        layer.momentum = calls[id(layer)] / (calls[id(layer)] + 1)  # 0, 1/2, 2/3, ...
        calls[id(layer)] += 1
        return call(*args, **kwargs)

    try:
        for layer in layers:
            layer.call = functools.partial(count_call, layer, layer.call)
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            del layer.call  # the method of its class is left
            layer.momentum = momentum
