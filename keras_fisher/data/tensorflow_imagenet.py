"""Streaming of ImageNet, which does not fit in memory, for `load("imagenet2012")`.

Normalisation uses the usual statistics of the training images, fixed here because computing them
again would decode 1.28 million images. Held-out images are the last of the prepared files, and kept
images are the first, for every seed: TFDS wrote them in a random order.

An epoch reads the files in a random order, sixteen at a time, and shuffles within windows of 4,096
images. Each epoch contains every image once. The same files and the same seed give the same order,
whatever the first epoch. This order is not a uniform permutation, and depends on the number of
shards. A damaged record stops training with TensorFlow's `DataLossError`, which does not name the
file: `tools/prepare_data.py imagenet2012 --check` does.

Evaluation, and training without "flip_and_crop", cut the central square of 7/8 of the shorter side
and scale it to `image_size`. For 224, this combines scaling the shorter side to 256 and cropping to
224. "flip_and_crop" instead cuts a random rectangle of 8% to 100% of the area and a width of 3/4 to
4/3 of the height (Szegedy et al., 2015), scales it to the same square and flips half of them.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from keras_fisher.backend import random
from keras_fisher.data.batches import encode_labels, normalise_batches
from keras_fisher.data.mixing import mixup
from keras_fisher.data.normalisation import Normalisation
from keras_fisher.data.partition import check_sizes
from keras_fisher.data.pipelines import Pipelines
from keras_fisher.data.sources import IMAGENET as NAME
from keras_fisher.data.sources import SOURCES, import_package, make_damaged_error, prepare
from keras_fisher.data.tensorflow_containers import batch_examples, chain_epochs, fix_order
from keras_fisher.utils.arguments import check_integer

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

FILES_AT_A_TIME = 16
WINDOW = 4096
NORMALISATION = Normalisation(
    mean=255 * np.array([0.485, 0.456, 0.406], np.float32),
    std=255 * np.array([0.229, 0.224, 0.225], np.float32),
)

Example = tuple[tf.Tensor, tf.Tensor]


def stream(
    *,
    batch_size: int,
    augment: str | None,
    mixup_beta: float | None,
    validation_size: int | None,
    num_train: int | None,
    seed: int,
    first_epoch: int,
    image_size: int | None,
) -> Pipelines:
    """Returns the pipelines of `load`; checks only the arguments whose limits need the data."""
    image_size = check_integer("image_size", 224 if image_size is None else image_size, low=1)
    builder = prepare(NAME)
    _check_files(builder)
    source, splits = SOURCES[NAME], builder.info.splits
    if validation_size is None:
        validation_size = source.validation_size
    validation_size, num_train = check_sizes(
        splits["train"].num_examples, validation_size, num_train
    )
    batch_size = check_integer("batch_size", batch_size, 1, num_train)
    records = _Records(builder, f"train[:{num_train}]")

    def epoch_batches(epoch: tf.Tensor) -> tf.data.Dataset:
        order_seed, augment_seed, mixup_seed = random.make_stream_seeds(seed, epoch)

        def example(position: tf.Tensor, record: tf.Tensor) -> Example:
            jpeg, label = records.parse(record)
            example_seed = tf.stack([augment_seed, position])
            return training_image(jpeg, example_seed, augment, image_size), label

        examples = records.shuffle(order_seed).enumerate()
        examples = examples.map(example, num_parallel_calls=tf.data.AUTOTUNE)
        batches = normalise_batches(batch_examples(examples, batch_size, num_train), NORMALISATION)
        if mixup_beta is not None:
            batches = mixup(batches, mixup_beta, mixup_seed, source.num_classes)
        return batches

    def evaluation(split: str) -> tf.data.Dataset:
        records = _Records(builder, split)

        def example(record: tf.Tensor) -> Example:
            jpeg, label = records.parse(record)
            return central_image(jpeg, image_size), label

        examples = records.read_in_order().map(example, num_parallel_calls=tf.data.AUTOTUNE)
        batches = batch_examples(examples, batch_size, splits[split].num_examples)
        batches = normalise_batches(batches, NORMALISATION)
        if mixup_beta is not None:
            batches = encode_labels(batches, source.num_classes)
        return fix_order(batches)

    return Pipelines(
        train=chain_epochs(epoch_batches, first_epoch),
        validation=evaluation(f"train[-{validation_size}:]") if validation_size else None,
        test=evaluation(source.test_split),
        num_classes=source.num_classes,
        input_shape=(image_size, image_size, 3),
        steps_per_epoch=math.ceil(num_train / batch_size),
    )


def central_image(jpeg: tf.Tensor, size: int) -> tf.Tensor:
    """Returns the central square of 7/8 of the shorter side, float32, `(size, size, 3)`."""
    height, width, _ = tf.unstack(tf.image.extract_jpeg_shape(jpeg))
    side = tf.minimum(height, width) * 7 // 8
    return _cut(jpeg, [(height - side) // 2, (width - side) // 2, side, side], size)


def training_image(jpeg: tf.Tensor, seed: tf.Tensor, augment: str | None, size: int) -> tf.Tensor:
    """Returns the augmented image, float32, `(size, size, 3)`; depends only on image and seed."""
    crop_seed, flip_seed = tf.unstack(tf.random.split(seed, 2))
    if augment == "flip_and_crop":
        image = _random_rectangle(jpeg, crop_seed, size)
    else:
        image = central_image(jpeg, size)
    if augment is not None:
        image = tf.image.stateless_random_flip_left_right(image, flip_seed)
    return image


def _random_rectangle(jpeg: tf.Tensor, seed: tf.Tensor, size: int) -> tf.Tensor:
    whole = tf.constant([[[0.0, 0.0, 1.0, 1.0]]])
    corner, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.image.extract_jpeg_shape(jpeg),
        whole,
        seed,
        min_object_covered=0.0,
        aspect_ratio_range=(3 / 4, 4 / 3),
        area_range=(0.08, 1.0),
    )
    return _cut(jpeg, [corner[0], corner[1], extent[0], extent[1]], size)


def _cut(jpeg: tf.Tensor, window: list[tf.Tensor], size: int) -> tf.Tensor:
    image = tf.image.decode_and_crop_jpeg(jpeg, window, channels=3)
    return tf.image.resize(image, [size, size], antialias=True)


class _Records:
    """The records of a split, as TFDS wrote them."""

    def __init__(self, builder: tfds.core.DatasetBuilder, split: str) -> None:
        self._builder = builder
        self._decoders = {"image": import_package("tensorflow_datasets").decode.SkipDecoding()}
        files = builder.info.splits[split].file_instructions
        self._files = (
            tf.constant([os.fspath(file.filename) for file in files]),
            tf.constant([file.skip for file in files], tf.int64),
            tf.constant([file.take for file in files], tf.int64),
        )

    def parse(self, record: tf.Tensor) -> Example:
        """Returns the JPEG and the label; asserts in the graph that the label is a class."""
        example = self._builder.info.features.deserialize_example(record, decoders=self._decoders)
        num_classes = SOURCES[NAME].num_classes
        label = tf.cast(example["label"], tf.int32)
        is_class = tf.debugging.Assert(
            (label >= 0) & (label < num_classes),
            [f"Labels in {NAME!r} must lie in [0, {num_classes}). Received: label", label],
        )
        with tf.control_dependencies([is_class]):
            return example["image"], tf.identity(label)

    def read_in_order(self) -> tf.data.Dataset:
        return self._read(self._files, at_a_time=1)

    def shuffle(self, seed: tf.Tensor) -> tf.data.Dataset:
        """Shuffles by `seed` only; `Dataset.shuffle` also depends on the global seed."""
        shuffle = tf.random.experimental.stateless_shuffle
        order = shuffle(tf.range(len(self._files[0])), tf.stack([seed, -1]))
        files = tuple(tf.gather(column, order) for column in self._files)
        windows = self._read(files, FILES_AT_A_TIME).batch(WINDOW).enumerate()
        return windows.map(
            lambda position, window: shuffle(window, tf.stack([seed, position]))
        ).unbatch()

    def _read(self, files: tuple[tf.Tensor, ...], at_a_time: int) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices(files).interleave(
            lambda path, skip, take: tf.data.TFRecordDataset(path).skip(skip).take(take),
            cycle_length=at_a_time,
            block_length=at_a_time,
            num_parallel_calls=tf.data.AUTOTUNE,
        )


def _check_files(builder: tfds.core.DatasetBuilder) -> None:
    for split in ("train", SOURCES[NAME].test_split):
        if split not in builder.info.splits:
            raise make_damaged_error(NAME, builder, f"it has no split {split!r}")
        for path in map(Path, builder.info.splits[split].filepaths):
            if not path.exists():
                raise make_damaged_error(NAME, builder, f"{path} is missing")
