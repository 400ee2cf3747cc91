import pytest

from tests import reference


@pytest.fixture(autouse=True)
def without_gradients():
    """Outputs convert to NumPy, which PyTorch refuses for those that can be differentiated."""
    with reference.no_gradients():
        yield
