"""z^T H z for random probes z: the curvature of a mean loss along the probes."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import activations, layers, ops

from keras_fisher import backend
from keras_fisher.backend.private_api.keras import list_all_layers
from keras_fisher.backend.types import Tensor, Values
from keras_fisher.traces.per_example.forward import replace_attribute
from keras_fisher.utils.messages import warn_once
from keras_fisher.utils.stateless import Stateless

# Layers that are linear in their input and in their kernel.
_PRODUCTS = (
    layers.Conv1D,
    layers.Conv1DTranspose,
    layers.Conv2D,
    layers.Conv2DTranspose,
    layers.Conv3D,
    layers.Conv3DTranspose,
    layers.Dense,
    layers.DepthwiseConv1D,
    layers.DepthwiseConv2D,
    layers.EinsumDense,
)
# Layers that are linear wherever they have a derivative.
_PIECEWISE_LINEAR = (
    layers.LeakyReLU,
    layers.MaxPooling1D,
    layers.MaxPooling2D,
    layers.MaxPooling3D,
    layers.ReLU,
)
_STRAIGHT_ACTIVATIONS = (activations.leaky_relu, activations.relu, activations.relu6)
# Computing this many forms takes about as long as compiling the faster method.
FORMS_BEFORE_COMPILING = 100
_PROBES = 2  # the index of the probes in the arguments of a compiled function


class QuadraticForms:
    """Computes z^T H z for random probes z, where H is the Hessian in the trainable weights.

    There are two methods. The first works for every model: it differentiates the gradient again,
    which takes six products with each kernel. The second gives only the sum over weights, from
    fewer products.

    With JAX, the second method is the second derivative of the loss along z, in forward mode. It is
    also faster to compile. If an operation has no forward derivative, the class falls back to the
    first method and logs that once.

    With TensorFlow, the second method takes three products. Let each layer that is linear in its
    input x and in its kernel W be a node y = W x with the gradients g_y and g_x of the loss. Let
    the weights move along z, as w + t z, and each y move to first order, as y + t y'. Then

        z^T H z = d^2 loss / dt^2 + sum over nodes of (<g_y, 2 W' x'> + <g_x, d^2 x / dt^2>),

    where second derivatives are taken between two nodes. This is the second derivative along z of
    the Lagrangian of the network with the nodes as constraints. The gradients are its multipliers,
    and are the same for all probes.

    This takes several times as long to compile, so the first method computes the first forms.
    Later, at calls 1, 2, 4, 8, ... one form of the second method is compared with the first method:
    some errors appear only once a weight is no longer 0. If the second method fails (layers called
    in a loop, an operation without a forward derivative, a layer whose computation it cannot
    follow), the class falls back to the first and logs that once. It also uses the first while a
    comparison is inconclusive. In half precision, which is too inexact for a comparison, all
    backends use the first.

    Args:
        model: A built Keras model with trainable weights.
        loss: `loss(x, y, values)` evaluates the model with the given values for its variables, and
            returns a scalar.
        gaussian: Whether probes are standard normal; otherwise their entries are 1 or -1.
    """

    def __init__(
        self, model: keras.Model, loss: Callable[[Any, Any, Values], Tensor], gaussian: bool
    ) -> None:
        self._model, self._loss, self._gaussian = model, loss, gaussian
        self._weights = model.trainable_weights
        self._ids = [id(weight) for weight in self._weights]
        inside = list_all_layers(model)
        self._products = [layer for layer in inside if self._is_product(layer)]
        self._piecewise_linear = [layer for layer in inside if type(layer) in _PIECEWISE_LINEAR]
        self._by_weight = backend.compile_function(self._differentiate_twice)
        self._forms_given = self._calls_made = 0
        self._is_proven = False
        self._summed = self._by_weight
        half = any(layer.compute_dtype in ("float16", "bfloat16") for layer in inside)
        self._is_direct = backend.compute_summed_forms is not None
        if self._is_direct and not half:
            self._summed = backend.compile_function(self._differentiate_along)
        elif backend.Line is not None and not half:
            self._summed = backend.compile_function(
                self._differentiate_forward, any_length=(_PROBES,)
            )

    def __call__(
        self, x: Any, y: Any, probes: np.ndarray, seed: Tensor, by_weight: bool
    ) -> np.ndarray:
        """Returns the forms in float64, shape `(num_probes, trainable weights or 1)`.

        Args:
            x: A batch of inputs.
            y: The labels of the batch.
            probes: The indices of the probes to draw, shape `(num_probes,)`.
            seed: Two integers. The same seed draws the same probes.
            by_weight: Whether to split the forms by weight.
        """
        measure = self._by_weight if by_weight else self._choose_method(x, y, probes, seed)
        self._forms_given += len(probes)
        size = backend.count_probes_at_once() or len(probes)
        parts = np.split(probes, range(size, len(probes), size))
        forms = np.concatenate([ops.convert_to_numpy(measure(x, y, p, seed)) for p in parts])
        forms = forms.astype("float64")
        # The two methods have different parts, but the next batch may take the other one.
        return forms if by_weight else forms.sum(axis=1, keepdims=True)

    def _is_product(self, layer: keras.layers.Layer) -> bool:
        return (
            type(layer) in _PRODUCTS
            and layer.built
            and layer.quantization_mode is None
            and len(layer.weights) == (1 if layer.bias is None else 2)
            and all(id(weight) in self._ids for weight in layer.weights)
        )

    def _choose_method(
        self, x: Any, y: Any, probes: np.ndarray, seed: Tensor
    ) -> Callable[..., Tensor]:
        """Returns the function for sums over weights; tries or checks the second method if due."""
        if self._summed is self._by_weight:
            return self._by_weight
        if self._is_direct:
            if not self._is_proven:
                self._try(x, y, probes[:1], seed)
            return self._summed
        if self._forms_given < FORMS_BEFORE_COMPILING:
            return self._by_weight
        self._calls_made += 1
        if self._calls_made & (self._calls_made - 1) == 0:
            self._check(x, y, seed)
        return self._summed if self._is_proven else self._by_weight

    def _try(self, x: Any, y: Any, probe: np.ndarray, seed: Tensor) -> None:
        """Falls back to the first method if an operation has no forward derivative."""
        try:
            self._summed(x, y, probe, seed)
            self._is_proven = True
        except NotImplementedError as error:
            self._fall_back_from(error)

    def _check(self, x: Any, y: Any, seed: Tensor) -> None:
        """Compares both methods on one probe, and falls back if they differ."""
        expected = ops.convert_to_numpy(self._by_weight(x, y, np.arange(1), seed))
        try:
            found = ops.convert_to_numpy(self._summed(x, y, np.arange(1), seed)).sum()
        except backend.InnerGraphError:
            self._fall_back("layers with weights are called inside a loop or a branch")
        # TensorFlow has no specific error for operations without a forward derivative. Errors of
        # the model and the data have been raised above.
        except Exception as error:
            self._fall_back_from(error)
        else:
            if not np.isfinite(expected).all() or not expected.any():
                return  # inconclusive
            self._is_proven = True
            tolerance = 1e-3 if expected.dtype == "float32" else 1e-6
            if not abs(found - expected.sum()) <= tolerance * np.abs(expected).sum():
                self._fall_back("one of its layers computes in a way that cannot be followed")

    def _fall_back_from(self, error: Exception) -> None:
        logging.getLogger("keras_fisher").debug("Not differentiated forward", exc_info=error)
        self._fall_back(f"the {backend.NAME} backend cannot differentiate an operation forward")

    def _fall_back(self, reason: str) -> None:
        warn_once(
            f"The Hessian of model {self._model.name!r} is computed by differentiating the "
            f"gradient, which takes about twice as long as forward mode: {reason}."
        )
        self._summed = self._by_weight

    def _differentiate_twice(self, x: Any, y: Any, probes: Tensor, seed: Tensor) -> Tensor:
        return backend.compute_quadratic_forms(
            lambda: self._loss(x, y, ()), self._weights, probes, self._gaussian, seed
        )

    def _differentiate_along(self, x: Any, y: Any, probes: Tensor, seed: Tensor) -> Tensor:
        return backend.compute_summed_forms(
            lambda: self._loss(x, y, ()), self._weights, probes, self._gaussian, seed
        )

    def _differentiate_forward(self, x: Any, y: Any, probes: Tensor, seed: Tensor) -> Tensor:
        nodes = self._nodes(x, y)
        values = [ops.convert_to_tensor(weight) for weight in self._weights]

        def form(z: Sequence[Tensor]) -> Tensor:
            with backend.Line() as line:
                moving = [line.attach_velocity(w, part) for w, part in zip(values, z, strict=True)]
                collector = _TermCollector(line, nodes, self._map_by_id(values, z))
                with contextlib.ExitStack() as stack:
                    stack.enter_context(_replace_calls(collector.call_product, self._products))
                    stack.enter_context(
                        _replace_calls(collector.call_piecewise_linear, self._piecewise_linear)
                    )
                    loss = self._loss(x, y, list(zip(self._weights, moving, strict=True)))
                collector.add(1.0, line.acceleration(loss))
            dtype = keras.backend.result_type(*(w.dtype for w in self._weights), "float32")
            return ops.stack([sum(ops.cast(term, dtype) for term in collector.terms)])

        return backend.map_probes(form, self._weights, probes, self._gaussian, seed)

    def _map_by_id(
        self, values: Sequence[Tensor], z: Sequence[Tensor]
    ) -> dict[int, tuple[Tensor, Tensor]]:
        return dict(zip(self._ids, zip(values, z, strict=True), strict=True))

    def _nodes(self, x: Any, y: Any) -> list[_Node]:
        """Runs the model forward and backward once."""

        def objective(tap: backend.Tap) -> tuple[Tensor, list[Tensor]]:
            outputs: list[Tensor] = []

            def call(
                layer: keras.layers.Layer,
                original: Callable[[Tensor], Tensor],
                inputs: Tensor,
                **_: Any,
            ) -> Tensor:
                # The copy's gradient counts only this use of the tensor.
                inputs = tap(ops.cast(ops.copy(inputs), layer.compute_dtype))
                outputs.append(tap(_product(layer, original, inputs, *_weights(layer))))
                return _activate(layer, outputs[-1])

            with _replace_calls(call, self._products):
                return self._loss(x, y, ()), outputs

        by_tap, outputs = backend.differentiate_by_taps(objective)
        return [_Node(*node) for node in zip(outputs, by_tap[::2], by_tap[1::2], strict=True)]


class _Node(NamedTuple):
    """A call of a layer that is linear in its input and in its kernel.

    Attributes:
        output: Its output before the activation.
        by_input: The gradient of the loss with respect to its input; `None` where there is none.
        by_output: The gradient with respect to its output.
    """

    output: Tensor
    by_input: Tensor | None
    by_output: Tensor | None


class _TermCollector:
    """Calls layers while their inputs and weights move, and collects the terms of z^T H z.

    Args:
        line: The line that the weights move along.
        nodes: The nodes, in the order of their calls.
        weights: The value and the velocity of each weight, by its id.
    """

    def __init__(
        self, line: backend.Line, nodes: Sequence[_Node], weights: dict[int, tuple[Tensor, Tensor]]
    ) -> None:
        self.terms: list[Tensor] = []
        self._line, self._nodes, self._weights = line, iter(nodes), weights

    def add(
        self, gradient: Tensor | float | None, second_derivative: Tensor | None, times: int = 1
    ) -> None:
        if gradient is not None and second_derivative is not None:
            # In TensorFlow, `ops.vdot` is a matrix product, which is slow for two long vectors.
            self.terms.append(times * ops.sum(gradient * second_derivative))

    def call_product(
        self,
        layer: keras.layers.Layer,
        call: Callable[[Tensor], Tensor],
        inputs: Tensor,
        **_: Any,
    ) -> Tensor:
        node = next(self._nodes)
        kernel, bias = _weights(layer)
        value, moves = self._weights[id(kernel)]
        velocity = _product(
            layer,
            call,
            ops.stop_gradient(inputs),
            moves,
            None if bias is None else self._weights[id(bias)][1],
        )
        moving = self._line.velocity(inputs)
        if moving is not None:
            velocity = velocity + _product(layer, call, moving, value)
            self.add(node.by_output, _product(layer, call, moving, moves), times=2)
            self.add(node.by_input, self._line.acceleration(inputs))
        output = self._line.attach_velocity(node.output, velocity)
        if layer.activation in _STRAIGHT_ACTIVATIONS:
            return self.call_piecewise_linear(layer, layer.activation, output)
        return _activate(layer, output)

    def call_piecewise_linear(
        self,
        _: keras.layers.Layer,
        function: Callable[[Tensor], Tensor],
        inputs: Tensor,
        **__: Any,
    ) -> Tensor:
        """Skips the second derivatives of piecewise-linear functions, which are zero."""
        outputs = function(inputs)
        velocity = self._line.velocity(outputs)
        if velocity is None or self._line.acceleration(inputs) is not None:
            return outputs
        return self._line.attach_velocity(outputs, velocity)


def _weights(layer: keras.layers.Layer) -> tuple[keras.Variable, keras.Variable | None]:
    """Returns the kernel and the bias of a layer of class `_PRODUCTS`."""
    kernel = next(weight for weight in layer.weights if weight is not layer.bias)
    return kernel, layer.bias


def _product(
    layer: keras.layers.Layer,
    call: Callable[[Tensor], Tensor],
    inputs: Tensor,
    kernel: Tensor,
    bias: Tensor | None = None,
) -> Tensor:
    """Returns a layer's output before its activation, with another kernel and bias."""
    values = [(w, v) for w, v in zip(_weights(layer), (kernel, bias), strict=True) if v is not None]
    with contextlib.ExitStack() as stack:
        stack.enter_context(Stateless(values))
        stack.enter_context(replace_attribute(layer, "activation", None))
        if bias is None:
            stack.enter_context(replace_attribute(layer, "bias", None))
            stack.enter_context(replace_attribute(layer, "use_bias", False))
        return call(inputs)


def _activate(layer: keras.layers.Layer, product: Tensor) -> Tensor:
    return product if layer.activation is None else layer.activation(product)


@contextlib.contextmanager
def _replace_calls(
    caller: Callable[..., Tensor], those: Sequence[keras.layers.Layer]
) -> Iterator[None]:
    """Replaces each layer's `call` by `caller(layer, call, *arguments)`."""
    with contextlib.ExitStack() as stack:
        for layer in those:
            call = functools.partial(caller, layer, layer.call)
            stack.enter_context(replace_attribute(layer, "call", call))
        yield
