"""Steps that run on several replicas of a model at once, each on its part of a mini-batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf


class Replica:
    """One replica in a step that all run together: its part of the global mini-batch, and sums.

    Args:
        examples: How many examples this replica has.
    """

    def __init__(self, examples: Any) -> None:
        self._context = tf.distribute.get_replica_context()
        self.count = self._context.num_replicas_in_sync
        self._index = tf.convert_to_tensor(self._context.replica_id_in_sync_group)
        self._examples = tf.cast(examples, tf.float64)
        counts = self.sum([tf.one_hot(self._index, self.count, dtype=tf.float64) * self._examples])
        self._counts = counts[0]
        self._share = tf.math.divide_no_nan(self._examples, tf.reduce_sum(self._counts))

    def first(self, examples: int) -> tuple[Any, Replica]:
        """How many of the first `examples` of the global mini-batch are here; a replica of those.

        The mini-batch lies on the replicas one part after another.
        """
        before = tf.reduce_sum(tf.where(tf.range(self.count) < self._index, self._counts, 0.0))
        here = tf.clip_by_value(tf.cast(examples, tf.float64) - before, 0.0, self._examples)
        here = tf.cast(here, tf.int32)
        return here, Replica(here)

    def part(self, mean: Any) -> Any:
        """What a mean over this replica's examples adds to that over all; 0 where it has none."""
        return tf.math.multiply_no_nan(mean, tf.cast(self._share, mean.dtype))

    def sum(self, tensors: Sequence[Any]) -> list[Any]:
        """The sum over replicas of each tensor; `None` stays `None`."""
        present = [t for t in tensors if t is not None]
        reduced = iter(self._context.all_reduce(tf.distribute.ReduceOp.SUM, present))
        return [None if t is None else next(reduced) for t in tensors]


def is_distributed(strategy: tf.distribute.Strategy) -> bool:
    """Whether a strategy has several replicas, or is one for several machines."""
    many_workers = tf.distribute.MultiWorkerMirroredStrategy
    return strategy.num_replicas_in_sync > 1 or isinstance(strategy, many_workers)


def replica_index() -> Any:
    """Which replica of several this is; `None` where there is one, or outside of a step."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return None
    return tf.convert_to_tensor(context.replica_id_in_sync_group)


def on_replicas(
    strategy: tf.distribute.Strategy,
    choose: Callable[[], Any],
    steps: Sequence[Callable[[Any], Any]],
    results: Callable[[], Any],
    run_eagerly: bool,
) -> Callable[[Any], Any]:
    """Returns a function that takes a batch from an iterator, and runs a step on all replicas.

    A step sums over replicas, which TensorFlow cannot do inside of a branch; so the branch is
    around the step.

    Args:
        strategy: The strategy.
        choose: Returns the index of the step to run.
        steps: Functions of a replica's part of a batch.
        results: Returns what the step has to report, once for all replicas.
        run_eagerly: Whether not to compile.
    """

    def on_data(data: Any) -> Any:
        branches = [lambda step=step: _run(strategy, step, data) for step in steps]
        tf.switch_case(tf.cast(choose(), tf.int32), branches)
        return results()

    def on_iterator(iterator: Any) -> Any:
        return on_data(next(iterator))

    if not run_eagerly:
        on_data = tf.function(on_data, reduce_retracing=True, autograph=False)
        on_iterator = tf.function(on_iterator, reduce_retracing=True, autograph=False)

    def function(iterator: Any) -> Any:
        if isinstance(iterator, tf.distribute.DistributedIterator):
            return on_iterator(iterator)
        return on_data(next(iter(iterator)))

    return function


def _run(strategy: tf.distribute.Strategy, step: Callable[[Any], Any], data: Any) -> Any:
    strategy.run(step, args=(data,))
    return tf.constant(0)  # Branches have to return something, and the same.
