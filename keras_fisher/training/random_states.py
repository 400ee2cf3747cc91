"""Saving of random generators' states, which exact resuming needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_fisher.utils.messages import warn

_PREFIX = "random_state_"


def save_random_states(store: Any, states: Sequence[keras.Variable]) -> None:
    """Writes the states of generators into a Keras store."""
    for index, state in enumerate(states):
        store[f"{_PREFIX}{index}"] = ops.convert_to_numpy(state)


def load_random_states(store: Any, states: Sequence[keras.Variable]) -> None:
    """Restores the states; warns and ignores them if the number of generators differs."""
    saved = sum(key.startswith(_PREFIX) for key in store.keys())  # noqa: SIM118
    if saved != len(states):
        warn(
            f"The saved random states are ignored: they are of {saved} generators (layers of "
            f"dropout and noise, and drawn labels), and this model has {len(states)}."
        )
        return
    for index, state in enumerate(states):
        state.assign(store[f"{_PREFIX}{index}"])
