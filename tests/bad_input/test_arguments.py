"""Whatever an argument is given, the call succeeds or an error names it: tried by machine."""

import re

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import keras_fisher as kf
from keras_fisher import tuning
from tests import nets, reference
from tests.bad_input.cases import cases

CASES_OF_EACH = 10
DOCUMENTED = (TypeError, ValueError, OSError, NotImplementedError)

X, Y = nets.inputs("dense", batch=12), nets.labels(batch=12)
DATA = (X, Y)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
IMAGES, CLASSES = np.zeros((12, 6, 6, 3), "float32"), np.arange(12) % 3


MODEL = nets.plain("dense")
SHAPE = {"input_shape": (8, 8, 3), "num_classes": 3}
MEASURED = {
    "model": MODEL,
    "data": DATA,
    "num_examples": 4,
    "batch_size": 4,
    "by_layer": True,
    "seed": 0,
}
WATCHED = {"data": DATA, "freq": 1, "num_examples": 4, "batch_size": 4, "seed": 0}
SPECTRAL = {key: value for key, value in MEASURED.items() if key != "by_layer"}
SEEDLESS = {key: value for key, value in MEASURED.items() if key != "seed"}
# Each public function or class, with arguments that it takes.
CALLS = {
    kf.FisherPenaltyModel: {
        "backbone": MODEL,
        "alpha": 0.1,
        "penalty": "fp",
        "update_freq": 2,
        "penalty_batch_size": 0.5,
        "micro_batch_size": 2,
        "gradient": "exact",
        "max_penalty_ratio": 1.0,
        "likelihood": None,
        "seed": 0,
    },
    kf.fisher_trace: {**MEASURED, "labels": "sampled", "likelihood": None},
    kf.minibatch_fisher_trace: {**MEASURED, "labels": "sampled", "likelihood": None},
    kf.gradient_norm: {**SEEDLESS, "likelihood": None},
    kf.per_example_gradient_norms: {**MEASURED, "labels": "sampled", "likelihood": None},
    kf.hessian_trace: {
        **MEASURED,
        "num_probes": 2,
        "distribution": "gaussian",
        "estimator": "hutchinson",
        "rtol": 0.5,
    },
    kf.ggn_trace: {**MEASURED, "labels": "expected", "likelihood": None},
    kf.hessian_eigenvalues: {
        **SPECTRAL,
        "k": 2,
        "which": "largest",
        "rtol": 1e-3,
        "max_products": 100,
        "return_vectors": True,
    },
    kf.sharpness: {**SPECTRAL, "rtol": 1e-3, "max_products": 100},
    kf.spectral_density: {**SPECTRAL, "num_probes": 2, "num_steps": 2},
    kf.callbacks.AlphaScheduler: {"schedule": abs},
    kf.callbacks.BatchNormRecalibration: {"data": DATA, "num_batches": 2, "batch_size": 4},
    kf.callbacks.EarlyPhase: {**WATCHED, "loss_threshold": 1.0, "labels": "given"},
    kf.callbacks.FisherTrace: {**WATCHED, "labels": "given", "explosion_factor": 4.0},
    kf.callbacks.GradientNorm: {k: v for k, v in WATCHED.items() if k != "seed"},
    kf.callbacks.HessianEigenvalues: {
        **WATCHED,
        "k": 2,
        "which": "largest",
        "rtol": 1e-3,
        "max_products": 100,
    },
    kf.callbacks.HessianTrace: {
        **WATCHED,
        "num_probes": 2,
        "distribution": "gaussian",
        "estimator": "hutchinson",
        "rtol": 0.5,
    },
    kf.callbacks.LabelNoiseMonitor: {
        "x": X,
        "y": Y,
        "is_noisy": Y > 1,
        "batch_size": 4,
        "gradient_batches": 1,
    },
    kf.callbacks.LabelScores: {"data": DATA, "num_measurements": 2, "batch_size": 4},
    kf.callbacks.MinibatchFisherTrace: {**WATCHED, "labels": "given"},
    kf.callbacks.NonFiniteGuard: {"action": "stop"},
    kf.data.find_wrong_labels: {"probabilities": np.full((12, 3), 1 / 3), "y": CLASSES},
    # Where the file is missing, `path` is refused, after the other arguments.
    kf.data.human_labels: {"name": "cifar10", "annotation": "worse", "path": "missing.pt"},
    kf.data.load: {"name": "digits", "labels": None},
    kf.data.load_arrays: {
        "name": "digits",
        "validation_size": 10,
        "num_train": 10,
        "seed": 0,
        "labels": None,
    },
    kf.data.mixup: {
        "dataset": reference.batches(X, Y, 4),
        "beta": 1.0,
        "seed": 0,
        "num_classes": 3,
    },
    kf.data.training_batches: {
        "x": IMAGES,
        "y": CLASSES,
        "batch_size": 4,
        "seed": 0,
        "first_epoch": 0,
        "augment": "flip_and_crop",
        "mixup_beta": 1.0,
        "num_classes": 3,
    },
    kf.data.uniform_label_noise: {"y": CLASSES, "fraction": 0.5, "num_classes": 3, "seed": 0},
    kf.likelihoods.Gaussian: {"variance": 0.5},
    kf.likelihoods.from_loss: {"loss": LOSS},
    kf.penalties.Penalty: {"labels": "sampled", "wrt": "weights"},
    kf.penalties.get: {"penalty": "fp"},
    kf.zoo.simple_cnn: {**SHAPE, "input_shape": (12, 12, 3), "width": 2, "seed": 0},
    kf.zoo.vgg11: {"input_shape": (32, 32, 3), "num_classes": 3, "width": 2, "seed": 0},
    kf.zoo.densenet: {**SHAPE, "depth": 7, "growth": 2, "seed": 0},
    kf.zoo.wide_resnet: {**SHAPE, "depth": 8, "width": 1, "seed": 0},
    kf.zoo.resnet: {**SHAPE, "depth": 8, "width": 2, "seed": 0},
    tuning.FisherPenaltyHyperModel: {
        "build_backbone": lambda hp: nets.build("dense"),
        "loss": LOSS,
        "learning_rates": [0.1],
        "alphas": [0.1],
        "seeds": [0],
    },
    tuning.alpha_range: {
        "model": MODEL,
        "data": DATA,
        "penalty": "fp",
        "num": 2,
        "num_batches": 1,
        "batch_size": 4,
        "seed": 0,
    },
    tuning.alphas: {"value": 0.1, "num": 3},
    tuning.learning_rates: {"low": 0.1, "high": 1.0, "num": 3},
    tuning.noisy_label_alphas: {"penalty": "fp"},
}
# Of these much can be asked for, which takes as long.
SIZES = (
    "width",
    "depth",
    "growth",
    "num",
    "num_probes",
    "num_steps",
    "num_classes",
    "input_shape",
)

