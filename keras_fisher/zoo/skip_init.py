"""SkipInit, for training deep residual networks without normalisation."""

import keras

from keras_fisher.zoo._scalar import ScalarScale


@keras.saving.register_keras_serializable(package="keras_fisher")
class SkipInitScale(ScalarScale):
    """Multiplies its input by one learned scalar, which starts at zero.

    At the end of every residual branch, it makes each block start as its shortcut, which keeps deep
    networks without normalisation trainable.

    Reference: De & Smith, "Batch Normalization Biases Residual Blocks Towards the Identity Function
    in Deep Networks", NeurIPS 2020.

    Examples:
            >>> import keras, numpy as np
            >>> from keras_fisher.zoo.skip_init import SkipInitScale
            >>> layer = SkipInitScale()
            >>> keras.ops.convert_to_numpy(layer(np.ones((1, 2), "float32"))).tolist()
            [[0.0, 0.0]]
    """

    initializer = "zeros"
