"""Human labels of the training images of CIFAR."""

import os
import pickletools
import zipfile
from pathlib import Path

import numpy as np

from keras_fisher.data import sources
from keras_fisher.data.examples import DatasetDamagedError, DatasetNotFoundError
from keras_fisher.data.labels import check_labels
from keras_fisher.utils.arguments import check_choice, check_path

# The annotations of each data set, with their names in the official file.
ANNOTATIONS = {
    "cifar10": {
        "clean": "clean_label",
        "aggregate": "aggre_label",
        "random1": "random_label1",
        "random2": "random_label2",
        "random3": "random_label3",
        "worse": "worse_label",
    },
    "cifar100": {"clean": "clean_label", "fine": "noisy_label"},
}

_URL = "https://github.com/UCSC-REAL/cifar-10-100n"
FILES = {"cifar10": "CIFAR-10_human.pt", "cifar100": "CIFAR-100_human.pt"}
_NUM_IMAGES = 50_000

# Everything that the pickles of the official files contain, besides their arrays. Coarse labels are
# lists, and are not read.
_OPCODES = {
    *("PROTO", "STOP", "MARK", "BINPUT", "BINGET", "GLOBAL", "REDUCE", "BUILD"),
    *("EMPTY_DICT", "SETITEMS", "EMPTY_LIST", "APPENDS", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
    *("NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "BINUNICODE"),
}
_GLOBALS = (
    "numpy.core.multiarray _reconstruct",
    "numpy ndarray",
    "numpy dtype",
    "_codecs encode",
)
_KEYS = {key for keys in ANNOTATIONS.values() for key in keys.values()}
_COARSE_KEYS = ("clean_coarse_label", "noisy_coarse_label")
_FORMAT = ("b", "latin1", "i8", "<")  # of arrays: little-endian int64, their bytes as text


def human_labels(name: str, annotation: str, path: str | os.PathLike[str]) -> np.ndarray:
    """Reads the labels that people gave to CIFAR's training images (CIFAR-10N and CIFAR-100N).

    Their errors are human errors: most wrong labels name a similar class.

    | name | annotation | what | wrong |
    |---|---|---|---|
    | "cifar10" | "random1", "random2", "random3" | one of three labels per image | 17 to 18% |
    | | "aggregate" | the majority of the three | 9% |
    | | "worse" | a wrong one of the three, if there is one | 40% |
    | "cifar100" | "fine" | one label per image | 40% |
    | both | "clean" | the label of the data set | none |

    Download the files, CIFAR-10_human.pt and CIFAR-100_human.pt, from
    https://github.com/UCSC-REAL/cifar-10-100n. Their licence is CC BY-NC 4.0, and this package does
    not contain them. They contain pickles, which are parsed and never run.

    The files list the labels in the order of CIFAR's Python version; TensorFlow Datasets (TFDS) has
    another order. The function matches labels to images by the ids that TFDS stores, and raises
    unless the clean labels of the file and of the data set agree on every image. If the data set is
    read from saved arrays, save them with ids: `tools/prepare_data.py --arrays` does so.

    Examples:
        >>> import keras_fisher as kf
        >>> labels = kf.data.human_labels("cifar10", "worse", "downloads")  # doctest: +SKIP
        >>> clean = kf.data.load_arrays("cifar10").train.y  # doctest: +SKIP
        >>> x, y = kf.data.load_arrays("cifar10", labels=labels).train  # doctest: +SKIP
        >>> print(f"{(y != clean).mean():.0%}")  # doctest: +SKIP
        40%

    Args:
        name: "cifar10" or "cifar100".
        annotation: An annotation of the data set, from the table above.
        path: The official file, or the folder that holds it under its official name.

    Returns:
        int32 array of shape `(50000,)`: a label for each training image, in the order of the data
        set before any image is held out. Pass it as `labels` to `load` or `load_arrays`.

    Raises:
        DatasetDamagedError: If the file or the data set cannot be read, or the file is not the
            official one.
        DatasetNotFoundError: If the file, the data set or the ids of its images are missing.
        ImportError: If the package that provides the data set is not installed.
        TypeError: If `path` is not a path.
        ValueError: If an argument is none of the above, or the labels cannot be matched to images.

    Reference:
        Learning with Noisy Labels Revisited: A Study Using Real-World Human Annotations (Wei et
        al., ICLR 2022).
    """
    check_choice("name", name, ANNOTATIONS)
    check_choice("annotation", annotation, ANNOTATIONS[name])
    file = _find_file(name, Path(check_path("path", path)))
    labels = _read_file(name, file)
    positions = _find_positions(name, labels["clean"])
    return labels[annotation][positions].astype(np.int32)


def _find_file(name: str, path: Path) -> Path:
    file = path / FILES[name] if path.is_dir() else path
    if not file.exists():
        raise DatasetNotFoundError(
            f"`path` must be {FILES[name]} or the folder that holds it. Received: path={path}. "
            f"Download the file from {_URL}; its licence is CC BY-NC 4.0"
        )
    return file


def _read_file(name: str, file: Path) -> dict[str, np.ndarray]:
    """Returns the labels of each annotation, in the order of CIFAR's Python version."""
    try:
        arrays = _parse(_read_pickle(file))
        if missing := [key for key in ANNOTATIONS[name].values() if key not in arrays]:
            raise ValueError(f"it lacks {', '.join(missing)}")
        for key in ANNOTATIONS[name].values():
            check_labels(key, arrays[key], sources.SOURCES[name].num_classes)
    except (OSError, EOFError, RuntimeError, ValueError, zipfile.BadZipFile) as error:
        raise DatasetDamagedError(
            f"{file} cannot be read as the official {FILES[name]}: {error}. Download it again "
            f"from {_URL}"
        ) from error
    return {annotation: arrays[key] for annotation, key in ANNOTATIONS[name].items()}


def _read_pickle(file: Path) -> bytes:
    """Returns the pickle in a zip that `torch.save` wrote, which is not compressed."""
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            if entry.filename.endswith("/data.pkl") and entry.compress_type == zipfile.ZIP_STORED:
                return archive.read(entry)
    raise ValueError("it holds no uncompressed data.pkl")


def _parse(pickled: bytes) -> dict[str, np.ndarray]:
    """Returns the arrays in a pickle by their keys, without running the pickle.

    The bytes of an array are the next text of the right length after its key.
    """
    arrays, key = {}, ""
    for opcode, argument, _ in pickletools.genops(pickled):
        text = str(argument)
        if opcode.name not in _OPCODES or (opcode.name == "GLOBAL" and text not in _GLOBALS):
            raise ValueError(f"its pickle has {opcode.name} {text[:80]}")
        if opcode.name != "BINUNICODE":
            continue
        if text in _KEYS or text in _COARSE_KEYS:
            key = text
        elif len(text) == 8 * _NUM_IMAGES:
            arrays[key] = np.frombuffer(text.encode("latin-1"), "<i8")
        elif text not in _FORMAT:
            raise ValueError(f"its pickle has the text {text[:80]!r}")
    return arrays


def _find_positions(name: str, clean: np.ndarray) -> np.ndarray:
    """Returns the position in the file of each training image's label."""
    ids, y = sources.read_ids(name)
    of_id = {f"train_{position:05}": position for position in range(_NUM_IMAGES)}
    positions = np.array([of_id.get(id, -1) for id in ids])
    if not np.array_equal(np.sort(positions), np.arange(_NUM_IMAGES)):
        raise ValueError(
            f"The labels cannot be matched to the images of {name!r}, whose ids must be "
            f"train_00000 to train_{_NUM_IMAGES - 1}. Received: {len(ids)} ids, the first {ids[0]}"
        )
    if wrong := np.count_nonzero(clean[positions] != y):
        raise ValueError(
            f"The labels cannot be matched to the images of {name!r}: the clean labels of the file "
            f"must be those of the data set. Received: {wrong} of {len(y)} that differ, so the ids "
            "of the data set are not the official ones. Prepare it with TensorFlow Datasets: "
            f"`python tools/prepare_data.py {name}`"
        )
    return positions
