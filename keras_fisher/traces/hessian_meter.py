"""The base of measurements of the Hessian of the mean loss over all data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_fisher import backend
from keras_fisher.backend.types import Tensor, Values
from keras_fisher.traces.data import batches, length
from keras_fisher.traces.hessian_products import HessianProducts
from keras_fisher.traces.labels import LabelledBatch, Labels
from keras_fisher.traces.meter import Meter


class KeptBatches:
    """Batches from an iterator that are kept in memory, to be read again and again."""

    def __init__(self, batches: Iterator[LabelledBatch]) -> None:
        self._unread, self._kept = batches, list[LabelledBatch]()

    def __iter__(self) -> Iterator[LabelledBatch]:
        yield from self._kept
        for batch in self._unread:
            if backend.TENSORS_CHANGE:  # A dataset may fill the same ones for each batch.
                batch = keras.tree.map_structure(lambda t: t if t is None else ops.copy(t), batch)
            self._kept.append(batch)
            yield batch


class HessianOperator:
    """Multiplies vectors with H, the Hessian of the mean loss over all batches.

    Args:
        products: The products with the Hessian of the mean loss of one batch, in which examples
            without data count as 0.
        batches: The batches.
        num_examples: The number of examples that have any data, at least 1.

    Attributes:
        size: The number of rows of H: the number of trainable weights.
        num_products: The number of vectors multiplied so far.
    """

    def __init__(self, products: HessianProducts, batches: KeptBatches, num_examples: int) -> None:
        self._products, self._batches = products, batches
        self.size = sum(products.sizes)
        self.num_examples = num_examples
        self.num_products = 0

    def multiply(self, vectors: np.ndarray) -> np.ndarray:
        """Returns H z for each of the vectors z, shape `(num_vectors, size)`, in float64."""
        self.num_products += len(vectors)
        total = np.zeros(vectors.shape)
        for x, labels in self._batches:
            total += length(x) * self._products(x, labels, vectors)
        return total / self.num_examples


class HessianMeter(Meter):
    """Measures H, the Hessian of the mean negative log-likelihood of the given labels.

    Args:
        model: A Keras model with one output.
        likelihood: The model's likelihood; `None` infers it from the compiled loss.
    """

    _read = staticmethod(batches)

    def _compile(self) -> None:
        self._products = HessianProducts(self._model, self._mean_nll)

    def _make_operator(self, batches: KeptBatches) -> HessianOperator | None:
        """Returns the Hessian as an operator; `None` if all data is padding."""
        num_examples = sum(self._count(*batch) for batch in batches)
        return HessianOperator(self._products, batches, num_examples) if num_examples else None

    def _mean(
        self,
        batches: Iterable[LabelledBatch],
        compute: Callable[[Any, Labels], np.ndarray],
    ) -> np.ndarray | None:
        """Returns the mean over examples of what `compute` returns for a batch.

        `compute` counts examples without data, as 0. Returns `None` if all data is padding.
        """
        total: Any = 0.0
        examples = 0
        for x, labels in batches:
            total = total + length(x) * compute(x, labels)
            examples += self._count(x, labels)
        return total / examples if examples else None

    def _count(self, x: Any, labels: Labels) -> int:
        """Returns the number of examples that have any data."""
        with_data = self._mask_data(x, labels)
        return length(x) if with_data is None else int(with_data.sum())

    def _mean_nll(self, x: Any, labels: Labels, values: Values) -> Tensor:
        outputs = self._outputs(x, values)
        # Terms of single examples do not depend on padding elsewhere in the batch.
        terms = self._likelihood.nll_terms(labels.y, outputs, labels.present)
        return ops.mean(ops.sum(terms, axis=-1))
