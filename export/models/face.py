"""The face detector: anchor-free, one prediction per cell of three feature maps, in Keras.

Cells of strides 8, 16 and 32 each predict a face logit, a box and five landmarks. With cell centre
(cx, cy) and stride s the raw outputs mean, in input pixels:

    box centre = (cx, cy) + s * (b0, b1)      box size = s * exp(b2, b3)
    landmark k = (cx, cy) + s * (l[2k], l[2k+1])

Decoding and NMS sit outside the graph (`edge.tasks.face`), so that every operation quantises well.
The backbone is made of depthwise-separable blocks with residuals (MobileNetV2, Sandler et al. 2018,
without the expansion: at these widths it costs more time than it gives), joined top-down (FPN, Lin
et al. 2017) with nearest upsampling.
"""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np
from keras import layers

from export.models.blocks import PIXEL_SCALE, conv, depthwise, norm_act


@dataclass(slots=True, frozen=True)
class FaceConfig:
    """Shape of the network.

    Attributes:
        stem: channels at half resolution.
        widths: channels at strides 4, 8, 16 and 32.
        depths: separable blocks at strides 4 (after the reducing one), 8, 16 and 32.
        neck: channels of the feature pyramid and the heads.
    """

    stem: int = 16
    widths: tuple[int, int, int, int] = (32, 64, 128, 192)
    depths: tuple[int, int, int, int] = (2, 4, 6, 3)
    neck: int = 64


def _separable(x, filters: int, stride: int = 1):
    y = depthwise(3, strides=stride, padding="same")(x)
    y = norm_act(y)
    y = layers.Conv2D(filters, 1, use_bias=False)(y)
    y = norm_act(y, act=False)
    if stride == 1 and x.shape[-1] == filters:
        y = layers.Add()([x, y])
    return layers.ReLU(6.0)(y)


def build(
    size: tuple[int, int] | None = None,
    config: FaceConfig | None = None,
    *,
    batch: int | None = None,
    folded: bool = False,
) -> keras.Model:
    """Builds the network.

    Args:
        size: (width, height) of the input, multiples of 32; None leaves it open (training).
        config: shape of the network.
        batch: fixed batch, needed for conversion.
        folded: leave the normalising layer out; `blocks.fold_normalisation` then has to be applied to the
            weights.

    Returns:
        A model from float RGB pixels 0..255, shape (batch, height, width, 3), to a dictionary of
        `scores` (batch, n, 1) logits, `boxes` (batch, n, 4) and `landmarks` (batch, n, 10), with the
        n cells ordered by stride, then row, then column.
    """
    c = config or FaceConfig()
    height, width = (size[1], size[0]) if size else (None, None)
    image = layers.Input((height, width, 3), batch_size=batch, name="image")
    x = image if folded else layers.Rescaling(1 / PIXEL_SCALE, name="normalise")(image)
    x = layers.Conv2D(c.stem, 3, strides=2, padding="same", use_bias=False, name="stem")(x)
    x = norm_act(x)
    x = conv(x, c.widths[0], 3, 2)
    for _ in range(c.depths[0]):
        x = _separable(x, c.widths[0])
    features = []
    for channels, depth in zip(c.widths[1:], c.depths[1:], strict=True):
        x = _separable(x, channels, 2)
        for _ in range(depth - 1):
            x = _separable(x, channels)
        features.append(x)

    pyramid = [conv(f, c.neck, 1) for f in features]
    for level in (1, 0):
        up = layers.UpSampling2D(2, interpolation="nearest")(pyramid[level + 1])
        pyramid[level] = _separable(layers.Add()([pyramid[level], up]), c.neck)

    # A face is about 1 % of the cells at best: start there (RetinaNet, Lin et al. 2017, sec. 4.1).
    prior = keras.initializers.Constant(-float(np.log((1 - 0.01) / 0.01)))
    outputs: dict[str, list] = {"scores": [], "boxes": [], "landmarks": []}
    for feature in pyramid:
        shared = _separable(feature, c.neck)
        score, place = _separable(shared, c.neck), _separable(shared, c.neck)
        for name, source, channels, bias in (
            ("scores", score, 1, prior),
            ("boxes", place, 4, "zeros"),
            ("landmarks", place, 10, "zeros"),
        ):
            # Small first weights: exp() of the box size would otherwise start thousands of pixels wide.
            small = keras.initializers.RandomNormal(stddev=0.01)
            y = layers.Conv2D(channels, 1, kernel_initializer=small, bias_initializer=bias)(source)
            outputs[name].append(layers.Reshape((-1, channels))(y))
    return keras.Model(
        image, {k: layers.Concatenate(axis=1, name=k)(v) for k, v in outputs.items()}, name="face"
    )
