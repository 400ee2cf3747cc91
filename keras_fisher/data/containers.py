"""Containers of batches for each Keras backend: `tf.data.Dataset` or `keras.utils.PyDataset`."""

# ruff: noqa: F401
from keras_fisher import backend

if backend.NAME == "tensorflow":
    from keras_fisher.data.tensorflow_containers import (
        Batches,
        check_batches,
        check_classes,
        get_label_spec,
        make_epochs,
        make_evaluation,
        map_batches,
    )
else:
    from keras_fisher.data.array_containers import (
        Batches,
        check_batches,
        check_classes,
        get_label_spec,
        make_epochs,
        make_evaluation,
        map_batches,
    )
