"""First-order gradients, batches and compiled functions, as each backend itself has them."""

import contextlib

import keras
import numpy as np
import pytest

IS_JAX = keras.backend.backend() == "jax"
IS_TORCH = keras.backend.backend() == "torch"
IS_TENSORFLOW = not (IS_JAX or IS_TORCH)

tensorflow_only = pytest.mark.skipif(not IS_TENSORFLOW, reason="a matter of TensorFlow's own")
jax_only = pytest.mark.skipif(not IS_JAX, reason="a matter of JAX's own")
traced_only = pytest.mark.skipif(IS_TORCH, reason="PyTorch traces nothing")
several_steps_only = pytest.mark.skipif(IS_TORCH, reason="Keras takes steps one by one on PyTorch")
torch_only = pytest.mark.skipif(not IS_TORCH, reason="a matter of PyTorch's own")
no_gradients = contextlib.nullcontext


class _Batches(keras.utils.PyDataset):
    def __init__(self, x, y, size):
        super().__init__()
        self.examples, self.size = (x, y), size

    def __len__(self):
        return -(-len(keras.tree.flatten(self.examples)[0]) // self.size)

    def __getitem__(self, index):
        rows = slice(index * self.size, (index + 1) * self.size)
        return keras.tree.map_structure(lambda array: array[rows], self.examples)

    def __iter__(self):
        return (self[index] for index in range(len(self)))


if IS_JAX:
    import jax

    compiled = jax.jit

    def differentiated(function, variables):
        """Returns what gives d function() / d each variable, at the values they have then.

        The function leaves all variables alone, and reads no others that change.
        """

        def at(values):
            with keras.StatelessScope(list(zip(variables, values, strict=True))):
                return function()

        gradient = jax.jit(jax.grad(at))
        return lambda: [np.asarray(g) for g in gradient([v.value for v in variables])]

    def differentiated_at(function, tensors, variables):
        """Returns what gives d function(*tensors) / d each tensor, for the variables' values."""

        def at(tensors, values):
            with keras.StatelessScope(list(zip(variables, values, strict=True))):
                return function(*tensors)

        tensors, gradient = [jax.numpy.asarray(t) for t in tensors], jax.jit(jax.grad(at))
        return lambda: [np.asarray(g) for g in gradient(tensors, [v.value for v in variables])]

    batches = _Batches
elif IS_TORCH:
    import torch

    no_gradients = torch.no_grad

    batches = _Batches

    def compiled(function):
        """The function: there is nothing to compile."""
        return function

    def differentiated(function, variables):
        """Returns what gives d function() / d each variable; 0 where it depends on none."""
        return lambda: _gradients(function, [variable.value for variable in variables])

    def differentiated_at(function, tensors, variables):
        """Returns what gives d function(*tensors) / d each tensor."""
        tensors = [torch.as_tensor(tensor).requires_grad_() for tensor in tensors]
        return lambda: _gradients(lambda: function(*tensors), tensors)

    @torch.enable_grad()
    def _gradients(function, sources):
        value = function()
        if not value.requires_grad:
            return [np.zeros(tuple(source.shape)) for source in sources]
        found = torch.autograd.grad(value, sources, materialize_grads=True)
        return [gradient.numpy() for gradient in found]

else:
    import tensorflow as tf

    compiled = tf.function

    def differentiated(function, variables):
        """Returns what gives d function() / d each variable; 0 where it depends on none."""
        return lambda: _gradients(function, [variable.value for variable in variables])

    def differentiated_at(function, tensors, variables):
        """Returns what gives d function(*tensors) / d each tensor."""
        tensors = [tf.convert_to_tensor(tensor) for tensor in tensors]
        return lambda: _gradients(lambda: function(*tensors), tensors)

    def _gradients(function, sources):
        with tf.GradientTape() as tape:
            tape.watch(sources)
            value = function()
        found = tape.gradient(value, sources, unconnected_gradients="zero")
        return [np.asarray(tf.convert_to_tensor(gradient)) for gradient in found]

    def batches(x, y, size):
        """Examples in batches of a size."""
        return tf.data.Dataset.from_tensor_slices((x, y)).batch(size)


@contextlib.contextmanager
def run_eagerly():
    """Compiles no steps on TensorFlow, which takes less time where there are few."""
    if not IS_TENSORFLOW:
        yield
        return
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)


def call_at(event, number, action):
    """Returns a callback that calls `action` with the model, at "epoch_end" number 2, say.

    With the number `None` it calls it at each. On JAX, Keras gives the variables their values where
    a callback asks for its model.
    """

    def call(index, logs):
        if number in (None, index):
            action(callback.model)

    callback = keras.callbacks.LambdaCallback(**{f"on_{event}": call})
    return callback


def interrupt(_model):
    """Interrupts the program, as its user may."""
    raise KeyboardInterrupt


def count_batches(dataset):
    """The number of batches in a data set, `None` if it has no end."""
    if not IS_TENSORFLOW:
        return dataset.num_batches
    count = int(dataset.cardinality())
    return None if count == tf.data.INFINITE_CARDINALITY else count


def gradients(function, variables):
    """d function() / d each variable, arrays."""
    return differentiated(function, variables)()


def gradients_at(function, tensors):
    """d function(*tensors) / d each tensor, arrays."""
    return differentiated_at(function, tensors, [])()
