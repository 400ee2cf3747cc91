"""Checks of the model that a `FisherPenaltyModel` wraps, and of its data."""

from __future__ import annotations

from typing import Any

import keras

from keras_fisher.backend.private_api.keras import (
    find_calling_layer,
    is_stateless,
    list_all_layers,
    list_torch_modules,
    read_own_value,
)
from keras_fisher.backend.types import Tensor
from keras_fisher.utils import arguments
from keras_fisher.utils.labels import is_text
from keras_fisher.utils.messages import warn_once

_HALF_PRECISION = ("float16", "bfloat16")
_STEPS = ("train_step", "test_step", "compute_loss", "compute_metrics")
_ONE_OUTPUT = (
    "Wrap the part with one of them: of a functional model, "
    "keras.Model(backbone.inputs, backbone.outputs[0])."
)


def check_backbone(backbone: Any, wrapper: type[keras.Model]) -> None:
    """Raises if `backbone` cannot be trained with a penalty.

    Args:
        backbone: The model to train.
        wrapper: The penalising class, which cannot be nested.
    """
    if not isinstance(backbone, keras.Model):
        raise TypeError(f"`backbone` must be a keras.Model. Received: {backbone!r}")
    if backbone.built:
        check_trainable(backbone)
    outputs = getattr(backbone, "outputs", None)
    if outputs is not None and len(outputs) > 1:
        raise ValueError(
            f"`backbone` must have one output. Received: {backbone.name!r} with {len(outputs)}. "
            f"{_ONE_OUTPUT}"
        )
    inner = [layer for layer in list_all_layers(backbone) if isinstance(layer, wrapper)]
    if inner:
        raise ValueError(
            "`backbone` must neither be nor hold a FisherPenaltyModel, whose own penalty would be "
            f"ignored. Received: {inner[0].name!r}. Wrap its plain `backbone`."
        )
    kind = type(backbone)
    own = [name for name in _STEPS if getattr(kind, name) is not getattr(keras.Model, name)]
    if own:
        warn_once(
            f"The methods {', '.join(own)} of {kind.__name__} are ignored: FisherPenaltyModel has "
            "its own step, and computes the compiled loss."
        )
    if getattr(backbone, "preprocessor", None) is not None:
        warn_once(
            f"The preprocessor of {backbone.name!r}, which its own `fit` applies, is not applied "
            "by FisherPenaltyModel: map the data with backbone.preprocessor first."
        )


def check_compiled(model: keras.Model) -> None:
    """Raises if only the backbone is compiled, but not the model itself."""
    if not model.compiled and getattr(model.backbone, "compiled", False):
        raise ValueError(
            "`compile` must be called on the FisherPenaltyModel before `fit`. Received: a model of "
            f"which only the backbone {model.backbone.name!r} is compiled"
        )


def check_labelled(y: Any) -> None:
    """Raises if a batch has no labels."""
    if y is None:
        raise ValueError("`y` must be given: the labels of the batch. Received: y=None")


def check_trainable(backbone: keras.Model) -> None:
    """Raises if a model has no trainable weights."""
    if not backbone.trainable_weights:
        raise ValueError(
            f"`backbone` must have trainable weights. Received: {backbone.name!r}, which has none"
        )
    arguments.check_gradients("backbone", backbone)
    for weight in backbone.trainable_weights:
        if not getattr(read_own_value(weight), "requires_grad", True):
            raise ValueError(
                "`backbone` must have no trainable weight whose PyTorch parameter is frozen. "
                f"Received: {weight.path!r} with requires_grad=False. Set `trainable = False` on "
                "its layer, or freeze the parameter before you wrap the module"
            )


def check_output(outputs: Any, backbone: keras.Model) -> Tensor:
    """Returns the output of a model; raises if it has several."""
    if isinstance(outputs, list | tuple | dict):
        raise ValueError(
            f"`backbone` must have one output, a tensor. Received: {backbone.name!r}, "
            f"which returned a {type(outputs).__name__} of {len(outputs)}. {_ONE_OUTPUT}"
        )
    return outputs


def check_preprocessed(backbone: keras.Model, x: Any) -> None:
    """Raises for string inputs to a KerasHub task, which only its own `fit` preprocesses."""
    if getattr(backbone, "preprocessor", None) is None:
        return
    if hasattr(x, "element_spec"):
        x = keras.utils.unpack_x_y_sample_weight(x.element_spec)[0]
    if any(map(is_text, keras.tree.flatten(x))):
        raise ValueError(
            "`x` must be preprocessed for a backbone that has a `preprocessor`, which "
            f"FisherPenaltyModel does not apply. Received: strings for {backbone.name!r}. Map the "
            "data with backbone.preprocessor first."
        )


def check_no_buffers(backbone: keras.Model) -> None:
    """Raises if a module of PyTorch has buffers, which a skipped step could not restore."""
    for layer in list_torch_modules(backbone):
        if any(True for _ in layer.module.buffers()):
            raise ValueError(
                "`action` must be 'stop' for a torch module with buffers, such as running "
                "statistics, which a skipped step does not restore. Received: action='skip' and "
                f"the layer {layer.name!r}"
            )


def check_no_renormalisation(backbone: keras.Model) -> None:
    """Raises for layers that differentiate a function of the weights as a constant.

    The gradient of the loss then depends on the weights through the constant, which the exact
    gradient of its norm would not see.
    """
    for layer in list_all_layers(backbone):
        if isinstance(layer, keras.layers.BatchNormalization) and getattr(layer, "renorm", False):
            raise NotImplementedError(
                "`gradient` must be 'finite_difference' with BatchNormalization(renorm=True), "
                "whose second derivative Keras stops. Received: gradient='exact' and the layer "
                f"{layer.name!r}"
            )


def check_no_synchronized_layer(backbone: keras.Model, requirement: str) -> None:
    """Raises if a layer synchronises replicas, which the option in `requirement` cannot do."""
    for layer in list_all_layers(backbone):
        if getattr(layer, "synchronized", False):
            raise ValueError(
                f"{requirement} under tf.distribute with synchronized batch normalisation, which "
                f"waits for all replicas. Received: the layer {layer.name!r}"
            )


def warn_of_rounding(gradient: str, dtype: str) -> None:
    """Warns once if finite differences are used in half precision."""
    if gradient == "finite_difference" and dtype in _HALF_PRECISION:
        warn_once(
            f"gradient='finite_difference' subtracts two gradients, which {dtype} rounds: in a "
            "deep network the error may be as large as the result. Use gradient='exact' instead."
        )


def warn_if_inner(model: keras.Model) -> None:
    """Warns once if a `FisherPenaltyModel` is trained as a layer of another model.

    Called in training mode, outside the model's own step.
    """
    outer = find_calling_layer()
    if outer is model:
        outer = None
    if outer is not None or is_stateless():
        how = (
            "by a training step other than its own, such as the step of a larger model"
            if outer is None
            else f"as a layer of {outer.name!r}"
        )
        warn_once(
            f"The penalty of {model.name!r} is ignored: the model is trained {how}, and a "
            "FisherPenaltyModel is penalised in its own `fit` only. Give the larger model to a "
            "FisherPenaltyModel instead, with the plain backbone as its layer."
        )
