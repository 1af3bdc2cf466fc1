"""Pieces that the networks share.

In the backbone early stages may be full convolutions in fused inverted bottlenecks (EfficientNetV2, Tan and
Le 2021, sec. 3.2): at small widths they cost a processor with wide dot products less time than depthwise ones
of the same accuracy. Later ones, where parameters count, are inverted bottlenecks with depthwise convolutions
(MobileNetV2, Sandler et al. 2018).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import keras
import numpy as np
from keras import layers

PIXEL_SCALE = 127.5


class Normalisation(layers.BatchNormalization):
    """Keras's batch normalisation, in training through TensorFlow's own kernel where that is the backend.

    Put together from single operations, as Keras does it, it takes a third of a training step on a CPU.
    """

    def call(self, inputs, training=None, mask=None):
        if not (training and self.trainable and keras.backend.backend() == "tensorflow"):
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        # In half precision the inputs alone are halves.
        gamma, beta = (tf.cast(weight, tf.float32) for weight in (self.gamma, self.beta))
        normed, *moments = tf.compat.v1.nn.fused_batch_norm(inputs, gamma, beta, epsilon=self.epsilon)
        for moving, now in zip((self.moving_mean, self.moving_variance), moments, strict=True):
            moving.assign(self.momentum * moving + (1 - self.momentum) * now)
        return normed


def norm_act(x, act: bool = True):
    """Batch normalisation, and a ReLU6 unless `act` is false."""
    # Keras's default momentum of 0.99 and more trails far behind in the first epochs.
    x = Normalisation(momentum=0.97, epsilon=1e-3)(x)
    return layers.ReLU(6.0)(x) if act else x


def conv(x, filters: int, kernel: int, stride: int = 1, *, act: bool = True):
    """Convolution without bias, normalised."""
    x = layers.Conv2D(filters, kernel, strides=stride, padding="same", use_bias=False)(x)
    return norm_act(x, act)


@dataclass(slots=True, frozen=True)
class Backbone:
    """Shape of the part of a network that looks at an aligned face.

    Attributes:
        width: multiplies all channels below, rounded to multiples of 8.
        stem: channels at half resolution.
        widths: channels at strides 4, 8 and 16.
        depths: blocks there, the reducing one included.
        expansions: of the bottlenecks there.
        fused: whether the bottlenecks there are fused ones.
        top: channels before the pooling.
    """

    width: float = 1.0
    stem: int = 24
    widths: tuple[int, ...] = ()
    depths: tuple[int, ...] = ()
    expansions: tuple[int, ...] = ()
    fused: tuple[bool, ...] = ()
    top: int = 256

    def channels(self, count: int) -> int:
        """`count` times the width, as a multiple of 8."""
        return max(8, round(count * self.width / 8) * 8)


def _join(x, y, stride: int):
    return layers.Add()([x, y]) if stride == 1 and x.shape[-1] == y.shape[-1] else y


def _fused(x, filters: int, stride: int, expansion: int):
    y = conv(x, x.shape[-1] * expansion, 3, stride)
    return _join(x, conv(y, filters, 1, act=False), stride)


def depthwise(kernel: int, **options) -> layers.Layer:
    """Depthwise convolution without bias, in float32: bfloat16 takes six times as long for its gradients."""
    return layers.DepthwiseConv2D(kernel, use_bias=False, dtype="float32", **options)


def _inverted(x, filters: int, stride: int, expansion: int):
    y = conv(x, x.shape[-1] * expansion, 1)
    y = norm_act(depthwise(3, strides=stride, padding="same")(y))
    return _join(x, conv(y, filters, 1, act=False), stride)


def backbone(image, shape: Backbone, *, folded: bool = False):
    """From RGB pixels 0..255 to the features before the pooling.

    Args:
        image: Keras tensor, batch x side x side x 3.
        shape: of the network.
        folded: leave the normalising layer out; `fold_normalisation` then has to be applied to the weights.
    """
    x = image if folded else layers.Rescaling(1 / PIXEL_SCALE, name="normalise")(image)
    x = conv(x, shape.channels(shape.stem), 3, 2)
    for stage, width in enumerate(shape.widths):
        block = _fused if shape.fused[stage] else _inverted
        for i in range(shape.depths[stage]):
            x = block(x, shape.channels(width), 2 if i == 0 else 1, shape.expansions[stage])
    return conv(x, shape.channels(shape.top), 1)


def pooled(x, *, placed: bool):
    """One vector of a feature map: the mean, or with `placed` a learnt weight for every place and channel.

    In an aligned face places mean something (MobileFaceNets, Chen et al. 2018, sec. 3.1). The weights begin
    as those of the mean, so that a network trained without them goes on (`carry_over`).
    """
    if not placed:
        return layers.GlobalAveragePooling2D()(x)
    side = x.shape[1]
    average = keras.initializers.Constant(1 / side**2)
    x = depthwise(side, depthwise_initializer=average, name="pooled")(x)
    return layers.Flatten()(x)


def carry_over(weights: list[np.ndarray], network: keras.Model) -> None:
    """Sets weights of a network for crops of another side, or of any: pooling by place is fitted.

    Weights of a network without it leave that of `network`, the mean, as it is; those for another side are
    resized. Weights of a network of the same kind are set as they are.
    """
    own = network.get_weights()
    names = [weight.path for weight in network.weights]
    if "pooled" in (layer.name for layer in network.layers):
        place = names.index(network.get_layer("pooled").weights[0].path)
        if len(weights) < len(own):
            weights = [*weights[:place], own[place], *weights[place:]]
        elif weights[place].shape != own[place].shape:
            before, side = len(weights[place]), len(own[place])
            channels = np.moveaxis(weights[place][..., 0], 2, 0)  # more than a picture of OpenCV can have
            fitted = np.stack([cv2.resize(channel, (side, side)) for channel in channels], axis=2)
            # Sums over the places stay about the same.
            fitted *= (before / side) ** 2
            weights = [*weights[:place], fitted[..., None], *weights[place + 1 :]]
    network.set_weights(weights)


def deepen(weights: list[np.ndarray], depths: Sequence[int], network: keras.Model, shape: Backbone) -> None:
    """Sets weights of a network with fewer blocks; those that it lacks compute nothing at first.

    They are put behind the blocks of their stage, with a scale of zero at the end of their residual branch,
    so that the network says what the smaller one said (as in Goyal et al. 2017, sec. 5.1).

    Args:
        weights: of the smaller network, in its order.
        depths: blocks of its stages, at most as many as `shape` has.
        network: the deeper one, else of the same shape.
        shape: of the deeper one.
    """
    own = network.get_weights()
    arrays = 5  # of a convolution with its normalisation: kernel, scale, offset, mean, variance
    out, before, after = list(weights[:arrays]), arrays, arrays
    for had, has, fused in zip(depths, shape.depths, shape.fused, strict=True):
        block = arrays * (2 if fused else 3)
        out += weights[before : before + had * block]
        for start in range(after + had * block, after + has * block, block):
            new = own[start : start + block]
            new[-4] = np.zeros_like(new[-4])
            out += new
        before, after = before + had * block, after + has * block
    network.set_weights(out + list(weights[before:]))


def fold_normalisation(weights: list[np.ndarray]) -> list[np.ndarray]:
    """Weights for a `folded` network: the scale of the pixels goes into the first kernel, exactly.

    A scale without an offset keeps zero padding equal to black, so that nothing changes at the edges;
    the batch normalisation behind the first convolution takes care of the offset.
    """
    return [weights[0] / PIXEL_SCALE, *weights[1:]]
