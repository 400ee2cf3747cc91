"""First and second derivatives with TensorFlow's gradient tapes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from keras_fisher.autodiff.tensorflow_ops import (
    exact_moments,
    exact_pooling,
    quick_convolutions,
)
from keras_fisher.autodiff.tensorflow_replicas import Replica


class PenaltyGradients(NamedTuple):
    """What one penalised evaluation gives.

    Attributes:
        loss: d loss / d weights, a list; `None` where a weight is unconnected. `None` if the
            objective had no loss.
        penalty: d ||g||^2 / d weights, a list of dense tensors, at least float32.
        squared_norm: ||g||^2, a scalar, at least float32.
    """

    loss: list[Any] | None
    penalty: list[Any]
    squared_norm: Any


Tap = Callable[[Any], Any]


class InnerGraphError(Exception):
    """A tensor was tapped inside a loop, a branch or another function than the tape's."""


def gradients(objective: Callable[[], Any], weights: Sequence[Any]) -> list[Any]:
    """Returns d objective() / d weights; dense, `None` where a weight is unconnected."""
    with tf.GradientTape() as tape:
        value = objective()
    return _dense(tape.gradient(value, list(weights)))


def tapped_gradients(objective: Callable[[Tap], Any]) -> list[Any]:
    """Returns d objective / d each tensor that it passes through the `tap` it is given.

    The gradients come in the order of the taps, dense, `None` where a tensor is unconnected.
    """
    tapped: list[Any] = []
    context = _context()
    with tf.GradientTape(watch_accessed_variables=False) as tape, quick_convolutions():

        def tap(tensor: Any) -> Any:
            if _context() is not context:
                raise InnerGraphError
            tape.watch(tensor)
            tapped.append(tensor)
            return tensor

        value = objective(tap)
    return _dense(tape.gradient(value, tapped))


def map_examples(function: Callable[[Any], Any], examples: Any, dtype: str) -> Any:
    """Applies a function to one example after another, each with a batch axis of length 1.

    Args:
        function: From a structure like `examples` to a tensor.
        examples: A structure of tensors of shape `(batch, ...)`.
        dtype: The dtype of what the function returns.

    Returns:
        The stacked results.
    """

    @tf.autograph.experimental.do_not_convert
    def one(example: Any) -> Any:
        return function(tf.nest.map_structure(lambda tensor: tensor[tf.newaxis], example))

    return tf.map_fn(one, examples, fn_output_signature=dtype)


def quadratic_forms(
    objective: Callable[[], Any], weights: Sequence[Any], num_probes: Any, gaussian: bool, seed: Any
) -> Any:
    """Returns z^T H z for random probes z, split by weight, with H the Hessian of the objective.

    The first-order gradient is computed once; each probe is one backpropagation through it.

    Args:
        objective: Evaluates the model and returns a scalar.
        weights: What to differentiate by.
        num_probes: How many probes to draw.
        gaussian: Whether probes are standard normal; otherwise their entries are 1 or -1.
        seed: Two integers, shape `(2,)`. The same seed draws the same probes.

    Returns:
        Shape `(num_probes, len(weights))`, at least float32: sum of z (H z) over the entries of
        each weight. Sums over weights are z^T H z.

    Raises:
        NotImplementedError: if an operation has no second derivative.
    """
    sources = _sources(weights)
    with tf.GradientTape(persistent=True) as outer, _exactly(), quick_convolutions():
        outer.watch(sources)
        with tf.GradientTape() as inner:
            inner.watch(sources)
            value = objective()
        g = _zeros_for_none(_dense(inner.gradient(value, sources)), sources)

    def form(z: Sequence[Any]) -> Any:
        h_z = _second_gradient(outer, g, sources, z)
        sums = [tf.reduce_sum(_promoted(a) * _promoted(b)) for a, b in zip(z, h_z, strict=True)]
        return tf.stack([tf.cast(part, _form_dtype(weights)) for part in sums])

    return map_probes(form, weights, num_probes, gaussian, seed)


