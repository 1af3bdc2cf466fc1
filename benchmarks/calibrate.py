"""False and true accepts of the identity model on the user's own people: a folder for each person."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.terminal import progress
from edge import assembly
from edge.camera import find_pictures, read_image
from edge.config import FARS, load_config
from edge.errors import InputError, SinkError, UsageError
from edge.masks import paint_mask
from edge.tasks.identity import Embedder
from edge.unlock.enrol import between
from edge.unlock.policy import Limits
from export.verification import threshold_at

KINDS = {
    "bare - bare": ("bare", "bare"),
    "bare - masked": ("bare", "masked"),
    "template - masked": ("template", "masked"),
    "template - bare": ("template", "bare"),
}
"""Pairs by what somebody who enrolled is compared by, and how somebody who tries is seen."""

_EPILOG = """DIR has a folder for each person, with two or more pictures of each, and one face in a picture:

  people/ada/1.jpg  people/ada/2.jpg  people/grace/1.jpg ...

Every face is seen as it is, and once more with a mask painted on; the template for masked faces is made of
both, as when enrolling. Give pictures without masks, from the camera and the place where people will unlock.
The table says for each threshold of the manifest how many pairs of different people of yours it takes for one
person, and how many pairs of one person it accepts; with the pairs that there are, and what they can tell:
from n pairs without a false accept follows a rate below 3 / n (95 %).

example:
  maskedge bench calibrate people/ --json calibration.json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `maskedge bench calibrate`."""
    parser.epilog = _EPILOG
    parser.add_argument("folder", metavar="DIR", help="with a folder of pictures for each person")
    parser.add_argument("--models", metavar="DIR", help="folder of the models and their manifest.json")
    parser.add_argument("--precision", metavar="NAME", help="of the models; default: the manifest's")
    parser.add_argument("--json", metavar="FILE", help="also write the result here")


@dataclass(slots=True)
class Faces:
    """Embedded faces.

    Attributes:
        person: n int.
        views: "bare" and "masked", n x d float32 of length 1 each.
        names: of the people.
        left_out: pictures without exactly one face, or that cannot be read.
    """

    person: np.ndarray
    views: dict[str, np.ndarray]
    names: list[str]
    left_out: list[str]


def read_people(folder: Path, detector: Any, embedder: Embedder) -> Faces:
    """Every face of a folder of folders, bare and with a painted mask.

    The mask of a picture is always the same; its landmarks are found anew under it, as on the device.

    Raises:
        UsageError: it is no such folder, or has no two people, or nobody with two pictures.
    """
    folders = sorted(one for one in folder.iterdir() if one.is_dir()) if folder.is_dir() else []
    person: list[int] = []
    views: dict[str, list[np.ndarray]] = {"bare": [], "masked": []}
    left_out: list[str] = []
    for number, one in enumerate(folders):
        try:
            paths = find_pictures([str(one)])
        except InputError:
            continue
        for path in paths:
            progress(f"{one.name}: {len(person)} faces")
            try:
                image = read_image(path)
                (face,) = detector.detect(image)
                rng = np.random.default_rng(len(person))
                covered = paint_mask(image, face.landmarks, worn="correct", rng=rng).image
                again = max(detector.detect(covered), key=lambda found: found.score, default=face)
                bare = embedder.embed(image, face.landmarks).vector
                masked = embedder.embed(covered, again.landmarks).vector
            except (InputError, ValueError):  # also: not exactly one face
                left_out.append(str(path))
                continue
            person.append(number)
            views["bare"].append(bare)
            views["masked"].append(masked)
    progress("")
    if len(set(person)) < 2 or len(person) == len(set(person)):
        raise UsageError(
            f"{folder} has no two people with a face each, and one of them with two pictures",
            remedy="give a folder with a folder of pictures for each person",
        )
    arrays = {kind: np.array(vectors, np.float32) for kind, vectors in views.items()}
    return Faces(np.array(person), arrays, [one.name for one in folders], left_out)


def calibrate(faces: Faces, limits: list[Limits]) -> list[dict[str, Any]]:
    """Rows for each kind of pair and each threshold, and for the threshold that the rate asks for here.

    Args:
        faces: of `read_people`.
        limits: thresholds of the manifest.
    """
    same = faces.person[:, None] == faces.person[None]
    rows = []
    views = faces.views | {"template": between(faces.views["bare"], faces.views["masked"])}
    for kind, (a, b) in KINDS.items():
        scores = views[a] @ views[b].T
        once = np.triu(np.ones(same.shape, bool), 1) if a == b else ~np.eye(len(same), dtype=bool)
        genuine, others = scores[same & once], scores[~same & once]
        mode = "masked" if a == "template" else "bare"
        for limit in limits:
            enough = others.size * limit.far >= 10
            rows.append(
                {
                    "pairs": kind,
                    "asked_far": limit.far,
                    "threshold": limit.scores[mode],
                    "false_accepts": int(np.sum(others > limit.scores[mode])),
                    "n_others": int(others.size),
                    "true_accepts": int(np.sum(genuine > limit.scores[mode])),
                    "n_same": int(genuine.size),
                    # With fewer than ten false accepts a threshold of one's own would be chance.
                    "own_threshold": round(threshold_at(others, limit.far), 4) if enough else None,
                }
            )
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| pairs | asked for | threshold | false accepts (n) | true accepts (n) | threshold for it here |",
        "|---" * 6 + "|",
    ]
    for row in rows:
        found, n = row["false_accepts"], row["n_others"]
        rate = f"{found / n:.4%}" if found else f"below {3 / n:.4%}"
        own = f"{row['own_threshold']:.3f}" if row["own_threshold"] is not None else "too few pairs"
        lines.append(
            f"| {row['pairs']} | {row['asked_far']:.3%} | {row['threshold']:.3f} | {found}: {rate} ({n:,}) "
            f"| {row['true_accepts'] / row['n_same']:.1%} ({row['n_same']:,}) | {own} |"
        )
    return "\n".join(lines)


def main(args: argparse.Namespace) -> int:
    """`maskedge bench calibrate`."""
    config = load_config(overrides={"models": args.models, "precision": args.precision})
    entry, embedder = assembly.identity_entry(config), assembly.embedder(config)
    faces = read_people(Path(args.folder), assembly.detector(config), embedder)
    rows = calibrate(faces, [Limits.of(entry, far) for far in FARS])
    if args.json:
        content = {"version": 1, "kind": "calibrate", "faces": len(faces.person), "rows": rows}
        try:
            Path(args.json).write_text(json.dumps(content, indent=1) + "\n")
        except OSError as error:
            why = f"cannot write {args.json} ({error.strerror})"
            raise SinkError(why, remedy="check the folder") from None
    people = len(set(faces.person.tolist()))
    print(f"{len(faces.person)} faces of {people} people, {len(faces.left_out)} pictures left out\n")
    print(table(rows))
    return 0
