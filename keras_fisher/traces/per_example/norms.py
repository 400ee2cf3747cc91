"""Squared norms of per-example gradients, by layer rules or one example at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_fisher import backend
from keras_fisher.backend.private_api.keras import set_mask
from keras_fisher.backend.types import Tensor
from keras_fisher.rules import gradients
from keras_fisher.traces.per_example.forward import call_unchanged
from keras_fisher.traces.per_example.recording import (
    Call,
    Unit,
    is_differentiable,
    list_units,
    record_calls,
)
from keras_fisher.traces.per_example.suspects import find_suspects
from keras_fisher.utils.messages import warn_once

# The most numbers that a batch may take: in total for the backward pass, and in the largest
# temporary of a rule. Larger batches are split. The second limit is small because temporaries that
# fit into a processor's cache are faster.
_MOST_KEPT = 2**28
_MOST_TEMPORARY = 2**23
_MOST_COMPARED = 16  # examples whose losses are compared

DrawLabels = Callable[..., Any]
LossValues = Callable[[Any, Tensor], Tensor]


class SquaredGradientNorms:
    """Computes, for each example, the squared norm of its gradient with respect to each weight.

    Args:
        model: A built Keras model with one output and with trainable weights.
        labels: `labels(outputs, y, *arguments)` returns what `values` needs, a structure of tensors
            of shape `(batch, ...)` that are not differentiated.
        values: `values(labels, outputs)` returns the loss of each example, shape `(batch,)`.
        generator: The generator of `labels`, if any. A repeated measurement draws the same labels.

    Raises:
        ValueError: when called, if an example has another loss alone than within the batch.
    """

    def __init__(
        self,
        model: keras.Model,
        labels: DrawLabels,
        values: LossValues,
        generator: keras.random.SeedGenerator | None = None,
    ) -> None:
        self._model, self._labels, self._values = model, labels, values
        self._generator = generator
        self._weights = model.trainable_weights
        self._index = {id(weight): i for i, weight in enumerate(self._weights)}
        self._dtype = keras.backend.result_type(*(w.dtype for w in self._weights), "float32")
        self._units: list[Unit] = []
        self._batched: list[list[bool | None]] = []  # the arguments of each call
        self._slow: dict[str, None] = {}  # layer classes differentiated one by one, in order
        self._measure: Callable[..., tuple[Tensor, Any]] | None = None
        self._draw = backend.compile_function(self._draw_labels)
        self._plain = backend.compile_per_example(self._differentiate_example, self._dtype)
        self._together = backend.compile_function(self._evaluate)
        self._alone = backend.compile_per_example(self._evaluate, self._dtype)
        self._batch_limit = 0
        self._uses_rules = True
        self._calls_made = 0

    def __call__(self, x: Any, y: Any, *arguments: Any) -> np.ndarray:
        """Returns the squared norms, shape `(batch, trainable weights)`.

        At calls 1, 2, 4, 8, ... the norms of some examples are compared with plain gradients. One
        comparison is not enough: some gradients are 0 at first, as behind a residual branch that
        starts at 0, and later inputs may be of another kind.
        """
        self._calls_made += 1
        if self._uses_rules and self._compares_now:
            drawn_before = _state(self._generator)
            try:
                return self._measure_and_compare(x, y, arguments)
            except (_WholeError, backend.InnerGraphError) as error:
                _set_state(self._generator, drawn_before)
                self._take_as_one(error)
        return self._run_parts(x, y, arguments)[0]

    @property
    def _compares_now(self) -> bool:
        return not self._calls_made & (self._calls_made - 1)

    def _measure_and_compare(self, x: Any, y: Any, arguments: Sequence[Any]) -> np.ndarray:
        if self._measure is None:
            self._split_by_rules(x)
        found, labels = self._run_parts(x, y, arguments)
        self._compare(found, x, labels)
        for kind in self._slow:
            warn_once(
                f"Layers of class {kind} are differentiated one example at a time, which is "
                "slower: they have no closed form, use an option that it does not cover, or have "
                "an input of dynamic shape. Register a closed form with "
                "keras_fisher.rules.register."
            )
        return found

    def _run_parts(self, x: Any, y: Any, arguments: Sequence[Any]) -> tuple[np.ndarray, list[Any]]:
        """Returns the squared norms and the labels, computed in parts that fit in memory."""
        assert self._measure is not None
        batch = len(keras.tree.flatten(x)[0])
        parts = -(-batch // (self._batch_limit or batch))
        bounds = np.linspace(0, batch, parts + 1).astype(int)
        pieces = [(x, y)] if parts == 1 else [_rows((x, y), slice(*b)) for b in pairwise(bounds)]
        found, labels = zip(*(self._measure(*piece, *arguments) for piece in pieces), strict=True)
        return np.concatenate([ops.convert_to_numpy(part) for part in found]), list(labels)

    def _split_by_rules(self, x: Any) -> None:
        backend.run_abstractly(self._survey, _rows(x, [0]), _rows(x, [0, -1]))
        self._measure = backend.compile_function(self._measure_by_rules)

    def _take_as_one(self, error: Exception) -> None:
        # Keras changes the text of errors raised inside a layer's call.
        inner = isinstance(error, backend.InnerGraphError)
        reason = "layers with weights are called inside a loop or a branch" if inner else error
        late = " Earlier measurements of it may be wrong." if self._calls_made > 1 else ""
        warn_once(
            f"Model {self._model.name!r} is differentiated one example at a time, which is "
            f"slower: {reason}.{late}"
        )
        self._uses_rules, self._measure = False, self._measure_by_examples

    def _survey(self, one: Any, two: Any) -> None:
        """Finds the units and the largest batch that fits in memory."""
        self._units = list_units(self._model)
        recorded = []
        for x, batch in ((one, 1), (two, 2)):
            calls = self._calls(x)
            recorded.append(calls)
            if not calls:
                raise _WholeError("no layer with trainable weights is called")
            for call in calls:
                if any(len(t.shape) == 0 or t.shape[0] != batch for t in call.tapped):
                    raise _WholeError(
                        f"layer {call.unit.layer.name!r} has outputs whose first axis is not the "
                        "batch axis"
                    )
        if len(recorded[0]) != len(recorded[1]):
            raise _WholeError("the layers that are called depend on the number of examples")
        self._batched = list(map(_find_batched, *recorded))
        uses: dict[int, list[gradients.ExampleGradients]] = {}
        sizes = []
        for call in self._add_batched(calls):
            zeros = [ops.zeros_like(tensor) for tensor in call.tapped]
            if not self._is_covered(call, zeros):
                layer = call.unit.layer
                whole = [u._replace(rule=None) if u.layer is layer else u for u in self._units]
                self._units = whole
                call = call._replace(unit=call.unit._replace(rule=None))
            for weight, gradient in self._gradients(call, zeros):
                if id(weight) in self._index and gradient is not None:
                    sizes.append(self._size(call, weight, gradient))
                    uses.setdefault(id(weight), []).append(gradient)
        sizes += [self._size_of_all(self._index[weight], of) for weight, of in uses.items()]
        kept = sum(math.prod(t.shape[1:]) for call in calls for t in _tensors(call))
        largest = max(sizes, default=1)
        self._batch_limit = max(1, min(_MOST_KEPT // (2 * kept), _MOST_TEMPORARY // largest))

    def _add_batched(self, calls: Sequence[Call]) -> list[Call]:
        """Returns the calls of a run of the model with what is known of their arguments."""
        return [
            call._replace(batched=batched)
            for call, batched in zip(calls, self._batched, strict=True)
        ]

    def _size_of_all(self, index: int, uses: Sequence[gradients.ExampleGradients]) -> int:
        """Returns the numbers per example needed to add up the gradients of a weight."""
        closed = gradients.join(uses)
        if closed is None:
            return 2 * math.prod(self._weights[index].shape)
        return gradients.size(closed)

    def _size(
        self, call: Call, weight: keras.Variable, gradient: gradients.ExampleGradients
    ) -> int:
        """Returns the numbers per example that a gradient takes; checks the shape from a rule."""
        shape = getattr(gradient, "shape", (2, *weight.shape))
        if tuple(shape) != (2, *weight.shape):
            raise _WholeError(
                f"for two examples, the rule for class {type(call.unit.layer).__name__} gives a "
                f"gradient of shape {tuple(shape)} by a weight of shape {tuple(weight.shape)}"
            )
        return gradients.size(gradient)

    def _calls(self, x: Any) -> list[Call]:
        """Records one run of the model; raises for calls inside a loop or a branch."""

        def run(tap: backend.Tap) -> tuple[Tensor, list[Call]]:
            with record_calls(self._units, tap) as calls:
                call_unchanged(self._model, x, training=False)
            return ops.zeros(()), calls  # only the calls are needed

        return backend.differentiate_by_taps(run)[1]

    def _is_covered(self, call: Call, zeros: Sequence[Tensor]) -> bool:
        """Whether the unit's rule covers all its trainable weights in this configuration."""
        if call.unit.rule is None:
            return True
        try:
            pairs = self._gradients(call, zeros)
        except NotImplementedError:
            return False
        covered = {id(weight) for weight, _ in pairs}
        return all(id(weight) in covered for weight in call.unit.weights)

    def _compare(self, found: np.ndarray, x: Any, labels: Sequence[Any]) -> None:
        """Compares the norms with plain gradients, on examples that are likely to show errors."""
        rows = find_suspects(x, found, seed=self._calls_made)
        labels = keras.tree.map_structure(lambda *parts: ops.concatenate(parts), *labels)
        expected = ops.convert_to_numpy(self._plain(*_rows((x, labels), rows)))
        is_finite = np.isfinite(expected).all(axis=1)
        if not is_finite.any():
            return  # inconclusive
        found, expected = found[rows][is_finite], expected[is_finite]
        total = expected.sum(axis=1, keepdims=True)
        if self._is_in_half_precision():
            tolerance = 0.2 * expected + 0.02 * total.max()
        else:
            # Rounding dominates the small gradient of a nearly certain prediction.
            small = np.minimum(0.01 * total, 0.1 * expected + 1e-4 * total)
            tolerance = np.maximum(small, 1e-6 * total.max())
        wrong = ~(np.abs(found - expected) <= tolerance).all(axis=0)  # also where found is NaN
        if wrong.any():
            self._check_independent(x, labels)
            weights = [w.path for w, is_wrong in zip(self._weights, wrong, strict=True) if is_wrong]
            raise _WholeError(
                f"the gradient with respect to {', '.join(weights[:3])} does not come from "
                "recorded calls of layers only, or a rule is wrong"
            )

    def _check_independent(self, x: Any, labels: Any) -> None:
        """Raises if examples have another loss alone than within the batch.

        Labels are drawn within the batch, so gradients of examples alone would not fit them.
        """
        together = ops.convert_to_numpy(self._together(x, labels))
        rows = sorted({*np.linspace(0, len(together) - 1, _MOST_COMPARED).astype(int).tolist()})
        alone = ops.convert_to_numpy(self._alone(*_rows((x, labels), rows))).reshape(-1)
        together = together[rows]
        is_finite = np.isfinite(together) & np.isfinite(alone)
        size = np.abs(together[is_finite])
        tolerance = (0.3 if self._is_in_half_precision() else 0.1) * (size + size.max(initial=0))
        if (np.abs(together - alone)[is_finite] > tolerance).any():
            raise ValueError(
                "`model` must give an example the same outputs alone and within a batch, or it has "
                f"no gradient of an example. Received: {self._model.name!r}, whose outputs depend "
                "on the rest of the batch (such as batch statistics in evaluation) or on random "
                "numbers that it draws in evaluation. Give the random numbers to the model as an "
                "input, or measure minibatch_fisher_trace"
            )

    def _is_in_half_precision(self) -> bool:
        return any(unit.layer.compute_dtype in ("float16", "bfloat16") for unit in self._units)

    def _measure_by_rules(self, x: Any, y: Any, *arguments: Any) -> tuple[Tensor, Any]:
        def objective(tap: backend.Tap) -> tuple[Tensor, tuple[list[Call], Any]]:
            with record_calls(self._units, tap) as calls:
                outputs = call_unchanged(self._model, x, training=False)
            labels = self._labels(outputs, y, *arguments)
            return ops.sum(self._values(labels, outputs)), (calls, labels)

        found, (calls, labels) = backend.differentiate_by_taps(objective)
        by_output = iter(found)
        by_weight: list[list[gradients.ExampleGradients]] = [[] for _ in self._weights]
        for call in self._add_batched(calls):
            for weight, gradient in self._gradients(call, [next(by_output) for _ in call.tapped]):
                if id(weight) in self._index and gradient is not None:
                    by_weight[self._index[id(weight)]].append(gradient)
        return self._squares(by_weight, x), labels

    def _measure_by_examples(self, x: Any, y: Any, *arguments: Any) -> tuple[Tensor, Any]:
        labels = self._draw(x, y, *arguments)
        if self._compares_now:
            self._check_independent(x, labels)
        return self._plain(x, labels), labels

    def _draw_labels(self, x: Any, y: Any, *arguments: Any) -> Any:
        return self._labels(call_unchanged(self._model, x, training=False), y, *arguments)

    def _evaluate(self, x: Any, labels: Any) -> Tensor:
        """Returns the loss of each example."""
        values = self._values(labels, call_unchanged(self._model, x, training=False))
        return ops.cast(values, self._dtype)

    def _differentiate_example(self, x: Any, labels: Any) -> Tensor:
        """Returns the squared norms for a batch of one example, shape `(trainable weights,)`."""

        def value() -> Tensor:
            outputs = call_unchanged(self._model, x, training=False)
            return ops.sum(self._values(labels, outputs))

        found = backend.differentiate(value, self._weights)
        return ops.stack([self._square(gradient) for gradient in found])

    def _gradients(
        self, call: Call, by_output: Sequence[Tensor | None]
    ) -> gradients.WeightGradients:
        """Returns the per-example gradients of one call with respect to its layer's weights."""
        if all(gradient is None for gradient in by_output):
            return []
        by_output = [
            ops.zeros_like(tensor, dtype=self._dtype) if g is None else ops.cast(g, self._dtype)
            for tensor, g in zip(call.tapped, by_output, strict=True)
        ]
        # Rules need all static sizes except that of the batch.
        tensors = [*by_output, *keras.tree.flatten(call.inputs)]
        if call.unit.rule is None or any(None in tensor.shape[1:] for tensor in tensors):
            return self._gradients_one_by_one(call, by_output)
        inputs = keras.tree.map_structure(self._promote, call.inputs)
        return call.unit.rule(call.unit.layer, inputs, by_output[0], **call.select_arguments())

    def _promote(self, tensor: Tensor) -> Tensor:
        is_float = keras.backend.is_float_dtype(tensor.dtype)
        return ops.cast(tensor, self._dtype) if is_float else tensor

    def _gradients_one_by_one(
        self, call: Call, by_output: Sequence[Tensor]
    ) -> gradients.WeightGradients:
        layer, weights = call.unit.layer, call.unit.weights
        self._slow[type(layer).__name__] = None
        arguments = keras.tree.flatten((call.args, call.kwargs))
        known = zip(arguments, call.batched, strict=True)
        batched = [
            i
            for i, (a, is_batched) in enumerate(known)
            if (_is_as_long(a, by_output[0]) if is_batched is None else is_batched)
        ]
        masks = {i: call.masks[i] for i in batched if call.masks[i] is not None}

        def flat_gradient(example: Any) -> Tensor:
            inputs, cotangents, masks_of_example = example
            for i, mask in zip(masks, masks_of_example, strict=True):
                set_mask(inputs[batched.index(i)], mask)
            those = dict(zip(batched, inputs, strict=True))
            args, kwargs = keras.tree.pack_sequence_as(
                (call.args, call.kwargs), [those.get(i, a) for i, a in enumerate(arguments)]
            )

            def value() -> Tensor:
                outputs = keras.tree.flatten(call_unchanged(layer, *args, **kwargs))
                pairs = zip(filter(is_differentiable, outputs), cotangents, strict=True)
                return sum(ops.sum(ops.cast(o, self._dtype) * c) for o, c in pairs)

            found = zip(backend.differentiate(value, weights), weights, strict=True)
            flat = [ops.zeros(w.shape) if g is None else g for g, w in found]
            return ops.concatenate([ops.cast(ops.ravel(g), self._dtype) for g in flat])

        examples = ([arguments[i] for i in batched], list(by_output), list(masks.values()))
        flat = backend.map_examples(flat_gradient, examples, self._dtype)
        ends = np.cumsum([math.prod(weight.shape) for weight in weights])
        parts = zip(weights, [0, *ends[:-1]], ends, strict=True)
        return [(w, ops.reshape(flat[:, i:j], (-1, *w.shape))) for w, i, j in parts]

    def _squares(self, by_weight: Sequence[Sequence[gradients.ExampleGradients]], x: Any) -> Tensor:
        batch = ops.shape(keras.tree.flatten(x)[0])[0]
        none = ops.zeros((batch,), dtype=self._dtype)
        return ops.stack(
            [
                ops.cast(gradients.squared_norms(gradients.total(uses)), self._dtype)
                if uses
                else none
                for uses in by_weight
            ],
            axis=1,
        )

    def _square(self, gradient: Tensor | None) -> Tensor:
        if gradient is None:
            return ops.zeros((), dtype=self._dtype)
        return ops.sum(ops.square(ops.cast(gradient, self._dtype)))


