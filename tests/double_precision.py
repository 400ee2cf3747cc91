"""Computation in double precision, with every backend."""

import keras
from keras.src.backend.common.dtypes import BIT64_TO_BIT32_DTYPE


def use_double_precision():
    """Makes double precision the default of this process."""
    # Keras computes in single precision with JAX and PyTorch, whatever `floatx` is.
    BIT64_TO_BIT32_DTYPE["float64"] = "float64"
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
