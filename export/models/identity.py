"""Who a face is, as an embedding, and how far that can be trusted, of one aligned face crop, in Keras."""

from __future__ import annotations

from dataclasses import dataclass

import keras
from keras import layers

from export.models.blocks import Backbone, backbone, pooled

DIMENSIONS = 128 + 192
"""Of an embedding: as many as its two teachers' have."""


@dataclass(slots=True, frozen=True)
class IdentityConfig(Backbone):
    """Shape of the network."""

    stem: int = 32
    widths: tuple[int, int, int] = (40, 96, 160)
    depths: tuple[int, int, int] = (2, 7, 5)
    expansions: tuple[int, int, int] = (2, 4, 4)
    fused: tuple[bool, bool, bool] = (True, False, False)
    top: int = 384


def build(
    size: int | None = None,
    config: IdentityConfig | None = None,
    *,
    batch: int | None = None,
    folded: bool = False,
) -> keras.Model:
    """Builds the network.

    Args:
        size: side of the crop, pixels; with it pooling has a weight for every place, see `blocks.pooled`.
        config: shape of the network.
        batch: fixed batch, needed for conversion.
        folded: leave the normalising layer out; `blocks.fold_normalisation` then has to be applied to the
            weights.

    Returns:
        A model from float RGB pixels 0..255, shape (batch, size, size, 3), to `embedding`, `DIMENSIONS`
        numbers of any length, and `quality`, a logit: its sigmoid is the cosine to be expected between this
        embedding and that of the same face seen bare and clear.
    """
    c = config or IdentityConfig()
    image = layers.Input((size, size, 3), batch_size=batch, name="image")
    x = pooled(backbone(image, c, folded=folded), placed=size is not None)
    outputs = {
        "embedding": layers.Dense(DIMENSIONS, dtype="float32", name="embedding")(x),
        "quality": layers.Dense(1, dtype="float32", name="quality")(x),
    }
    return keras.Model(image, outputs, name="identity")
