"""Mask states shown on the built-in clip against its truth: `python -m benchmarks.states`.

A segment is a stretch in which a person is in full view and wears the mask in one way; the frames around a
change in which the mask moves belong to none.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.camera import open_source
from edge.geometry import iou
from edge.pipeline import Pipeline
from edge.sinks.base import Sink
from edge.tasks.attributes import AttributesEstimator, AttributesVoter
from edge.tasks.face import FaceDetector
from edge.tflite import load_manifest, load_model
from edge.types import Analysis, Frame

TRUTH = Path(__file__).resolve().parent.parent / "tests" / "data" / "demo_truth.json"
MATCH = 0.4


@dataclass(slots=True, frozen=True)
class Segment:
    """What was shown while one person's mask stayed as it was.

    Attributes:
        person: id in the truth.
        state: the true one.
        first, last: frames.
        frames: of the segment.
        right: how many of them show the true state; a face that is not found shows none.
        late: frames from the real change, whose moving frames count here, to the first right one.
        changes: of what is shown, from the middle of the segment before to the middle of this one; in the
            first segment from its beginning, in the last one to its end. It should be 1, and 0 in the first.
        wrong: what was shown instead, by frame; "-" where the face was not found.
    """

    person: int
    state: str
    first: int
    last: int
    frames: int
    right: int
    late: int
    changes: int
    wrong: Mapping[int, str]


class _Collect(Sink):
    name = "collect"

    def __init__(self) -> None:
        self.analyses: list[Analysis] = []

    def write(self, frame: Frame, analysis: Analysis) -> None:
        self.analyses.append(analysis)


def run_demo(
    precision: str | None = None, *, attributes: bool = True, threads: int = 1, every_s: float | None = None
) -> list[Analysis]:
    """What the shipped models find in the clip.

    Args:
        precision: of the models; None = their default.
        attributes: look at mask state and gender too.
        threads: of the models.
        every_s: see `AttributesVoter`; None = its default.
    """
    manifest = load_manifest()
    detector = FaceDetector(load_model("face", precision=precision, threads=threads), manifest.entry("face"))
    voter = None
    if attributes:
        model = load_model("attributes", precision=precision, threads=threads)
        estimator = AttributesEstimator(model, manifest.entry("attributes"))
        voter = AttributesVoter(estimator, **({} if every_s is None else {"every_s": every_s}))
    collect = _Collect()
    Pipeline(open_source("demo"), detector, [collect], labeller=voter).run()
    return collect.analyses


def segments(analyses: Sequence[Analysis], truth: Sequence[Sequence[Mapping[str, Any]]]) -> list[Segment]:
    """Compare what was shown with the truth.

    Args:
        analyses: of all frames of the clip, in order.
        truth: per frame the faces that are there, as in `demo_truth.json`.
    """
    found = []
    for person in sorted({face["id"] for faces in truth for face in faces}):
        seen = {
            number: face
            for number, faces in enumerate(truth)
            for face in faces
            if face["id"] == person and not face["partial"]
        }
        shown = {number: _shown(analyses[number], face["box"]) for number, face in seen.items()}
        begun, middle = min(seen), min(seen)
        stretches = _stretches(seen)
        for numbers in stretches:
            state = seen[numbers[0]]["mask"]
            wrong = {number: shown[number] for number in numbers if shown[number] != state}
            last = numbers is stretches[-1]
            before, middle = middle, numbers[-1] if last else numbers[len(numbers) // 2]
            span = [shown[number] for number in range(before, middle + 1) if shown.get(number, "-") != "-"]
            right = [number for number in range(begun, numbers[-1] + 1) if shown.get(number) == state]
            found.append(
                Segment(
                    person,
                    state,
                    numbers[0],
                    numbers[-1],
                    len(numbers),
                    len(numbers) - len(wrong),
                    (right[0] if right else numbers[-1] + 1) - begun,
                    sum(a != b for a, b in itertools.pairwise(span)),
                    wrong,
                )
            )
            # The next state begins where the truth changes, amid the frames in which the mask moves.
            later = [number for number in seen if number > numbers[-1] and seen[number]["mask"] != state]
            begun = min(later, default=numbers[-1] + 1)
    return found


def _shown(analysis: Analysis, box: Sequence[float]) -> str:
    matches = [face for face in analysis.faces if iou(face.box, tuple(box)) >= MATCH]
    if not matches:
        return "-"
    best = max(matches, key=lambda face: iou(face.box, tuple(box)))
    return str((best.mask or {}).get("state") or "unknown")


def _stretches(seen: Mapping[int, Mapping[str, Any]]) -> list[list[int]]:
    """Frames in a row in which the mask is worn in one way and does not move."""
    rows: list[list[int]] = []
    for number, face in sorted(seen.items()):
        if face["changing"]:
            continue
        last = rows[-1][-1] if rows else -2
        if rows and last == number - 1 and seen[last]["mask"] == face["mask"]:
            rows[-1].append(number)
        else:
            rows.append([number])
    return rows


def table(found: Sequence[Segment]) -> str:
    """One line a segment, and a last one of all."""
    lines = ["person  state     frames        n  right      %  late  changes  instead"]
    for one in found:
        wrong: dict[str, int] = {}
        for what in one.wrong.values():
            wrong[what] = wrong.get(what, 0) + 1
        instead = ", ".join(f"{count} {what}" for what, count in wrong.items())
        lines.append(
            f"{one.person:6}  {one.state:8}  {one.first:4}-{one.last:<4} {one.frames:5}  {one.right:5}"
            f"  {one.right / one.frames:5.1%}  {one.late:4}  {one.changes:7}  {instead}".rstrip()
        )
    frames, right = sum(one.frames for one in found), sum(one.right for one in found)
    least = min((one.right / one.frames for one in found), default=0.0)
    lines.append(f"all: {right} of {frames} frames right ({right / max(frames, 1):.1%}), least {least:.1%}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point: prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.states", description=__doc__)
    parser.add_argument("--precision", help="of the models (default: the manifest's)")
    parser.add_argument("--every", type=float, metavar="S", help="how often each face is looked at")
    args = parser.parse_args(argv)
    truth = json.loads(TRUTH.read_text(encoding="utf-8"))["frames"]
    print(table(segments(run_demo(args.precision, every_s=args.every), truth)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
