"""From a training run to shipped files: converts the unmask model, writes its manifest entry and card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edge.tasks.attributes import TEMPLATE
from edge.tflite import Model
from export import cards, convert, manifest, parity
from export import evaluate_unmask as scores
from export.data import unmask_faces as faces
from export.train.unmask import Features, load_network, map_iou, predict, region_psnr

VERSION = "1.1.0"
CALIBRATION = 400
LOST = 0.05
"""Of the hidden region, dB, that the default precision may lose against Keras. Little, since it is seen:
where int8 lost 0.14, noses turned red and mouths into curves."""
SLOWEST, LARGEST = 15.0, 3_000_000
"""One invoke on one thread, ms, and the bytes of the file, that the default precision may take."""
LICENCE = (
    "weights: trained on data for non-commercial research (see training_data); use them for research and "
    "evaluation, and retrain on data of your own for a product. Code: Apache-2.0"
)
TRAINING_DATA = [
    "celeba without every seventh person, and utkface (non-commercial research): faces with painted masks",
    "fairface (CC BY 4.0), every third face: the same",
    "masks (research use): people in real masks, what is behind them being unknown",
    "maskon (MaskedFace-Net, CC BY-NC-SA 4.0): faces with a blue mask painted by others, without truth",
    "photographed masks and fabrics of MaskTheFace (MIT), two of three: painted on some of the bare faces",
    "empty_rooms (research use), every second: parts of these pictures as prints on such masks",
]


def calibration_crops(packs: Path, size: int, seed: int = 3) -> list[np.ndarray]:
    """Training faces in their masks as the device cuts them: 1 x size x size x 3 uint8 each."""
    rng = np.random.default_rng(seed)
    training = faces.load_training(packs).values()
    out = []
    for pack in training:
        rows = np.sort(rng.choice(len(pack), min(len(pack), CALIBRATION // len(training)), replace=False))
        out += [faces.plain(np.asarray(pack.images[int(row)]), size)[None, ..., faces.MASKED] for row in rows]
    return out


def choose(files: dict[str, dict[str, Any]]) -> tuple[str, str]:
    """The precision to ship, and why: the fastest of those that are small enough and lose little enough."""

    def fits(precision: str) -> bool:
        file = files[precision]
        return file["parity"]["drop"] <= LOST and file["bytes"] <= LARGEST and file["ms"] <= SLOWEST

    good = [precision for precision in files if fits(precision)]
    # Where nothing fits all limits, what loses least.
    drops = {precision: file["parity"]["drop"] for precision, file in files.items()}
    best = min(good, key=lambda p: files[p]["ms"]) if good else min(drops, key=lambda p: drops[p])
    why = (
        f"the fastest of those that lose at most {LOST} dB and take at most {LARGEST / 1e6:g} MB"
        if good
        else "no precision is within all limits: this one loses least"
    )
    figures = ", ".join(
        f"{precision} {file['parity']['drop']:+.2f} dB {file['ms']:.1f} ms"
        for precision, file in files.items()
    )
    return best, f"{why} (lost against Keras, one invoke on one thread: {figures})"


def map_threshold(found: np.ndarray, region: np.ndarray) -> dict[str, Any]:
    """From which value on the map says that a mask hides a pixel: found on every second face."""
    grid = np.arange(0.2, 0.81, 0.05)
    iou = [map_iou(found[::2] >= value, region[::2]).mean() for value in grid]
    value = round(float(grid[int(np.argmax(iou))]), 2)
    rest = slice(1, None, 2) if len(found) > 1 else slice(None)
    share = map_iou(found[rest] >= value, region[rest])
    return {
        "value": value,
        "figure": f"found on every second held-out face; IoU with the true region on the others "
        f"{share.mean():.3f}, n {len(share)}",
    }


def convert_unmask(
    data: Path,
    run: Path,
    packs: Path,
    out: Path,
    size: int,
    *,
    masks: Path | None = None,
    features: Features | None = None,
    report: Path | None = None,
) -> dict[str, Any]:
    """Writes every precision of the unmask model, its manifest entry, card and report.

    Files reach `out` only after all of them passed the parity limits.

    Args:
        data: folder with `faces/celeba`.
        run: folder of the training run.
        packs: folder of the packed training faces, for the ranges of the integer files.
        out: `converted_models`.
        size: side of the crop, pixels.
        masks, features, report: as in `evaluate_unmask.evaluate`.

    Returns:
        The manifest entry.

    Raises:
        export.parity.ParityError: if a file is further from Keras than its limit.
    """
    network = load_network(run, size, batch=1, folded=True)
    whole = load_network(run, size)
    held = faces.held_out(data, masks, size).images
    if not len(held):
        raise ValueError(f"no held-out faces in {data / 'faces' / 'celeba'}")
    crops = np.ascontiguousarray(held[..., faces.MASKED])
    truth, region = held[..., faces.BARE], held[..., faces.REGION]
    reference = predict(whole, crops)
    keras_psnr = float(region_psnr(reference["completed"], truth, region).mean())
    known: dict[str, scores.Found] = {}
    times: dict[str, float] = {}

    def judge(precision: str, model: Model) -> tuple[dict[str, dict[str, float]], float]:
        known[precision] = scores.runner(model)(crops)
        times[precision] = scores.invoke_ms(model, crops[0])
        psnr = float(region_psnr(known[precision]["completed"], truth, region).mean())
        return parity.compare([(reference, known[precision])]), psnr

    done = convert.every_precision(
        "unmask",
        network,
        calibration_crops(packs, size),
        judge,
        metric="PSNR in the hidden region of held-out faces of celeba, dB",
        keras=keras_psnr,
        n=len(crops),
        # What a precision may lose here is counted in dB and decides about the default.
        limited=False,
    )
    files = {precision: facts | {"ms": round(times[precision], 2)} for precision, facts in done.files.items()}
    convert.ship(done.contents, out, "unmask")
    default, reason = choose(files)
    entry: dict[str, Any] = {
        "task": "unmask",
        "version": VERSION,
        "default": default,
        "default_reason": reason,
        "input": {"width": size, "height": size, "color": "RGB", "dtype": "uint8", "layout": "NHWC"},
        "outputs": [
            {"name": "completed", "shape": [1, size, size, 3], "dtype": "float32"},
            {"name": "map", "shape": [1, size, size, 1], "dtype": "float32"},
        ],
        "labels": [],
        "thresholds": {"map": map_threshold(known[default]["map"], region)},
        "alignment": {"template": [list(point) for point in TEMPLATE], "unit": "sides of the crop"},
        "licence": LICENCE,
        "training_data": TRAINING_DATA,
        "metrics": [],
        "files": files,
    }
    manifest.write(out, "unmask", entry)
    result = scores.evaluate(
        data, out, masks=masks, run=run, features=features, held=held, known=known, report=report
    )
    finish(entry, result, out)
    return entry


def finish(entry: dict[str, Any], result: dict[str, Any], out: Path) -> None:
    """Puts the figures of an evaluation into the manifest entry and writes the card."""
    entry["metrics"] = [
        {
            "name": name,
            "value": value,
            "n": result["n"],
            "data": "held-out faces of celeba with painted masks, see unmask_report.md",
            "precision": precision,
        }
        for precision, row in result["precisions"].items()
        for name, value in row.items()
    ]
    manifest.write(out, "unmask", entry)
    (out / "unmask.md").write_text(cards.unmask(entry, result))
