"""Tries to unlock, the device's way, with pictures of people who enrolled and of people who did not.

People are those of celeba whom no model was trained to tell apart. Each enrols bare with half of their
pictures; masked templates are painted. A try is a picture shown for half a second, a little moved from frame
to frame, without checks for signs of life.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from edge import assembly
from edge.camera import read_image
from edge.config import FARS, Config
from edge.errors import InputError
from edge.tflite import load_manifest
from edge.types import Analysis, Frame
from edge.unlock.enrol import Enroller
from edge.unlock.gate import Decision, Gate
from edge.unlock.policy import Gallery, Limits
from edge.unlock.vault import Person
from export.data.crop_sets import Entry, entries
from export.data.identity_faces import HELD_OUT, names_of
from export.evaluate_attributes import painter

FRAMES = 6
LEAST_PICTURES = 8
GROUP = 10
"""People who are enrolled together."""
STRANGERS = 2000


def frames_of(image: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """A picture as a camera would see it for a moment: a little moved, scaled, lit and grainy."""
    height, width = image.shape[:2]
    out = []
    for _ in range(FRAMES):
        scale, angle = rng.uniform(0.97, 1.03), rng.uniform(-2, 2)
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle, scale)
        matrix[:, 2] += rng.uniform(-0.01, 0.01, 2) * np.array((width, height))
        moved = cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REFLECT)
        lit = moved * rng.uniform(0.95, 1.05) + rng.normal(0, 2, moved.shape)
        out.append(np.clip(lit, 0, 255).astype(np.uint8))
    return out


class Kiosk:
    """The device with the models of a folder.

    Args:
        models: folder with the manifest.
    """

    def __init__(self, models: Path) -> None:
        config = Config(models=str(models), threads=1, tasks=("mask",))
        self.detector = assembly.detector(config)
        self.embedder = assembly.embedder(config)
        self.estimator = assembly.estimator(config)
        self.entry = load_manifest(models).entry("identity")

    def _show(self, sink: Any, images: Sequence[np.ndarray], name: str | None) -> None:
        for number, image in enumerate(images):
            faces = self.detector.detect(image)
            if name is None:  # as the tracker would number a face that hardly moves
                faces = tuple(replace(face, track=1) for face in faces)
            height, width = image.shape[:2]
            time = number / 10
            sink.write(Frame(image, number, time, name), Analysis(name, number, time, width, height, faces))

    def enrol(self, name: str, images: Sequence[np.ndarray]) -> Person | None:
        """The templates of somebody; None where the device would refuse."""
        assert self.estimator is not None
        sink = Enroller(self.embedder, self.estimator, live=False, seed=zlib.crc32(name.encode()))
        self._show(sink, images, name)
        least = Limits.of(self.entry, FARS[0]).scores["bare"]
        try:
            return sink.person(name, least=least)
        except InputError:
            return None

    def attempt(self, gallery: Gallery, image: np.ndarray, seed: int) -> Decision:
        """One try with a picture."""
        gate = Gate(self.embedder, gallery, checks=list)
        self._show(gate, frames_of(image, np.random.default_rng(seed)), None)
        gate.close()
        assert gate.decision is not None
        return gate.decision


def _people(data: Path) -> dict[str, list[Entry]]:
    folder = data / "faces" / "celeba"
    known = names_of(folder)
    out: dict[str, list[Entry]] = {}
    for entry in entries(folder):
        who = known.get(str(entry.path.relative_to(folder)), "")
        if who and int(who) % HELD_OUT == 0:
            out.setdefault(who, []).append(entry)
    return {who: faces for who, faces in sorted(out.items()) if len(faces) >= LEAST_PICTURES}


def unlock_trials(data: Path, models: Path, *, masks: Path | None = None) -> list[dict[str, Any]]:
    """Tries of the right people, bare and masked, and of strangers; for each false accept rate.

    Args:
        data: folder with `faces/celeba` and `faces/lfw`.
        models: folder with the manifest.
        masks: as in `export.evaluate_attributes.painter`.

    Returns:
        Rows with `far` and, as counts, `enrolled`, `refused_to_enrol`, and for `bare` and `masked` tries
        `right`, `wrong` (accepted for somebody else) and `tries`, and `strangers` tries with `false_accepts`.
        Empty where nobody could be enrolled.
    """
    kiosk = Kiosk(models)
    paint, _ = painter(masks)
    templates: list[Person] = []
    rest: list[tuple[str, Entry]] = []
    refused = 0
    for who, faces in tqdm(_people(data).items(), desc="enrolled", unit="person", leave=False):
        half = len(faces) // 2
        person = kiosk.enrol(who, [read_image(face.path) for face in faces[:half]])
        if person is None:
            refused += 1
            continue
        templates.append(person)
        rest += [(who, face) for face in faces[half:]]
    if not templates:
        return []
    groups = [templates[i : i + GROUP] for i in range(0, len(templates), GROUP)]
    strangers = entries(data / "faces" / "lfw")
    strangers = strangers[:: max(1, len(strangers) // STRANGERS)]
    rows = []
    for far in FARS[:2]:
        galleries = [Gallery(group, Limits.of(kiosk.entry, far)) for group in groups]
        of = {person.name: galleries[i // GROUP] for i, person in enumerate(templates)}
        row: dict[str, Any] = {"far": far, "enrolled": len(templates), "refused_to_enrol": refused}
        for kind in ("bare", "masked"):
            row[kind] = {"right": 0, "wrong": 0, "tries": 0}
        for number, (who, face) in enumerate(tqdm(rest, desc=f"right people {far:g}", leave=False)):
            image = read_image(face.path)
            rng = np.random.default_rng((9, number))
            for kind, shown in (("bare", image), ("masked", paint(image, face.landmarks, "correct", rng))):
                name = kiosk.attempt(of[who], shown, number).name
                row[kind]["tries"] += 1
                row[kind]["right"] += name == who
                row[kind]["wrong"] += name not in (None, who)
        row |= {"strangers": 0, "false_accepts": 0}
        for number, face in enumerate(tqdm(strangers, desc=f"strangers {far:g}", leave=False)):
            image = read_image(face.path)
            shown = paint(image, face.landmarks, "correct", np.random.default_rng((8, number)))
            for picture in (image, shown):
                row["strangers"] += 1
                decision = kiosk.attempt(galleries[number % len(galleries)], picture, number)
                row["false_accepts"] += decision.name is not None
        rows.append(row)
    return rows


def unlock_table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    if not rows:
        return "Not tried when this was written: `python -m export evaluate identity` does."
    lines = [
        "| asked for | right person, bare | right person, masked | taken for another | strangers accepted |",
        "|---" * 5 + "|",
    ]
    for row in rows:
        cells = [
            f"{row[kind]['right'] / max(row[kind]['tries'], 1):.1%} (n {row[kind]['tries']})"
            for kind in ("bare", "masked")
        ]
        wrong = row["bare"]["wrong"] + row["masked"]["wrong"]
        lines.append(
            f"| {row['far']:.2%} | {cells[0]} | {cells[1]} | {wrong} "
            f"| {row['false_accepts']} of {row['strangers']} tries |"
        )
    return "\n".join(lines)
