"""Steps that the benchmark compares with: written by hand, and right."""

import importlib
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
TOOLS = Path(__file__).parents[1] / "tools"


@pytest.fixture
def steps(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module("benchmarks.pytorch_steps")


def gradient_of_the_penalty(steps, name, model, x, y):
    """What a step adds to the gradient of the loss, with the same drawn labels."""
    gradients = []
    for each in ("plain_step", name):
        step = steps.METHODS[each](model)
        torch.manual_seed(1)
        step.differentiate(x, y)
        gradients.append(torch.cat([p.grad.ravel() for p in step.parameters]))
    return (gradients[1] - gradients[0]) / steps.ALPHA


def test_the_hand_written_steps_add_the_same_penalty(steps, monkeypatch):
    torch.manual_seed(0)
    linear = torch.nn.Linear
    model = torch.nn.Sequential(linear(6, 5), torch.nn.Tanh(), linear(5, 3)).double()
    x, y = torch.randn(8, 6, dtype=torch.float64), torch.randint(3, (8,))
    monkeypatch.setattr(steps, "RELATIVE_STEP", 1e-5)
    exact = gradient_of_the_penalty(steps, "exact_step", model, x, y)
    by_difference = gradient_of_the_penalty(steps, "difference_step", model, x, y)
    torch.testing.assert_close(by_difference, exact, rtol=1e-3, atol=1e-4)
    # On all examples, a share's penalty is that of the whole batch.
    monkeypatch.setattr(steps, "ONE_IN", 1)
    share = gradient_of_the_penalty(steps, "share_step", model, x, y)
    torch.testing.assert_close(share, exact, rtol=1e-9, atol=1e-9)
