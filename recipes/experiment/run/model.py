"""The networks of the settings, and the compiled model of a run."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import keras
from keras import layers

import keras_fisher as kf
from experiment.errors import SettingsError
from experiment.methods.early_learning import EarlyLearningModel
from experiment.methods.sharpness import SharpnessAwareModel
from experiment.plan.setting import Network, Run
from experiment.run.data import Data
from experiment.run.losses import make_loss
from experiment.run.sentences import VOCABULARY
from keras_fisher import zoo

Shape = tuple[int, ...]
GNP_SHARE = 0.8  # of the gradient at the ascended weights


def build_mlp(shape: Shape, num_classes: int, *, width: int = 256, seed: int) -> keras.Model:
    del seed  # Kernels come from the global generator.
    hidden = [layers.Dense(width, activation="relu") for _ in range(2)]
    return keras.Sequential(
        [keras.Input(shape), layers.Flatten(), *hidden, layers.Dense(num_classes)]
    )


def build_densenet(shape: Any, num_classes: int, *, width: int = 12, **options: Any) -> keras.Model:
    return zoo.densenet(shape, num_classes, growth=width, **options)


def build_bert(shape: Shape, num_classes: int, *, width: int = 64, seed: int) -> keras.Model:
    """Builds a small KerasHub classifier of token ids, in which 0 is padding."""
    del seed  # Kernels come from the global generator.
    try:
        import keras_hub
    except ImportError as error:
        raise SettingsError("The network bert needs KerasHub: pip install keras-hub") from error
    (length,) = shape
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=VOCABULARY,
        num_layers=2,
        num_heads=4,
        hidden_dim=width,
        intermediate_dim=2 * width,
        max_sequence_length=length,
    )
    classifier = keras_hub.models.BertTextClassifier(backbone, num_classes, preprocessor=None)
    tokens = keras.Input(shape, dtype="int32")
    inputs = {
        "token_ids": tokens,
        "padding_mask": keras.ops.cast(tokens != 0, "int32"),
        "segment_ids": keras.ops.zeros_like(tokens),
    }
    return keras.Model(tokens, classifier(inputs))


NETWORKS: dict[Network, Callable[..., keras.Model]] = {
    "mlp": build_mlp,
    "simple_cnn": zoo.simple_cnn,
    "vgg11": zoo.vgg11,
    "densenet": build_densenet,
    "wide_resnet": zoo.wide_resnet,
    "wide_resnet_skipinit": partial(zoo.wide_resnet, batch_norm=False),
    "resnet50_skipinit": partial(zoo.wide_resnet, depth=50, width=1, batch_norm=False),
    "resnet8": partial(zoo.resnet, depth=8, batch_norm=False),
    "resnet8_bn": partial(zoo.resnet, depth=8),
    "resnet26": partial(zoo.resnet, depth=26, batch_norm=False),
    "resnet56": partial(zoo.resnet, depth=56, batch_norm=False),
    "resnet18": zoo.resnet18,
    "bert": build_bert,
}


def build_network(
    name: Network, shape: Shape, num_classes: int, width: int, seed: int
) -> keras.Model:
    """Builds a backbone that returns logits; `width` 0 means the network's default."""
    return NETWORKS[name](shape, num_classes, **{"width": width} if width else {}, seed=seed)


def build_model(run: Run, data: Data) -> kf.FisherPenaltyModel:
    """Builds the compiled model of a run, with its initial weights."""
    keras.utils.set_random_seed(run.seed)
    backbone = build_network(run.network, data.input_shape, data.num_classes, run.width, run.seed)
    if run.weight_decay:
        for variable in backbone.trainable_variables:
            variable.regularizer = keras.regularizers.L2(run.weight_decay / 2)
    model = wrap(backbone, run, data)
    optimizer: keras.optimizers.Optimizer = keras.optimizers.SGD(run.learning_rate, momentum=0.9)
    if run.optimizer == "adam":
        optimizer = keras.optimizers.Adam(run.learning_rate)
    model.compile(
        optimizer, make_loss(run), metrics=["accuracy"], steps_per_execution=run.steps_per_execution
    )
    optimizer.build(model.trainable_variables)
    return model


def wrap(backbone: keras.Model, run: Run, data: Data) -> kf.FisherPenaltyModel:
    """Creates the model that trains a backbone with the method of a run."""
    shared: dict[str, Any] = {
        # The loss need not be a negative log-likelihood.
        "likelihood": kf.likelihoods.Categorical(),
        "seed": run.seed,
    }
    if run.radius:
        share = GNP_SHARE if run.sharpness == "gnp" else 1.0
        adaptive = run.sharpness == "asam"
        return SharpnessAwareModel(
            backbone, radius=run.radius, adaptive=adaptive, share=share, **shared
        )
    shared |= {
        "alpha": 0.0 if run.penalty_from else run.alpha,
        "penalty": run.penalty,
        "update_freq": run.update_freq,
        "penalty_batch_size": run.penalty_batch_size or None,
        "max_penalty_ratio": run.max_penalty_ratio or None,
    }
    if run.elr:
        examples = len(data.training[1])
        return EarlyLearningModel(backbone, examples=examples, strength=run.elr, **shared)
    return kf.FisherPenaltyModel(backbone, **shared)
