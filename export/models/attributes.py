"""Mask state, gender and "is it a face at all" of one aligned face crop, in Keras: three small heads."""

from __future__ import annotations

from dataclasses import dataclass

import keras
from keras import layers

from export.models.blocks import Backbone, backbone, pooled

OUTPUTS = {"mask": 4, "gender": 2, "face": 1}
"""Logits that ship: mask state (none, chin, nose_out, correct), gender (female, male), face."""
TEACHING = {"embedding": 128, "age": 9}
"""Outputs of the training alone: the teacher's embedding and the age group teach the backbone about faces."""


@dataclass(slots=True, frozen=True)
class AttributesConfig(Backbone):
    """Shape of the network."""

    stem: int = 24
    widths: tuple[int, int, int] = (32, 56, 96)
    depths: tuple[int, int, int] = (2, 3, 4)
    expansions: tuple[int, int, int] = (2, 2, 4)
    fused: tuple[bool, bool, bool] = (True, True, False)
    top: int = 256


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
        size: side of the crop, pixels. With it the pooling has a weight for every place, see
            `blocks.pooled`. None leaves the size open, and the pooling is the mean.
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
    x = pooled(backbone(image, c, folded=folded), placed=size is not None)
    dropped = layers.Dropout(0.2)(x)
    heads = OUTPUTS | (TEACHING if teaching else {})
    return keras.Model(
        image,
        {name: layers.Dense(n, dtype="float32", name=name)(dropped) for name, n in heads.items()},
        name="attributes",
    )