def map_probes(
    function: Callable[[list[Any]], Any],
    weights: Sequence[Any],
    num_probes: Any,
    gaussian: bool,
    seed: Any,
) -> Any:
    """Applies a function to one random probe after another, a tensor for each weight.

    Args:
        function: From a probe to a tensor of the dtype of the weights, at least float32.
        weights: What the probes are shaped like.
        num_probes: How many probes to draw.
        gaussian: Whether probes are standard normal; otherwise their entries are 1 or -1.
        seed: Two integers, shape `(2,)`. The same seed draws the same probes.

    Returns:
        The stacked results.
    """
    fold_in = tf.random.experimental.stateless_fold_in

    def one(index: Any) -> Any:
        own = fold_in(seed, index)
        return function([_probe(w, gaussian, fold_in(own, i)) for i, w in enumerate(weights)])

    dtype = _form_dtype(weights)
    return tf.map_fn(one, tf.range(num_probes), fn_output_signature=dtype, parallel_iterations=1)


class Line:
    """Tensors that move along a line, `value + t * velocity`, and what is computed from them.

    A context: the derivatives with respect to t, at t = 0, are known of what is computed in it,
    forward and without a tape. What TensorFlow differentiates wrongly twice is replaced.
    """

    def __enter__(self) -> Line:
        self._second = tf.autodiff.ForwardAccumulator([], [])
        self._first = tf.autodiff.ForwardAccumulator([], [])
        with contextlib.ExitStack() as stack:
            for context in (_exactly(), self._second, self._first):
                stack.enter_context(context)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._stack.__exit__(*raised)

    def moving(self, value: Any, velocity: Any) -> Any:
        """Returns `value`, moving; neither argument's own motion counts."""
        tensor = tf.identity(tf.stop_gradient(value))
        # To compute value + t * velocity instead takes a third more time for z^T H z.
        for accumulator in (self._second, self._first):
            accumulator._watch(tensor, tf.stop_gradient(velocity))
        return tensor

    def velocity(self, tensor: Any) -> Any:
        """Returns d tensor / dt; `None` where it does not depend on t."""
        return self._first.jvp(tensor)

    def acceleration(self, tensor: Any) -> Any:
        """Returns d^2 tensor / dt^2; `None` where its velocity does not depend on t."""
        velocity = self._first.jvp(tensor)
        return None if velocity is None else self._second.jvp(velocity)


def penalty_gradients(
    objective: Callable[[], tuple[Any, Any]],
    weights: Sequence[Any],
    wrt: Sequence[Any],
    scale: Any = None,
    replica: Replica | None = None,
) -> PenaltyGradients:
    """Differentiates the squared norm of g = d nll / d wrt by backpropagating twice.

    On several replicas, where each has the nll of its own examples, g is that of the mean over all
    examples: with g_r that of replica r's part of the mean, the gradient of ||g||^2 is the sum
    over r of d <2 g_r, g> / d weights, where g = sum g_r is held fixed.

    Args:
        objective: Evaluates the model once and returns `(loss, nll)`, two scalars; the loss may be
            `None`.
        weights: What to differentiate the loss and the squared norm by.
        wrt: What g is taken with respect to: `weights` again, or inputs.
        scale: A loss scale. Half-precision gradients are computed multiplied by it, so that they
            do not underflow, and what is returned for the penalty is divided by it again.
        replica: This replica, where there are several.

    Returns:
        The gradients of the loss (on this replica) and of the squared norm, and the squared norm.

    Raises:
        NotImplementedError: if an operation has no second derivative.
    """
    has_parts = wrt is not weights  # each replica has inputs of its own, but all the weights
    weights, wrt = _sources(weights), _sources(wrt)
    with tf.GradientTape(persistent=True) as outer, _exactly():
        outer.watch(weights)
        with tf.GradientTape() as inner:
            inner.watch(wrt)
            loss, nll = objective()
            scaled_nll = _scaled(nll if replica is None else replica.part(nll), scale)
        g = _unscaled(_dense(inner.gradient(scaled_nll, wrt)), scale)
        if replica is not None:
            g = replica.present(g)
        norm = target = squared_norm(g)
        if replica is not None:
            with outer.stop_recording():
                held, norm = _over_replicas(g, replica, has_parts)
            target = 2.0 * tf.add_n([tf.reduce_sum(a * b) for a, b in _present(g, held)])
        scaled_target = _scaled(target, scale)
    penalty = _unscaled(_second_gradient(outer, scaled_target, weights), scale)
    if replica is not None:
        penalty = replica.sum(replica.present(penalty))
    return PenaltyGradients(_loss_gradients(outer, loss, weights), penalty, tf.stop_gradient(norm))


