"""What a mask hides, segmented and then completed, of one aligned face crop, in Keras.

Both stages are one graph with one encoder. Stage 1 reads a map off the encoder's features. Stage 2 goes on
from the same features, but with those under the map taken out and the map put beside them (as in partial
convolutions, Liu et al. 2018), so that the look of the mask cannot leak into the face. The picture outside
the map is copied.

For training alone: two discriminators, and the network of a student project (Ud Din et al. 2020, "A Novel
GAN-Based Network for Unmasking of Masked Face") to compare with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
from keras import layers, ops

from export.models.blocks import PIXEL_SCALE, Normalisation, conv, depthwise, norm_act

OUTPUTS = {"completed": 3, "map": 1}
"""Channels of what ships: the completed face, RGB 0..255, and how much of each pixel a mask hides, 0..1."""
TEACHING = {"logits": 1, "painted": 3}
"""Of the training alone: the map before it is squeezed into 0..1, the face before what is bare is copied."""


@dataclass(slots=True, frozen=True)
class UnmaskConfig:
    """Shape of the network.

    Attributes:
        widths: channels at strides 2, 4, 8 and 16.
        depth: bottlenecks at stride 16, in the completion.
        expansion: of the bottlenecks at strides 8 and 16.
        attention: heads of the attention between all places at stride 16; 0 for none.
        gated: whether the completion gates what it takes over from the encoder (Yu et al. 2019).
        painter: channels at full resolution.
    """

    widths: tuple[int, ...] = (24, 48, 96, 128)
    depth: int = 4
    expansion: int = 3
    attention: int = 4
    gated: bool = True
    painter: int = 16


@dataclass(slots=True, frozen=True)
class StudentConfig:
    """Shape of the student project's network: two plain U-Nets, one after the other.

    Attributes:
        width: channels at full resolution; they double with every halving.
        levels: how often the resolution is halved.
    """

    width: int = 16
    levels: int = 4


Config = UnmaskConfig | StudentConfig


def _inverted(x, filters: int, expansion: int, *, stride: int = 1, rate: int = 1):
    y = conv(x, x.shape[-1] * expansion, 1)
    y = depthwise(3, strides=stride, dilation_rate=rate, padding="same")(y)
    y = conv(norm_act(y), filters, 1, act=False)
    return layers.Add()([x, y]) if stride == 1 and x.shape[-1] == filters else y


def _fused(x, filters: int, expansion: int, *, stride: int = 1):
    y = conv(conv(x, x.shape[-1] * expansion, 3, stride), filters, 1, act=False)
    return layers.Add()([x, y]) if stride == 1 and x.shape[-1] == filters else y


def _larger(x: Any) -> Any:
    # Bilinear from half resolution is a fixed blur, which transpose convolutions, with their checkerboards,
    # have to learn (Odena et al. 2016).
    return layers.UpSampling2D(2, interpolation="bilinear")(x)


def _attention(x, heads: int):
    """Every place looks at every other: what is bare on one cheek says what is hidden on the other."""
    height, wide, width = x.shape[1:]
    each = width // (2 * heads)
    parts = [
        layers.Permute((2, 1, 3))(
            layers.Reshape((height * wide, heads, each))(conv(x, each * heads, 1, act=False))
        )
        for _ in range(3)
    ]
    scores = ops.softmax(ops.matmul(parts[0], ops.transpose(parts[1], (0, 1, 3, 2))) * each**-0.5)
    mixed = layers.Permute((2, 1, 3))(ops.matmul(scores, parts[2]))
    mixed = layers.Reshape((height, wide, each * heads))(mixed)
    return layers.Add()([x, conv(mixed, width, 1, act=False)])


def _squeezed(logits: Any) -> Any:
    """A map of logits as 0..1, exactly 0 and 1 from +-3 on: where it is 0, the picture is copied as it is."""
    return layers.ReLU(6.0)(logits + 3.0) * (1 / 6)


def _network(image, c: UnmaskConfig, *, folded: bool):
    scaled = image if folded else layers.Rescaling(1 / PIXEL_SCALE)(image)
    x = layers.Conv2D(c.widths[0], 3, strides=2, padding="same", use_bias=False, name="stem")(scaled)
    at2 = _fused(norm_act(x), c.widths[0], 1)
    at4 = _fused(_fused(at2, c.widths[1], 2, stride=2), c.widths[1], 2)
    at8 = _fused(at4, c.widths[2], 3, stride=2)
    for _ in range(2):
        at8 = _inverted(at8, c.widths[2], c.expansion)
    at16 = _inverted(at8, c.widths[3], c.expansion, stride=2)
    at16 = _inverted(at16, c.widths[3], c.expansion)

    # Stage 1: where the mask is.
    x = layers.Add()([_larger(conv(at16, c.widths[1], 1)), conv(at8, c.widths[1], 1)])
    x = layers.Add()([_larger(conv(x, c.widths[0], 3)), conv(at4, c.widths[0], 1)])
    x = layers.Add()([_larger(conv(x, c.painter, 3)), conv(at2, c.painter, 1)])
    half = layers.Conv2D(1, 3, padding="same", name="half_logits")(conv(x, c.painter, 3))
    logits = _larger(half)
    mask = _squeezed(logits)

    # What the completion does must not pull at the map.
    hidden = _squeezed(ops.stop_gradient(half))
    bare = []
    for pool, features in zip((1, 2, 4, 8), (at2, at4, at8, at16), strict=True):
        # One pixel further than the map: what lies beside the mask still has some of it.
        bare.append((features, layers.MaxPooling2D(pool + 2, pool, padding="same")(hidden)))

    # Stage 2: what is behind it.
    x = _seen(*bare[3])
    for _ in range(c.depth // 2):
        x = _inverted(x, c.widths[3], c.expansion)
    if c.attention:
        x = _attention(x, c.attention)
    for _ in range(c.depth - c.depth // 2):
        x = _inverted(x, c.widths[3], c.expansion)
    for width, beside in zip(c.widths[2::-1], bare[2::-1], strict=True):
        x = _seen(*beside, _larger(conv(x, width, 1)), gated=c.gated and width > c.widths[0])
        x = _inverted(x, width, c.expansion) if width == c.widths[2] else conv(x, width, 3)
    # Half a mask's pixel is a mask's pixel: the face goes over all of it. Twice the map, and not the logits
    # anew: where the map is rounded to 0 in an integer file, this has to be 0 too.
    over = layers.ReLU(6.0)(ops.stop_gradient(mask) * 12.0) * (1 / 6)
    kept = image * (1 - over)
    seen = layers.Concatenate()([kept, 255 * over])
    seen = seen if folded else layers.Rescaling(1 / PIXEL_SCALE)(seen)
    seen = layers.Conv2D(c.painter, 3, padding="same", use_bias=False, name="seen")(seen)
    x = layers.Add()([conv(_larger(x), c.painter, 3, act=False), Normalisation(momentum=0.97)(seen)])
    x = layers.Conv2D(3, 3, padding="same", name="paint")(layers.ReLU(6.0)(x))
    painted = x * 64.0 + PIXEL_SCALE
    completed = kept + ops.clip(painted, 0.0, 255.0) * over
    return {"completed": completed, "map": mask, "logits": logits, "painted": painted}


def _seen(features, hidden, completed=None, *, gated: bool = False):
    """What the encoder saw beside the map, where the map is, and what was completed so far, in one.

    They are added, not stacked: stacked tensors would have to share one scale in the integer files.
    """
    width = features.shape[-1]
    beside = features * (1 - hidden)
    if gated:
        beside = beside * layers.Conv2D(width, 1, activation="sigmoid")(completed)
    parts = [conv(beside, width, 1, act=False), conv(hidden, width, 1, act=False)]
    return layers.ReLU(6.0)(layers.Add()(parts if completed is None else [*parts, completed]))


def _unet(x, channels: int, c: StudentConfig, name: str):
    skips = []
    for level in range(c.levels):
        x = conv(x, c.width * 2**level, 3)
        skips.append(x)
        x = conv(x, c.width * 2 ** (level + 1), 3, 2)
    for level in reversed(range(c.levels)):
        x = layers.Conv2DTranspose(c.width * 2**level, 4, strides=2, padding="same", use_bias=False)(x)
        x = conv(layers.Concatenate()([norm_act(x), skips[level]]), c.width * 2**level, 3)
    return layers.Conv2D(channels, 3, padding="same", name=name)(x)


def _student(image, c: StudentConfig):
    scaled = layers.Rescaling(1 / PIXEL_SCALE)(image)
    logits = _unet(scaled, 1, c, "logits")
    mask = ops.sigmoid(logits)
    seen = layers.Concatenate()([scaled, ops.stop_gradient(mask)])
    painted = _unet(seen, 3, c, "painted") * 64.0 + PIXEL_SCALE
    return {"completed": ops.clip(painted, 0.0, 255.0), "map": mask, "logits": logits, "painted": painted}


def fold(whole: keras.Model, folded: keras.Model) -> None:
    """Sets the weights of a network in a `folded` one: the scale of the pixels goes into its kernels.

    Both kernels pad with zeros, which are black in either scale.
    """
    folded.set_weights(whole.get_weights())
    for name in ("stem", "seen"):
        layer = folded.get_layer(name)
        layer.set_weights([kernel / PIXEL_SCALE for kernel in layer.get_weights()])


class Spectral(layers.Layer):
    """Convolution whose kernel has a spectral norm of 1 (Miyato et al. 2018), which steadies a discriminator.

    Args:
        filters, kernel, stride: as of a convolution.
    """

    def __init__(self, filters: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.filters, self.size, self.stride = filters, kernel, stride

    def build(self, shape) -> None:
        self.kernel = self.add_weight(
            shape=(self.size, self.size, shape[-1], self.filters), initializer="glorot_uniform", name="kernel"
        )
        self.bias = self.add_weight(shape=(self.filters,), initializer="zeros", name="bias")
        self.vector = self.add_weight(
            shape=(self.filters, 1), initializer="random_normal", trainable=False, name="vector"
        )

    def call(self, x, training=None):
        flat = ops.reshape(self.kernel, (-1, self.filters))
        left = _unit(ops.matmul(ops.stop_gradient(flat), self.vector))
        right = _unit(ops.matmul(ops.transpose(ops.stop_gradient(flat)), left))
        if training:
            self.vector.assign(right)
        norm = ops.sum(left * ops.matmul(flat, right))
        return ops.conv(x, self.kernel / norm, self.stride, "same") + self.bias


def _unit(vector: Any) -> Any:
    return vector / (ops.sqrt(ops.sum(ops.square(vector))) + 1e-9)


def discriminator(widths: tuple[int, ...] = (24, 48, 96, 96), channels: int = 4) -> keras.Model:
    """Tells real faces from completed ones, patch by patch (PatchGAN, Isola et al. 2017).

    Args:
        widths: channels of its layers, each of which halves the picture.
        channels: of its input: RGB scaled to -1..1, and the region 0..1.

    Returns:
        A model to the features of each layer, and last to logits at a stride of 2 ** len(widths), positive
        where a patch looks real.
    """
    picture = layers.Input((None, None, channels))
    x, seen = picture, []
    for width in widths:
        x = layers.LeakyReLU(0.2)(Spectral(width, 4, 2)(x))
        seen.append(x)
    return keras.Model(picture, [*seen, Spectral(1, 3, 1)(x)])


def build(
    size: int = 128,
    config: Config | None = None,
    *,
    batch: int | None = None,
    folded: bool = False,
    teaching: bool = False,
) -> keras.Model:
    """Builds the network.

    Args:
        size: side of the crop, pixels, a multiple of 16.
        config: shape of the network; its kind says which one, ours or the student's.
        batch: fixed batch, needed for conversion.
        folded: leave the normalising layers out; `fold` then has to be applied to the weights.
        teaching: with the outputs of `TEACHING`.

    Returns:
        A model from float RGB pixels 0..255, shape (batch, size, size, 3), to a dictionary of `OUTPUTS`,
        all of the size of the input.
    """
    c = config or UnmaskConfig()
    image = layers.Input((size, size, 3), batch_size=batch, name="image")
    outputs = _student(image, c) if isinstance(c, StudentConfig) else _network(image, c, folded=folded)
    wanted = OUTPUTS | (TEACHING if teaching else {})
    return keras.Model(image, {name: outputs[name] for name in wanted}, name="unmask")
