"""First and second derivatives with TensorFlow's gradient tapes."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_fisher.backend.tensorflow import tapes
from keras_fisher.backend.tensorflow.ops import replace_convolutions
from keras_fisher.backend.tensorflow.registry import free_with_graphs
from keras_fisher.backend.types import InnerGraphError, Tap, Tensor

# The signs that the bits of each byte represent, shape (256, 8).
_SIGNS = 2.0 * np.unpackbits(np.arange(256, dtype="uint8")[:, np.newaxis], axis=1) - 1.0

# TensorFlow does not place 32-bit integer variables on a GPU.
COUNTER_DTYPE = "int64"

# Whether Keras's sparse categorical cross-entropy clips probabilities before it normalises them;
# the dense one clips afterwards.
SPARSE_LOSS_CLIPS_FIRST = True

# `Line` takes fewer products than nested accumulators for a whole model.
compute_summed_forms: Any = None

# Whether Keras's losses use the logits that a softmax or sigmoid activation stores on its output.
LOSSES_READ_LOGITS = True
ADDS_UP_SEEDS = False
TENSORS_CHANGE = False


def differentiate(
    objective: Callable[[], Tensor], weights: Sequence[keras.Variable]
) -> list[Tensor | None]:
    """Returns d objective() / d weights; dense, `None` for unconnected weights."""
    with tf.GradientTape() as tape:
        value = objective()
    return tapes.densify(tape.gradient(value, list(weights)))


def differentiate_by_taps(
    objective: Callable[[Tap], tuple[Tensor, Any]],
) -> tuple[list[Tensor | None], Any]:
    """Returns the gradient with respect to each tensor that passes through `tap`, and a structure.

    Args:
        objective: `objective(tap)` returns a value and an arbitrary structure.

    Returns:
        The dense gradients in the order of the taps, with `None` for unconnected tensors; and the
        structure.

    Raises:
        InnerGraphError: if a tensor is tapped where its gradient cannot be computed.
    """
    tapped: list[Tensor] = []
    context = _context()

    def tap(tensor: Tensor) -> Tensor:
        if _context() is not context:
            raise InnerGraphError
        tape.watch(tensor)
        tapped.append(tensor)
        return tensor

    with replace_convolutions():
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            value, others = objective(tap)
        return tapes.densify(tape.gradient(value, tapped)), others


def map_examples(function: Callable[[Any], Tensor], examples: Any, dtype: str) -> Tensor:
    """Applies a function to one example at a time, each with a batch axis of length 1.

    Args:
        function: A function from a structure like `examples` to a tensor.
        examples: A structure of tensors of shape `(batch, ...)`.
        dtype: The dtype of the function's results.

    Returns:
        The stacked results.
    """

    @tf.autograph.experimental.do_not_convert
    def apply(example: Any) -> Tensor:
        return function(tf.nest.map_structure(lambda tensor: tensor[tf.newaxis], example))

    return tf.map_fn(apply, examples, fn_output_signature=dtype)


def compute_quadratic_forms(
    objective: Callable[[], Tensor],
    weights: Sequence[keras.Variable],
    probes: Tensor,
    gaussian: bool,
    seed: Tensor,
) -> Tensor:
    """Returns z^T H z for random probes z, split by weight, with H the Hessian of the objective.

    It computes the first-order gradient once; each probe then takes one backpropagation through it.

    Args:
        objective: A function that evaluates the model and returns a scalar.
        weights: The weights to differentiate with respect to.
        probes: The indices of the probes to draw, integers of shape `(num_probes,)`.
        gaussian: Whether probes are standard normal; otherwise their entries are 1 or -1.
        seed: Two integers, shape `(2,)`. The same seed draws the same probes.

    Returns:
        Shape `(num_probes, len(weights))`, at least float32: sum of z (H z) over the entries of
        each weight. Sums over weights are z^T H z.

    Raises:
        NotImplementedError: if an operation has no second derivative.
    """
    product = _linearise_gradient(objective, weights)

    def form(z: Sequence[Tensor]) -> Tensor:
        pairs = zip(z, product(z), strict=True)
        sums = [tf.reduce_sum(tapes.promote(a) * tapes.promote(b)) for a, b in pairs]
        return tf.stack([tf.cast(part, _form_dtype(weights)) for part in sums])

    return map_probes(form, weights, probes, gaussian, seed)


def compute_hessian_products(
    objective: Callable[[], Tensor], weights: Sequence[keras.Variable], vectors: Tensor
) -> Tensor:
    """Returns H z for given vectors z, with H the Hessian of the objective.

    It computes the first-order gradient once; each vector then takes one backpropagation through
    it.

    Args:
        objective: A function that evaluates the model and returns a scalar.
        weights: The weights to differentiate with respect to.
        vectors: The vectors, shape `(num_vectors, entries of all weights)`, at least float32.

    Returns:
        The products, with the shape of `vectors`, at least float32.

    Raises:
        NotImplementedError: if an operation has no second derivative.
    """
    product, dtype = _linearise_gradient(objective, weights), _form_dtype(weights)
    sizes = [math.prod(w.shape) for w in weights]

    def multiply(vector: Tensor) -> Tensor:
        pairs = zip(tf.split(vector, sizes), weights, strict=True)
        z = [tf.cast(tf.reshape(part, w.shape), w.dtype) for part, w in pairs]
        return tf.concat([tf.reshape(tf.cast(part, dtype), [-1]) for part in product(z)], axis=0)

    return tf.map_fn(multiply, vectors, fn_output_signature=dtype, parallel_iterations=1)


def map_probes(
    function: Callable[[list[Tensor]], Tensor],
    weights: Sequence[keras.Variable],
    probes: Tensor,
    gaussian: bool,
    seed: Tensor,
) -> Tensor:
    """Applies a function to one random probe at a time; a probe has a tensor for each weight.

    Args:
        function: A function from a probe to a tensor of the weights' dtype, at least float32.
        weights: The weights, which have the probes' shapes.
        probes: The indices of the probes to draw, integers of shape `(num_probes,)`.
        gaussian: Whether probes are standard normal; otherwise their entries are 1 or -1.
        seed: Two integers, shape `(2,)`. The same seed draws the same probes.

    Returns:
        The stacked results.
    """
    fold_in = tf.random.experimental.stateless_fold_in

    def apply(index: Tensor) -> Tensor:
        own = fold_in(seed, index)
        return function([_draw_probe(w, gaussian, fold_in(own, i)) for i, w in enumerate(weights)])

    dtype = _form_dtype(weights)
    return tf.map_fn(apply, probes, fn_output_signature=dtype, parallel_iterations=1)


class Line:
    """A context for derivatives along a line, `value + t * velocity`, in forward mode.

    Inside it, the first two derivatives with respect to t at t = 0 are available for all results,
    without a tape. It replaces operations whose second derivatives are wrong in TensorFlow.
    """

    def __enter__(self) -> Line:
        self._second = tf.autodiff.ForwardAccumulator([], [])
        self._first = tf.autodiff.ForwardAccumulator([], [])
        with contextlib.ExitStack() as stack:
            for context in (tapes.use_exact_gradients(), self._second, self._first):
                stack.enter_context(context)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._stack.__exit__(*raised)

    def attach_velocity(self, value: Tensor, velocity: Tensor) -> Tensor:
        """Returns `value` with the given velocity; ignores the motion of both arguments."""
        tensor = tf.identity(tf.stop_gradient(value))
        # Computing value + t * velocity instead makes z^T H z a third slower.
        for accumulator in (self._second, self._first):
            accumulator._watch(tensor, tf.stop_gradient(velocity))
        return tensor

    def velocity(self, tensor: Tensor) -> Tensor | None:
        """Returns d tensor / dt; `None` if the tensor does not depend on t."""
        return self._first.jvp(tensor)

    def acceleration(self, tensor: Tensor) -> Tensor | None:
        """Returns d^2 tensor / dt^2; `None` if the velocity does not depend on t."""
        velocity = self._first.jvp(tensor)
        return None if velocity is None else self._second.jvp(velocity)


def count_probes_at_once() -> int | None:
    """Returns the maximum number of probes in one call of a compiled function; `None` for any."""
    return None


def run_abstractly(function: Callable[..., None], *arguments: Any) -> None:
    """Runs a function that needs only shapes; values are computed and discarded."""
    function(*arguments)


def compile_function(
    function: Callable[..., Any], any_length: Sequence[int] | None = None
) -> Callable[..., Any]:
    """Compiles a function to a graph.

    Arguments are structures of arrays. Tracing fixes their shapes, except the first axis of the
    arguments at the indices `any_length` (`None` for all).
    """
    graph = tf.function(function, autograph=False)
    traced: dict[str, Callable[..., Any]] = {}

    def call(*arguments: Any) -> Any:
        tensors = tf.nest.map_structure(tf.convert_to_tensor, arguments)
        specs = [
            tf.nest.map_structure(
                _relax_length
                if any_length is None or place in any_length
                else tf.TensorSpec.from_tensor,
                argument,
            )
            for place, argument in enumerate(tensors)
        ]
        key = repr(specs)
        if key not in traced:
            with free_with_graphs():
                traced[key] = graph.get_concrete_function(*specs)
        return traced[key](*tensors)

    return call


def _relax_length(tensor: Tensor) -> tf.TensorSpec:
    shape = tensor.shape.as_list()
    return tf.TensorSpec([None, *shape[1:]] if shape else [], tensor.dtype)


def compile_per_example(function: Callable[..., Tensor], dtype: str) -> Callable[..., Tensor]:
    """Compiles a function of one example, and applies it to each example of a batch.

    Args:
        function: A function of structures with a batch axis of length 1, which returns a tensor.
        dtype: The dtype of the function's results.

    Returns:
        A function of structures with a batch axis, which returns the stacked results.
    """
    return compile_function(
        lambda *examples: map_examples(lambda one: function(*one), examples, dtype)
    )


def cond(condition: Tensor | bool, if_true: Callable[[], Any], if_false: Callable[[], Any]) -> Any:
    """Runs one of two functions; unlike `ops.cond`, keeps the messages of errors in them."""
    if isinstance(condition, bool):
        return if_true() if condition else if_false()
    return tf.cond(condition, if_true, if_false)


def assert_below(result: Tensor, values: Tensor, bound: int, message: str) -> Tensor:
    """Returns `result`; raises `message` unless all `values` are whole numbers in [0, bound)."""
    values = tf.convert_to_tensor(values)
    integers = tf.cast(values, tf.int64)
    checks = [
        tf.debugging.assert_equal(tf.cast(integers, values.dtype), values, message=message),
        tf.debugging.assert_non_negative(integers, message=message),
        tf.debugging.assert_less(integers, tf.cast(bound, tf.int64), message=message),
    ]
    with tf.control_dependencies([check for check in checks if check is not None]):
        return tf.identity(result)


def nan_unless_below(result: Tensor, values: Tensor, bound: int) -> Tensor:
    """Returns `result`, or NaN if one of `values` is a fraction.

    `assert_below` has already raised if necessary, except under XLA, which has no assertions and
    computes a loss of NaN for values outside the bound.
    """
    del bound
    values = tf.convert_to_tensor(values)
    if not values.dtype.is_floating:
        return result
    return tf.where(tf.reduce_all(tf.equal(values, tf.round(values))), result, np.nan)


def keep_modules(model: keras.Layer) -> contextlib.AbstractContextManager[None]:
    """Does nothing: there are no modules of `torch.nn`."""
    return contextlib.nullcontext()


def synchronise(model: keras.Model) -> None:
    """Does nothing: variables already hold the current training state."""


def _linearise_gradient(
    objective: Callable[[], Tensor], weights: Sequence[keras.Variable]
) -> Callable[[Sequence[Tensor]], list[Tensor]]:
    """Computes the gradient, and returns the function that multiplies a vector by the Hessian."""
    sources = tapes.list_sources(weights)
    with (
        tf.GradientTape(persistent=True) as outer,
        tapes.use_exact_gradients(),
        replace_convolutions(),
    ):
        outer.watch(sources)
        with tf.GradientTape() as inner:
            inner.watch(sources)
            value = objective()
        g = tapes.fill_unconnected(tapes.densify(inner.gradient(value, sources)), sources)

    def product(z: Sequence[Tensor]) -> list[Tensor]:
        with replace_convolutions():
            return tapes.differentiate_again(outer, g, sources, z)

    return product


def _form_dtype(weights: Sequence[keras.Variable]) -> str:
    return keras.backend.result_type(*(w.dtype for w in weights), "float32")


def _draw_probe(weight: keras.Variable, gaussian: bool, seed: Tensor) -> Tensor:
    if gaussian:
        return tf.random.stateless_normal(weight.shape, seed, dtype=weight.dtype)
    # One random bit per entry, eight per table lookup; drawing one integer per entry is slower.
    size = math.prod(weight.shape)
    words = tf.random.stateless_uniform([-(-size // 32)], seed, None, None, dtype=tf.int32)
    octets = tf.cast(tf.bitcast(words, tf.uint8), tf.int32)
    signs = tf.gather(tf.constant(_SIGNS, weight.dtype), octets)
    return tf.reshape(tf.reshape(signs, [-1])[:size], weight.shape)


def _context() -> tf.Graph | None:
    """Returns the current graph, or `None` in eager execution."""
    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
