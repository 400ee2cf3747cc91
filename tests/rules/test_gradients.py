"""What rules are made of: outer products, sums, and the layout of the weight they stand for."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_fisher import rules
from keras_fisher.rules import gradients
from keras_fisher.traces.per_example import SquaredGradientNorms
from tests import reference
from tests.rules import portable
from tests.traces.per_example.loop import half_squares, normal, randomise

# Of left and right: one number of positions and few, as many, and many; in groups and not.
FACTORS = [
    ((1, 4), (1, 5)),
    ((2, 7), (2, 6)),
    ((4, 3), (4, 2)),
    ((30, 2), (30, 3)),
    ((2, 2, 7), (2, 2, 6)),
    ((3, 9, 2), (3, 9, 2)),
]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("left", "right"), FACTORS)
def test_norms_of_outer_products_are_those_of_their_sum(left, right):
    left, right = normal(3, *left), normal(3, *right, seed=2)
    product = np.einsum("...tm,...tn->...mn", left, right)
    outer = rules.Outer(left, right)
    expected = np.sum(product**2, axis=tuple(range(1, product.ndim)))
    assert np.asarray(outer.squared_norms()) == pytest.approx(expected, rel=1e-12)
    assert np.asarray(outer.gradient()) == pytest.approx(product, rel=1e-12)


@pytest.mark.parametrize(("positions", "features"), [(1, 1000), (1000, 1)])
def test_outer_products_take_the_smaller_of_their_two_forms(positions, features):
    factor = np.zeros((1, positions, features), "float32")
    assert rules.Outer(factor, factor).size < 10_000  # and not 1000 * 1000


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("shape", [(), (3,), (5, 3), (4, 5, 3), (1, 3), (4, 1, 1), (1, 1, 1), (1,)])
def test_sum_to_gives_the_gradient_of_a_weight_that_is_added(shape):
    values = np.random.default_rng(0).normal(size=(2, 4, 5, 3))
    expected = np.zeros((2, *shape))
    for index in np.ndindex(4, 5, 3):
        own = index[3 - len(shape) :]
        own = tuple(0 if n == 1 else i for i, n in zip(own, shape, strict=True))
        expected[(slice(None), *own)] += values[(slice(None), *index)]
    found = keras.ops.convert_to_numpy(rules.sum_to(values, shape))
    assert found == pytest.approx(expected, rel=1e-12)


LAYOUTS = {
    "dense": (lambda: layers.Dense(5), (3, 4)),
    "einsum": (lambda: layers.EinsumDense("abcd,dbe->acbe", (3, 2, 5), bias_axes="be"), (2, 3, 4)),
    "einsum-kernel-reversed": (lambda: layers.EinsumDense("abc,edc->abde", (3, 2, 5)), (3, 4)),
    "lora": (lambda: layers.Dense(5, lora_rank=2), (3, 4)),
    "einsum-lora": (
        lambda: layers.EinsumDense("abcd,dbe->acbe", (3, 2, 5), lora_rank=2),
        (2, 3, 4),
    ),
    "convolution": (lambda: layers.Conv2D(5, (2, 3), strides=(1, 2)), (4, 6, 3)),
    "causal": (lambda: layers.Conv1D(3, 3, dilation_rate=2, padding="causal"), (7, 3)),
    "channels-first": (lambda: layers.Conv2D(4, 2, data_format="channels_first"), (3, 4, 6)),
    "groups": (lambda: layers.Conv2D(6, (2, 3), groups=2, padding="same"), (4, 3, 4)),
    "shifted": (lambda: layers.Conv2D(2, (2, 3), dilation_rate=(2, 1), padding="same"), (5, 6, 4)),
    "transposed": (lambda: layers.Conv2DTranspose(3, (2, 3), strides=2), (3, 2, 4)),
    "depthwise": (lambda: layers.DepthwiseConv2D((2, 3), depth_multiplier=2), (4, 5, 3)),
    "separable": (lambda: layers.SeparableConv2D(4, (2, 3), depth_multiplier=2), (4, 5, 3)),
    "layer-normalization": (lambda: layers.LayerNormalization(axis=(1, 3)), (2, 4, 3)),
    "axes-from-both-ends": (lambda: layers.LayerNormalization(axis=(-1, 1)), (2, 4, 3)),
    "batch-normalization": (lambda: layers.BatchNormalization(axis=2), (2, 4, 3)),
    "prelu": (lambda: layers.PReLU(shared_axes=(1,)), (2, 4, 3)),
}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", LAYOUTS)
def test_rules_give_gradients_in_the_layout_of_the_weight(name):
    make, shape = LAYOUTS[name]
    layer, x = make(), keras.ops.convert_to_tensor(normal(2, *shape))
    with portable.convolutions():
        g = normal(*layer(x).shape, seed=2)
        randomise(layer)
        found = rules.find(layer)(layer, x, keras.ops.convert_to_tensor(g))
        assert {weight.path for weight, _ in found} == {w.path for w in layer.trainable_weights}
        for i in range(2):
            expected = reference.gradients(
                lambda i=i: keras.ops.sum(keras.ops.multiply(layer(x[i : i + 1]), g[i])),
                [w for w, _ in found],
            )
            for (_, gradient), one in zip(found, expected, strict=True):
                dense = gradient.gradient() if hasattr(gradient, "gradient") else gradient
                rel = 1e-5 if "lora" in name else 1e-10  # which Keras computes in float32
                assert keras.ops.convert_to_numpy(dense[i]) == pytest.approx(
                    one, rel=rel, abs=1e-12
                )


@pytest.mark.usefixtures("float64")
def test_the_gradient_of_an_embedding_adds_up_repeated_rows():
    layer, ids = layers.Embedding(3, 2), np.array([[2, 0, -1]])  # -1 is the last row, 2
    layer.build()
    g = np.array([[[1.0, 2.0], [3.0, 4.0], [10.0, 20.0]]])
    [(table, gradient)] = rules.find(layer)(layer, ids, g)
    assert table is layer.embeddings
    assert np.asarray(gradient.gradient()).tolist() == [[[3.0, 4.0], [0.0, 0.0], [11.0, 22.0]]]
    assert np.asarray(gradient.squared_norms()) == pytest.approx(9 + 16 + 121 + 484)


@pytest.mark.usefixtures("float64")
def test_a_table_that_is_read_and_multiplied_by_has_the_norm_of_the_sum():
    layer, ids = layers.ReversibleEmbedding(5, 3), np.array([[2, 0, -1, 2], [1, 1, 1, 4]])
    layer.build()
    rule = rules.find(layer)
    [(_, read)] = rule(layer, ids, normal(2, 4, 3))
    x, g = normal(2, 6, 3, seed=2), normal(2, 6, 5, seed=3)
    [(_, multiplied)] = rule(layer, *map(keras.ops.convert_to_tensor, (x, g)), reverse=True)
    expected = np.einsum("bsv,bsd->bvd", g, x)
    for example, own in enumerate(ids):
        np.add.at(expected[example], own, normal(2, 4, 3)[example])
    for uses in ([read, multiplied], [multiplied, read]):
        total = gradients.total(uses)
        norms = np.sum(expected**2, axis=(1, 2))
        assert np.asarray(total.squared_norms()) == pytest.approx(norms, rel=1e-12)
        assert np.asarray(total.gradient()) == pytest.approx(expected, rel=1e-12)


def test_a_table_that_is_read_and_multiplied_by_takes_no_memory_of_its_size():
    layer = layers.ReversibleEmbedding(100_000, 64)
    start = keras.Input((8,), dtype="int32")
    model = keras.Model(start, layer(layer(start), reverse=True))
    norms = SquaredGradientNorms(model, lambda outputs, y: y, half_squares)
    norms(np.ones((2, 8), "int32"), np.zeros((2, 8, 100_000), "float32"))
    assert norms._batch_limit > 1  # the table alone has 6.4 million numbers
