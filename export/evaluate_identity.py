"""Scores the identity model on lfw, which it never saw: the standard pairs, bare and with painted masks.

Every face goes the device's way: our detector finds its landmarks, on the painted picture too, and
`edge.geometry.align` cuts it out. The crops are cut once; then every precision is shown the same bytes.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from edge.camera import read_image
from edge.config import FARS
from edge.geometry import align
from edge.masks import paint_mask
from edge.tasks.identity import ARCFACE, TEMPLATE, Embedder, side_of_crop
from edge.tflite import Model, load_manifest, load_model
from edge.unlock.enrol import between
from export.data.crop_sets import embeddings_of, entries, found_landmarks
from export.data.teacher import CROP, Teacher
from export.evaluate_attributes import painter
from export.evaluate_unlock import unlock_table, unlock_trials
from export.verification import ten_folds, threshold_at, true_accepts

FAR = (1e-3, 1e-2)
KINDS = ("bare", "masked", "painted")
"""How each face is seen: as it is, in a mask that training never saw, and in one as enrolment paints it."""
MODES = {
    "bare - bare": ("bare", "bare"),
    "bare - masked": ("bare", "masked"),
    "masked - masked": ("masked", "masked"),
    "template - masked": ("template", "masked"),
    "template - bare": ("template", "bare"),
}
"""Pairs by what their two sides are; a template is of a bare face, seen bare and with a painted mask."""
TEMPLATES = {"bare": "bare", "masked": "template"}
"""What somebody who enrolled without a mask is compared by, for each mode of template."""


@dataclass(slots=True)
class Wild:
    """The faces of lfw and its pairs.

    Attributes:
        crops: of each kind of `KINDS` the same faces, n x S x S x 3 uint8 RGB.
        person: n int.
        gender: n int, 0 female, 1 male, -1 unknown.
        pairs: m x 2 int, rows.
        same: m bool.
        fold: m int, 0..9.
        missing: pairs of the standard list whose pictures are not there.
        teachers: by name, embeddings of the bare faces and, where the teacher can be asked, of the other
            kinds, n x d float32.
        painted_with: what painted the masks.
    """

    crops: dict[str, np.ndarray]
    person: np.ndarray
    gender: np.ndarray
    pairs: np.ndarray
    same: np.ndarray
    fold: np.ndarray
    missing: int
    teachers: dict[str, dict[str, np.ndarray]]
    painted_with: str


def read_pairs(path: Path) -> list[tuple[str, str, bool, int]]:
    """The pairs of a `pairs.txt` in the format of LFW: two file stems, whether they are one person, the fold.

    Raises:
        ValueError: a line is of another format.
    """
    lines = path.read_text().splitlines()
    folds, each = (int(v) for v in lines[0].split())
    out = []
    for number, line in enumerate(line for line in lines[1:] if line.strip()):
        parts = line.split("\t") if "\t" in line else line.split()
        if len(parts) == 3:
            a, b = (parts[0], parts[1]), (parts[0], parts[2])
        elif len(parts) == 4:
            a, b = (parts[0], parts[1]), (parts[2], parts[3])
        else:
            raise ValueError(f"{path}: line {number + 2} is no pair: {line}")
        names = [f"{who}/{who}_{int(i):04d}" for who, i in (a, b)]
        out.append((names[0], names[1], len(parts) == 3, number // (2 * each)))
    if len(out) != 2 * folds * each:
        raise ValueError(f"{path}: {len(out)} pairs, the first line says {2 * folds * each}")
    return out


def load_wild(
    data: Path,
    size: int,
    masks: Path | None = None,
    *,
    template: np.ndarray | None = None,
    teacher: Path | None = None,
) -> Wild:
    """lfw as the device would cut it, bare and with a mask worn correctly.

    Args:
        data: folder with `faces/lfw`.
        size: side of what the model sees, pixels.
        masks: as in `export.evaluate_attributes.painter`.
        template: of the alignment, 5 x 2 in sides of the crop; None takes that of the code.
        teacher: file of a teacher, to be asked about the same faces.
    """
    asked = Teacher(teacher) if teacher else None
    folder = data / "faces" / "lfw"
    paint, painted_with = painter(masks)
    known = entries(folder)
    template = np.array(TEMPLATE if template is None else template, np.float32)
    crops: dict[str, list[np.ndarray]] = {kind: [] for kind in KINDS}
    said: dict[str, list[np.ndarray]] = {kind: [] for kind in KINDS}
    kept = []
    for i, entry in enumerate(tqdm(known, desc="lfw", unit="face", leave=False)):
        image = read_image(entry.path)
        points = found_landmarks(image, entry.landmarks)
        rng = np.random.default_rng((12, zlib.crc32(str(entry.path.name).encode())))
        covered = paint(image, (entry.landmarks + points) / 2, "correct", rng)
        # As `edge.unlock.enrol` paints it: by the landmarks found, which also place the painted face.
        painted = paint_mask(image, points, worn="correct", rng=rng).image
        shown = {
            "bare": (image, points),
            "masked": (covered, found_landmarks(covered, entry.landmarks)),
            "painted": (painted, points),
        }
        try:
            cut = {kind: align(*of, template, side_of_crop(size)) for kind, of in shown.items()}
            if asked:
                for_teacher = [align(*of, np.array(ARCFACE), CROP) for of in shown.values()]
                answers = asked.embed([cv2.cvtColor(crop, cv2.COLOR_BGR2RGB) for crop in for_teacher])
                for kind, answer in zip(shown, answers, strict=True):
                    said[kind].append(answer)
        except ValueError:
            continue
        for kind, crop in cut.items():
            crops[kind].append(cv2.cvtColor(crop, cv2.COLOR_BGR2RGB))
        kept.append(i)
    stems = [str(known[i].path.relative_to(folder).with_suffix("")) for i in kept]
    row_of = {stem: row for row, stem in enumerate(stems)}
    people = sorted({stem.split("/")[0] for stem in stems})
    standard = read_pairs(folder / "pairs.txt")
    found = [p for p in standard if p[0] in row_of and p[1] in row_of]
    teachers: dict[str, dict[str, np.ndarray]] = {}
    given = embeddings_of(folder)
    if given is not None:
        teachers["the teacher of the data"] = {"bare": given[kept]}
    if asked:
        teachers["the teacher that is asked"] = {kind: np.array(rows) for kind, rows in said.items()}
    return Wild(
        {kind: np.array(rows) for kind, rows in crops.items()},
        np.array([people.index(stem.split("/")[0]) for stem in stems]),
        np.array([known[i].gender for i in kept]),
        np.array([(row_of[a], row_of[b]) for a, b, _, _ in found]),
        np.array([same for _, _, same, _ in found]),
        np.array([fold for _, _, _, fold in found]),
        len(standard) - len(found),
        teachers,
        painted_with,
    )


Views = tuple[np.ndarray, np.ndarray]
"""Embeddings of length 1, n x d float32, and quality, n."""
Embed = Callable[[np.ndarray], Views]
"""Of crops n x S x S x 3 uint8 RGB."""


def embedder(model: Model) -> Embed:
    """Runs a `.tflite` file on every crop, as the device does."""
    device = Embedder(model)

    def run(crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        views = [device.look(crop[..., ::-1]) for crop in crops]
        return np.array([view.vector for view in views]), np.array([view.quality for view in views])

    return run


def embed_all(wild: Wild, run: Embed) -> dict[str, Views]:
    """What is said of every kind of crop."""
    return {kind: run(crops) for kind, crops in wild.crops.items()}


def sides(embeddings: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The two sides that pairs of `MODES` may have, n x d: those given, and the templates made of them."""
    if "painted" not in embeddings:
        return embeddings
    return embeddings | {"template": between(embeddings["bare"], embeddings["painted"])}


