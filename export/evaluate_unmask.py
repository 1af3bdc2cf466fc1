"""Scores the unmask model on people it never saw, with painted masks: what it completes, and where.

Every face goes the device's way: our detector finds its landmarks on the masked picture,
`edge.geometry.align` cuts it out, and the model goes by the map it draws itself. The crops are cut once; then
every precision is shown the same bytes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from edge import assembly
from edge.camera import read_image
from edge.config import load_config
from edge.geometry import align
from edge.masks import Painted, paint_mask
from edge.tasks.attributes import TEMPLATE
from edge.tflite import Model, load_manifest, load_model
from export import convert
from export.data import unmask_faces as faces
from export.data.crop_sets import found_landmarks
from export.data.occluders import paint_occluder
from export.train.unmask import (
    Features,
    feature_distance,
    load_network,
    map_iou,
    region_psnr,
    sheet,
)

REAL = 40
"""Faces in real masks on the sheet for one's own eyes."""
RUNS = {
    "student": "student project's network, float32",
    "equal": "ours after no more time than that, float32",
}
"""Further networks, by their folders in the run folder of ours."""
FEW = 300
"""Faces from which on a distribution of features says something."""

Found = dict[str, np.ndarray]
"""`completed`, n x S x S x 3 uint8 RGB, and `map`, n x S x S float32 0..1."""
Run = Callable[[np.ndarray], Found]
"""Of crops n x S x S x 3 uint8 RGB."""


@dataclass(slots=True)
class Outputs:
    """Where the outputs of a `.tflite` file are: converters keep neither order nor names."""

    completed: int
    map: int

    @classmethod
    def of(cls, model: Model) -> Outputs:
        channels = [spec.shape[-1] for spec in model.outputs]
        return cls(channels.index(3), channels.index(1))


def runner(model: Model) -> Run:
    """Runs a `.tflite` file on every crop; nothing is composited besides what its graph does."""
    where = Outputs.of(model)

    def run(crops: np.ndarray) -> Found:
        completed = np.empty(crops.shape, np.uint8)
        maps = np.empty(crops.shape[:-1], np.float32)
        for i, crop in enumerate(crops):
            out = model.run(crop[None])
            completed[i] = np.clip(np.rint(out[where.completed][0]), 0, 255)
            maps[i] = out[where.map][0, ..., 0]
        return {"completed": completed, "map": maps}

    return run


def invoke_ms(model: Model, crop: np.ndarray, runs: int = 60) -> float:
    """Median time of one invoke, ms."""
    model.set_inputs(crop[None])
    times = []
    for _ in range(runs + 5):
        start = time.perf_counter()
        model.invoke()
        times.append(time.perf_counter() - start)
    return float(np.median(times[5:])) * 1000


def telea(crops: np.ndarray, region: np.ndarray) -> np.ndarray:
    """What OpenCV's inpainting (Telea 2004) makes of it, given the true region (n x S x S, 0..255)."""
    pairs = zip(crops, region, strict=True)
    return np.array([cv2.inpaint(c, (r > 12).astype(np.uint8), 3, cv2.INPAINT_TELEA) for c, r in pairs])


