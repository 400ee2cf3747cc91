"""Batches for the Keras backend that is to train on them."""

import keras

if keras.backend.backend() == "tensorflow":
    from keras_fisher.data.tensorflow_augment import flip_and_crop
    from keras_fisher.data.tensorflow_imagenet import stream as stream_imagenet
    from keras_fisher.data.tensorflow_mixup import mixup
    from keras_fisher.data.tensorflow_pipeline import evaluation_batches, one_hot, training_batches
else:
    from keras_fisher.data.jax_augment import flip_and_crop
    from keras_fisher.data.jax_mixup import mixup
    from keras_fisher.data.jax_pipeline import (
        evaluation_batches,
        one_hot,
        stream_imagenet,
        training_batches,
    )

__all__ = [
    "evaluation_batches",
    "flip_and_crop",
    "mixup",
    "one_hot",
    "stream_imagenet",
    "training_batches",
]
