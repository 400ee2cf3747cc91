"""What all networks have in common."""

import inspect

import keras
import numpy as np
import pytest

from keras_fisher import zoo
from tests.zoo.networks import FULL, SMALL, images

BUILDERS = [
    zoo.simple_cnn,
    zoo.vgg11,
    zoo.wide_resnet,
    zoo.densenet,
    zoo.resnet,
    zoo.resnet18,
]
# Where the root mean square of the logits starts, for images of standard normal numbers. The blocks
# of a post-activation network add up, and more so under batch normalisation.
LOGITS = {
    "simple_cnn": (0.1, 0.9),
    "vgg11": (1.0, 6.0),
    "wide_resnet": (0.2, 1.8),
    "wide_resnet-skip_init": (0.3, 3.0),
    "densenet": (0.2, 1.8),
    "resnet-26": (0.8, 6.0),
    "resnet-50": (1.0, 8.0),
    "resnet-56": (1.0, 8.0),
    "resnet-26-weight_norm": (0.3, 3.0),
    "resnet-50-weight_norm": (0.3, 3.0),
    "resnet-56-weight_norm": (0.3, 3.0),
    "resnet18": (0.0, 0.0),
}


@pytest.mark.matrix
@pytest.mark.parametrize("name", FULL)
def test_logits_start_at_the_stated_scale(name):
    model = FULL[name](input_shape=(32, 32, 3), seed=0)
    logits = np.asarray(model(images(8, 32, 32, 3), training=True))
    low, high = LOGITS[name]
    assert low <= np.sqrt(np.mean(np.square(logits))) <= high


@pytest.mark.matrix
@pytest.mark.parametrize("name", SMALL)
def test_any_image_size_and_class_count_is_accepted(name):
    build, shape = SMALL[name], (33, 14, 1)
    model = build.func(shape, 7, **build.keywords)
    assert model(images(2, *shape)).shape == (2, 7)
    assert model.output_shape == (None, 7)


@pytest.mark.matrix
@pytest.mark.parametrize("name", SMALL)
def test_seed_decides_the_weights(name):
    models = [SMALL[name](seed=seed) for seed in (0, 0, 1)]
    for one, again, other in zip(*(model.weights for model in models), strict=True):
        one, again, other = map(np.asarray, (one, again, other))
        np.testing.assert_array_equal(one, again)
        assert np.array_equal(one, other) != (one.ndim > 1 and one.std() > 0)


def test_without_a_seed_the_global_one_decides():
    weights = []
    for seed in (0, 0, 1):
        keras.utils.set_random_seed(seed)
        weights.append(SMALL["simple_cnn"]().get_layer("logits").get_weights()[0])
    np.testing.assert_array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2])


@pytest.mark.matrix
@pytest.mark.parametrize("name", SMALL)
def test_no_two_layers_start_from_the_same_numbers(name):
    random = [w for w in SMALL[name](seed=0).get_weights() if w.ndim > 1 and w.std() > 0]
    starts = {tuple(w.ravel()[:3]) for w in random}
    assert len(starts) == len(random) > 3


@pytest.mark.matrix
@pytest.mark.parametrize("name", SMALL)
def test_saving_and_loading_keeps_the_function_and_needs_no_custom_objects(name, tmp_path):
    model = SMALL[name]()
    generator = np.random.default_rng(0)
    for variable in model.trainable_variables:  # off their special values
        variable.assign_add(0.1 * generator.normal(size=variable.shape))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x = images(4, *model.input_shape[1:])
    np.testing.assert_array_equal(loaded(x), model(x))


# ---- Arguments that cannot be -------------------------------------------------------------------


def smallest(build):
    return {zoo.simple_cnn: 10, zoo.densenet: 4}.get(build, 1)


@pytest.mark.matrix
@pytest.mark.parametrize("build", BUILDERS)
def test_the_smallest_image_is_accepted_and_a_smaller_one_refused(build):
    small = {"width": 4} if "width" in inspect.signature(build).parameters else {}
    size = smallest(build)
    assert build((size, size, 3), 2, **small)(images(1, size, size, 3)).shape == (1, 2)
    for shape in ((size - 1, size, 3), (size, size - 1, 3)):
        with pytest.raises(ValueError, match=f"at least {size} by {size} pixel") as info:
            build(shape, 2)
        assert "`input_shape` must be three integers" in str(info.value)
        assert f"input_shape={shape}" in str(info.value)


WRONG = [
    ("input_shape", (32, 32), ValueError),
    ("input_shape", (32, 32, 0), ValueError),
    ("input_shape", (32.0, 32, 3), TypeError),
    ("input_shape", (None, None, 3), TypeError),
    ("input_shape", 32, TypeError),
    ("num_classes", 0, ValueError),
    ("num_classes", 10.0, TypeError),
    ("num_classes", True, TypeError),
    ("seed", -1, ValueError),
    ("seed", "0", TypeError),
    ("width", 0, ValueError),
    ("width", 1.5, TypeError),
    ("growth", 0, ValueError),
    ("growth", None, TypeError),
    ("depth", 26.0, TypeError),
]


@pytest.mark.parametrize(
    ("build", "argument", "value", "error"),
    [
        (build, *wrong)
        for build in BUILDERS
        for wrong in WRONG
        if wrong[0] in inspect.signature(build).parameters
    ],
)
def test_an_error_names_the_argument_what_was_given_and_what_is_accepted(
    build, argument, value, error
):
    with pytest.raises(error, match=f"`{argument}` must be .* Received: {argument}=") as info:
        build(**{argument: value})
    assert repr(value) in str(info.value)


@pytest.mark.parametrize("build", [zoo.wide_resnet, zoo.resnet])
@pytest.mark.parametrize("depth", [-4, 2, 3, 25, 45])
def test_depths_of_residual_networks_are_6n_plus_2(build, depth):
    with pytest.raises(ValueError, match=rf"`depth` must be 6n \+ 2 .* Received: depth={depth}"):
        build(depth=depth)


@pytest.mark.parametrize("depth", [4, 39, 41])
def test_depths_of_densenets_are_3n_plus_4(depth):
    with pytest.raises(ValueError, match=rf"`depth` must be 3n \+ 4 .* Received: depth={depth}"):
        zoo.densenet(depth=depth)


@pytest.mark.matrix
@pytest.mark.parametrize("build", [zoo.wide_resnet, zoo.resnet, zoo.densenet])
@pytest.mark.parametrize("depth", [14, 20])
def test_as_many_layers_have_kernels_as_the_depth_says(build, depth):
    depth = depth + 5 if build is zoo.densenet else depth
    model = build((8, 8, 3), depth=depth)
    kernels = [layer for layer in model.layers if hasattr(layer, "kernel")]
    assert sum(not layer.name.endswith("shortcut") for layer in kernels) == depth


def test_integers_of_numpy_are_integers():
    model = zoo.resnet((np.int64(8), 8, 3), np.int32(2), depth=np.int64(8), batch_norm=False)
    assert model.output_shape == (None, 2)
