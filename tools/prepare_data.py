"""Prepares data sets ahead of training: downloads them and writes them as TensorFlow Datasets does.

    python tools/prepare_data.py cifar10 cifar100
    python tools/prepare_data.py imagenet2012 --data-dir /data/tfds
    python tools/prepare_data.py imagenet2012 --check     # reads every record of it
    python tools/prepare_data.py cifar10 --arrays /data/arrays    # for JAX and PyTorch

Prepared and downloaded files are kept and not fetched again. For training, set the environment
variable TFDS_DATA_DIR to the folder. With --arrays the images are also written in NumPy's format:
writing needs TensorFlow, reading does not. For training without TensorFlow, set TFDS_DATA_DIR to
that folder, which may be the same.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from keras_fisher.data import NAMES, saved
from keras_fisher.data.sources import (
    IMAGENET,
    damaged_files,
    from_tfds,
    ids_from_tfds,
    make_damaged_error,
    prepare,
)


def main(arguments: Sequence[str] | None = None) -> None:
    given = parse_arguments(arguments)
    errors = []
    for name in dict.fromkeys(given.names):
        try:
            print(f"{name}: {prepare_and_describe(name, given)}", flush=True)
        except (OSError, ImportError) as error:
            errors.append(f"error: {error}")
    if errors:
        sys.exit("\n".join(errors))


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="+", choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument(
        "--data-dir", help="folder to keep them in (default: TFDS_DATA_DIR, then TFDS's own)"
    )
    parser.add_argument(
        "--check", action="store_true", help="read all records, and name the files that are damaged"
    )
    parser.add_argument(
        "--arrays",
        metavar="FOLDER",
        help="also save the images in this folder, for training without TensorFlow",
    )
    return parser.parse_args(arguments)


def prepare_and_describe(name: str, given: argparse.Namespace) -> str:
    """Prepares one data set and says where it lies."""
    if name == "digits":
        return "comes with scikit-learn, there is nothing to prepare"
    builder = prepare(name, given.data_dir)
    if given.check:
        check_records(name, builder)
    if given.arrays and name != IMAGENET:
        ids, _ = ids_from_tfds(name, given.data_dir)
        return f"saved as {saved.save(name, from_tfds(name, given.data_dir), ids, given.arrays)}"
    sizes = ", ".join(f"{split.num_examples:,} {key}" for key, split in builder.info.splits.items())
    return f"{sizes} images in {builder.data_dir}"


def check_records(name: str, builder: Any) -> None:
    files = [str(file) for split in builder.info.splits for file in damaged_files(builder, split)]
    if files:
        raise make_damaged_error(name, builder, f"{', '.join(files)} cannot be read")


if __name__ == "__main__":
    main()
