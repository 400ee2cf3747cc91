"""The squared norm of the mini-batch gradient during training."""

from __future__ import annotations

from typing import Any

import keras

from keras_fisher.callbacks._measuring import CurveCallback
from keras_fisher.callbacks._step_counter import Frequency
from keras_fisher.likelihoods import Likelihood
from keras_fisher.traces import MinibatchFisherTraceMeter
from keras_fisher.utils import arguments


class MinibatchFisherTrace(CurveCallback):
    """Tracks Tr(F^B), the squared norm of the mini-batch gradient of eq. 3, during training.

        Tr(F^B) = ||(1/B) sum_i g(x_i, y^_i)||^2,

    averaged over mini-batches, measured as in `keras_fisher.minibatch_fisher_trace`. It logs
    `minibatch_fisher_trace`, the latest value; NaN before the first measurement.

    The order of callbacks, TensorBoard and `freq` work as in `FisherTrace`.

    Examples:
        >>> import keras, numpy as np, keras_fisher as kf
        >>> keras.utils.set_random_seed(0)
        >>> x, y = np.random.rand(64, 4), np.random.randint(0, 3, 64)
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        >>> trace = kf.callbacks.MinibatchFisherTrace((x, y), batch_size=16, seed=0)
        >>> fit = model.fit(x, y, callbacks=[trace], verbose=0)
        >>> fit.history["minibatch_fisher_trace"][0] > 0
        True

    Args:
        data: Arrays `(x, y)` to measure on, or a dataset of such batches (`tf.data.Dataset`,
            `keras.utils.PyDataset` or torch `DataLoader`), which is read from its beginning each
            time. Labels are needed only if `labels` is "given".
        freq: "epoch" to measure after each epoch, or the number of steps between measurements.
        num_examples: Uses only the first `num_examples` examples; `None` uses all.
        batch_size: The mini-batch size B for arrays, which are read in order: shuffle them if they
            are sorted by class. A dataset keeps its own mini-batches.
        labels: "sampled" from the model's prediction, or "given" for those of `data`.
        likelihood: The model's likelihood; `None` infers it from the compiled loss.
        seed: The seed of the drawn labels; `None` for a random one.

    Attributes:
        history: All measurements of this training, a list of `(step, Estimate)`.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if `freq`, `labels` or a number is out of range, or `data` holds too little;
            when training begins, if the model has no known likelihood.
    """

    key = "minibatch_fisher_trace"
    _settings = ("num_examples", "batch_size", "labels")

    def __init__(
        self,
        data: Any,
        *,
        freq: Frequency = "epoch",
        num_examples: int | None = None,
        batch_size: int = 128,
        labels: str = "sampled",
        likelihood: Likelihood | None = None,
        seed: int | None = None,
    ) -> None:
        self.labels = arguments.check_choice("labels", labels, ("sampled", "given"))
        super().__init__(
            data, freq, num_examples, batch_size, likelihood, needs_labels=labels == "given"
        )
        self.seed = arguments.check_seed(seed)

    def _make_meter(self, model: keras.Model) -> MinibatchFisherTraceMeter:
        return MinibatchFisherTraceMeter(
            model, labels=self.labels, likelihood=self.likelihood, seed=self.seed
        )
