"""KerasHub's models, tiny and from their configuration: penalty, traces, and no slow way round.

With the extra `keras-hub` installed alone; no weights are downloaded.
"""

import functools

import keras
import numpy as np
import pytest
from keras import ops

import keras_fisher as kf
from tests import nets, reference
from tests.traces.per_example import loop

hub = pytest.importorskip("keras_hub")

pytestmark = pytest.mark.usefixtures("float64")
EXAMPLES, TIME, VOCABULARY = 5, 6, 7
# JAX computes the softmax of attention in float32: a difference over less would be of its rounding.
STEP, TOLERANCE = (1e-3, 1e-3) if reference.IS_JAX else (1e-5, 1e-5)
SIZES = {"num_layers": 1, "num_heads": 2, "hidden_dim": 4, "dropout": 0.0}
TEXT = {**SIZES, "vocabulary_size": VOCABULARY, "intermediate_dim": 5, "max_sequence_length": 8}


def bert():
    backbone = hub.models.BertBackbone(**TEXT)
    return hub.models.BertTextClassifier(backbone, nets.CLASSES, dropout=0.0, preprocessor=None)


def bert_with_adapters():
    model = bert()
    model.backbone.enable_lora(2)
    return model


def gpt2():
    return hub.models.GPT2CausalLM(hub.models.GPT2Backbone(**TEXT), preprocessor=None)


def vit(**options):
    sizes = {**SIZES, "dropout_rate": 0.0, "mlp_dim": 5, "image_shape": (4, 6, 3), "patch_size": 2}
    del sizes["dropout"]
    backbone = hub.models.ViTBackbone(**sizes, **options)
    return hub.models.ViTImageClassifier(backbone, nets.CLASSES, preprocessor=None)


MODELS = {
    "bert": bert,
    "bert_with_adapters": bert_with_adapters,
    "gpt2": gpt2,
    "vit": vit,
    "vit_without_class_token": functools.partial(vit, use_class_token=False, use_patch_bias=False),
}


def made(name):
    """The model with random weights, inputs, and labels."""
    model, generator = loop.randomise(MODELS[name]()), np.random.default_rng(1)
    if name.startswith("vit"):
        return model, loop.normal(EXAMPLES, 4, 6, 3), np.arange(EXAMPLES) % nets.CLASSES
    mask = np.ones((EXAMPLES, TIME), "int32")
    mask[2, 3:] = 0
    x = {"token_ids": generator.integers(0, VOCABULARY, (EXAMPLES, TIME)), "padding_mask": mask}
    if name == "gpt2":
        return model, x, generator.integers(0, VOCABULARY, (EXAMPLES, TIME))
    x["segment_ids"] = generator.integers(0, 2, (EXAMPLES, TIME))
    return model, x, np.arange(EXAMPLES) % nets.CLASSES


def tolerance(name):
    return 1e-5 if name == "bert_with_adapters" else 1e-9  # Keras computes adapters in float32


class HeldLabels(kf.likelihoods.Categorical):
    """Draws these labels every time."""

    def __init__(self, labels):
        super().__init__()
        self.labels = labels

    def sample(self, outputs, seed):
        return ops.convert_to_tensor(self.labels)


@pytest.mark.parametrize("name", MODELS)
def test_the_fisher_trace_is_that_of_a_loop_without_going_one_by_one(name):
    model, x, y = made(name)
    likelihood = kf.likelihoods.Categorical()
    expected = loop.loop(model, x, y, lambda y, o: ops.sum(likelihood.nll_terms(y, o), axis=-1))
    with loop.logged() as messages:
        trace = kf.fisher_trace(model, (x, y), labels="given", likelihood=likelihood)
    assert not messages
    assert trace.value == pytest.approx(expected.sum(axis=1).mean(), rel=tolerance(name))


def flat_gradient(model, x, y):
    def mean():
        return nets.loss()(y, model(x, training=True))

    gradient = reference.differentiated(mean, model.trainable_weights)
    return lambda: nets.flat(gradient())


