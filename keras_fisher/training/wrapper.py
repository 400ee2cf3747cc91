"""A Keras model that exposes the structure of its backbone."""

from __future__ import annotations

from typing import Any

import keras

from keras_fisher import backend
from keras_fisher.backend.private_api.keras import build_after_call
from keras_fisher.backend.types import Tensor
from keras_fisher.training import model_checks


class BackboneWrapper(backend.Trainer):
    """Exposes the inputs, outputs, layers and calls of its `backbone`."""

    backbone: keras.Model
    _is_taking_step = False  # whether its own, penalised step is running

    @property
    def inputs(self) -> list[keras.KerasTensor]:
        """The backbone's symbolic inputs, if it is functional or a built `keras.Sequential`."""
        return self.backbone.inputs

    @property
    def input_shape(self) -> Any:
        """The shape of the backbone's input."""
        return self.backbone.input_shape

    @property
    def outputs(self) -> list[keras.KerasTensor]:
        """The backbone's symbolic outputs: a list of one."""
        return self.backbone.outputs

    @property
    def output_shape(self) -> tuple[int | None, ...]:
        """The shape of the backbone's output."""
        return self.backbone.output_shape

    @property
    def output_names(self) -> list[str]:
        """The name of a functional backbone's output, a key for losses in `compile`."""
        return self.backbone.output_names

    def get_layer(self, name: str | None = None, index: int | None = None) -> keras.Layer:
        """Returns a layer of the backbone, or the backbone itself by its own name."""
        if index is None and name == self.backbone.name:
            return self.backbone
        return self.backbone.get_layer(name, index)

    @build_after_call
    def build(self, input_shape: Any) -> None:
        """Builds the backbone for an input shape, or a structure of shapes."""
        if not self.backbone.built:
            inputs = keras.tree.map_shape_structure(keras.KerasTensor, input_shape)
            with self._variables_scope():
                self.compute_output_spec(inputs)

    def build_from_config(self, config: Any) -> None:
        """Builds the backbone from the result of `get_build_config`."""
        super().build_from_config(config)
        self.built = self.backbone.built

    def call(self, inputs: Any, training: bool | None = None) -> Tensor:
        """Returns the backbone's output."""
        if training and not self._is_taking_step:
            model_checks.warn_if_inner(self)
        model_checks.check_preprocessed(self.backbone, inputs)
        outputs = self.backbone(inputs, training=training)
        return model_checks.check_output(outputs, self.backbone)

    def export(self, *args: Any, **kwargs: Any) -> Any:
        """Exports the backbone, which is sufficient for inference."""
        return self.backbone.export(*args, **kwargs)
