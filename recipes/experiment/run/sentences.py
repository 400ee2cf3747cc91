"""A text data set without a download: sentences of Python's own documentation.

The class of a sentence is the package of the standard library that it documents. The sentences
depend on the version of Python.
"""

from __future__ import annotations

import ast
import collections
import re
import sysconfig
from pathlib import Path

import numpy as np

from keras_fisher.data import Examples, Splits

PACKAGES = ("asyncio", "email", "importlib", "logging", "unittest")
EACH = 400  # sentences of a package
TEST = 500  # sentences
LENGTH = 24  # words of a sentence: longer ones are cut, shorter ones are padded with 0
VOCABULARY = 1500  # the most frequent words, after 0 for padding and 1 for all others
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def load_sentences(validation_size: int, num_train: int | None, seed: int) -> Splits:
    """Returns token ids of shape `(n, LENGTH)` and the indices of packages."""
    choice = np.random.default_rng(0)  # All seeds have the same test sentences.
    kept = [choice.permutation(read_sentences(name))[:EACH] for name in PACKAGES]
    order = choice.permutation(EACH * len(PACKAGES))
    words = [str(sentence).split() for sentence in np.concatenate(kept)[order]]
    labels = np.repeat(np.arange(len(PACKAGES), dtype="int32"), EACH)[order]
    rest = TEST + np.random.default_rng(seed).permutation(len(words) - TEST)
    held_out, trained = rest[:validation_size], rest[validation_size:][:num_train]
    counts = collections.Counter(word for index in trained for word in words[index])
    ids = {word: i for i, (word, _) in enumerate(counts.most_common(VOCABULARY - 2), start=2)}
    tokens = np.zeros((len(words), LENGTH), "int32")
    for row, sentence in zip(tokens, words, strict=True):
        found = [ids.get(word, 1) for word in sentence[:LENGTH]]
        row[: len(found)] = found
    parts = (trained, held_out, np.arange(TEST))
    train, validation, test = (Examples(tokens[part], labels[part]) for part in parts)
    return Splits(train, validation, test, len(PACKAGES))


def read_sentences(package: str) -> list[str]:
    """Returns the sentences of a package's docstrings that have at least five words, sorted."""
    sentences = []
    for path in sorted(Path(sysconfig.get_path("stdlib"), package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, _DOCUMENTED):
                sentences += re.split(r"(?<=[.!?])\s+|\n\n", ast.get_docstring(node) or "")
    words = (re.findall(r"[a-z]+", sentence.lower()) for sentence in sentences)
    return sorted({" ".join(some) for some in words if len(some) >= 5})
