"""Steps on several replicas of a model at once, each on its part of a mini-batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_fisher.backend.tensorflow.registry import free_with_graphs
from keras_fisher.backend.types import Replica, Tensor


class SyncReplica(Replica):
    """One of several replicas in a synchronised step: its part of the mini-batch, and sums.

    Args:
        examples: The number of examples on this replica.
    """

    def __init__(self, examples: Tensor) -> None:
        self._context = tf.distribute.get_replica_context()
        self.count = self._context.num_replicas_in_sync
        self._index = tf.convert_to_tensor(self._context.replica_id_in_sync_group)
        self._examples = tf.cast(examples, tf.float64)
        counts = self.sum([tf.one_hot(self._index, self.count, dtype=tf.float64) * self._examples])
        self._counts = counts[0]
        total = tf.reduce_sum(self._counts)
        self.total = tf.cast(total, tf.int32)
        self._share = tf.math.divide_no_nan(self._examples, total)

    def take_first(self, examples: Tensor) -> tuple[Tensor, Replica]:
        """Returns how many of the first `examples` are on this replica, and a replica of these.

        The first parts of a batch go to the first replica of each worker, the next to the second.
        """
        local = len(self._context.strategy.extended.worker_devices)
        replicas = tf.range(self.count)
        position = replicas % local * (self.count // local) + replicas // local
        is_before = position < tf.gather(position, self._index)
        before = tf.reduce_sum(tf.where(is_before, self._counts, 0.0))
        here = tf.clip_by_value(tf.cast(examples, tf.float64) - before, 0.0, self._examples)
        here = tf.cast(here, tf.int32)
        return here, SyncReplica(here)

    def add_up(self, mean: Tensor) -> Tensor:
        """Returns the contribution of this replica's mean to the mean over all; 0 if empty."""
        return tf.math.multiply_no_nan(mean, tf.cast(self._share, mean.dtype))

    def restore_mean(self, loss: Tensor) -> Tensor:
        """Returns the loss without Keras's factor, 1/count in single precision."""
        return loss / tf.cast(1.0 / self.count, loss.dtype)

    def zero_without_examples(self, gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Returns the gradients, or zeros without examples, where normalisation gives NaN."""
        is_any = self._examples > 0
        return [
            None if g is None else tf.math.multiply_no_nan(g, tf.cast(is_any, g.dtype))
            for g in gradients
        ]

    def align_non_finite(self, gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Returns the gradients, or NaN on every replica if one has a non-finite gradient.

        A loss scale checks only one replica's gradients, but all replicas must skip the same steps.
        """
        finite = [tf.reduce_all(tf.math.is_finite(g)) for g in gradients if g is not None]
        (others,) = self.sum([tf.cast(tf.reduce_all(finite), tf.float32)])
        is_finite = others == self.count
        return [None if g is None else tf.where(is_finite, g, float("nan")) for g in gradients]

    def sum(self, tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Returns the sum over replicas of each tensor; `None` stays `None`."""
        present = [t for t in tensors if t is not None]
        reduced = iter(self._context.all_reduce(tf.distribute.ReduceOp.SUM, present))
        return [None if t is None else next(reduced) for t in tensors]


def is_distributed(strategy: tf.distribute.Strategy) -> bool:
    """Whether a strategy merges replicas to update a variable, as mirroring strategies do."""
    mirrored = (tf.distribute.MirroredStrategy, tf.distribute.MultiWorkerMirroredStrategy)
    return strategy.num_replicas_in_sync > 1 or isinstance(strategy, mirrored)


def get_replica_index() -> Tensor | None:
    """Returns the index of this replica; `None` for a single replica or outside a step."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return None
    return tf.convert_to_tensor(context.replica_id_in_sync_group)


def run_on_replicas(
    strategy: tf.distribute.Strategy,
    choose: Callable[[], int | Tensor],
    steps: Sequence[Callable[[Any], Any]],
    results: Callable[[], dict[str, Any]],
    run_eagerly: bool,
) -> Callable[[Any], dict[str, Any]]:
    """Returns a function that takes a batch from an iterator, and runs a step on all replicas.

    A step sums over replicas, which TensorFlow cannot do inside a branch, so the branch is around
    the step.

    Args:
        strategy: The strategy.
        choose: A function that returns the index of the step to run.
        steps: Functions of a replica's part of a batch.
        results: A function that returns the results of the step, called once for all replicas.
        run_eagerly: Whether to run without compiling.
    """

    def run_next(iterator: Any) -> dict[str, Any]:
        data = next(iterator)
        branches = [lambda step=step: _run(strategy, step, data) for step in steps]
        with free_with_graphs():
            tf.switch_case(tf.cast(choose(), tf.int32), branches)
            return results()

    if not run_eagerly:
        run_next = tf.function(run_next, reduce_retracing=True, autograph=False)

    def run(iterator: Any) -> dict[str, Any]:
        if not isinstance(iterator, tf.distribute.DistributedIterator):
            iterator = iter(_distribute(strategy, next(iter(iterator))))
        return run_next(iterator)

    return run


def take_first_part(
    strategy: tf.distribute.Strategy, dataset: tf.data.Dataset | tf.distribute.DistributedDataset
) -> Any:
    """Returns the first replica's part of a batch, as a specification or an example."""
    if not isinstance(dataset, tf.distribute.DistributedDataset):
        return dataset.element_spec
    batch = next(iter(dataset))
    return tf.nest.map_structure(lambda v: strategy.experimental_local_results(v)[0], batch)


def _distribute(strategy: tf.distribute.Strategy, batch: Any) -> tf.distribute.DistributedDataset:
    """Returns a dataset of one batch, split among replicas."""
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    packed = keras.utils.pack_x_y_sample_weight(*keras.utils.unpack_x_y_sample_weight(batch))
    dataset = tf.data.Dataset.from_tensors(packed).with_options(options)
    return strategy.experimental_distribute_dataset(dataset)


def _run(strategy: tf.distribute.Strategy, step: Callable[[Any], Any], data: Any) -> Tensor:
    strategy.run(step, args=(data,))
    return tf.constant(0)  # All branches must return a value of the same type.
