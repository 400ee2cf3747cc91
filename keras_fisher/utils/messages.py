"""Messages to the user."""

import functools
import logging


def warn(message: str) -> None:
    """Logs a warning."""
    logging.getLogger("keras_fisher").warning(message)


@functools.cache
def warn_once(message: str) -> None:
    """Logs a warning, once for each text."""
    warn(message)