def similarities(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Structural similarity (Wang et al. 2004), one number a picture."""
    from skimage.metrics import structural_similarity

    return np.array([structural_similarity(a, b, channel_axis=-1) for a, b in zip(found, truth, strict=True)])


def looks(features: Features, pictures: np.ndarray, batch: int = 32) -> list[list[np.ndarray]]:
    """Feature maps of pictures, batch by batch."""
    return [
        [np.asarray(level) for level in features(pictures[i : i + batch].astype(np.float32))]
        for i in range(0, len(pictures), batch)
    ]


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """Frechet distance between two sets of feature vectors, n x d (Heusel et al. 2017)."""
    gap = a.mean(axis=0) - b.mean(axis=0)
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    # The trace of the root of a product of covariances is the sum of the roots of its eigenvalues.
    roots = np.sqrt(np.maximum(np.linalg.eigvals(cov_a @ cov_b).real, 0)).sum()
    return float(gap @ gap + np.trace(cov_a) + np.trace(cov_b) - 2 * roots)


def pictures_figures(
    found: np.ndarray, held: np.ndarray, features: Features | None = None
) -> dict[str, float]:
    """How near completed pictures, n x S x S x 3 uint8, are to the true ones.

    Args:
        found: the completed pictures.
        held: the faces, as `Hidden.images`.
        features: judge of likeness; with None two figures are missing.

    Returns:
        `region_psnr` and `whole_psnr` (dB, mean over pictures), `ssim`, and of the features `distance` and,
        from `FEW` faces on, `fid`.
    """
    truth, region = held[..., faces.BARE], held[..., faces.REGION]
    out = {
        "region_psnr": float(region_psnr(found, truth, region).mean()),
        "whole_psnr": float(region_psnr(found, truth, np.full_like(region, 255)).mean()),
        "ssim": float(similarities(found, truth).mean()),
    }
    if features is not None:
        a, b = looks(features, found), looks(features, truth)
        pairs = zip(a, b, strict=True)
        out["distance"] = float(np.concatenate([np.asarray(feature_distance(x, y)) for x, y in pairs]).mean())
        if len(found) >= FEW:
            ends = [np.concatenate([level[-1].mean(axis=(1, 2)) for level in one]) for one in (a, b)]
            out["fid"] = frechet(ends[0], ends[1])
    return {name: round(value, 4) for name, value in out.items()}


def figures(found: Found, held: np.ndarray, features: Features | None = None) -> dict[str, float]:
    """The figures of a model: those of its pictures, and of its map.

    Returns:
        Besides those of `pictures_figures`, `iou` of the map, and `changed`: pixels outside the map (where it
        is 0) that are not exactly those of the input.
    """
    outside = found["map"] == 0
    differ = (found["completed"] != held[..., faces.MASKED]).any(axis=-1)
    return pictures_figures(found["completed"], held, features) | {
        "iou": round(float(map_iou(found["map"], held[..., faces.REGION]).mean()), 4),
        "changed": int((outside & differ).sum()),
    }


def whole_pictures(data: Path, models: Path, masks: Path | None = None) -> dict[str, float]:
    """Figures of whole pictures as `maskedge unmask` writes them, without the word in the corner.

    Every stage of the device has its say: the face has to be found, the mask told, and the completion put
    back into the picture at its own size. Where one fails the picture stays masked, and that counts.

    Args:
        data: folder with `faces/celeba`, whose held-out pictures are masked and completed.
        models: folder with the manifest.
        masks: photographed masks, see `unmask_faces.paint`.

    Returns:
        Means over pictures: `region_psnr` and `whole_psnr` (dB), `ssim`, `iou` of what was completed with the
        region, and `hidden`, the share of the picture that the mask hides; `left`, pictures in which
        nothing was completed; `changed`, pixels of value 0 in the saved map that are not the input's; `n`.
    """
    own = load_config(overrides={"models": str(models), "tasks": ["mask,unmask"]})
    # A folder may hold the unmask model alone.
    whole = {"face", "attributes"} <= set(load_manifest(models).models)
    config = own if whole else load_config(overrides={"tasks": ["mask,unmask"]})
    detector, estimator = assembly.detector(config), assembly.estimator(config)
    unmasker = assembly.unmasker(own, threads=1)
    assert estimator is not None
    rows = []
    for task in tqdm(faces.held_out_tasks(data, masks), desc="whole pictures", unit="picture", leave=False):
        image, painted, _ = faces.masked_picture(task)
        if not painted.region.any():
            continue
        found = estimator.label(painted.image, detector.detect(painted.image))
        picture, region = unmasker.picture(painted.image, found)
        truth = np.rint(painted.region * 255).astype(np.uint8)[None]
        rows.append(
            {
                "region_psnr": region_psnr(picture[None], image[None], truth)[0],
                "whole_psnr": region_psnr(picture[None], image[None], np.full_like(truth, 255))[0],
                "ssim": similarities(picture[None], image[None])[0],
                "iou": map_iou(region[None], truth)[0],
                "hidden": (truth > 127).mean(),
                "left": not region.any(),
                "changed": int((picture != painted.image).any(axis=-1)[region == 0].sum()),
            }
        )
    counted = ("left", "changed")
    means = {
        name: int(sum(row[name] for row in rows))
        if name in counted
        else round(float(np.mean([row[name] for row in rows])), 4)
        for name in rows[0]
    }
    return means | {"n": len(rows)}


def evaluate(
    data: Path,
    models: Path,
    *,
    masks: Path | None = None,
    run: Path | None = None,
    features: Features | None = None,
    held: np.ndarray | None = None,
    known: Mapping[str, Found] | None = None,
    report: Path | None = None,
) -> dict[str, Any]:
    """Scores every shipped precision, and writes the report.

    Args:
        data: folder with `faces/celeba`.
        models: folder with the manifest.
        masks: photographed masks, see `unmask_faces.paint`.
        run: folder of the training run: where the networks of `RUNS` are looked for and the sheet of real
            faces is put.
        features: judge of likeness.
        held: faces loaded already, as `Hidden.images`.
        known: what files of these precisions make of them, where that is known already (int16x8 is slow).
        report: Markdown file to write; its figures and sheets go beside it.

    Returns:
        All figures.

    Raises:
        ValueError: there are no held-out faces in the data.
    """
    entry = load_manifest(models).models["unmask"]
    size = int(entry.input["width"])
    held = faces.held_out(data, masks, size).images if held is None else held
    if not len(held):
        raise ValueError(f"no held-out faces in {data / 'faces' / 'celeba'}")
    crops = np.ascontiguousarray(held[..., faces.MASKED])
    result: dict[str, Any] = {
        "date": date.today().isoformat(),
        "default": entry.default,
        "n": len(held),
        "painted_with": painted_with(masks),
        "precisions": {},
    }
    for precision in tqdm(entry.files, desc="precisions", unit="file"):
        model = load_model("unmask", precision=precision, models_dir=models, threads=1)
        found = (known or {}).get(precision) or runner(model)(crops)
        row = figures(found, held, features)
        result["precisions"][precision] = row | {"ms": round(invoke_ms(model, crops[0]), 2)}
    given = telea(crops, held[..., faces.REGION])
    result["telea"] = pictures_figures(given, held, features)
    result["masked"] = pictures_figures(crops, held, features)
    for name in RUNS:
        if run is not None and (run / name / "averaged.npz").exists():
            network = load_network(run / name, size, batch=1)
            model = Model(convert.to_tflite(network, "float32", lambda: ()), name=name, threads=1)
            result[name] = figures(runner(model)(crops), held, features) | {
                "ms": round(invoke_ms(model, crops[0]), 2),
                "parameters": int(network.count_params()),
            }
    result["pictures"] = whole_pictures(data, models, masks)
    default = runner(load_model("unmask", models_dir=models, threads=1))
    if run is not None:
        real = real_crops(data, size)
        if len(real):
            found = default(real)
            sheet(
                [real, found["completed"], np.rint(found["map"] * 255).astype(np.uint8)],
                run / "real_faces.png",
                rows=10,
            )
    if report is not None:
        write_report(result, default, size, report)
    return result


def painted_with(masks: Path | None) -> str:
    """In words, what masks the scored faces wear."""
    if masks is None:
        return "designs of the trainer's own kinds, other random numbers"
    templates, textures = faces.photographed(masks, True)
    names = ", ".join(t.kind for t in templates)
    return (
        f"{len(templates)} photographed masks ({names}) and {len(textures)} fabrics that training never saw"
    )


def real_crops(data: Path, size: int) -> np.ndarray:
    """`REAL` held-out people in real masks as the device would cut them, n x S x S x 3 uint8 RGB."""
    known = faces.real_faces(data, held=True)
    out = []
    for entry in known[:: max(1, len(known) // REAL)][:REAL]:
        image = read_image(entry.path)
        crop = align(image, found_landmarks(image, entry.landmarks), np.array(TEMPLATE), size)
        out.append(cv2.cvtColor(crop, cv2.COLOR_BGR2RGB))
    return np.array(out, np.uint8).reshape(-1, size, size, 3)


def astronaut(size: int) -> tuple[np.ndarray, np.ndarray]:
    """The one face that is free to show (Eileen Collins, NASA): with painted masks, and made hard.

    Returns:
        Two sets of faces as `Hidden.images` of side `size`: in masks of several designs as a camera may well
        see her, and blurred, dark, turned, with a hand before the mask, or with a mask on the chin.
    """
    from skimage import data as pictures

    from export.demo_clip import LANDMARKS

    image = cv2.cvtColor(pictures.astronaut(), cv2.COLOR_RGB2BGR)
    points = LANDMARKS.astype(np.float32)

    def cut(picture: np.ndarray, masked: np.ndarray, region: np.ndarray, where: np.ndarray) -> np.ndarray:
        crops = faces.cut(picture, Painted(masked, region), where, 1.0, size)
        return np.dstack([crops.masked, crops.bare, crops.region])

    usual, hard = [], []
    for seed in range(6):
        masked, region = paint_mask(image, points, worn="correct", rng=np.random.default_rng(seed))
        usual.append(cut(image, masked, region, points))
    masked, region = paint_mask(image, points, worn="correct", rng=np.random.default_rng(1))
    for change in (
        lambda picture: cv2.GaussianBlur(picture, (0, 0), 6),
        lambda picture: (picture * 0.12).astype(np.uint8),
    ):
        hard.append(cut(change(image), change(masked), region, points))
    middle = points.mean(axis=0)
    for angle, squeeze in ((35, 1.0), (0, 0.6)):
        turn = cv2.getRotationMatrix2D((float(middle[0]), float(middle[1])), angle, 1.0)
        turn[0] = turn[0] * squeeze + [0, 0, (1 - squeeze) * middle[0]]
        parts = [cv2.warpAffine(part, turn, (512, 512)) for part in (image, masked, region)]
        # The landmarks stay where they were: a detector that is wrong about how the head is turned.
        where = points if angle else points @ turn[:, :2].T.astype(np.float32) + turn[:, 2]
        hard.append(cut(parts[0], parts[1], parts[2], where))
    before = paint_occluder(masked, points, kind="hand", rng=np.random.default_rng(3)).image
    hard.append(cut(image, before, region, points))
    chin, region = paint_mask(image, points, worn="chin", rng=np.random.default_rng(4))
    hard.append(cut(image, chin, region, points))
    return np.array(usual), np.array(hard)


ROWS = {
    "region_psnr": ("hidden region, dB", "{:.2f}"),
    "whole_psnr": ("whole crop, dB", "{:.2f}"),
    "ssim": ("SSIM", "{:.4f}"),
    "iou": ("map IoU", "{:.4f}"),
    "changed": ("pixels changed outside the map", "{:,}"),
    "distance": ("feature distance", "{:.4f}"),
    "fid": ("FID", "{:.2f}"),
    "ms": ("ms", "{:.2f}"),
    "parameters": ("parameters", "{:,}"),
}


def table(result: dict[str, Any]) -> str:
    """The figures as Markdown."""
    rows = {f"ours, {precision}": row for precision, row in result["precisions"].items()}
    rows |= {title: result[name] for name, title in RUNS.items() if name in result}
    rows |= {
        "cv2.inpaint, given the true region": result["telea"],
        "the mask left as it is": result["masked"],
    }
    shown = {key: what for key, what in ROWS.items() if any(key in row for row in rows.values())}
    lines = ["| | " + " | ".join(name for name, _ in shown.values()) + " |", "|---" * (len(shown) + 1) + "|"]
    for who, row in rows.items():
        cells = [how.format(row[key]) if key in row else "" for key, (_, how) in shown.items()]
        lines.append(f"| {who} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def pictures_table(found: dict[str, Any]) -> str:
    """Of whole pictures, as Markdown: what was done, and the figures of `whole_pictures`."""
    titles = {"whole_psnr": "whole picture, dB", "iou": "IoU of what is completed"}
    shown = ("region_psnr", "whole_psnr", "ssim", "iou", "changed")
    return PICTURES.format(
        **found,
        head=" | ".join(titles.get(key, ROWS[key][0]) for key in shown),
        rule="|--:" * len(shown) + "|",
        cells=" | ".join(ROWS[key][1].format(found[key]) for key in shown),
    )


PICTURES = """The same {n} pictures as `maskedge unmask --no-mark` writes them, at their own size (crops of
celeba, 144 px): the face is found, its mask state told, and the completion put back. The masks hide
{hidden:.1%} of a picture. In {left} pictures nothing was completed, because no face was found or its mask was
not told; they count as they are.

| {head} |
{rule}
| {cells} |"""

REPORT = """# How good is the unmask model?

Measured {date} by `python -m export evaluate unmask` on {n} faces of people of celeba who were never trained
on ({size} px crops, every mask worn correctly, painted with {painted_with}).
The model goes by the map it draws itself; `cv2.inpaint` (Telea) is given the true region. Figures are means
over faces. Features are those of our attributes network: the distance compares them place by place, FID
their means over the crop (not to be compared with FIDs of other networks). ms is one invoke on one thread.

{table}

The default is {default}.

## Whole pictures

{pictures}

## Seen by it

Masked, completed, map, true: the astronaut Eileen Collins (NASA), in masks drawn by `edge.masks`.

![Completed faces]({stem}_sheet.png)

## Where it fails

Blurred, dark, turned in the plane without the detector noticing, squeezed as if seen from the side, with a
hand before the mask, and with a mask worn on the chin.

![Failures]({stem}_failures.png)
"""


def write_report(result: dict[str, Any], run: Run, size: int, path: Path) -> None:
    """Writes the Markdown, the figures as JSON, and sheets of the one face that is free to show."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    path.write_text(
        REPORT.format(
            **{key: result[key] for key in ("date", "n", "painted_with", "default")},
            pictures=pictures_table(result["pictures"]),
            size=size,
            table=table(result),
            stem=path.stem,
        )
    )
    for name, shown in zip(("sheet", "failures"), astronaut(size), strict=True):
        save_sheet(shown, run, path.with_name(f"{path.stem}_{name}.png"))


def save_sheet(held: np.ndarray, run: Run, path: Path, columns: Sequence[slice] = (faces.BARE,)) -> None:
    """Masked, completed, map and `columns` of some faces."""
    crops = np.ascontiguousarray(held[..., faces.MASKED])
    found = run(crops)
    rest = [held[..., part] for part in columns]
    sheet([crops, found["completed"], np.rint(found["map"] * 255).astype(np.uint8), *rest], path, rows=3)
