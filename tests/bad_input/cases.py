"""How hypothesis tries cases here."""

from hypothesis import HealthCheck, settings


def cases(number):
    """So many cases, the same in each run, however long one takes."""
    return settings(
        max_examples=number,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
