"""Runs every shipped model file on fixed inputs and stores what comes out, here and in the emulator.

models.py inputs FILE               write the inputs: noise, and faces cut from the built-in clip
models.py outputs INPUTS FILE       run each model and precision on them; --default: one precision
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))

from edge.errors import ModelError  # noqa: E402
from edge.tflite import find_runtime, load_manifest, load_model  # noqa: E402

NOISE = 1  # rounds of noise for each model, beside the pictures


def write_inputs(path: Path) -> None:
    """For each model an array `name`: n x its input, uint8. Beside the file, frames/*.png of the clip."""
    import cv2

    truth = json.loads((ROOT / "tests" / "data" / "demo_truth.json").read_text())["frames"]
    seen: dict[str, int] = {}
    for number, faces in enumerate(truth):
        for face in faces:
            if not face["partial"] and not face.get("changing"):
                seen.setdefault(face["mask"], number + 10)
    numbers = {*seen.values(), next(number for number, faces in enumerate(truth) if not faces)}
    from edge.camera import open_source

    frames = []
    pictures = path.parent / "frames"
    pictures.mkdir(exist_ok=True)
    with open_source("demo") as clip:
        for frame in clip.frames():
            if frame.id in numbers:
                frames.append(frame.image)
                cv2.imwrite(str(pictures / f"{frame.id:03}.png"), frame.image)
    random = np.random.default_rng(7)
    arrays = {}
    for name in load_manifest().models:
        _, height, width, _ = load_model(name, threads=1).inputs[0].shape
        noise = random.integers(0, 256, (NOISE, height, width, 3), dtype=np.uint8)
        views = [
            cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)[..., ::-1]
            for image in frames[:2]
        ]
        arrays[name] = np.concatenate([noise, np.stack(views)])
    np.savez(path, **arrays)


def write_outputs(inputs: Path, path: Path, *, default_only: bool) -> None:
    """Arrays `name.precision.input.output`; `refused` lists the files that this runtime is too old for."""
    given, arrays, refused = np.load(inputs), {}, []
    for entry in load_manifest().models.values():
        for precision in [entry.default] if default_only else entry.files:
            try:
                model = load_model(entry.name, precision=precision, threads=1)
            except ModelError as error:
                refused.append(f"{entry.name}.{precision}: {error.args[0]}")
                continue
            dtype = model.inputs[0].dtype
            for number, picture in enumerate(given[entry.name]):
                answers = model.run_raw(picture[None].astype(dtype))
                for index, answer in enumerate(answers):
                    arrays[f"{entry.name}.{precision}.{number}.{index}"] = answer
    arrays["refused"] = np.array(refused, dtype=str)
    arrays["runtime"] = np.array(find_runtime().label)
    np.savez(path, **arrays)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["inputs", "outputs"])
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--default", action="store_true")
    args = parser.parse_args()
    if args.what == "inputs":
        write_inputs(args.files[0])
    else:
        write_outputs(args.files[0], args.files[1], default_only=args.default)


if __name__ == "__main__":
    main()
