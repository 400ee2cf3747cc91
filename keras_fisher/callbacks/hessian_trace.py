"""Tr(H) during training."""

from __future__ import annotations

from typing import Any

import keras

from keras_fisher.callbacks._measuring import CurveCallback
from keras_fisher.callbacks._step_counter import Frequency
from keras_fisher.likelihoods import Likelihood
from keras_fisher.traces import HessianTraceMeter
from keras_fisher.traces.hessian import check_probes
from keras_fisher.utils import arguments


class HessianTrace(CurveCallback):
    """Tracks Tr(H), the trace of the Hessian of the mean loss, during training (figure 18).

        Tr(H) = E_z z^T H z,

    estimated from `num_probes` probes z, as in `keras_fisher.hessian_trace`. It logs
    `hessian_trace`, the latest value; NaN before the first measurement.

    The order of callbacks, TensorBoard and `freq` work as in `FisherTrace`.

    Examples:
        >>> import keras, numpy as np, keras_fisher as kf
        >>> keras.utils.set_random_seed(0)
        >>> x, y = np.random.rand(64, 4), np.random.randint(0, 3, 64)
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        >>> trace = kf.callbacks.HessianTrace((x, y), num_probes=10, seed=0)
        >>> fit = model.fit(x, y, callbacks=[trace], verbose=0)
        >>> fit.history["hessian_trace"][0] > 0
        True

    Args:
        data: Arrays `(x, y)` to measure on, or a dataset of such batches (`tf.data.Dataset`,
            `keras.utils.PyDataset` or torch `DataLoader`), which is read from its beginning each
            time.
        freq: "epoch" to measure after each epoch, or the number of steps between measurements.
        num_examples: Uses only the first `num_examples` examples; `None` uses all.
        batch_size: The number of examples processed at a time.
        num_probes: The number of probes to draw for each measurement.
        distribution: The distribution of their entries, "gaussian" or "rademacher".
        estimator: "hutchinson", or "xtrace", for which `num_probes` is the number of products with
            H, as in `keras_fisher.hessian_trace`.
        rtol: The relative standard error to reach, with `num_probes` as the maximum number of
            probes; `None` uses all of them. If they do not suffice, a warning is logged once per
            training.
        likelihood: The model's likelihood; `None` infers it from the compiled loss.
        seed: The seed of the probes; `None` for a random one.

    Attributes:
        history: All measurements of this training, a list of `(step, Estimate)`.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if `freq`, `distribution`, `estimator` or a number is not accepted, or `data`
            holds too little; when training begins, if the model has no known likelihood.
    """

    key = "hessian_trace"

    def __init__(
        self,
        data: Any,
        *,
        freq: Frequency = "epoch",
        num_examples: int | None = None,
        batch_size: int = 128,
        num_probes: int = 30,
        distribution: str = "gaussian",
        estimator: str = "hutchinson",
        rtol: float | None = None,
        likelihood: Likelihood | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(data, freq, num_examples, batch_size, likelihood, needs_labels=True)
        options = check_probes(num_probes, distribution, estimator, rtol)
        self.num_probes, self.distribution, self.estimator, self.rtol = options
        self.seed = arguments.check_seed(seed)

    def _make_meter(self, model: keras.Model) -> HessianTraceMeter:
        return HessianTraceMeter(
            model,
            num_probes=self.num_probes,
            distribution=self.distribution,
            estimator=self.estimator,
            rtol=self.rtol,
            likelihood=self.likelihood,
            seed=self.seed,
        )
