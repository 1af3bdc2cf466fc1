"""Pieces that the networks share."""

from __future__ import annotations

import numpy as np
from keras import layers

PIXEL_SCALE = 127.5


def norm_act(x, act: bool = True):
    """Batch normalisation, and a ReLU6 unless `act` is false."""
    # Keras's default momentum of 0.99 and more trails far behind in the first epochs.
    x = layers.BatchNormalization(momentum=0.97, epsilon=1e-3)(x)
    return layers.ReLU(6.0)(x) if act else x


def conv(x, filters: int, kernel: int, stride: int = 1, *, act: bool = True):
    """Convolution without bias, normalised."""
    x = layers.Conv2D(filters, kernel, strides=stride, padding="same", use_bias=False)(x)
    return norm_act(x, act)


def fold_normalisation(weights: list[np.ndarray]) -> list[np.ndarray]:
    """Weights for a `folded` network: the scale of the pixels goes into the first kernel, exactly.

    A scale without an offset keeps zero padding equal to black, so that nothing changes at the edges;
    the batch normalisation behind the first convolution takes care of the offset.
    """
    return [weights[0] / PIXEL_SCALE, *weights[1:]]
