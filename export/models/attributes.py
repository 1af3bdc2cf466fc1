"""Mask state, gender and "is it a face at all" of one aligned face crop, in Keras.

One backbone and three small heads. Early stages are full convolutions in fused inverted bottlenecks
(EfficientNetV2, Tan and Le 2021, sec. 3.2): at these widths they cost a processor with wide dot products
less time than depthwise ones of the same accuracy. Later ones, where parameters count, are inverted
bottlenecks with depthwise convolutions (MobileNetV2, Sandler et al. 2018).
"""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np
from keras import layers

from export.models.blocks import PIXEL_SCALE, conv, norm_act

OUTPUTS = {"mask": 4, "gender": 2, "face": 1}
"""Logits that ship: mask state (none, chin, nose_out, correct), gender (female, male), face."""
TEACHING = {"embedding": 128, "age": 9}
"""Outputs of the training alone: the teacher's embedding and the age group teach the backbone about faces."""


@dataclass(slots=True, frozen=True)
class AttributesConfig:
    """Shape of the network.

    Attributes:
        width: multiplies all channels below, rounded to multiples of 8.
        stem: channels at half resolution.
        widths: channels at strides 4, 8 and 16.
        depths: blocks there, the reducing one included.
        expansions: of the bottlenecks there.
        top: channels before the pooling.
    """

    width: float = 1.0
    stem: int = 24
    widths: tuple[int, int, int] = (32, 56, 96)
    depths: tuple[int, int, int] = (2, 3, 4)
    expansions: tuple[int, int, int] = (2, 2, 4)
    top: int = 256

    def channels(self, count: int) -> int:
        """`count` times the width, as a multiple of 8."""
        return max(8, round(count * self.width / 8) * 8)


def _join(x, y, stride: int):
    return layers.Add()([x, y]) if stride == 1 and x.shape[-1] == y.shape[-1] else y


def _fused(x, filters: int, stride: int, expansion: int):
    y = conv(x, x.shape[-1] * expansion, 3, stride)
    return _join(x, conv(y, filters, 1, act=False), stride)


def _inverted(x, filters: int, stride: int, expansion: int):
    y = conv(x, x.shape[-1] * expansion, 1)
    y = norm_act(layers.DepthwiseConv2D(3, strides=stride, padding="same", use_bias=False)(y))
    return _join(x, conv(y, filters, 1, act=False), stride)


def build(
    size: int | None = None,
    config: AttributesConfig | None = None,
    *,
    batch: int | None = None,
    folded: bool = False,
    teaching: bool = False,
) -> keras.Model:
    """Builds the network.

    Args:
        size: side of the crop, pixels. With it the pooling has a weight for every place, since in an
            aligned face places mean something (MobileFaceNets, Chen et al. 2018, sec. 3.1); it begins as the
            mean. None leaves the size open, and the pooling is the mean.
        config: shape of the network.
        batch: fixed batch, needed for conversion.
        folded: leave the normalising layer out; `blocks.fold_normalisation` then has to be applied to the
            weights.
        teaching: with the outputs of `TEACHING`.

    Returns:
        A model from float RGB pixels 0..255, shape (batch, size, size, 3), to a dictionary of logits.
    """
    c = config or AttributesConfig()
    image = layers.Input((size, size, 3), batch_size=batch, name="image")
    x = image if folded else layers.Rescaling(1 / PIXEL_SCALE, name="normalise")(image)
    x = conv(x, c.channels(c.stem), 3, 2)
    for stage, block in enumerate((_fused, _fused, _inverted)):
        for i in range(c.depths[stage]):
            x = block(x, c.channels(c.widths[stage]), 2 if i == 0 else 1, c.expansions[stage])
    x = conv(x, c.channels(c.top), 1)
    if size is None:
        x = layers.GlobalAveragePooling2D()(x)
    else:
        side = x.shape[1]
        average = keras.initializers.Constant(1 / side**2)
        x = layers.DepthwiseConv2D(side, use_bias=False, depthwise_initializer=average, name="pooled")(x)
        x = layers.Flatten()(x)
    dropped = layers.Dropout(0.2)(x)
    heads = OUTPUTS | (TEACHING if teaching else {})
    return keras.Model(
        image,
        {name: layers.Dense(n, name=name)(dropped) for name, n in heads.items()},
        name="attributes",
    )


def carry_over(weights: list[np.ndarray], network: keras.Model) -> None:
    """Sets weights of a network with open size in one with a fixed size, whose pooling stays as it is.

    Weights of a network of the same kind are set as they are.
    """
    own = network.get_weights()
    if len(weights) < len(own):
        pooled = network.get_layer("pooled").weights[0].path
        place = [weight.path for weight in network.weights].index(pooled)
        weights = [*weights[:place], own[place], *weights[place:]]
    network.set_weights(weights)
