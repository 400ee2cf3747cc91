"""Messages to the user."""

import functools
import logging


@functools.cache
def warn_once(message: str) -> None:
    """Logs a warning, the first time only that it has this text."""
    logging.getLogger("keras_fisher").warning(message)
