"""`python -m export`: prepare, train, evaluate, convert, compare."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

from edge.errors import MaskedgeError

REPO = Path(__file__).resolve().parent.parent

EXAMPLES = """
the road of a model, each step one command:
  python -m export prepare face --data DATA --teachers DIR   landmarks by the teacher, once (five minutes)
  python -m export train face --data DATA                    about two hours on 2 cores; run again to resume
  python -m export convert face --data DATA                  every precision, parity, manifest, card
  python -m export evaluate face --data DATA --teachers DIR  AP, false alarms, landmarks, other detectors
  python -m export compare A.tflite B.tflite --data DATA     two files on the same pictures

DATA holds scenes/SET/images/*.jpg, scenes/SET/annotations/*.xml (PASCAL VOC) and faces/SET/landmarks.csv;
see docs/training.md for the sets and for how to bring your own.
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    main = argparse.ArgumentParser(
        prog="python -m export",
        description="Train, convert and score the models. Needs TensorFlow.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = main.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str, model: bool = True) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        if model:
            sub.add_argument("model", choices=["face"], help="which model")
        sub.add_argument(
            "--data",
            type=Path,
            default=Path(os.environ.get("MASKEDGE_DATA", "data")),
            help="folder with scenes/ and faces/ (default: $MASKEDGE_DATA, else ./data)",
        )
        return sub

    def run_folder(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--run", type=Path, help="folder for checkpoints (default: runs/MODEL)")

    def teachers(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--teachers", type=Path, help="folder with the reference detectors")

    sub = command("prepare", "label the training pictures with the teacher's landmarks")
    teachers(sub)
    run_folder(sub)
    sub = command("train", "train, or go on from the last checkpoint")
    run_folder(sub)
    sub.add_argument(
        "--epochs",
        type=int,
        nargs=2,
        metavar=("FIRST", "SECOND"),
        help="epochs of the two stages (default: 40 and 16)",
    )
    sub = command("convert", "write every precision, check parity with Keras, write manifest and card")
    run_folder(sub)
    teachers(sub)
    sub.add_argument("--out", type=Path, default=REPO / "converted_models", help="default: converted_models")
    sub.add_argument(
        "--size", default="320x320", metavar="WxH", help="input size, multiples of 32 (default: %(default)s)"
    )
    sub = command("evaluate", "score every precision on pictures never trained on")
    teachers(sub)
    sub.add_argument(
        "--models", type=Path, default=REPO / "converted_models", help="folder with the manifest"
    )
    sub.add_argument(
        "--report",
        type=Path,
        default=REPO / "benchmarks" / "results" / "face_accuracy.json",
        help="JSON to write, a plot goes beside it (default: %(default)s)",
    )
    sub = command("compare", "compare the outputs of two .tflite files on held-out pictures", model=False)
    sub.add_argument("files", type=Path, nargs=2, metavar="FILE")
    return main


def parse_size(text: str) -> tuple[int, int]:
    """WxH as numbers.

    Raises:
        ValueError: if it is no size in multiples of 32.
    """
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(width) % 32 == int(height) % 32 == 0):
        raise ValueError(f"--size {text}: give WIDTHxHEIGHT in multiples of 32, such as 320x320")
    return int(width), int(height)


def run(args: argparse.Namespace) -> int:
    """Does what the command line says; returns the exit code."""
    if not (args.data / "scenes").is_dir():
        raise FileNotFoundError(f"no data at {args.data}: give --data, a folder with scenes/ and faces/")
    runs = getattr(args, "run", None) or Path("runs") / "face"
    if args.command in ("train", "convert"):
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        # Both are read when Keras and TensorFlow are imported, which is inside the commands.
        os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if args.command == "prepare":
        from export.data.scenes import YUNET, prepare

        if not args.teachers:
            raise ValueError(f"prepare needs --teachers, the folder with {YUNET}")
        out = prepare(args.data, args.teachers / YUNET, runs.parent / "landmarks.json")
        print(f"wrote {out}")
    elif args.command == "train":
        from export.train.face import STAGES, train

        stages = STAGES
        if args.epochs:
            from dataclasses import replace

            stages = tuple(replace(s, epochs=n) for s, n in zip(STAGES, args.epochs, strict=True))
        print(f"trained weights: {train(args.data, runs, stages)}")
    elif args.command == "convert":
        from export.face_model import convert_face

        entry = convert_face(args.data, runs, args.out, parse_size(args.size), teachers=args.teachers)
        for file in entry["files"].values():
            print(
                f"{file['file']:24} {file['bytes']:>9,} bytes  AP {file['parity']['ap']:.4f}  "
                f"drop {file['parity']['ap_drop']:+.4f}  min_runtime {file['min_runtime']}"
            )
    elif args.command == "evaluate":
        from export.evaluate_face import evaluate, table

        print(table(evaluate(args.data, args.models, teachers=args.teachers, report=args.report)))
    elif args.command == "compare":
        from edge.tflite import Model
        from export import parity
        from export.evaluate_face import load_dev
        from export.face_model import by_width, fit_pixels

        a, b = (Model(path) for path in args.files)
        size = a.inputs[0].shape[2], a.inputs[0].shape[1]
        pictures = [fit_pixels(image, size) for image in load_dev(args.data / "scenes").images]
        figures = parity.compare((by_width(a, a.run(p)), by_width(b, b.run(p))) for p in pictures)
        for name, row in figures.items():
            print(f"{name:10} " + "  ".join(f"{k} {v}" for k, v in row.items()) + f"  n {len(pictures)}")
    return 0


def main(argv: list[str] | None = None) -> int:
    """Entry point; errors are one line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    args = parser().parse_args(argv)
    try:
        return run(args)
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on from the last checkpoint", file=sys.stderr)
        return 130
    except MaskedgeError as error:
        print(f"export: error: {error}", file=sys.stderr)
        return error.exit_code
    except (ValueError, FileNotFoundError) as error:
        print(f"export: error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
