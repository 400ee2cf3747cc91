"""The optimizers of a model."""

from __future__ import annotations

from typing import Any


def list_optimizers(optimizer: Any) -> list[Any]:
    """Returns an optimizer and those inside it, under loss scaling or in a `MultiOptimizer`."""
    inner = [getattr(optimizer, "inner_optimizer", None), *getattr(optimizer, "optimizers", ())]
    return [optimizer, *(o for one in inner if one is not None for o in list_optimizers(one))]


def averages_weights(optimizer: Any) -> bool:
    """Whether `fit` replaces weights by their moving averages at its end."""
    return any(getattr(one, "use_ema", False) for one in list_optimizers(optimizer))