def penalty_gradients_by_difference(
    objective: Callable[[], tuple[Any, Any]],
    shifted_nll: Callable[[Sequence[Any], Sequence[Any]], Any],
    weights: Sequence[Any],
    inputs: Sequence[Any] | None = None,
    scale: Any = None,
    precision: str = "float32",
    replica: Replica | None = None,
) -> PenaltyGradients:
    """Differentiates the squared norm of g = d nll / d v from two first-order gradients.

    d ||g||^2 / d weights = 2 d/dh [d nll / d weights](v + h g) at h = 0, a forward difference.

    Args:
        objective: Evaluates the model once and returns `(loss, nll)`, two scalars; the loss may be
            `None`.
        shifted_nll: The nll at other weights and inputs, with the same labels and random numbers.
        weights: What to differentiate by, and v unless `inputs` is given.
        inputs: v, when the gradient with respect to inputs is penalised.
        scale: A loss scale, as in `penalty_gradients`.
        precision: The dtype that the model computes in; the coarser, the longer the step.
        replica: This replica, where there are several, as in `penalty_gradients`.

    Returns:
        The gradients of the loss (on this replica) and of the squared norm, and the squared norm.
    """
    weights = _sources(weights)
    shift_inputs = inputs is not None
    point = _sources(inputs) if inputs is not None else weights
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([*weights, *point])
        loss, nll = objective()
        scaled_nll = _scaled(nll if replica is None else replica.part(nll), scale)
    here = _unscaled(_zeros_for_none(_dense(tape.gradient(scaled_nll, weights)), weights), scale)
    if replica is not None:
        here = replica.sum(replica.present(here))
    g = here
    if shift_inputs:
        g = _unscaled(_zeros_for_none(_dense(tape.gradient(scaled_nll, point)), point), scale)
    norm, size = squared_norm(g), squared_norm([_value(v) for v in point])
    if replica is not None and shift_inputs:  # each replica has inputs of its own
        g = replica.present(g)
        norm, size = replica.sum([squared_norm(g), size])
    step = _step_length(size, norm, precision)
    shifted = [_value(v) + tf.cast(step * d, v.dtype) for v, d in zip(point, g, strict=True)]
    with tf.GradientTape() as tape_there:
        at = [_value(w) for w in weights] if shift_inputs else shifted
        tape_there.watch(at)
        nll_there = shifted_nll(at, shifted if shift_inputs else [])
        scaled_there = _scaled(nll_there if replica is None else replica.part(nll_there), scale)
    there = _unscaled(_zeros_for_none(_dense(tape_there.gradient(scaled_there, at)), at), scale)
    if replica is not None:
        there = replica.sum(replica.present(there))
    penalty = [2.0 * (t - h) / step for t, h in zip(there, here, strict=True)]
    return PenaltyGradients(_loss_gradients(tape, loss, weights), penalty, norm)


def squared_norm(tensors: Sequence[Any]) -> Any:
    """Returns the sum of squares over all `tensors`, at least float32; `None` counts as zero."""
    squares = [tf.reduce_sum(tf.square(_promoted(t))) for t in tensors if t is not None]
    if not squares:
        raise ValueError(
            "A gradient norm needs outputs that depend on what the gradient is taken with respect "
            "to (trainable weights, or floating-point inputs for 'gp_x'). Received: none that do"
        )
    return tf.add_n(squares)


def compiled(function: Callable[..., Any], any_batch: bool = True) -> Callable[..., Any]:
    """Returns the function as a graph, traced once for batches of any size or once for each.

    Arguments are structures of arrays. All but the first axis of each is fixed when it is traced;
    without `any_batch` the first is too.
    """
    graph = tf.function(function, autograph=False)
    traced: dict[str, Any] = {}

    def call(*arguments: Any) -> Any:
        tensors = tf.nest.map_structure(tf.convert_to_tensor, arguments)
        specs = tf.nest.map_structure(
            _any_batch if any_batch else tf.TensorSpec.from_tensor, tensors
        )
        key = repr(specs)
        if key not in traced:
            traced[key] = graph.get_concrete_function(*specs)
        return traced[key](*tensors)

    return call


def _any_batch(tensor: Any) -> tf.TensorSpec:
    shape = tensor.shape.as_list()
    return tf.TensorSpec([None, *shape[1:]] if shape else [], tensor.dtype)


def cond(condition: Any, if_true: Callable[[], Any], if_false: Callable[[], Any]) -> Any:
    """Runs one of two functions; errors in them keep their own message, unlike `ops.cond`'s."""
    return tf.cond(condition, if_true, if_false)


