"""Likelihoods p(y | outputs) of the labels, given a model's outputs.

A likelihood draws labels from the model's own prediction and computes the negative log-likelihood
of labels. Outputs have one *observation* for each label: a class for every position
(`Categorical`), a bit (`Bernoulli`) or a real number (`Gaussian`) for every component. As in
Keras's losses, the negative log-likelihood of an example is the **mean** over its observations.
Without sample weights, label smoothing and regularisers, its mean over the batch is the loss.

Padding is excluded: observations that Keras masks, whose sample weight is 0 or whose label the loss
ignores (`ignore_class`) count neither in the likelihood nor in its mean.
"""

from keras_fisher.likelihoods.bernoulli import Bernoulli
from keras_fisher.likelihoods.categorical import Categorical
from keras_fisher.likelihoods.gaussian import Gaussian
from keras_fisher.likelihoods.likelihood import Likelihood
from keras_fisher.likelihoods.losses import from_loss

__all__ = ["Bernoulli", "Categorical", "Gaussian", "Likelihood", "from_loss"]
