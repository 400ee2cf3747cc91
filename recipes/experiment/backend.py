"""What a recipe asks of the Keras backend that it runs on."""

import keras

if keras.backend.backend() == "tensorflow":
    from experiment.on_tensorflow import (
        LOST_CONNECTION,
        choose_devices,
    )
else:
    from experiment.on_jax import (
        LOST_CONNECTION,
        choose_devices,
    )

__all__ = [
    "LOST_CONNECTION",
    "choose_devices",
]
