"""The shipped models on a fixed sample of real held-out pictures, where they are at hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge.tflite import load_manifest, load_model
from export import evaluate_attributes as attributes
from export.data.scenes import read_scenes
from export.evaluate_face import IOU, SMALLEST, input_scales, load_dev, ours
from export.scoring import average_precision


@pytest.mark.data
def test_faces_on_every_third_held_out_picture(scenes: Path):
    """A floor that a broken model or decoder falls through; `make evaluate` gives the figures."""
    data = load_dev(scenes)
    size = load_manifest().models["face"].input
    run = ours(load_model("face"))
    sample = range(0, len(data.scenes), 3)
    images = [data.images[i] for i in sample]
    score = average_precision(
        [data.scenes[i].boxes for i in sample],
        [run(image) for image in images],
        iou=IOU,
        side=(SMALLEST, np.inf),
        scales=input_scales(images, (size["width"], size["height"])),
    )
    assert score.faces > 80
    assert score.ap > 0.85
    rooms = [run(room) for room in data.rooms[::2]]
    threshold = load_manifest().models["face"].threshold("score")
    assert np.mean([(found.scores >= threshold).sum() for found in rooms]) < 0.06


@pytest.mark.data
def test_mask_states_on_every_third_held_out_picture(scenes: Path):
    held = [s for s in read_scenes(scenes, ("ilc",)) if s.is_dev][::3]
    sample = attributes.load_ilc(held, load_manifest().models["attributes"].input["width"])
    logits = attributes.logits_of(load_model("attributes", threads=1), sample.crops)
    wanted = attributes.three_states(sample.mask)
    said = attributes.THREE[logits["mask"].argmax(axis=1)]
    assert len(sample) > 60
    assert np.mean(said == wanted) > 0.82
    assert np.mean((said > 0) == (wanted > 0)) > 0.88
    threshold = load_manifest().models["attributes"].threshold("face")
    assert np.mean(attributes.sigmoid(logits["face"][:, 0]) < threshold) < 0.03
