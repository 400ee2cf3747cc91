"""The base class of meters, which measure a model on data and return an `Estimate`."""

from __future__ import annotations

import abc
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_fisher import backend, likelihoods
from keras_fisher.backend.private_api.keras import get_mask, list_all_layers, preserve_losses
from keras_fisher.backend.types import Tensor, Values
from keras_fisher.likelihoods import Likelihood, probability_checks
from keras_fisher.likelihoods.likelihood import check_likelihood
from keras_fisher.traces.data import Batch, check_data, length, minibatches
from keras_fisher.traces.estimate import Estimate, estimate
from keras_fisher.traces.half_precision import warn_of_rounding
from keras_fisher.traces.labels import LabelledBatch, Labels
from keras_fisher.traces.per_example import call_unchanged
from keras_fisher.traces.progress import show_progress
from keras_fisher.utils import arguments
from keras_fisher.utils.labels import check_classes, check_numbers, get_labels, get_symbolic_output
from keras_fisher.utils.masks import combine_masks, examples_with_data, find_data

_ONE_OUTPUT = (
    "Measure the part with one of them: of a functional model, "
    "keras.Model(model.inputs, model.outputs[0])."
)


class Meter(abc.ABC):
    """A measurement of one model, compiled on first use and then reused.

    Args:
        model: A Keras model with one output, wrapped or not.
        likelihood: The model's likelihood; `None` infers it from the compiled loss.

    Raises:
        TypeError: if `model` is not a Keras model or `likelihood` is not a `Likelihood`.
        ValueError: if the model has no known likelihood, or several outputs.
    """

    needs_labels = True
    """Whether the data must hold labels."""
    _generator: keras.random.SeedGenerator | None = None

    def __init__(self, model: keras.Model, likelihood: Likelihood | None = None) -> None:
        if not isinstance(model, keras.Model):
            raise TypeError(f"`model` must be a keras.Model. Received: {type(model).__name__}")
        outputs = getattr(model, "outputs", None)  # only functional models have them
        if outputs is not None and len(outputs) > 1:
            raise ValueError(
                f"`model` must have one output. Received: {model.name!r} with {len(outputs)}. "
                f"{_ONE_OUTPUT}"
            )
        self._model = model
        self._likelihood = _likelihood(model, likelihood)
        self._loss = None if likelihood is not None else getattr(model, "loss", None)
        self._known_outputs = find_outputs(model)
        backbone = get_backbone(model)
        self._unverified = probability_checks.find_unverified(self._likelihood, backbone)
        if likelihood is not None:
            probability_checks.warn_of_activation(likelihood, backbone)
        self._compiled_for: list[int] = []
        self._is_masked: bool | None = None
        self._any_data = backend.compile_function(self._batch_any_data)

    def __call__(
        self,
        data: Any,
        *,
        num_examples: int | None = None,
        batch_size: int = 128,
        by_layer: bool = False,
        verbose: bool = False,
    ) -> Estimate:
        """Measures over `data`; see the function of the same name for the arguments.

        With `verbose`, shows a progress bar after some seconds.
        """
        measured = self._measurements(data, num_examples, batch_size, by_layer, verbose)
        return estimate(measured, self._layers() if by_layer else None)

    def _measurements(
        self, data: Any, num_examples: int | None, batch_size: int, by_layer: bool, verbose: bool
    ) -> np.ndarray:
        """Checks the arguments and returns the measurements of `_measure`."""
        check_data(data, num_examples, batch_size, self.needs_labels)
        arguments.check_bool("by_layer", by_layer)
        if self._loss is not None and self._loss is not self._model.loss:
            raise ValueError(
                f"{type(self).__name__} must be made anew after `compile`. Received: a model with "
                f"the loss {self._model.loss!r} instead of {self._loss!r}"
            )
        backend.synchronise(self._model)
        self.check_labels(data)
        read = self._read(data, num_examples, batch_size)
        if verbose:
            total = length(data[0]) if isinstance(data, tuple | list) else None
            read = show_progress(read, num_examples or total)
        are_finite: list[Tensor] = []

        def prepare_all() -> Iterator[LabelledBatch]:
            for batch in read:
                x, y = self._prepare(batch)
                are_finite.extend(_are_finite(x))
                yield x, y

        try:
            with preserve_losses(self._model):
                measured = self._measure(prepare_all(), by_layer)
            # Some models accept non-finite inputs, so only a non-finite result is an error.
            if not np.isfinite(measured).all() and not all(map(bool, are_finite)):
                raise ValueError(
                    "`data` must hold finite inputs. Received: inputs that are NaN or infinite, "
                    "for which the result is NaN or infinite too"
                )
        except Exception as error:
            error.add_note(f"(While `model`, {self._model.name!r}, was measured on `data`.)")
            raise
        if not len(measured):
            raise ValueError("`data` must hold examples other than padding. Received: only padding")
        return measured

    def check_labels(self, data: Any) -> None:
        """Raises for arrays with labels that are not classes of the outputs, if these are known."""
        if self.needs_labels and isinstance(data, tuple | list):
            check_classes(self._likelihood, "data", data[1], self._known_outputs)

    def _layers(self) -> list[str]:
        """Returns the path of each trainable weight's layer.

        Layers of different models may have the same path; these are numbered.
        """
        owners: dict[
            int, int
        ] = {}  # layers come before those inside them, so the innermost is kept
        for layer in list_all_layers(self._model):
            owners |= {id(weight): id(layer) for weight in layer.trainable_weights}
        weights = self._model.trainable_weights
        keys = [(weight.path.rpartition("/")[0], owners[id(weight)]) for weight in weights]
        names: dict[tuple[str, int], str] = {}
        taken = {path for path, _ in keys}
        for path, owner in dict.fromkeys(keys):
            is_first = path not in names.values()
            numbered = (f"{path}_{n}" for n in itertools.count(1))
            names[path, owner] = path if is_first else next(n for n in numbered if n not in taken)
            taken.add(names[path, owner])
        return [names[key] for key in keys]

    @property
    def random_state(self) -> list[int]:
        """Generator state, for resuming; empty if the meter draws nothing."""
        if self._generator is None:
            return []
        return [int(number) for number in ops.convert_to_numpy(self._generator.state)]

    @random_state.setter
    def random_state(self, state: list[int]) -> None:
        if self._generator is not None:
            self._generator.state.assign(np.array(state, "uint32"))

    _read = staticmethod(minibatches)

    @abc.abstractmethod
    def _compile(self) -> None:
        """Compiles the functions that depend on which weights are trainable."""

    @abc.abstractmethod
    def _measure(self, batches: Iterator[LabelledBatch], by_weight: bool) -> np.ndarray:
        """Returns the measurements, shape `(measurements, parts)`.

        A measurement is the sum of its parts. With `by_weight` there is one part for each
        trainable weight; otherwise there may be fewer.
        """

    def _outputs(self, x: Any, values: Values = ()) -> Tensor:
        outputs = call_unchanged(self._model, x, training=False, values=values)
        if isinstance(outputs, list | tuple | dict):
            raise ValueError(
                f"`model` must have one output, a tensor. Received: {self._model.name!r}, "
                f"which returned a {type(outputs).__name__} of {len(outputs)}. {_ONE_OUTPUT}"
            )
        warn_of_rounding(self._model, outputs)
        return outputs

    def _prepare(self, batch: Batch) -> LabelledBatch:
        """Returns the batch as checked tensors; builds and compiles the model as needed."""
        x, y = batch[0], get_labels(batch[1])
        if y is None and self.needs_labels:
            raise ValueError("`data` must hold labels. Received: a batch of only x")
        if self.needs_labels:
            check_numbers(y, "data")
        where = find_data(self._likelihood, y, batch[2])
        y = y if self.needs_labels else None
        if any(leaf is None for leaf in keras.tree.flatten(x)):
            raise ValueError(
                "`data` must hold every input of the model, also optional ones. "
                "Received: None for one of them"
            )
        x = keras.tree.map_structure(ops.convert_to_tensor, x)
        labels = Labels(*(() if t is None else ops.convert_to_tensor(t) for t in (y, where)))
        if not self._model.built:
            self._model(x, training=False)
        weights = [id(weight) for weight in self._model.trainable_weights]
        if not weights:
            raise ValueError(
                f"`model` must have trainable weights. Received: {self._model.name!r} with none"
            )
        arguments.check_gradients("model", self._model)
        if weights != self._compiled_for:
            self._compile()
            self._compiled_for = weights
        if self._unverified is not None:
            if ops.convert_to_numpy(probability_checks.find_outside(self._outputs(x))):
                probability_checks.warn_of_values(self._unverified)
            self._unverified = None  # checked once
        if self.needs_labels:
            if self._known_outputs is None:
                self._known_outputs = self._inspect_outputs(
                    x, lambda outputs: keras.KerasTensor((None, *outputs.shape[1:]), outputs.dtype)
                )
            check_classes(self._likelihood, "data", y, self._known_outputs)
        return x, labels

    def _inspect_outputs(self, x: Any, inspect: Callable[[Tensor], Any] = lambda _: None) -> Any:
        """Returns what `inspect` finds out about the shape of the outputs for the first example.

        Records whether Keras masks them.
        """
        found: Any = None

        def run(first: Any) -> None:
            nonlocal found
            outputs = self._outputs(first)
            self._is_masked = get_mask(outputs) is not None
            found = inspect(outputs)

        backend.run_abstractly(run, keras.tree.map_structure(lambda array: array[:1], x))
        return found

    def _mask_data(self, x: Any, labels: Labels) -> np.ndarray | None:
        """Returns a mask of the examples that have any data, shape `(batch,)`; `None` for all."""
        if self._is_masked is None:
            self._inspect_outputs(x)
        if not self._is_masked and labels.present is None:
            return None
        return ops.convert_to_numpy(self._any_data(x, labels))

    def _has_data(self, x: Any, labels: Labels) -> bool:
        with_data = self._mask_data(x, labels)
        return with_data is None or bool(with_data.any())

    def _batch_any_data(self, x: Any, labels: Labels) -> Tensor:
        mask = get_mask(self._outputs(x)) if self._is_masked else None
        return examples_with_data(combine_masks(mask, labels.present))


def find_outputs(model: keras.Model) -> keras.KerasTensor | None:
    """Returns the symbolic output of a model, wrapped or not; `None` if it has none."""
    return get_symbolic_output(get_backbone(model))


def get_backbone(model: keras.Model) -> keras.Model:
    """Returns the wrapped model, or the model itself if it wraps none."""
    return model.backbone if isinstance(model, backend.Trainer) else model


def _are_finite(x: Any) -> list[Tensor]:
    """Returns, for each dense floating-point input, whether all its numbers are finite."""
    return [
        ops.all(ops.isfinite(leaf))
        for leaf in keras.tree.flatten(x)
        if hasattr(leaf, "__array__") and keras.backend.is_float_dtype(leaf.dtype)
    ]


def _likelihood(model: keras.Model, given: Likelihood | None) -> Likelihood:
    likelihood = check_likelihood(given)
    if likelihood is None and isinstance(model, backend.Trainer):
        likelihood = model.likelihood
    if likelihood is not None:
        return likelihood
    if not model.compiled:
        raise ValueError(
            f"`likelihood` must be given for a model that is not compiled. Received: {model.name!r}"
        )
    return likelihoods.from_loss(model.loss)
