"""The norm of the mini-batch gradient during training."""

from __future__ import annotations

from typing import Any

import keras

from keras_fisher.callbacks._measuring import CurveCallback
from keras_fisher.callbacks._step_counter import Frequency
from keras_fisher.likelihoods import Likelihood
from keras_fisher.traces import GradientNormMeter


class GradientNorm(CurveCallback):
    """Tracks the norm of the mini-batch gradient during training (figure 1).

        ||(1/B) sum_i g(x_i, y_i)||,

    with the given labels, averaged over mini-batches, measured as in `keras_fisher.gradient_norm`.
    It logs `gradient_norm`, the latest value; NaN before the first measurement.

    The order of callbacks, TensorBoard and `freq` work as in `FisherTrace`.

    Examples:
        >>> import keras, numpy as np, keras_fisher as kf
        >>> keras.utils.set_random_seed(0)
        >>> x, y = np.random.rand(64, 4), np.random.randint(0, 3, 64)
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        >>> norm = kf.callbacks.GradientNorm((x, y), batch_size=16)
        >>> fit = model.fit(x, y, epochs=2, callbacks=[norm], verbose=0)
        >>> len(fit.history["gradient_norm"])
        2

    Args:
        data: Arrays `(x, y)` to measure on, or a dataset of such batches (`tf.data.Dataset`,
            `keras.utils.PyDataset` or torch `DataLoader`), which is read from its beginning each
            time.
        freq: "epoch" to measure after each epoch, or the number of steps between measurements.
        num_examples: Uses only the first `num_examples` examples; `None` uses all.
        batch_size: The mini-batch size B for arrays, which are read in order: shuffle them if they
            are sorted by class. A dataset keeps its own mini-batches.
        likelihood: The model's likelihood; `None` infers it from the compiled loss.

    Attributes:
        history: All measurements of this training, a list of `(step, Estimate)`.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if `freq` or a number is out of range, or `data` holds too little; when training
            begins, if the model has no known likelihood.
    """

    key = "gradient_norm"
    _settings = ("num_examples", "batch_size")

    def __init__(
        self,
        data: Any,
        *,
        freq: Frequency = "epoch",
        num_examples: int | None = None,
        batch_size: int = 128,
        likelihood: Likelihood | None = None,
    ) -> None:
        super().__init__(data, freq, num_examples, batch_size, likelihood, needs_labels=True)

    def _make_meter(self, model: keras.Model) -> GradientNormMeter:
        return GradientNormMeter(model, likelihood=self.likelihood)