def pair_scores(wild: Wild, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosines of the standard pairs; `a` and `b` are the embeddings of the first and second side, n x d."""
    first, second = wild.pairs.T
    return np.asarray((a[first] * b[second]).sum(axis=1))


def figures(wild: Wild, views: dict[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """Accuracy over ten folds and true accepts of the standard pairs, for every mode.

    Args:
        wild: the pairs.
        views: of `sides`; modes of which one is missing are left out.
    """
    out: dict[str, dict[str, Any]] = {}
    for mode, (a, b) in MODES.items():
        if not {a, b} <= set(views):
            continue
        scores = pair_scores(wild, views[a], views[b])
        accuracy, spread = ten_folds(scores, wild.same, wild.fold)
        rates = true_accepts(scores[wild.same], scores[~wild.same], FAR)
        out[mode] = {
            "accuracy": round(accuracy, 4),
            "std": round(spread, 4),
            "n": len(scores),
        } | {f"tar@{far:g}": round(tar, 4) for far, tar in rates.items()}
    return out


def operating_points(wild: Wild, views: dict[str, np.ndarray]) -> dict[str, list[dict[str, Any]]]:
    """Thresholds for finer false accept rates, from every face against every other of another person: the
    3,000 pairs are too few.

    Returns:
        For each mode the rows `far`, `threshold`, `tar` (of all pairs of one person), `n_same`, `n_others`,
        and `far_same_gender`: the rate among pairs of people of the same gender, whom one meets first.
    """
    same = wild.person[:, None] == wild.person[None]
    alike = (wild.gender[:, None] == wild.gender[None]) & (wild.gender[:, None] >= 0)
    out = {}
    for mode, (a, b) in MODES.items():
        scores = views[a] @ views[b].T
        # Two views of one picture are no two pictures of one person; and a pair counts once.
        once = np.triu(np.ones(same.shape, bool), 1) if a == b else ~np.eye(len(same), dtype=bool)
        genuine, others = scores[same & once], scores[~same & once]
        of_alike = scores[~same & once & alike]
        out[mode] = [
            {
                "far": far,
                "threshold": round(threshold, 4),
                "tar": round(float(np.mean(genuine > threshold)), 4),
                "n_same": int(genuine.size),
                "n_others": int(others.size),
                "far_same_gender": float(f"{np.mean(of_alike > threshold):.3g}") if of_alike.size else None,
            }
            for far, threshold in ((far, threshold_at(others, far)) for far in FARS)
        ]
    return out


def by_quality(
    wild: Wild, views: dict[str, np.ndarray], quality: dict[str, np.ndarray]
) -> list[dict[str, Any]]:
    """What refusing crops of low quality gains: true accepts at 0.1 % of the masked pairs that are left."""
    scores = pair_scores(wild, views["bare"], views["masked"])
    worst = np.minimum(quality["bare"][wild.pairs[:, 0]], quality["masked"][wild.pairs[:, 1]])
    rows = []
    for share in (0.0, 0.05, 0.1, 0.2):
        limit = float(np.quantile(worst, share)) if share else 0.0
        left = worst >= limit
        tar = true_accepts(scores[left & wild.same], scores[left & ~wild.same], (1e-3,))[1e-3]
        rows.append(
            {"refused": share, "quality": round(limit, 3), "tar@0.001": round(tar, 4), "n": int(left.sum())}
        )
    return rows


def evaluate(
    data: Path,
    models: Path,
    *,
    masks: Path | None = None,
    teacher: Path | None = None,
    wild: Wild | None = None,
    known: dict[str, dict[str, Views]] | None = None,
    report: Path | None = None,
    trials: bool = False,
) -> dict[str, Any]:
    """Scores every shipped precision, and writes the report.

    Args:
        data: folder with `faces/lfw`.
        models: folder with the manifest.
        masks: as in `export.evaluate_attributes.painter`.
        teacher: as in `load_wild`.
        wild: loaded already.
        known: what each precision said of its crops already, see `embed_all`.
        report: Markdown file to write; its figures and plot go beside it.
        trials: also try to unlock, which needs the thresholds in the manifest and `faces/celeba`.

    Returns:
        All figures.
    """
    entry = load_manifest(models).models["identity"]
    wild = wild or load_wild(
        data, int(entry.input["width"]), masks, template=entry.template(TEMPLATE), teacher=teacher
    )
    result: dict[str, Any] = {
        "date": date.today().isoformat(),
        "default": entry.default,
        "painted_with": wild.painted_with,
        "missing_pairs": wild.missing,
        "precisions": {},
    }
    views: dict[str, np.ndarray] = {}
    for precision in entry.files:
        if known is not None:
            found = known[precision]
        else:
            run = embedder(load_model("identity", precision=precision, models_dir=models, threads=1))
            found = embed_all(wild, run)
        now = sides({kind: vectors for kind, (vectors, _) in found.items()})
        result["precisions"][precision] = figures(wild, now)
        if precision == entry.default:
            views = now
            result["operating_points"] = operating_points(wild, now)
            result["quality"] = by_quality(wild, now, {k: q for k, (_, q) in found.items()})
    result["teachers"] = {name: figures(wild, sides(said)) for name, said in wild.teachers.items()}
    if trials:
        result["unlock"] = unlock_trials(data, models, masks=masks)
    if report is not None:
        write_report(result, wild, views, report)
    return result


def table(result: dict[str, Any]) -> str:
    """The main figures as Markdown."""
    lines = ["| pairs | precision | accuracy | TAR@FAR 0.1 % | TAR@FAR 1 % | n |", "|---" * 6 + "|"]

    def line(mode: str, who: str, row: dict[str, Any]) -> str:
        tars = " | ".join(f"{row[f'tar@{far:g}'] * 100:.1f} %" for far in FAR)
        accuracy = f"{row['accuracy'] * 100:.2f} % +- {row['std'] * 100:.2f}"
        return f"| {mode} | {who} | {accuracy} | {tars} | {row['n']} |"

    for mode in MODES:
        lines += [line(mode, precision, rows[mode]) for precision, rows in result["precisions"].items()]
        lines += [line(mode, name, rows[mode]) for name, rows in result["teachers"].items() if mode in rows]
    return "\n".join(lines)


def _share(value: float | None) -> str:
    return "no pairs" if value is None else f"{value:.3%}"


def thresholds_table(result: dict[str, Any]) -> str:
    """The operating points as Markdown."""
    lines = [
        "| pairs | false accepts | threshold | true accepts (n) | false accepts within a gender | n others |",
        "|---" * 6 + "|",
    ]
    for mode, rows in result["operating_points"].items():
        lines += [
            f"| {mode} | {row['far']:.3%} | {row['threshold']:.3f} | {row['tar']:.1%} ({row['n_same']:,}) "
            f"| {_share(row['far_same_gender'])} | {row['n_others']:,} |"
            for row in rows
        ]
    return "\n".join(lines)


def quality_table(result: dict[str, Any]) -> str:
    """What refusing low quality gains, as Markdown."""
    lines = ["| refused | quality from | TAR@FAR 0.1 % | pairs left |", "|---" * 4 + "|"]
    lines += [
        f"| {row['refused']:.0%} | {row['quality']} | {row['tar@0.001']:.1%} | {row['n']} |"
        for row in result["quality"]
    ]
    return "\n".join(lines)


REPORT = """# How good is the identity model?

Measured {date} by `python -m export evaluate identity` on the standard pairs of lfw, which training never
saw ({missing_pairs} pairs of the list are missing: one of the pictures is not there). Masks are painted on
the second face of a pair, or on both: {painted_with}. A template is made as when somebody enrols for whom no
masked picture is taken: of the bare first face, and the same in a mask of our own painter. Accuracy is the
mean over ten folds, +- its standard deviation; each fold is judged by the threshold that is best on the other
nine.

{table}

The teachers are networks for bare faces. One is known by its embeddings of bare faces alone; the other one
saw the very faces that the model saw, cut as it wants them, one view of each.

## Thresholds, from every face against every other ({default})

{thresholds}

![Receiver operating characteristic]({stem}_roc.png)

## Refusing crops of low quality (bare - masked)

{quality}

## Unlocking, tried

People of celeba whom training never saw enrol bare with half of their pictures, ten at a time; masked
templates are painted. Then everybody tries with their other pictures, as they are and with a mask of another
painter, and strangers of lfw try likewise. A try is half a second of frames, without checks for signs of
life; asked for is the rate of false accepts of one view against one template.

{unlock}
"""


def write_report(result: dict[str, Any], wild: Wild, views: dict[str, np.ndarray], path: Path) -> None:
    """Writes the Markdown, the figures as JSON and the curve."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    path.write_text(
        REPORT.format(
            **{k: result[k] for k in ("date", "missing_pairs", "painted_with", "default")},
            table=table(result),
            thresholds=thresholds_table(result),
            quality=quality_table(result),
            unlock=unlock_table(result.get("unlock", [])),
            stem=path.stem,
        )
    )
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4.5), layout="constrained")
    rates = np.logspace(-3.4, 0, 60)
    for mode, (a, b) in MODES.items():
        scores = pair_scores(wild, views[a], views[b])
        tar = true_accepts(scores[wild.same], scores[~wild.same], rates.tolist())
        axes.plot(rates, list(tar.values()), label=mode)
    axes.set(xscale="log", xlabel="false accepts", ylabel="true accepts", ylim=(0, 1), title="lfw pairs")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path.with_name(f"{path.stem}_roc.png"), dpi=120)
    pyplot.close(figure)