def central_difference(function, weights, direction):
    """How a function changes along a direction in the space of the weights."""
    start, values = nets.flat(weights), []
    for at in (start + STEP * direction, start - STEP * direction, start):
        nets.assign_flat(weights, at)
        values.append(function())
    return (values[0] - values[1]) / (2 * STEP)


@pytest.mark.parametrize("name", ["bert", "gpt2", "vit"])
def test_a_step_with_the_fisher_penalty_goes_down_its_gradient(name):
    net, x, y = made(name)
    drawn = np.roll(y, 1, axis=0)
    weights, by_loss = net.trainable_weights, flat_gradient(net, x, y)
    by_drawn = flat_gradient(net, x, drawn)
    gradient, squared_norm = by_loss(), np.sum(by_drawn() ** 2)
    model = kf.FisherPenaltyModel(net, 1.0, likelihood=HeldLabels(drawn))
    model.compile(keras.optimizers.SGD(1e-3), nets.loss(), run_eagerly=not reference.IS_JAX)
    before = nets.flat(weights)
    logs = model.train_on_batch(x, y, return_dict=True)
    assert float(logs["penalty"]) == pytest.approx(squared_norm, rel=1e-6)  # a float32 metric
    found = (before - nets.flat(weights)) / 1e-3 - gradient
    direction = found / np.linalg.norm(found)
    nets.assign_flat(weights, before)
    slope = central_difference(lambda: np.sum(by_drawn() ** 2), weights, direction)
    assert slope == pytest.approx(np.linalg.norm(found), rel=TOLERANCE)


@pytest.mark.parametrize("name", ["bert", "gpt2", "vit"])
def test_the_hessian_trace_is_that_of_central_differences(name):
    model, x, y = made(name)
    likelihood, weights = kf.likelihoods.Categorical(), model.trainable_weights
    trace = kf.hessian_trace(
        model, (x, y), num_probes=2, distribution="rademacher", likelihood=likelihood, seed=0
    )
    seed = ops.cast(keras.random.SeedGenerator(0).next(), "int32")  # as the trace draws its probes
    probes = [
        nets.array(
            kf.backend.map_probes(
                lambda z: ops.concatenate([ops.ravel(part) for part in z]),
                weights,
                np.arange(probe, probe + 1),
                gaussian=False,
                seed=seed,
            )
        )[0]
        for probe in range(2)
    ]
    gradient = flat_gradient(model, x, y)
    forms = [z @ central_difference(gradient, weights, z) for z in probes]
    assert trace.value == pytest.approx(np.mean(forms), rel=TOLERANCE)


class Placed(keras.layers.Layer):
    """KerasHub's table of positions, from a position on or at given ones."""

    def __init__(self, **options):
        super().__init__()
        self.table = hub.layers.PositionEmbedding(9)
        self.options = options

    def build(self, input_shape):
        self.table.build(input_shape)

    def call(self, inputs):
        options = dict(self.options)
        if "reversed_of" in options:
            options = {"positions": ops.argsort(inputs[..., 0]) - options["reversed_of"]}
        return ops.tanh(inputs) * self.table(inputs, **options)


PLACES = {
    "from-the-start": {},
    "later": {"start_index": 3},
    "elsewhere": {"positions": np.array([0, 0, -1, 8])},
    "batched": {"reversed_of": 2},
}


@pytest.mark.parametrize("uses", [1, 2])
@pytest.mark.parametrize("place", PLACES)
def test_positions_have_a_closed_form_wherever_they_begin(place, uses):
    start, placed = keras.Input((4, 3)), Placed(**PLACES[place])
    model = keras.Model(start, functools.reduce(lambda x, _: placed(x), range(uses), start))
    loop.randomise(model)
    x, y = loop.normal(3, 4, 3), loop.normal(3, 4, 3, seed=2)
    found, messages = loop.measured(model, x, y)
    assert not messages
    assert loop.relative_error(found, loop.loop(model, x, y)) < 1e-10