def checked_below(values: Any, bound: int, message: str) -> Any:
    """Returns `values`; fails the step, with `message`, unless every one lies in [0, bound)."""
    values = tf.convert_to_tensor(values)
    integers = tf.cast(values, tf.int64)
    checks = [
        tf.debugging.assert_non_negative(integers, message=message),
        tf.debugging.assert_less(integers, tf.cast(bound, tf.int64), message=message),
    ]
    with tf.control_dependencies([check for check in checks if check is not None]):
        return tf.identity(values)


def _over_replicas(g: list[Any], replica: Replica, has_parts: bool) -> tuple[list[Any], Any]:
    """G of the mean over all examples, as far as it is this replica's, and its squared norm."""
    if has_parts:
        held = [None if t is None else tf.stop_gradient(t) for t in g]
        return held, replica.sum([squared_norm(held)])[0]
    held = replica.sum(g)
    return held, squared_norm(held)


def _present(first: Sequence[Any], second: Sequence[Any]) -> list[tuple[Any, Any]]:
    return [(a, b) for a, b in zip(first, second, strict=True) if a is not None]


def _step_length(squared_norm_of_point: Any, squared_norm_of_g: Any, precision: str) -> Any:
    """The h for which the shift h g is a fixed small fraction of the point's own size."""
    size = 1.0 + tf.sqrt(squared_norm_of_point)
    return _as(_SHIFT[precision], size) * size / (tf.sqrt(squared_norm_of_g) + 1e-30)


# About the square root of each dtype's rounding error.
_SHIFT = {"float64": 1e-8, "float32": 1e-4, "float16": 2e-2, "bfloat16": 5e-2}


def _second_gradient(
    tape: tf.GradientTape, target: Any, weights: list[Any], direction: Any = None
) -> list[Any]:
    zero = tf.UnconnectedGradients.ZERO
    try:
        return _dense(tape.gradient(target, weights, direction, unconnected_gradients=zero))
    except LookupError as error:
        raise NotImplementedError(
            "An operation of the model has no second derivative in TensorFlow: in training use "
            "gradient='finite_difference' (and, for an LSTM or GRU on a GPU, use_cudnn=False). "
            f"TensorFlow says: {error}"
        ) from error


def _form_dtype(weights: Sequence[Any]) -> str:
    return keras.backend.result_type(*(w.dtype for w in weights), "float32")


@contextlib.contextmanager
def _exactly() -> Iterator[None]:
    """Replaces what TensorFlow differentiates wrongly twice."""
    with exact_moments(), exact_pooling():
        yield


def _probe(weight: Any, gaussian: bool, seed: Any) -> Any:
    if gaussian:
        return tf.random.stateless_normal(weight.shape, seed, dtype=weight.dtype)
    bits = tf.random.stateless_uniform(weight.shape, seed, 0, 2, dtype=tf.int32)
    return tf.cast(2 * bits - 1, weight.dtype)


def _context() -> Any:
    """What operations run in now: a graph, or None when they are executed at once."""
    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()


def _loss_gradients(tape: tf.GradientTape, loss: Any, weights: list[Any]) -> list[Any] | None:
    return None if loss is None else _dense(tape.gradient(loss, weights))


def _dense(tensors: Sequence[Any]) -> list[Any]:
    """Sums the duplicate rows of sparse gradients (of embeddings) into dense tensors."""
    return [tf.convert_to_tensor(t) if isinstance(t, tf.IndexedSlices) else t for t in tensors]


def _zeros_for_none(tensors: Sequence[Any], like: Sequence[Any]) -> list[Any]:
    return [
        tf.zeros_like(_value(v)) if t is None else t for t, v in zip(tensors, like, strict=True)
    ]


def _scaled(scalar: Any, scale: Any) -> Any:
    return scalar if scale is None else scalar * _as(scale, scalar)


def _unscaled(tensors: Sequence[Any], scale: Any) -> list[Any]:
    promoted = [None if t is None else _promoted(t) for t in tensors]
    if scale is None:
        return promoted
    return [None if t is None else t / _as(scale, t) for t in promoted]


def _promoted(tensor: Any) -> Any:
    return tf.cast(tensor, keras.backend.result_type(tensor.dtype, "float32"))


def _as(scale: Any, tensor: Any) -> Any:
    return tf.cast(scale, tensor.dtype)


def _value(variable: Any) -> Any:
    return tf.convert_to_tensor(variable)


def _sources(variables: Sequence[Any]) -> list[Any]:
    """What a tape can watch: the `tf.Variable` inside each Keras variable; tensors as they are."""
    return [v.value if isinstance(v, keras.Variable) else v for v in variables]
