"""The architectures of the paper, as functional Keras models that return logits."""

from keras_fisher.zoo.densenet import densenet
from keras_fisher.zoo.simple_cnn import simple_cnn
from keras_fisher.zoo.vgg import vgg11
from keras_fisher.zoo.wide_resnet import wide_resnet

__all__ = ["densenet", "simple_cnn", "vgg11", "wide_resnet"]
