"""Parameters of the paper's networks, worked out by hand from their layers."""

import numpy as np
import pytest

from tests.zoo.networks import FULL


def conv(size, channels, filters):
    """The kernel alone."""
    return size * size * channels * filters


def conv_with_bias(size, channels, filters):
    return conv(size, channels, filters) + filters


def dense(units_in, units_out):
    return units_in * units_out + units_out


def norm(channels):
    """The trained numbers of batch normalisation: a scale and a shift for each channel."""
    return 2 * channels


SIMPLE_CNN = (
    conv_with_bias(3, 3, 32)
    + conv_with_bias(3, 32, 32)
    + conv_with_bias(3, 32, 64)
    + conv_with_bias(3, 64, 64)
    + dense(6 * 6 * 64, 128)  # sides 32, 30 (no padding), 15 (pooled), 13 (no padding), 6 (pooled)
    + dense(128, 10)
)

VGG_11 = (
    conv_with_bias(3, 3, 64)
    + conv_with_bias(3, 64, 128)
    + conv_with_bias(3, 128, 256)
    + conv_with_bias(3, 256, 256)
    + conv_with_bias(3, 256, 512)
    + 3 * conv_with_bias(3, 512, 512)
    + 2 * dense(512, 512)  # five poolings leave one of 32x32 pixels
    + dense(512, 100)
)


def wide_stage(channels, filters):
    """Kernels: the first block of a stage widens, and has a shortcut; all seven blocks have two."""
    first = conv(3, channels, filters) + conv(3, filters, filters) + conv(1, channels, filters)
    return first + 6 * 2 * conv(3, filters, filters)


# Depth 44 = 6 * 7 + 2: seven blocks in a stage; 3 times as wide as 16, 32, 64.
WIDE_KERNELS = conv(3, 3, 16) + wide_stage(16, 48) + wide_stage(48, 96) + wide_stage(96, 192)
WIDE_RESNET = (
    WIDE_KERNELS
    + norm(16 + 13 * 48)  # before each convolution of stage 1: one reads the stem, 13 the stage
    + norm(48 + 13 * 96)
    + norm(96 + 13 * 192)
    + norm(192)  # before pooling
    + dense(192, 100)
)
WIDE_RESNET_SKIP_INIT = (
    WIDE_KERNELS
    + 16  # biases: of the stem
    + (14 + 1) * (48 + 96 + 192)  # of 14 convolutions and a shortcut in each stage
    + 3 * 7  # a scalar in each block
    + dense(192, 100)
)


def dense_block(channels):
    """Twelve layers (40 = 3 * 12 + 4) that add 12 channels each to those that they read."""
    return sum(norm(channels + 12 * i) + conv(3, channels + 12 * i, 12) for i in range(12))


def transition(channels):
    return norm(channels) + conv(1, channels, channels)


DENSENET = (
    conv(3, 3, 16)
    + dense_block(16)
    + transition(16 + 144)
    + dense_block(160)
    + transition(160 + 144)
    + dense_block(304)
    + norm(304 + 144)
    + dense(448, 100)
)


def resnet_kernels(blocks):
    """Shortcuts have none."""
    stage1 = 2 * blocks * conv(3, 16, 16)
    stage2 = conv(3, 16, 32) + (2 * blocks - 1) * conv(3, 32, 32)
    stage3 = conv(3, 32, 64) + (2 * blocks - 1) * conv(3, 64, 64)
    return conv(3, 3, 16) + stage1 + stage2 + stage3


def resnet_filters(blocks):
    return 16 + 2 * blocks * (16 + 32 + 64)


def resnet(blocks):
    return resnet_kernels(blocks) + norm(resnet_filters(blocks)) + dense(64, 10)


def weight_normalised_resnet(blocks):
    """Each filter and each unit has a length and a bias besides its direction."""
    return resnet_kernels(blocks) + 2 * resnet_filters(blocks) + dense(64, 10) + 10


def resnet18_stage(channels, filters):
    shortcut = conv(1, channels, filters) if channels != filters else 0
    return conv(3, channels, filters) + 3 * conv(3, filters, filters) + shortcut


RESNET_18 = (
    conv(7, 3, 64)
    + resnet18_stage(64, 64)
    + resnet18_stage(64, 128)
    + resnet18_stage(128, 256)
    + resnet18_stage(256, 512)
    + dense(512, 1000)
    + 8 * (4 + 1)  # in each of eight blocks, four biases and a multiplier
    + 2  # the biases after the stem and before the dense layer
)

COUNTS = {
    "simple_cnn": SIMPLE_CNN,
    "vgg11": VGG_11,
    "wide_resnet": WIDE_RESNET,
    "wide_resnet-skip_init": WIDE_RESNET_SKIP_INIT,
    "densenet": DENSENET,
    "resnet-26": resnet(blocks=4),
    "resnet-50": resnet(blocks=8),
    "resnet-56": resnet(blocks=9),
    "resnet-26-weight_norm": weight_normalised_resnet(blocks=4),
    "resnet-50-weight_norm": weight_normalised_resnet(blocks=8),
    "resnet-56-weight_norm": weight_normalised_resnet(blocks=9),
    "resnet18": RESNET_18,
}


@pytest.mark.matrix
@pytest.mark.parametrize("name", FULL)
def test_trained_parameters_are_those_of_the_papers_layers(name):
    model = FULL[name]()
    assert sum(int(np.prod(w.shape)) for w in model.trainable_weights) == COUNTS[name]


@pytest.mark.parametrize(
    ("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)]
)
def test_residual_networks_have_the_counts_of_table_6_of_he_et_al(depth, millions):
    count = resnet(blocks=(depth - 2) // 6)
    assert count / 1e6 == pytest.approx(millions, abs=0.5 * 10 ** -len(str(millions)[2:]))


def test_densenet_has_the_count_of_table_2_of_huang_et_al():
    with_10_classes = DENSENET - dense(448, 100) + dense(448, 10)
    assert round(with_10_classes / 1e6, 1) == 1.0
