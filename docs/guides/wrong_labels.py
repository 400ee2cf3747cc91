"""
Title: Finding wrong labels
Author: The keras_fisher developers
Date created: 2026/11/29
Last modified: 2026/11/29
Description: Find the wrong labels of a data set while training under the Fisher penalty.
Accelerator: None
"""

"""
## Introduction

A network that memorises wrong labels hides them: at the end of training it agrees with all of them.
Under the Fisher penalty it memorises few, so it contradicts the wrong labels until the end
([Jastrzebski et al., 2021](https://proceedings.mlr.press/v139/jastrzebski21a.html), section 4.1).
The `LabelScores` callback uses this. It averages the predictions for the training examples over six
epochs, which costs about two epochs, and compares the probability of each label with that of its
strongest rival.

This example trains on handwritten digits with wrong labels, finds these, shows the most suspicious
images, and trains again without them.
"""

"""
## Setup
"""

import keras
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keras_fisher as kf

"""
## Prepare the data

We replace 40% of the training labels with random ones. A random label may be correct by chance, so
about 36% of the labels are wrong. Your own data has wrong labels already; here we know which.
"""

num_classes = 10
x, y = load_digits(return_X_y=True)
x = (x / 16.0).astype("float32")
x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.3, random_state=0)
y_noisy, _ = kf.data.uniform_label_noise(y_train, 0.4, num_classes=num_classes, seed=0)
is_wrong = y_noisy != y_train

print(f"{is_wrong.sum()} of {len(y_noisy)} training labels are wrong")

"""
## Train and score the labels

We use alpha 0.3 with `max_penalty_ratio=0.7`, as in
[Results](../results.md#finding-wrong-labels). For comparison, we also train without the penalty.
"""


def train(alpha, x, y):
    keras.utils.set_random_seed(0)
    backbone = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(256, activation="relu"),
            keras.layers.Dense(256, activation="relu"),
            keras.layers.Dense(num_classes),
        ]
    )
    model = kf.FisherPenaltyModel(backbone, alpha=alpha, max_penalty_ratio=0.7, seed=0)
    model.compile(
        optimizer=keras.optimizers.SGD(0.015, momentum=0.9),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    scores = kf.callbacks.LabelScores((x, y))
    model.fit(x, y, batch_size=32, epochs=60, callbacks=[scores], verbose=0)
    return model, scores.result()


models, found = {}, {}
for name, alpha in (("no penalty", 0.0), ("Fisher penalty", 0.3)):
    models[name], found[name] = train(alpha, x_train, y_noisy)
    print(f"{name}: {found[name]}")

"""
## Look at the scores

A score near 0 means that another class is far more probable than the label. Without the penalty the
network has memorised most wrong labels by the end, so their scores mix with those of the clean
labels. Under the penalty the two groups lie apart.
"""

figure, axes = plt.subplots(1, 2, figsize=(10, 3), sharey=True, layout="constrained")
bins = np.linspace(0, 1, 41)
for axis, (name, result) in zip(axes, found.items(), strict=True):
    axis.hist(result.scores[~is_wrong], bins, alpha=0.6, label="clean labels")
    axis.hist(result.scores[is_wrong], bins, alpha=0.6, hatch="//", label="wrong labels")
    axis.set(xlabel="score", title=name)
axes[0].set_ylabel("labels")
axes[0].legend()
plt.show()

"""
The callback also proposes a cut: `is_suspect` marks the labels that are probably wrong. Another class is
more probable, and the loss is above a threshold that splits all losses into a low and a high group (Otsu's
method). Since we know the wrong labels, we can judge the cut.
"""

for name, result in found.items():
    precision = np.mean(is_wrong[result.is_suspect])
    recall = np.mean(result.is_suspect[is_wrong])
    print(f"{name}: {precision:.0%} of the suspects are wrong, {recall:.0%} of the wrong are found")

"""
## Look at the images

The fifty most suspicious images, with the given label and the suggested one. On your own data, look
at such images before you drop or correct anything.
"""

result = found["Fisher penalty"]
figure, axes = plt.subplots(5, 10, figsize=(10, 6.5), layout="constrained")
for axis, index in zip(axes.flat, result.ranking, strict=False):
    axis.imshow(x_train[index].reshape(8, 8), cmap="gray_r")
    axis.set_title(f"{y_noisy[index]}, rather {result.suggestions[index]}", fontsize=8)
    axis.axis("off")
plt.show()

"""
## Train again

Without the suspects, few wrong labels are left. The same network, without a penalty, now learns
from the clean ones.
"""

kept = ~result.is_suspect
models["no penalty, without suspects"], _ = train(0.0, x_train[kept], y_noisy[kept])
for name, model in models.items():
    print(f"{name}: test accuracy {kf.traces.accuracy(model, x_test, y_test):.1%}")

"""
## Next steps

- `scores.result()` has `scores`, `is_suspect`, `suggestions` and `ranking`.
- `kf.data.find_wrong_labels(probabilities, y)` does the same with predictions of your own, such as
  cross-validated ones.
- The ranking is reliable only where the network learns the task. On a hard task with few examples,
  take the top of the ranking rather than the whole cut. [Results](../results.md#finding-wrong-labels)
  compares it with confident learning.
"""
