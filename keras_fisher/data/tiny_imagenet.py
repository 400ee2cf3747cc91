"""Tiny ImageNet at 32x32 pixels, for TensorFlow Datasets."""

import io
import zipfile
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
import tensorflow_datasets as tfds

URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
ROOT = "tiny-imagenet-200"


class TinyImagenet32(tfds.core.GeneratorBasedBuilder):
    """Downloads Tiny ImageNet and scales its images down as the paper does.

    Importing this module registers the data set with TFDS as "tiny_imagenet32". Class `k` is the
    `k`-th WordNet id in alphabetical order. The labels of the official test images are not public,
    so the splits are "train" and "validation".

    Reference:
        Section 4 and appendix G.2 of Catastrophic Fisher Explosion (Jastrzebski et al., 2021).
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=(
                "Tiny ImageNet, 500 training and 50 validation images for each of 200 classes, "
                "area-averaged from 64x64 to 32x32. Label names are WordNet ids, sorted."
            ),
            features=tfds.features.FeaturesDict(
                {
                    "id": tfds.features.Text(),
                    "image": tfds.features.Image(shape=(32, 32, 3), encoding_format="jpeg"),
                    "label": tfds.features.ClassLabel(num_classes=200),
                }
            ),
            supervised_keys=("image", "label"),
            homepage=URL,
            license="The terms of ImageNet: non-commercial research and educational use only.",
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
        archive = zipfile.ZipFile(dl_manager.download(URL))
        self.info.features["label"].names = sorted(_lines(archive, "wnids.txt"))
        return {
            "train": self._generate_examples(archive, _training_labels(archive)),
            "validation": self._generate_examples(archive, _validation_labels(archive)),
        }

    def _generate_examples(
        self, archive: zipfile.ZipFile, labels: dict[str, str]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        for path, label in labels.items():
            name = path.rsplit("/", 1)[-1].removesuffix(".JPEG")
            image = _halve(archive.read(path))
            yield name, {"id": name, "image": image, "label": label}


def _lines(archive: zipfile.ZipFile, path: str) -> list[str]:
    return archive.read(f"{ROOT}/{path}").decode().splitlines()


def _training_labels(archive: zipfile.ZipFile) -> dict[str, str]:
    """Returns the WordNet id of each image, which is the name of its folder."""
    images = (path for path in archive.namelist() if path.endswith(".JPEG"))
    return {path: path.split("/")[2] for path in images if path.startswith(f"{ROOT}/train/")}


def _validation_labels(archive: zipfile.ZipFile) -> dict[str, str]:
    """Returns the WordNet id of each image, from the archive's table."""
    rows = (line.split("\t") for line in _lines(archive, "val/val_annotations.txt"))
    return {f"{ROOT}/val/images/{name}": label for name, label, *_ in rows}


def _halve(jpeg: bytes) -> io.BytesIO:
    """Returns the means of 2x2 pixels, as JPEG."""
    image = tf.io.decode_jpeg(jpeg, channels=3, dct_method="INTEGER_ACCURATE")
    small = tf.image.resize(image, [32, 32], method="area")
    return io.BytesIO(tf.io.encode_jpeg(tf.cast(tf.round(small), tf.uint8)).numpy())
