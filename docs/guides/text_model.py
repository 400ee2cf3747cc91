"""
Title: A text classifier from KerasHub
Author: The keras_fisher developers
Date created: 2026/11/29
Last modified: 2026/11/29
Description: Train a KerasHub transformer on padded sentences with wrong labels.
Accelerator: None
"""

"""
## Introduction

`FisherPenaltyModel` wraps the models of [KerasHub](https://keras.io/keras_hub/) as it wraps any
other Keras model. This guide trains a small BERT classifier on sentences of different lengths, some
with wrong labels. It compares plain training with training under the Fisher penalty.

The model is built from a configuration and starts from random weights, so the guide runs without a
download. To fine-tune a pretrained model, build it with `from_preset` instead. The other steps are
the same.

You need KerasHub: `pip install '.[tensorflow,recipes,keras-hub]'`.
"""

"""
## Setup
"""

import ast
import re
import sysconfig
from pathlib import Path

import keras
import keras_hub
import matplotlib.pyplot as plt
import numpy as np

import keras_fisher as kf

keras.utils.set_random_seed(0)

"""
## Read the sentences

Python's own documentation is text that every reader of this guide has: each module of the standard
library describes its classes and functions in docstrings. The task is to say which package a
sentence comes from. We take 400 sentences from each of five packages.
"""

packages = ("asyncio", "email", "importlib", "logging", "unittest")
documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def read_sentences(package):
    sentences = []
    for path in sorted(Path(sysconfig.get_path("stdlib"), package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, documented):
                sentences += re.split(r"(?<=[.!?])\s+|\n\n", ast.get_docstring(node) or "")
    words = (re.findall(r"[a-z]+", sentence.lower()) for sentence in sentences)
    return sorted({" ".join(some) for some in words if len(some) >= 5})


generator = np.random.default_rng(0)
texts = np.concatenate([generator.permutation(read_sentences(name))[:400] for name in packages])
labels = np.repeat(np.arange(len(packages)), 400)
order = generator.permutation(len(texts))
texts, labels = texts[order], labels[order]
train, validation, test = slice(1200), slice(1200, 1500), slice(1500, None)

for text, label in zip(texts[:3], labels[:3], strict=True):
    print(f"{packages[label]}: {text}")

"""
## Turn words into tokens

A sentence becomes 24 numbers: longer sentences are cut, and shorter ones are padded with zeros.
The mask tells the model which positions are padding, so that attention leaves them out.
`TextVectorization` needs TensorFlow to be installed, with every backend. (A pretrained model brings
its own tokenizer, which makes such a dictionary of inputs.)
"""

length = 24
vectorize = keras.layers.TextVectorization(max_tokens=1500, output_sequence_length=length)
vectorize.adapt(texts[train])
tokens = np.asarray(vectorize(texts), "int32")


def make_inputs(part):
    return {
        "token_ids": tokens[part],
        "padding_mask": (tokens[part] != 0).astype("int32"),
        "segment_ids": np.zeros_like(tokens[part]),
    }


"""
## Make some labels wrong

We replace 40% of the training labels with labels drawn at random. A drawn label may be correct by
chance. The validation and test labels stay clean.
"""

noisy_labels, is_noisy = kf.data.uniform_label_noise(
    labels[train], 0.4, num_classes=len(packages), seed=0
)
print(f"{np.mean(noisy_labels != labels[train]):.0%} of the training labels are wrong")

"""
## Build the classifier

The classifier returns logits, one vector for each sentence. The Fisher penalty draws one label for
each sentence from them, so padding needs no further care. In a model that predicts every token, such
as `GPT2CausalLM`, pass sample weights of 0 for padding: the penalty leaves those positions out, as
the loss does.
"""


def build_model():
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=vectorize.vocabulary_size(),
        num_layers=2,
        num_heads=4,
        hidden_dim=64,
        intermediate_dim=128,
        max_sequence_length=length,
    )
    return keras_hub.models.BertTextClassifier(backbone, len(packages), preprocessor=None)


"""
## Train with and without the penalty

`update_freq=1` computes the penalty at every step instead of every tenth. It costs more, and training
on noisy labels gains from it: [Which method should I use?](../which_method.md).
"""


def train_classifier(alpha):
    keras.utils.set_random_seed(0)
    model = kf.FisherPenaltyModel(build_model(), alpha=alpha, update_freq=1, seed=0)
    model.compile(
        optimizer=keras.optimizers.Adam(0.001),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    history = model.fit(
        make_inputs(train),
        noisy_labels,
        batch_size=32,
        epochs=20,
        validation_data=(make_inputs(validation), labels[validation]),
        verbose=0,
    )
    return model.backbone, history.history


classifiers, histories = {}, {}
for name, alpha in (("plain", 0.0), ("Fisher penalty", 0.2)):
    classifiers[name], histories[name] = train_classifier(alpha)

"""
## Compare

The plain classifier memorises the training labels, including the wrong ones, and its validation accuracy
falls. The penalised classifier learns more slowly, and keeps most of its validation accuracy.
"""

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.5), layout="constrained")
for (name, history), style in zip(histories.items(), ("--", "-"), strict=True):
    left.plot(history["accuracy"], style, label=name)
    right.plot(history["val_accuracy"], style, label=name)
left.set(xlabel="epoch", title="Accuracy on the training labels")
right.set(xlabel="epoch", title="Validation accuracy")
left.legend()
plt.show()

"""
`model.backbone` is the classifier itself. It predicts, saves and loads as a KerasHub model, and knows
nothing of the penalty.
"""

for name, classifier in classifiers.items():
    predicted = np.argmax(classifier.predict(make_inputs(test), verbose=0), axis=-1)
    print(f"{name}: test accuracy {np.mean(predicted == labels[test]):.1%}")

"""
## Fine-tune with LoRA

With `backbone.enable_lora(rank=4)` only small adapters are trained. The penalty then takes the
gradient of the adapters, the only trainable weights.
"""

adapted = build_model()
adapted.backbone.enable_lora(rank=4)
wrapped = kf.FisherPenaltyModel(adapted, alpha=0.2, update_freq=1, seed=0)
weights = sum(int(np.prod(weight.shape)) for weight in wrapped.trainable_variables)
print(f"{weights} of {adapted.count_params()} weights are trained")
