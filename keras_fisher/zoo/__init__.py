"""The architectures of the paper, as functional Keras models that return logits.

- `simple_cnn`, `vgg11`, `densenet`, `wide_resnet`, `resnet`, `resnet18`: the networks.
- `skip_init`, `fixup`, `weight_norm`: layers and initialisations that replace batch
  normalisation.
"""

from keras_fisher.zoo import fixup, skip_init, weight_norm
from keras_fisher.zoo.densenet import densenet
from keras_fisher.zoo.resnet import resnet
from keras_fisher.zoo.resnet18 import resnet18
from keras_fisher.zoo.simple_cnn import simple_cnn
from keras_fisher.zoo.vgg import vgg11
from keras_fisher.zoo.wide_resnet import wide_resnet

__all__ = [
    "densenet",
    "fixup",
    "resnet",
    "resnet18",
    "simple_cnn",
    "skip_init",
    "vgg11",
    "weight_norm",
    "wide_resnet",
]
