"""Soft labels of gender: what a judge that knows faces by their embeddings thinks of those it never saw.

A label says the same of a clear face and of a baby. A small network on the teacher's embeddings, asked about
faces that were not among those it learnt from, tells the two apart, and errs elsewhere than a network that
looks at pictures: on fairface_dev it is right for 0.889, the network before it had such labels for 0.892, and
the sum of their logits for 0.907 (n 977). So labels are mixed with its answers (distillation, Hinton et al.
2015), which also tell something of faces without a label.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Mapping

import keras
import numpy as np
from keras import layers
from tqdm import tqdm

from export.data.attribute_faces import Faces
from export.data.crop_sets import unit_rows

log = logging.getLogger(__name__)

FOLDS = 5
SEEDS = 3
"""Networks a fold; the mean of their probabilities counts."""
EPOCHS = 12
FEW = 200
"""Faces to learn from below which a judge's opinion is not worth asking for."""

Opinions = Mapping[bytes, np.ndarray]
"""Bytes of a packed embedding to the probabilities of both genders, 2 float32."""


def _judge(inputs: np.ndarray, gender: np.ndarray, seed: int) -> keras.Model:
    keras.utils.set_random_seed(seed)
    judge = keras.Sequential(
        [
            layers.Input((inputs.shape[1],)),
            layers.Dense(256, activation="relu"),
            layers.Dropout(0.3),
            layers.Dense(128, activation="relu"),
            layers.Dropout(0.3),
            layers.Dense(2, activation="softmax"),
        ]
    )
    steps = EPOCHS * -(-len(inputs) // 256)
    judge.compile(
        keras.optimizers.AdamW(keras.optimizers.schedules.CosineDecay(2e-3, steps), weight_decay=0.01),
        keras.losses.SparseCategoricalCrossentropy(),
    )
    judge.fit(inputs, gender, batch_size=256, epochs=EPOCHS, verbose=0)
    return judge


def second_opinions(pack: Faces, *, folds: int = FOLDS, seeds: int = SEEDS) -> Opinions:
    """What judges think of every face whose embedding is known, each asked about those it did not learn from.

    Args:
        pack: bare faces, some of known gender.
        folds: parts the faces are dealt into.
        seeds: judges a part.

    Returns:
        Nothing where embeddings of faces of known gender are fewer than `FEW`: labels have to do then.
    """
    keys = [row.tobytes() for row in pack.embedding]
    # The same picture, if it is there twice, stays in one fold.
    part = np.array([zlib.crc32(key) % folds for key in keys])
    inputs = unit_rows(pack.embedding.astype(np.float32))
    there = inputs.any(axis=1)
    inputs *= np.sqrt(inputs.shape[1])
    known = there & (pack.gender >= 0)
    if known.sum() < FEW:
        log.info("%d faces with gender and embedding: too few for second opinions", known.sum())
        return {}
    thought = np.zeros((len(pack.embedding), 2), np.float64)
    for fold in tqdm(range(folds), desc="second opinions", unit="fold", leave=False):
        learnt = known & (part != fold)
        # Faces without a label are new to every judge.
        asked = np.flatnonzero(there & ((part == fold) | ~known))
        weight = np.where(known[asked], 1.0, 1 / folds)[:, None] / seeds
        for seed in range(seeds):
            judge = _judge(inputs[learnt], pack.gender[learnt], seed)
            thought[asked] += weight * judge.predict(inputs[asked], batch_size=4096, verbose=0)
    right = thought[known].argmax(axis=1) == pack.gender[known]
    log.info(
        "second opinions: right for %.4f of %d faces of other folds, %d more without a label",
        right.mean(),
        known.sum(),
        (there & ~known).sum(),
    )
    return {keys[i]: thought[i].astype(np.float32) for i in np.flatnonzero(there)}
