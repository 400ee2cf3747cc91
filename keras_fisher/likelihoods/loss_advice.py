"""Advice on the `likelihood` argument for a loss whose likelihood is unknown."""

from __future__ import annotations

from typing import Any

import keras

_OWN = "a subclass of Likelihood of your own"
# Parts of names, without underscores, in search order. {} are the arguments of the likelihood.
_ADVICE = (
    (("binaryfocal",), "Bernoulli({}), whose bits have the same probabilities"),
    (("focal",), "Categorical({}), whose classes have the same probabilities"),
    (
        ("dice", "tversky", "jaccard"),
        "Bernoulli({}) for masks that may overlap (sigmoid outputs), or Categorical({}) for one "
        "class per pixel (softmax outputs)",
    ),
    (("poisson",), f"{_OWN} that draws counts and gives `rate - count * log(rate)`"),
    (
        ("ordinal", "coral"),
        "Bernoulli({}) for one output per threshold, or Categorical({}) for one output per level",
    ),
    (("kldivergence", "kullback"), "Categorical({}), whose gradient is the same"),
    (
        ("huber", "logcosh", "absolute", "mae", "mape", "percentage", "logarithmic", "msle"),
        "Gaussian(), which penalises by squared errors, or for exactly this loss "
        f"{_OWN} (mean absolute error is that of a Laplace distribution)",
    ),
    (
        ("hinge", "cosine", "circle", "ctc"),
        f"{_OWN}, because this loss is no negative log-likelihood of single labels",
    ),
    (
        ("crossentropy",),
        "Categorical({}) or Bernoulli({}) if their labels and probabilities are those of this "
        f"loss, or {_OWN}",
    ),
)
_OTHERS = (
    "Categorical({}) for one class per position, Bernoulli({}) for bits, Gaussian() for real "
    f"numbers, or {_OWN}"
)
_OF_KERAS = ("focal", "dice", "tversky", "kldivergence", "kullback")


def advise_likelihood(loss: Any) -> str:
    """Returns the advised value of `likelihood=` for a loss, by its name."""
    names = " ".join(_names(loss)).lower().replace("_", "")
    advice = next((a for parts, a in _ADVICE if any(p in names for p in parts)), _OTHERS)
    takes_logits = getattr(loss, "from_logits", None)
    if takes_logits is None and any(part in names for part in _OF_KERAS):
        takes_logits = False  # Keras's default, or the only choice
    arguments = {None: "from_logits=...", False: "from_logits=False", True: ""}[takes_logits]
    return advice.replace("{}", arguments)


def _names(loss: Any) -> list[str]:
    if isinstance(loss, str):
        return [loss]
    if isinstance(loss, keras.losses.Loss):
        # A subclass may be named after its use, and its parent after its computation.
        classes = type(loss).__mro__
        return [kind.__name__ for kind in classes[: classes.index(keras.losses.Loss)]]
    return [getattr(loss, "__name__", "")]
