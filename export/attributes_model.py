"""From a training run to shipped files: calibrates and converts the attributes model, writes its card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge.tasks.attributes import TEMPLATE, sharpness
from edge.tflite import Model
from edge.types import GENDERS, MASK_STATES
from export import attributes_report, cards, convert, manifest, parity
from export import evaluate_attributes as scores
from export.data import attribute_faces as faces
from export.data.attribute_batches import plain
from export.train.attributes import load_network

VERSION = "1.2.0"
CALIBRATION = 600
LOST_FACES = 0.003
"""Share of held-out true faces that the rejection of false alarms may cost."""
ENOUGH = {"mask": 0.6, "gender": 0.6}
"""Calibrated scores below which the answer is unknown: such an answer would be wrong two times in five."""
BLURRED = 0.85
"""Where the mask state of faces made small, or blurred, is right less often than this, it is unknown."""
MAIN = (
    "ilc 3 states",
    "fairface_dev painted 4 states",
    "fairface_dev bare gender",
    "fairface_dev painted gender",
)
"""Their mean is what a precision may not lose more of than `parity.LIMITS` allows."""
LICENCE = (
    "weights: trained on data for non-commercial research (see training_data), taught by embeddings of a "
    "network licensed for non-commercial research; use them for research and evaluation, and retrain on data "
    "of your own for a product. Code: Apache-2.0"
)
TRAINING_DATA = [
    "fairface (CC BY 4.0): faces, gender, age; bare and with painted masks, hands, scarves, things",
    "utkface and genderface (non-commercial research): the same",
    "celeba and pins (non-commercial research): faces without gender; bare and painted",
    "masks (research use): real masks on real people, and people without",
    "ilc and kaggle853 (face mask detection sets, boxes and states drawn by people; research use)",
    "maskon (MaskedFace-Net, CC BY-NC-SA 4.0): how a painted blue mask is worn",
    "celeba_wild (non-commercial research) and street (research use): faces in scenes",
    "empty_rooms (indoor scenes without people; research use), half of them: what is no face",
    "embeddings of a face recognition network (MobileFaceNet, non-commercial research) as a teacher",
]


def fit_temperature(logits: np.ndarray, nll: Any) -> float:
    """The temperature with the smallest negative log-likelihood (Guo et al. 2017, sec. 4.2), to 1 %.

    Args:
        logits: n x classes.
        nll: gives the mean negative log-likelihood of scaled logits.
    """
    grid = np.exp(np.linspace(np.log(0.3), np.log(4), 261))
    return float(grid[int(np.argmin([nll(logits / t) for t in grid]))])


def fit_temperatures(
    samples: dict[str, scores.Sample],
    logits: dict[str, scores.Logits],
    finds: scores.Finds,
    found: scores.Logits,
) -> dict[str, float]:
    """One temperature a head, from every second held-out face; the others are left to measure the result."""

    def joined(names: tuple[str, ...], head: str) -> np.ndarray:
        return np.concatenate([logits[n][head][::2] for n in names])

    real = ("ilc", "maskon", "fairface_dev painted")
    allowed = np.concatenate([samples[n].mask[::2] for n in real])

    def mask_nll(x: np.ndarray) -> float:
        return float(-np.log(np.maximum((scores.softmax(x) * allowed).sum(axis=1), 1e-9)).mean())

    people = ("fairface_dev bare", "fairface_dev painted")
    gender = np.concatenate([samples[n].gender[::2] for n in people])

    def gender_nll(x: np.ndarray) -> float:
        return float(-np.log(np.maximum(scores.softmax(x)[np.arange(len(x)), gender], 1e-9)).mean())

    known = finds.true >= 0
    true = finds.true[known] == 1

    def face_nll(x: np.ndarray) -> float:
        p = np.clip(scores.sigmoid(x[:, 0]), 1e-6, 1 - 1e-6)
        return float(-np.where(true, np.log(p), np.log(1 - p)).mean())

    return {
        "mask": fit_temperature(joined(real, "mask"), mask_nll),
        "gender": fit_temperature(joined(people, "gender"), gender_nll),
        "face": fit_temperature(found["face"][known], face_nll) if known.any() else 1.0,
    }


def fold_temperatures(network: Any, temperatures: dict[str, float]) -> None:
    """Divides the last layers by their temperatures, so that plain softmax and sigmoid are calibrated."""
    for name, value in temperatures.items():
        layer = network.get_layer(name)
        layer.set_weights([w / value for w in layer.get_weights()])


def worse(crop: np.ndarray, *, side: float | None = None, blur: float | None = None) -> np.ndarray:
    """An aligned crop as a smaller face (`side`, pixels) or a blurred one (`blur`, sigma in its pixels)."""
    size = crop.shape[0]
    if side is not None:  # the crop is 1.55 times as wide as the face (mean over fairface)
        small = max(2, round(1.55 * side))
        if small < size:
            crop = cv2.resize(crop, (small, small), interpolation=cv2.INTER_AREA)
            crop = cv2.resize(crop, (size, size), interpolation=cv2.INTER_LINEAR)
    if blur is not None:
        crop = cv2.GaussianBlur(crop, (0, 0), blur)
    return crop


def view_limits(sample: scores.Sample, run: Any) -> dict[str, dict[str, Any]]:
    """From which size and sharpness on a view is worth an answer.

    Args:
        sample: painted faces.
        run: gives logits of crops.
    """
    part = sample.rows(np.arange(0, len(sample), max(1, len(sample) // 600)))
    wanted = scores.one_state(part.mask)

    def right(crops: np.ndarray) -> tuple[float, float]:
        out = run(crops)
        return (
            float(np.mean(out["mask"].argmax(axis=1) == wanted)),
            float(np.mean(out["gender"].argmax(axis=1) == part.gender)),
        )

    sides = {}
    for side in (32, 28, 24, 20, 18, 16, 14, 12, 10, 8):
        sides[side] = right(np.array([worse(c, side=side) for c in part.crops]))
        if sides[side][0] < BLURRED:
            break
    good = [s for s, (mask, _) in sides.items() if mask >= BLURRED]
    least = float(min(good or sides))
    blurs = {}
    for sigma in (1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0):
        crops = np.array([worse(c, blur=sigma * part.crops.shape[1] / 96) for c in part.crops])
        sharp = float(np.median([sharpness(c[..., ::-1]) for c in crops]))
        blurs[sharp] = right(crops)
        if blurs[sharp][0] < BLURRED:
            break
    clear = [s for s, (mask, _) in blurs.items() if mask >= BLURRED]
    limit = round(min(clear or blurs), 2)
    said = sides[int(least)]
    at = blurs[min(clear or blurs)]
    return {
        "min_side": {
            "value": least,
            "figure": f"painted fairface_dev reduced to that: mask state right {said[0]:.3f}, gender "
            f"{said[1]:.3f}, n {len(part)}; smaller: below {BLURRED}",
        },
        "sharpness": {
            "value": limit,
            "figure": f"painted fairface_dev blurred to that (median): mask state right {at[0]:.3f}, gender "
            f"{at[1]:.3f}, n {len(part)}; more: below {BLURRED}",
        },
    }


def face_limit(
    samples: dict[str, scores.Sample],
    logits: dict[str, scores.Logits],
    finds: scores.Finds,
    found: scores.Logits,
) -> dict[str, Any]:
    """The probability of being a face that costs at most `LOST_FACES` of the held-out true faces."""
    detected = scores.sigmoid(found["face"][finds.true == 1, 0])
    crops = [scores.sigmoid(logits[n]["face"][:, 0]) for n in ("fairface_dev bare", "fairface_dev painted")]
    # Of each kind so much: crops are many, but it is the scenes that look like what a camera sees.
    limits = [float(np.quantile(p, LOST_FACES)) for p in (detected, *crops) if len(p)]
    value = float(np.floor(np.clip(min(limits), 0.01, 0.5) * 100) / 100)
    true = np.concatenate([detected, *crops])
    false = scores.sigmoid(found["face"][finds.true == 0, 0])
    return {
        "value": value,
        "figure": f"loses {int((true < value).sum())} of {len(true)} held-out faces, removes "
        f"{int((false < value).sum())} of {len(false)} false alarms of a detector at {scores.LOW_SCORE}",
    }


def calibration_crops(packs: Path, size: int, seed: int = 3) -> list[np.ndarray]:
    """Training faces of every kind, and what is none, as the device cuts them: 1 x size x size x 3 each."""
    rng = np.random.default_rng(seed)
    out = []
    training = faces.load_training(packs).values()
    for pack in training:
        for i in np.sort(rng.choice(len(pack), min(len(pack), CALIBRATION // len(training)), replace=False)):
            out.append(plain(pack.images[int(i)], size)[None])
    return out


def convert_attributes(
    data: Path,
    run: Path,
    packs: Path,
    out: Path,
    size: int,
    *,
    teachers: Path | None = None,
    masks: Path | None = None,
    plain_run: Path | None = None,
    report: Path | None = None,
) -> dict[str, Any]:
    """Writes every precision of the attributes model, its manifest entry, card and report.

    Files reach `out` only after all of them passed the parity limits.

    Args:
        data: folder with `scenes/` and `faces/`.
        run: folder of the training run.
        packs: folder of the packed training faces, for the ranges of the integer files.
        out: `converted_models`.
        size: side of the crop that ships, pixels.
        teachers, masks, plain_run, report: as in `evaluate_attributes.evaluate`.

    Returns:
        The manifest entry.

    Raises:
        export.parity.ParityError: if a file is further from Keras than its limit.
    """
    everything = scores.load_samples(data, size, masks)
    # lfw is for the report alone: nothing is set by it.
    samples = {name: sample for name, sample in everything.items() if not name.startswith("lfw")}
    finds = scores.load_finds(data, teachers, size)
    whole = load_network(run, size)

    def of_keras(crops: np.ndarray) -> scores.Logits:
        return scores.both_ways(
            lambda views: dict(whole.predict(views.astype(np.float32), batch_size=128, verbose=0)), crops
        )

    temperatures = fit_temperatures(
        samples, {k: of_keras(s.crops) for k, s in samples.items()}, finds, of_keras(finds.sample.crops)
    )
    fold_temperatures(whole, temperatures)
    network = load_network(run, size, batch=1, folded=True)
    fold_temperatures(network, temperatures)
    reference = {k: of_keras(s.crops) for k, s in samples.items()}
    keras_main = float(np.mean([scores.figures(samples, reference)[k]["value"] for k in MAIN]))

    known: dict[str, dict[str, scores.Logits]] = {}

    def judge(precision: str, model: Model) -> tuple[dict[str, dict[str, float]], float]:
        logits = known[precision] = {k: scores.logits_of(model, s.crops) for k, s in samples.items()}
        main = float(np.mean([scores.figures(samples, logits)[k]["value"] for k in MAIN]))
        return parity.compare((reference[k], logits[k]) for k in samples), main

    done = convert.every_precision(
        "attributes",
        network,
        calibration_crops(packs, size),
        judge,
        metric=f"mean of {', '.join(MAIN)}",
        keras=keras_main,
        n=sum(len(s) for s in samples.values()),
        int16x8_from=parity.LIMITS["int8"].metric_drop,
    )
    model = done.model("int8")
    found = scores.logits_of(model, finds.sample.crops)
    thresholds = {
        head: {
            "value": value,
            "figure": f"scores are calibrated (temperature {temperatures[head]:.2f}): below it more than "
            f"{1 - value:.0%} of the answers would be wrong",
        }
        for head, value in ENOUGH.items()
    }
    thresholds["face"] = face_limit(samples, known["int8"], finds, found)
    thresholds |= view_limits(samples["fairface_dev painted"], lambda crops: scores.logits_of(model, crops))
    convert.ship(done.contents, out, "attributes")
    entry = {
        "task": "attributes",
        "version": VERSION,
        "default": "int8",
        "default_reason": f"fastest and smallest; mean of the main figures {done.value('int8'):.3f} against "
        f"{done.value('float32'):.3f} in float32",
        "input": {"width": size, "height": size, "color": "RGB", "dtype": "uint8", "layout": "NHWC"},
        "outputs": [
            {"name": name, "shape": [1, n], "dtype": "float32"}
            for n, name in ((4, "mask"), (2, "gender"), (1, "face"))
        ],
        "labels": [*MASK_STATES, *GENDERS],
        "thresholds": thresholds,
        "alignment": {"template": [list(point) for point in TEMPLATE], "unit": "sides of the crop"},
        "licence": LICENCE,
        "training_data": TRAINING_DATA,
        "metrics": [],
        "files": done.files,
    }
    manifest.write(out, "attributes", entry)
    result = scores.evaluate(
        data,
        out,
        teachers=teachers,
        masks=masks,
        plain=plain_run,
        loaded=(everything, finds),
        report=report,
    )
    finish(entry, result, out)
    return entry


def finish(entry: dict[str, Any], result: dict[str, Any], out: Path) -> None:
    """Puts the figures of an evaluation into the manifest entry and writes the card."""
    entry["metrics"] = [
        {
            "name": name,
            "value": figure["value"],
            "n": figure["n"],
            "data": "held-out faces, see attributes_report.md",
            "precision": precision,
        }
        for precision, row in result["precisions"].items()
        for name, figure in row.items()
    ]
    manifest.write(out, "attributes", entry)
    (out / "attributes.md").write_text(cards.attributes(entry, result, attributes_report))
