"""Multiplication by one learned scalar."""

from typing import Any

import keras

from keras_fisher import rules


class ScalarScale(keras.layers.Layer):
    """Multiplies its input by one learned scalar; subclasses set its initial value."""

    initializer: str

    def build(self, input_shape: Any) -> None:
        self.scale = self.add_weight(shape=(), initializer=self.initializer, name="scale")

    def call(self, inputs: Any) -> Any:
        return self.scale * inputs


@rules.register(ScalarScale)
def _scalar_scale(layer: Any, inputs: Any, gradient: Any) -> list[tuple[Any, Any]]:
    return [(layer.scale, rules.sum_to(gradient * inputs, ()))]