class _WholeError(Exception):
    """Raised when layer rules cannot be applied; the message says why."""


def _state(generator: keras.random.SeedGenerator | None) -> np.ndarray | None:
    return None if generator is None else ops.convert_to_numpy(generator.state)


def _set_state(generator: keras.random.SeedGenerator | None, state: np.ndarray | None) -> None:
    if generator is not None:
        generator.state.assign(state)


def _rows(structure: Any, rows: slice | Sequence[int]) -> Any:
    if isinstance(rows, slice):
        return keras.tree.map_structure(lambda tensor: tensor[rows], structure)
    return keras.tree.map_structure(lambda tensor: ops.take(tensor, rows, axis=0), structure)


def _tensors(call: Call) -> list[Tensor]:
    arguments = keras.tree.flatten((call.args, call.kwargs))
    return [*call.tapped, *(a for a in arguments if getattr(a, "shape", None))]


def _find_batched(one: Call, two: Call) -> list[bool | None]:
    """Returns whether each argument has the batch axis, from calls with one and two examples.

    A table may be as long as a batch by chance, but not as long as two different ones.
    """
    pairs = zip(*(keras.tree.flatten((c.args, c.kwargs)) for c in (one, two)), strict=True)
    lengths = [[a.shape[0] if getattr(a, "shape", None) else 0 for a in pair] for pair in pairs]
    return [None if None in pair else pair == [1, 2] for pair in lengths]


def _is_as_long(argument: Any, like: Tensor) -> bool:
    return bool(getattr(argument, "shape", None)) and argument.shape[0] == like.shape[0]
