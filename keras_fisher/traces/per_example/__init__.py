"""The squared norm of every example's own gradient, for any Keras model.

The model is run once on the whole batch, and the inputs of each layer and the gradient with respect
to its output are recorded; the layer's rule (`keras_fisher.rules`) turns them into per-example
norms. A layer without a rule is differentiated one example after another, from the same records.
Where a model cannot be taken apart like this, the whole of it is differentiated one example after
another. All give the same numbers.
"""

from keras_fisher.traces.per_example.forward import call_unchanged
from keras_fisher.traces.per_example.norms import SquaredGradientNorms

__all__ = ["SquaredGradientNorms", "call_unchanged"]
