"""What depends on the Keras backend; no other file of the benchmark asks for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

import keras_fisher as kf

BACKEND = keras.backend.backend()
THREADS = 2  # of TensorFlow and PyTorch; JAX takes all cores
Gradient = Callable[[np.ndarray, np.ndarray], Any]

if BACKEND == "jax":
    import jax

    def limit_threads() -> None:
        """Does nothing: JAX has no such setting."""

    def has_gpu() -> bool:
        return jax.default_backend() != "cpu"

    def wait_for(values: Any) -> None:
        """Waits until values are computed."""
        jax.block_until_ready(values)

    def compile_gradient(model: keras.Model, loss: Any) -> Gradient:
        """A plain forward and backward pass."""

        @jax.jit
        def gradient(values: Any, x: Any, y: Any) -> Any:
            def evaluate(values: Any) -> Any:
                pairs = list(zip(model.trainable_variables, values, strict=True))
                with keras.StatelessScope(pairs):
                    return loss(y, model(x, training=False))

            return jax.value_and_grad(evaluate)(values)

        return lambda x, y: gradient([v.value for v in model.trainable_variables], x, y)

elif BACKEND == "tensorflow":
    import tensorflow as tf

    def limit_threads() -> None:
        """Takes as many threads as PyTorch does."""
        tf.config.threading.set_intra_op_parallelism_threads(THREADS)
        tf.config.threading.set_inter_op_parallelism_threads(THREADS)

    def has_gpu() -> bool:
        return bool(tf.config.list_physical_devices("GPU"))

    def wait_for(values: Any) -> None:
        """Waits until all is computed."""
        tf.test.experimental.sync_devices()

    def compile_gradient(model: keras.Model, loss: Any) -> Gradient:
        """A plain forward and backward pass; all is returned, so that nothing is left out."""

        @tf.function
        def gradient(x: Any, y: Any) -> Any:
            with tf.GradientTape() as tape:
                value = loss(y, model(x, training=False))
            return value, tape.gradient(value, model.trainable_weights)

        return gradient

elif BACKEND == "torch":
    import torch

    def limit_threads() -> None:
        """Takes as many threads as TensorFlow does."""
        torch.set_num_threads(THREADS)

    def has_gpu() -> bool:
        return torch.cuda.is_available()

    def wait_for(values: Any) -> None:
        """Waits until all is computed."""
        if has_gpu():
            torch.cuda.synchronize()

    def compile_gradient(model: keras.Model, loss: Any) -> Gradient:
        """A plain forward and backward pass, which PyTorch does not compile."""

        def gradient(x: Any, y: Any) -> Any:
            weights = [v.value for v in model.trainable_variables]
            x, y = map(keras.ops.convert_to_tensor, (x, y))
            value = loss(y, model(x, training=False))
            return value, torch.autograd.grad(value, weights)

        return gradient

else:
    raise SystemExit(
        "error: the environment variable KERAS_BACKEND must be tensorflow, jax or torch. "
        f"Received: {BACKEND}"
    )


def repeat(x: np.ndarray, y: np.ndarray) -> Any:
    """An endless data set of one mini-batch; with JAX and PyTorch it stays on the device."""
    if BACKEND != "tensorflow":
        return kf.data.training_batches(x, y, batch_size=len(y), seed=0)
    options = tf.data.Options()
    # With autotuning, the end of an iterator may take as long again as it lived.
    options.autotune.enabled = False
    return tf.data.Dataset.from_tensors((x, y)).cache().repeat().with_options(options)
