"""Multiplication by one learned scalar."""

import keras

from keras_fisher import rules
from keras_fisher.backend.types import Tensor
from keras_fisher.rules.gradients import WeightGradients


class ScalarScale(keras.layers.Layer):
    """Multiplies its input by one learned scalar; subclasses set its initial value."""

    initializer: str

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.scale = self.add_weight(shape=(), initializer=self.initializer, name="scale")

    def call(self, inputs: Tensor) -> Tensor:
        return self.scale * inputs


@rules.register(ScalarScale)
def _scalar_scale(layer: ScalarScale, inputs: Tensor, gradient: Tensor) -> WeightGradients:
    return [(layer.scale, rules.sum_to(gradient * inputs, ()))]
