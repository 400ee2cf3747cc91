"""The data sets of the paper as pipelines for `fit`."""

import math

import numpy as np

from keras_fisher import backend
from keras_fisher.data.arrays import read_splits
from keras_fisher.data.batches import (
    encode_labels,
    evaluation_batches,
    training_batches,
)
from keras_fisher.data.pipelines import Pipelines, check_training
from keras_fisher.data.sources import IMAGENET, NAMES
from keras_fisher.utils.arguments import check_choice


def load(
    name: str,
    *,
    batch_size: int = 128,
    augment: str | None = None,
    mixup_beta: float | None = None,
    validation_size: int | None = None,
    num_train: int | None = None,
    seed: int = 0,
    first_epoch: int = 0,
    image_size: int | None = None,
    labels: np.ndarray | None = None,
) -> Pipelines:
    """Loads a data set as batches for training, validation and test.

    | name | images | held out | tested on |
    |---|---|---|---|
    | "digits" | 1,797 of 8x8 | 180 | 539 of them |
    | "cifar10", "cifar100" | 60,000 of 32x32 | 5,000 | its test images |
    | "tiny_imagenet32" | 110,000 of 64x64, scaled to 32x32 | none | its validation images |
    | "imagenet2012" | 1,331,167 of many sizes | none | its validation images |

    The held-out sizes of CIFAR-100 and Tiny ImageNet are the paper's; it gives none for the other
    data sets. "digits" comes with scikit-learn. The others come from TensorFlow Datasets, which
    reads them from the folder in the environment variable `TFDS_DATA_DIR`, and prepares them there
    if necessary. It downloads every data set except ImageNet, whose archives you must put there
    yourself. `keras_fisher.data.tensorflow_imagenet` describes how ImageNet differs otherwise, for
    example in the choice of held-out images.

    Per channel, `x = (image - mean) / std`, with the statistics of all training images that are
    not held out, independent of `num_train`. Images stay uint8 in memory until they are batched.

    `train` comes from `training_batches`: the batches of epoch `k` are the same for every
    `first_epoch`, on every machine. The held-out and kept images depend only on `seed`, through the
    `permutation` of NumPy's default generator. (Future versions of NumPy may compute a different
    permutation from the same seed.)

    Examples:
        >>> from keras_fisher.data import load
        >>> digits = load("digits", batch_size=100, augment="flip", seed=0)
        >>> digits.steps_per_epoch, digits.input_shape, digits.num_classes
        (11, (8, 8, 1), 10)
        >>> x, y = next(iter(digits.train))
        >>> tuple(x.shape), tuple(y.shape)
        ((100, 8, 8, 1), (100,))
        >>> import keras
        >>> model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(10)])
        >>> model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        >>> history = model.fit(
        ...     digits.train,
        ...     steps_per_epoch=digits.steps_per_epoch,
        ...     epochs=2,
        ...     validation_data=digits.validation,
        ...     verbose=0,
        ... )

    Args:
        name: One of the names above.
        batch_size: Positive integer, at most the number of training images. The last batch of an
            epoch is smaller if it does not divide that number.
        augment: `None`, "flip" or "flip_and_crop"; applies only to training images. In section 3
            the paper flips CIFAR-10, and does not augment CIFAR-100 and ImageNet (appendix G.1);
            the standard augmentation of section 4 is "flip_and_crop" (appendix G.2).
        mixup_beta: Positive float to apply `mixup` with to training batches, or `None`. The
            labels of validation and test are then one-hot as well.
        validation_size: Number of training images to hold out. Defaults to the one above.
        num_train: Number of the remaining training images to keep, with equally many of each class
            if there are enough. Defaults to all.
        seed: Non-negative integer. Determines the held-out and kept images and all random draws in
            training; the test images never depend on it.
        first_epoch: Non-negative integer, the epoch that `train` begins with.
        image_size: Positive integer, height and width of ImageNet images, 224 by default. The other
            data sets have a fixed size.
        labels: Integer array with a label for each training image of the data set, as in
            `load_arrays`. Not for ImageNet.

    Returns:
        `Pipelines(train, validation, test, num_classes, input_shape, steps_per_epoch)`. Batches
        are `(x, y)`: float32 images of shape `(batch, height, width, channels)`, and int32 labels
        of shape `(batch,)` or, with mixup, float32 ones of shape `(batch, num_classes)`.
        `validation` is `None` if no images are held out.

    Raises:
        DatasetDamagedError: If the data set cannot be read.
        DatasetNotFoundError: If the data set is not on this machine and cannot be downloaded.
        ImportError: If the package that provides the data set is not installed.
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range, or the labels do not match the classes.

    Reference:
        Sections 3 and 4 and appendix G of Catastrophic Fisher Explosion (Jastrzebski et al.,
        2021).
    """
    check_choice("name", name, NAMES)
    check_training(batch_size, seed, first_epoch, augment, mixup_beta)
    if name == IMAGENET:
        if labels is not None:
            raise ValueError(
                f"`labels` must be None for {IMAGENET!r}, whose images are streamed. "
                f"Received: labels of type {type(labels).__name__}"
            )
        _check_streams()
        from keras_fisher.data.tensorflow_imagenet import stream

        return stream(
            batch_size=batch_size,
            augment=augment,
            mixup_beta=mixup_beta,
            validation_size=validation_size,
            num_train=num_train,
            seed=seed,
            first_epoch=first_epoch,
            image_size=image_size,
        )
    if image_size is not None:
        raise ValueError(
            f"`image_size` must be None for all data sets except {IMAGENET!r}. "
            f"Received: image_size={image_size!r}, name={name!r}"
        )
    splits, normalisation = read_splits(name, validation_size, num_train, seed, labels)
    x, y = splits.train
    train = training_batches(
        x,
        y,
        batch_size=batch_size,
        seed=seed,
        first_epoch=first_epoch,
        augment=augment,
        mixup_beta=mixup_beta,
        num_classes=splits.num_classes,
        normalisation=normalisation,
    )
    validation, test = (
        evaluation_batches(*part, batch_size=batch_size, normalisation=normalisation)
        for part in (splits.validation, splits.test)
    )
    if mixup_beta is not None:
        validation, test = (encode_labels(part, splits.num_classes) for part in (validation, test))
    return Pipelines(
        train=train,
        validation=validation if len(splits.validation.y) else None,
        test=test,
        num_classes=splits.num_classes,
        input_shape=x.shape[1:],
        steps_per_epoch=math.ceil(len(y) / batch_size),
    )


def _check_streams() -> None:
    """Raises unless the backend is TensorFlow, which streams ImageNet from disk."""
    if backend.NAME != "tensorflow":
        raise ValueError(
            f"`name` must not be {IMAGENET!r} with the {backend.NAME} backend: its images do not "
            "fit in memory, and are streamed by TensorFlow. "
            f"Received: name={IMAGENET!r}. Set KERAS_BACKEND=tensorflow"
        )
