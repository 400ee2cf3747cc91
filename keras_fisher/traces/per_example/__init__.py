"""Squared norms of per-example gradients, for any Keras model.

One run of the model on the whole batch records the inputs of each layer and the gradient with
respect to its output. The layer's rule (`keras_fisher.rules`) computes per-example norms from them.
A layer without a rule is differentiated one example at a time, from the same records. If a model
cannot be split into layers, the whole model is differentiated one example at a time. All three give
the same numbers; a model for which they cannot, as examples depend on each other, is refused.
"""

from keras_fisher.traces.per_example.forward import call_unchanged
from keras_fisher.traces.per_example.norms import SquaredGradientNorms

__all__ = ["SquaredGradientNorms", "call_unchanged"]
