"""What each Keras backend's `fit` asks of a model, one module per backend.

A model states once how it takes a step, in code that reads and assigns variables; its trainer makes
of that what the backend runs.
"""

import keras

if keras.backend.backend() == "tensorflow":
    from keras_fisher.trainers.tensorflow import Trainer
else:
    from keras_fisher.trainers.jax import Trainer

__all__ = ["Trainer"]