numbers = st.one_of(
    st.booleans(),
    st.integers(-3, 5),
    st.floats(),
    st.sampled_from(
        [np.float32(0.5), np.int64(3), np.bool_(True), 1j, keras.ops.convert_to_tensor(2)]
    ),
)
huge = st.sampled_from([2**31, 2**32, 2**63, 2**64, 10**30, -(10**30), 1e300])
texts = st.one_of(st.text(max_size=5), st.sampled_from(["", "FP", "fp\0", "épocas", "🙂", "../fp"]))
shapes = st.sampled_from([(), (0,), (12,), (0, 4), (12, 4), (11, 4), (3, 4, 5), (12, 6, 6, 3)])
arrays = st.builds(
    np.zeros, shapes, st.sampled_from(["float32", "float64", "int8", "uint64", "bool", "complex64"])
)
objects = st.one_of(
    arrays,
    st.builds(np.full, shapes, st.sampled_from([np.nan, np.inf, -1, 99])),
    st.builds(np.broadcast_to, st.just(np.float32(0)), st.sampled_from([(2**40,), (2**40, 4)])),
    st.builds(np.array, st.lists(texts, max_size=12)),
    st.none(),
    st.binary(max_size=3),
    st.lists(numbers, max_size=3),
    st.tuples(arrays, arrays),
    st.dictionaries(texts, numbers, max_size=2),
    st.sampled_from(
        [object(), int, print, MODEL, keras.layers.Dense(2), iter(()), keras.ops.zeros((2, 3))]
    ),
    st.builds(lambda a: reference.batches(a, a, 4), arrays.filter(lambda a: a.ndim and len(a))),
)


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__name__)
@pytest.mark.filterwarnings("ignore")
def test_any_value_is_taken_or_refused_by_the_name_of_its_argument(call):
    @cases(CASES_OF_EACH)
    @given(replaced(call))
    def check(case):
        name, value = case
        said = message(call, {**CALLS[call], name: value})
        assert said is None or re.search(rf"\b{name}\b", said), said

    check()


def replaced(call):
    """The name of an argument, and any value for it."""

    def values(name):
        kinds = [numbers, texts, objects, *([] if name in SIZES else [huge])]
        return st.tuples(st.just(name), st.one_of(*kinds))

    return st.sampled_from(sorted(CALLS[call])).flatmap(values)


def message(call, arguments):
    """What a documented error says, with its notes; nothing where the call succeeds."""
    try:
        call(**arguments)
    except DOCUMENTED as error:
        return "\n".join([str(error), *getattr(error, "__notes__", [])])
