"""First and second derivatives with PyTorch's autograd."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import torch
from keras import ops

from keras_fisher.backend.private_api.keras import get_mask, set_mask
from keras_fisher.backend.torch.gradients import (
    detach,
    differentiate_again,
    fill_unconnected,
    find_gradient,
    list_sources,
    promote,
    use_twice_differentiable_kernels,
)
from keras_fisher.backend.torch.seeds import make_generator
from keras_fisher.backend.types import Tap, Tensor

# Keras computes with 32-bit integers.
COUNTER_DTYPE = "int32"

# Autograd's forward mode does not nest, so it has no second derivatives.
compute_summed_forms: Any = None
Line: Any = None

SPARSE_LOSS_CLIPS_FIRST = False
LOSSES_READ_LOGITS = False
ADDS_UP_SEEDS = True
TENSORS_CHANGE = True


@torch.enable_grad()
def differentiate(
    objective: Callable[[], Tensor], weights: Sequence[keras.Variable]
) -> list[Tensor | None]:
    """Returns d objective() / d weights; `None` for unconnected weights."""
    sources = list_sources(weights)
    return find_gradient(objective(), sources)


@torch.enable_grad()
def differentiate_by_taps(
    objective: Callable[[Tap], tuple[Tensor, Any]],
) -> tuple[list[Tensor | None], Any]:
    """Returns the gradient with respect to each tensor that passes through `tap`, and a structure.

    Tensors may be tapped anywhere.
    """
    tapped: list[Tensor] = []

    def tap(tensor: Tensor) -> Tensor:
        # A tensor of its own: that of an identity layer is also its input.
        own = tensor.view_as(tensor) if tensor.requires_grad else tensor.detach().requires_grad_()
        set_mask(own, get_mask(tensor))
        tapped.append(own)
        return own

    value, others = objective(tap)
    return find_gradient(value, tapped), detach(others)


def map_examples(function: Callable[[Any], Tensor], examples: Any, dtype: str) -> Tensor:
    """Applies a function to one example at a time, each with a batch axis of length 1."""

    def apply(index: int) -> Tensor:
        return function(keras.tree.map_structure(lambda t: t[index : index + 1], examples))

    count = len(keras.tree.flatten(examples)[0])
    return torch.stack([ops.cast(apply(index), dtype).detach() for index in range(count)])


def compute_quadratic_forms(
    objective: Callable[[], Tensor],
    weights: Sequence[keras.Variable],
    probes: Tensor,
    gaussian: bool,
    seed: Tensor,
) -> Tensor:
    """Returns z^T H z for random probes z, split by weight, with H the Hessian of the objective."""
    product = _linearise_gradient(objective, weights)

    def form(z: list[Tensor]) -> Tensor:
        sums = [torch.sum(promote(a) * promote(b)) for a, b in zip(z, product(z), strict=True)]
        return torch.stack(sums)

    return map_probes(form, weights, probes, gaussian, seed)


def compute_hessian_products(
    objective: Callable[[], Tensor], weights: Sequence[keras.Variable], vectors: Tensor
) -> Tensor:
    """Returns H z for given vectors z, with H the Hessian of the objective."""
    product, sources = _linearise_gradient(objective, weights), list_sources(weights)
    sizes = [math.prod(w.shape) for w in sources]

    def multiply(vector: Tensor) -> Tensor:
        pairs = zip(torch.split(vector, sizes), sources, strict=True)
        z = [part.reshape(w.shape).to(w.dtype) for part, w in pairs]
        return torch.cat([promote(part).reshape(-1) for part in product(z)])

    return torch.stack([multiply(vector) for vector in vectors])


def map_probes(
    function: Callable[[list[Tensor]], Tensor],
    weights: Sequence[keras.Variable],
    probes: Tensor,
    gaussian: bool,
    seed: Tensor,
) -> Tensor:
    """Applies a function to one random probe at a time; a probe has a tensor for each weight."""
    sources = list_sources(weights)

    def apply(index: int) -> Tensor:
        generator = make_generator([*seed, index], sources[0].device)
        return function([_draw_probe(w, gaussian, generator) for w in sources])

    return torch.stack([apply(int(index)) for index in probes])


def count_probes_at_once() -> int | None:
    """Returns the maximum number of probes in one call of a compiled function; `None` for any."""
    return None


def run_abstractly(function: Callable[..., None], *arguments: Any) -> None:
    """Runs a function that needs only shapes; values are computed and discarded."""
    function(*arguments)


def compile_function(
    function: Callable[..., Any], any_length: Sequence[int] | None = None
) -> Callable[..., Any]:
    """Returns the function, for arguments that are structures of arrays or integers.

    Compiled functions cannot be differentiated twice, and most are called with many shapes.
    """
    del any_length

    def convert(leaf: Any) -> Any:
        return leaf if isinstance(leaf, int) else ops.convert_to_tensor(leaf)

    def call(*arguments: Any) -> Any:
        return detach(function(*keras.tree.map_structure(convert, arguments)))

    return call


def compile_per_example(function: Callable[..., Tensor], dtype: str) -> Callable[..., Tensor]:
    """Returns a function that applies a function of one example to each example of a batch."""
    return compile_function(
        lambda *examples: map_examples(lambda one: function(*one), examples, dtype)
    )


def cond(condition: Tensor | bool, if_true: Callable[[], Any], if_false: Callable[[], Any]) -> Any:
    """Runs one of two functions."""
    return if_true() if condition else if_false()


def assert_below(result: Tensor, values: Tensor, bound: int, message: str) -> Tensor:
    """Returns `result`; raises `message` unless all `values` are whole numbers in [0, bound)."""
    values = ops.convert_to_tensor(values)
    if values.is_meta:  # Keras infers shapes
        return result
    is_whole = values == torch.round(values) if values.is_floating_point() else True
    if not torch.all((values >= 0) & (values < bound) & is_whole):
        raise ValueError(message)
    return result


def nan_unless_below(result: Tensor, values: Tensor, bound: int) -> Tensor:
    """Returns `result`: `assert_below` has already raised if necessary."""
    del values, bound
    return result


def synchronise(model: keras.Model) -> None:
    """Does nothing: variables already hold the current training state."""


def get_replica_index() -> Tensor | None:
    """Returns `None`: training is on one device."""
    return None


def _linearise_gradient(
    objective: Callable[[], Tensor], weights: Sequence[keras.Variable]
) -> Callable[[Sequence[Tensor]], list[Tensor]]:
    """Computes the gradient, and returns the function that multiplies a vector by the Hessian."""
    sources = list_sources(weights)
    with torch.enable_grad(), use_twice_differentiable_kernels():
        gradient = find_gradient(objective(), sources, create_graph=True)
    found = fill_unconnected(gradient, sources)
    curved = [index for index, g in enumerate(found) if g.requires_grad]

    def product(z: Sequence[Tensor]) -> list[Tensor]:
        if not curved:
            return [torch.zeros_like(source, requires_grad=False) for source in sources]
        targets, directions = ([some[index] for index in curved] for some in (found, z))
        return differentiate_again(targets, sources, grad_outputs=directions, retain_graph=True)

    return product


def _draw_probe(weight: Tensor, gaussian: bool, generator: torch.Generator) -> Tensor:
    options: dict[str, Any] = {"generator": generator, "device": weight.device}
    if gaussian:
        return torch.randn(weight.shape, dtype=weight.dtype, **options)
    bits = torch.randint(0, 2, weight.shape, dtype=torch.int8, **options)
    return (2 * bits - 1).to(weight.dtype)
