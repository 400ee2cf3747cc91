"""SkipInit: training deep residual networks without normalisation."""

from typing import Any

import keras

from keras_fisher import rules


@keras.saving.register_keras_serializable(package="keras_fisher")
class SkipInitScale(keras.layers.Layer):
    """Multiplies its input by one learned scalar, which starts at zero.

    At the end of every residual branch it makes each block start as its shortcut alone, which keeps
    a deep network without normalisation trainable.

    Reference: De & Smith, "Batch Normalization Biases Residual Blocks Towards the Identity Function
    in Deep Networks", NeurIPS 2020.

    Example:
        >>> import numpy as np
        >>> from keras_fisher.zoo.skip_init import SkipInitScale
        >>> layer = SkipInitScale()
        >>> layer(np.ones((1, 2), "float32")).numpy().tolist()
        [[0.0, 0.0]]
    """

    def build(self, input_shape: Any) -> None:
        self.scale = self.add_weight(shape=(), initializer="zeros", name="scale")

    def call(self, inputs: Any) -> Any:
        return self.scale * inputs


@rules.register(SkipInitScale)
def _skip_init_scale(layer: Any, inputs: Any, gradient: Any) -> list[tuple[Any, Any]]:
    return [(layer.scale, rules.sum_to(gradient * inputs, ()))]
