"""Eigenvalues of the Hessian during training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_fisher.callbacks._measuring import HistoryCallback, number_to_json
from keras_fisher.callbacks._step_counter import Frequency
from keras_fisher.likelihoods import Likelihood
from keras_fisher.traces import Eigenvalues, HessianEigenvaluesMeter
from keras_fisher.traces.eigenvalues import check_options
from keras_fisher.utils import arguments
from keras_fisher.utils.messages import warn


class HessianEigenvalues(HistoryCallback):
    """Tracks the largest or smallest eigenvalues of the Hessian of the mean loss during training.

    It logs the latest values, measured as in `keras_fisher.hessian_eigenvalues`. The largest
    eigenvalues are `sharpness`, `hessian_eigenvalue_2`, `hessian_eigenvalue_3` and so on. With
    `which="smallest"` or "both", the smallest one is `hessian_eigenvalue_-1`, the second smallest
    `hessian_eigenvalue_-2`. They are NaN before the first measurement, and where the solver does
    not converge, which is logged as a warning once per training.

    The order of callbacks, TensorBoard and `freq` work as in `FisherTrace`.

    Examples:
        >>> import keras, numpy as np, keras_fisher as kf
        >>> keras.utils.set_random_seed(0)
        >>> x, y = np.random.rand(64, 8), np.random.randint(0, 3, 64)
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
        >>> model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        >>> eigenvalues = kf.callbacks.HessianEigenvalues((x, y), k=2, seed=0)
        >>> fit = model.fit(x, y, callbacks=[eigenvalues], verbose=0)
        >>> fit.history["sharpness"][0] > fit.history["hessian_eigenvalue_2"][0] > 0
        True

    Args:
        data: Arrays `(x, y)` to measure on, or a dataset of such batches (`tf.data.Dataset`,
            `keras.utils.PyDataset` or torch `DataLoader`), which is read from its beginning each
            time.
        freq: "epoch" to measure after each epoch, or the number of steps between measurements.
        num_examples: Uses only the first `num_examples` examples; `None` uses all.
        batch_size: The number of examples processed at a time.
        k: The number of eigenvalues to find at an end of the spectrum.
        which: "largest", "smallest" (the most negative) or "both".
        rtol: The largest accepted residual, relative to the largest absolute eigenvalue.
        max_products: The maximum number of products with the Hessian for a measurement.
        likelihood: The model's likelihood; `None` infers it from the compiled loss.
        seed: The seed of the random vectors to start from; `None` for a random one.

    Attributes:
        history: All measurements of this training, a list of `(step, Eigenvalues)`. One that did
            not converge has the value NaN, and 0 examples and products.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if `freq`, `which` or a number is not accepted, or `data` holds too little; when
            training begins, if the model has no known likelihood; in training, if it has fewer
            weights than eigenvalues are asked for.
    """

    history: list[tuple[int, Eigenvalues]]
    _settings = ("num_examples", "k", "which")

    def __init__(
        self,
        data: Any,
        *,
        freq: Frequency = "epoch",
        num_examples: int | None = None,
        batch_size: int = 128,
        k: int = 1,
        which: str = "largest",
        rtol: float = 1e-5,
        max_products: int = 1000,
        likelihood: Likelihood | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(data, freq, num_examples, batch_size, likelihood, needs_labels=True)
        self.k, self.which, self.rtol, self.max_products = check_options(
            k, which, rtol, max_products
        )
        self.seed = arguments.check_seed(seed)

    def _make_meter(self, model: keras.Model) -> HessianEigenvaluesMeter:
        return HessianEigenvaluesMeter(
            model,
            k=self.k,
            which=self.which,
            rtol=self.rtol,
            max_products=self.max_products,
            likelihood=self.likelihood,
            seed=self.seed,
        )

    def _measure(self) -> tuple[int, Eigenvalues]:
        step, when = self._counter.taken, f"at step {self._counter.taken}"
        try:
            measured = self._meter(
                self._data, num_examples=self.num_examples, batch_size=self.batch_size
            )
        except np.linalg.LinAlgError as error:
            if not self._has_warned:
                self._has_warned = True
                warn(f"{type(self).__name__} has no eigenvalues {when}: {error}.")
            missing = np.full(len(self._keys), np.nan)
            return step, Eigenvalues(missing, missing, num_examples=0, num_products=0)
        self._warn_of_nan(measured.values[0], f"{when} (after {self._epochs} epochs)")
        return step, measured

    @property
    def _keys(self) -> Sequence[str]:
        from_top, from_bottom = range(1, self.k + 1), range(-self.k, 0)
        indices = {
            "largest": [*from_top],
            "smallest": [*from_bottom],
            "both": [*from_top, *from_bottom],
        }
        return [
            "sharpness" if index == 1 else f"hessian_eigenvalue_{index}"
            for index in indices[self.which]
        ]

    def _numbers(self, measured: Eigenvalues) -> Sequence[float]:
        return measured.values.tolist()

    def _to_json(self, step: int, measured: Eigenvalues) -> list[Any]:
        arrays = (measured.values, measured.residuals)
        numbers = [[number_to_json(number) for number in array.tolist()] for array in arrays]
        return [step, *numbers, measured.num_examples, measured.num_products]

    def _from_json(self, values: list[Any]) -> tuple[int, Eigenvalues]:
        step, eigenvalues, residuals, num_examples, num_products = values
        eigenvalues, residuals = (np.array([*map(float, a)]) for a in (eigenvalues, residuals))
        return step, Eigenvalues(eigenvalues, residuals, num_examples, num_products)
