"""First and second derivatives with JAX's transformations."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
from jax.extend.core import get_opaque_trace_state

from keras_fisher.backend.jax.stateless import Compiled, Pure
from keras_fisher.backend.types import InnerGraphError, Tap, Tensor

# JAX disables 64-bit integers by default.
COUNTER_DTYPE = "int32"

# JAX does not expose the derivatives of values inside a function.
Line: Any = None

SPARSE_LOSS_CLIPS_FIRST = False
LOSSES_READ_LOGITS = False
ADDS_UP_SEEDS = False
TENSORS_CHANGE = False


def differentiate(
    objective: Callable[[], Tensor], weights: Sequence[keras.Variable]
) -> list[Tensor]:
    """Returns d objective() / d weights; zeros for unconnected weights."""
    pure = Pure(objective, weights)
    found, assigned = jax.grad(pure, has_aux=True)([w.value for w in weights])
    pure.assign_state(assigned)
    return found


def differentiate_by_taps(
    objective: Callable[[Tap], tuple[Tensor, Any]],
) -> tuple[list[Tensor], Any]:
    """Returns the gradient with respect to each tensor that passes through `tap`, and a structure.

    The gradient is zero for unconnected tensors.
    """
    pure = Pure(lambda zeros: _record(objective, zeros))
    tapped = jax.eval_shape(lambda: pure([], None)[0][1])
    static: list[Any] = []

    def evaluate(zeros: Sequence[Tensor]) -> tuple[Tensor, tuple[list[Tensor], list[Tensor]]]:
        (value, _, others), assigned = pure([], iter(zeros))
        leaves = keras.tree.flatten(others)
        static[:] = [others, leaves]
        return value, ([leaf for leaf in leaves if _is_array(leaf)], assigned)

    zeros = [jnp.zeros(tensor.shape, tensor.dtype) for tensor in tapped]
    found, (arrays, assigned) = jax.grad(evaluate, has_aux=True)(zeros)
    pure.assign(assigned)
    others, leaves = static
    remaining = iter(arrays)
    leaves = [next(remaining) if _is_array(leaf) else leaf for leaf in leaves]
    return found, keras.tree.pack_sequence_as(others, leaves)


def map_examples(function: Callable[[Any], Tensor], examples: Any, dtype: str) -> Tensor:
    """Applies a function to one example at a time, each with a batch axis of length 1."""
    del dtype

    def apply(leaves: Sequence[Tensor]) -> Tensor:
        batch = [leaf[None] for leaf in leaves]
        return function(keras.tree.pack_sequence_as(examples, batch))

    return jax.lax.map(apply, keras.tree.flatten(examples))


def compute_quadratic_forms(
    objective: Callable[[], Tensor],
    weights: Sequence[keras.Variable],
    probes: Tensor,
    gaussian: bool,
    seed: Tensor,
) -> Tensor:
    """Returns z^T H z for random probes z, split by weight, with H the Hessian of the objective.

    It linearises the first-order gradient once; each probe then takes one product with H.
    """
    product = _linearise_gradient(objective, weights)

    def form(z: list[Tensor]) -> Tensor:
        pairs = zip(z, product(z), strict=True)
        return jnp.stack([jnp.vdot(promote(a), promote(b)) for a, b in pairs])

    return map_probes(form, weights, probes, gaussian, seed)


def compute_summed_forms(
    objective: Callable[[], Tensor],
    weights: Sequence[keras.Variable],
    probes: Tensor,
    gaussian: bool,
    seed: Tensor,
) -> Tensor:
    """Returns z^T H z for random probes z, shape `(num_probes, 1)`, by forward mode alone.

    z^T H z is the second derivative of the objective along z. With y = W x in a layer, and x', x''
    the derivatives of its input, it takes the products W x, W x', W x'', z x and z x'.

    Raises:
        NotImplementedError: if an operation has no derivative in forward mode.
    """
    values, pure = [w.value for w in weights], Pure(objective, weights)

    def form(z: list[Tensor]) -> Tensor:
        def slope(at: Sequence[Tensor]) -> Tensor:
            return jax.jvp(lambda inner: pure(inner)[0], (at,), (z,))[1]

        return promote(jax.jvp(slope, (values,), (z,))[1])[None]

    return map_probes(form, weights, probes, gaussian, seed)


def compute_hessian_products(
    objective: Callable[[], Tensor], weights: Sequence[keras.Variable], vectors: Tensor
) -> Tensor:
    """Returns H z for given vectors z, with H the Hessian of the objective.

    It linearises the first-order gradient once; each vector then takes one product with H.
    """
    product = _linearise_gradient(objective, weights)
    ends = list(itertools.accumulate(math.prod(w.shape) for w in weights))

    def multiply(vector: Tensor) -> Tensor:
        pairs = zip(jnp.split(vector, ends[:-1]), weights, strict=True)
        z = [part.reshape(w.shape).astype(w.dtype) for part, w in pairs]
        return jnp.concatenate([promote(part).ravel() for part in product(z)])

    return multiply(vectors[0])[None] if len(vectors) == 1 else jax.lax.map(multiply, vectors)


def map_probes(
    function: Callable[[list[Tensor]], Tensor],
    weights: Sequence[keras.Variable],
    probes: Tensor,
    gaussian: bool,
    seed: Tensor,
) -> Tensor:
    """Applies a function to one random probe at a time; a probe has a tensor for each weight."""
    key = jax.random.wrap_key_data(seed.astype("uint32"), impl="threefry2x32")

    def apply(index: Tensor) -> Tensor:
        return function(_draw_probe(weights, gaussian, jax.random.fold_in(key, index)))

    return apply(probes[0])[None] if len(probes) == 1 else jax.lax.map(apply, probes)


def count_probes_at_once() -> int | None:
    """Returns the maximum number of probes in one call of a compiled function; `None` for any.

    On a CPU, XLA runs a loop on a single core. This is no constant, because to ask JAX for its
    devices starts it, and several processes must join before.
    """
    return 1 if jax.default_backend() == "cpu" else None


def compile_function(
    function: Callable[..., Any], any_length: Sequence[int] | None = None
) -> Callable[..., Any]:
    """Compiles a function once for each structure, shape and dtype of its array arguments.

    Each call reads the current values of variables, and assigns to them.
    """
    del any_length  # each shape is compiled separately
    made: dict[str, Compiled] = {}

    def call(*arguments: Any) -> Any:
        arrays = jax.tree.map(jnp.asarray, arguments)
        key = repr(jax.tree.map(lambda array: (array.shape, str(array.dtype)), arrays))
        if key not in made:
            made[key] = Compiled(function, arrays)
        return made[key](*arrays)

    return call


def compile_per_example(function: Callable[..., Tensor], dtype: str) -> Callable[..., Tensor]:
    """Compiles a function of one example, and applies it to each example of a batch.

    On a CPU, XLA runs a loop on a single core, so the host runs it there.
    """
    one = compile_function(function)
    looped = compile_function(
        lambda *examples: map_examples(lambda one: function(*one), examples, dtype)
    )

    def call(*examples: Any) -> Tensor:
        if jax.default_backend() != "cpu":
            return looped(*examples)
        arrays = jax.tree.map(np.asarray, examples)
        found = [
            one(*jax.tree.map(lambda array, row=row: array[row : row + 1], arrays))
            for row in range(len(jax.tree.leaves(arrays)[0]))
        ]
        return jnp.stack(found)

    return call


def assert_below(result: Tensor, values: Tensor, bound: int, message: str) -> Tensor:
    """Returns `result`: a compiled step cannot raise; see `nan_unless_below`."""
    del values, bound, message
    return result


def nan_unless_below(result: Tensor, values: Tensor, bound: int) -> Tensor:
    """Returns `result`, or NaN unless all `values` are whole numbers in [0, bound)."""
    values = jnp.asarray(values)
    integers = values.astype("int32")
    fine = (integers >= 0) & (integers < bound) & (integers == values)
    return jnp.where(jnp.all(fine), result, jnp.nan)


def squared_norm(tensors: Sequence[Tensor]) -> Tensor:
    """Returns the sum of squares over all `tensors`, at least float32."""
    return sum(jnp.sum(jnp.square(promote(tensor))) for tensor in tensors)


def promote(tensor: Tensor) -> Tensor:
    """Casts a tensor to float32 unless it is wider."""
    return tensor.astype(keras.backend.result_type(tensor.dtype, "float32"))


def keep_modules(model: keras.Layer) -> contextlib.AbstractContextManager[None]:
    """Does nothing: there are no modules of `torch.nn`."""
    return contextlib.nullcontext()


def synchronise(model: keras.Model) -> None:
    """Writes the current training state, which JAX keeps separately, into the variables."""
    model.jax_state_sync()


def get_replica_index() -> Tensor | None:
    """Returns `None`: a step is written for the whole batch, on any number of devices."""
    return None


def _linearise_gradient(
    objective: Callable[[], Tensor], weights: Sequence[keras.Variable]
) -> Callable[[list[Tensor]], list[Tensor]]:
    """Computes the gradient, and returns the function that multiplies a vector by the Hessian."""
    pure = Pure(objective, weights)

    def gradient(values: Sequence[Tensor]) -> list[Tensor]:
        return jax.grad(lambda at: pure(at)[0])(values)

    return jax.linearize(gradient, [w.value for w in weights])[1]


def _draw_probe(weights: Sequence[keras.Variable], gaussian: bool, key: jax.Array) -> list[Tensor]:
    """Draws the entries for all weights at once: XLA takes long to compile many draws."""
    draw = jax.random.normal if gaussian else jax.random.rademacher
    ends = list(itertools.accumulate(math.prod(w.shape) for w in weights))
    drawn = draw(key, ends[-1:], jnp.result_type(*(w.dtype for w in weights)))
    parts = zip(jnp.split(drawn, ends[:-1]), weights, strict=True)
    # Without the barrier, XLA draws them again for each use.
    return jax.lax.optimization_barrier([p.reshape(w.shape).astype(w.dtype) for p, w in parts])


def _record(
    objective: Callable[[Tap], tuple[Tensor, Any]], zeros: Iterator[Tensor] | None
) -> tuple[Tensor, list[Tensor], Any]:
    """Returns the value, the tapped tensors and the structure; adds `zeros` to the tensors."""
    context = _context()
    tapped: list[Tensor] = []

    def tap(tensor: Tensor) -> Tensor:
        if _context() != context:
            raise InnerGraphError
        tapped.append(tensor)
        return tensor if zeros is None else tensor + next(zeros)

    value, others = objective(tap)
    return value, tapped, others


def _context() -> Any:
    """Returns the current trace."""
    return get_opaque_trace_state(convention="nnx")


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array)
