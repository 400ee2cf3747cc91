"""The squared norm of gradients, without the gradients of large kernels.

The gradient of a dense kernel is G = X^T D, with inputs X, shape (rows, inputs), and gradients of
the outputs D, shape (rows, outputs). Without G, ||G||^2 is the sum over all entries of X X^T times
D D^T, entry by entry.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from keras_fisher.backend.tensorflow import tapes
from keras_fisher.backend.tensorflow.autodiff import cond
from keras_fisher.backend.types import Tensor

# The number of entries of a large kernel. Smaller gradients stay in a processor's cache, and
# nothing is gained without them.
LARGE = 2**20

# Operations that only arrange the entries of a tensor.
_ARRANGING = ("Identity", "Reshape", "Transpose")


def squared_norm(gradients: Sequence[Tensor | None]) -> Tensor:
    """Returns the sum of squares over all `gradients`, at least float32; `None` counts as zero.

    In a graph, the gradients of large kernels are not computed if that saves time.
    """
    return tapes.sum_present([None if g is None else _square(g) for g in gradients])


def saves_time(rows: int | Tensor, inputs: int, outputs: int) -> bool | Tensor:
    """Returns whether ||G||^2 and its derivatives cost less without G.

    To differentiate ||G||^2 takes 2 rows inputs outputs multiplications with G, and
    2 rows^2 (inputs + outputs) without.
    """
    entries = inputs * outputs
    limit = -(-entries // (inputs + outputs))  # small, as `rows` may be a 32-bit integer
    return entries >= LARGE and rows < limit


def _square(g: Tensor) -> Tensor:
    factors = _find_factors(g)
    if factors is None:
        return tapes.square(g)
    x, d = factors
    is_quicker = saves_time(x.shape[0] or tf.shape(x)[0], x.shape[1], d.shape[1])
    return cond(is_quicker, lambda: _multiply_gram_matrices(x, d), lambda: tapes.square(g))


def _find_factors(g: Tensor) -> tuple[Tensor, Tensor] | None:
    """Returns X and D with the entries of X^T D in `g`, if a graph computes it in this way."""
    if not tf.is_symbolic_tensor(g):
        return None
    operation = g.op
    while operation.type in _ARRANGING:
        operation = operation.inputs[0].op
    if operation.type != "MatMul" or operation.outputs[0].dtype != g.dtype:
        return None
    x, d = operation.inputs
    x = x if operation.get_attr("transpose_a") else tf.transpose(x)
    d = tf.transpose(d) if operation.get_attr("transpose_b") else d
    return None if None in (x.shape[1], d.shape[1]) else (x, d)


def _multiply_gram_matrices(x: Tensor, d: Tensor) -> Tensor:
    of_x, of_d = (tf.matmul(t, t, transpose_b=True) for t in (x, d))
    return tf.reduce_sum(of_x * of_d)
