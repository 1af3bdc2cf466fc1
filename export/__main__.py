"""`python -m export`: prepare, train, evaluate, convert, compare."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import Any

from edge.errors import MaskedgeError, UsageError

REPO = Path(__file__).resolve().parent.parent
RESULTS = REPO / "benchmarks" / "results"
REPORTS = {
    "face": RESULTS / "face_accuracy.json",
    "attributes": RESULTS / "attributes_report.md",
    "identity": RESULTS / "identity_report.md",
    "unmask": RESULTS / "unmask_report.md",
}
SIZES = {"face": "320x320", "attributes": "96x96", "identity": "112x112", "unmask": "128x128"}
# What the layers of each network reduce by in all.
MULTIPLES = {"face": 32, "attributes": 16, "identity": 16, "unmask": 16}

EXAMPLES = """
the road of a model, each step one command:
  python -m export prepare face --data DATA --teachers DIR   landmarks by the teacher, once (five minutes)
  python -m export train face --data DATA                    about two hours on 2 cores; run again to resume
  python -m export convert face --data DATA                  every precision, parity, manifest, card
  python -m export evaluate face --data DATA --teachers DIR  AP, false alarms, landmarks, other detectors
  python -m export compare A.tflite B.tflite --data DATA     two files on the same pictures

the same with `attributes` (mask state and gender), which needs the face model first:
  python -m export prepare attributes --data DATA --teachers DIR   pack aligned faces (15 minutes, 10 GB)
  python -m export train attributes                                about 4 hours on 2 cores
  python -m export train attributes --plain                        the two-class yardstick (4 minutes)
  python -m export convert attributes --data DATA --teachers DIR --masks DIR
  python -m export evaluate attributes --data DATA --teachers DIR --masks DIR
  python -m export sizes --data DATA --masks DIR                   accuracy against latency (20 minutes)

the same with `identity` (the same person, masked or not), which needs the face model first:
  python -m export prepare identity --data DATA --teacher FILE --helper FILE    pack faces (50 minutes, 8 GB)
  python -m export train identity                                  about 12 hours on 2 cores
  python -m export convert identity --data DATA --masks DIR
  python -m export evaluate identity --data DATA --masks DIR --teacher FILE

the same with `unmask` (what a mask hides), which needs the face model first; RUN is the run folder of the
attributes model, whose features judge the pictures:
  python -m export prepare unmask --data DATA --masks DIR        pack masked and bare faces (12 minutes, 5 GB)
  python -m export train unmask --features RUN                   about an hour on 2 cores
  python -m export train unmask --features RUN --student         the student project's network, to compare
  python -m export convert unmask --data DATA --masks DIR --features RUN
  python -m export evaluate unmask --data DATA --masks DIR --features RUN

to train on what ships, without the checkpoints behind it, say with faces of your own among the packed ones:
  python -m export restore identity                  runs/identity/restored, out of converted_models
  python -m export train identity --from runs/identity/restored --epochs 4 1

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

    def command(
        name: str, text: str, model: bool = True, choices: tuple[str, ...] = tuple(SIZES)
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        if model:
            sub.add_argument("model", choices=choices, help="which model")
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

    def teacher(sub: argparse.ArgumentParser) -> None:
        sub.add_argument(
            "--teacher",
            type=Path,
            metavar="FILE",
            help="identity: face recognition network to learn from, or to compare with, .tflite "
            "(docs/training.md says which)",
        )

    def masks(sub: argparse.ArgumentParser) -> None:
        sub.add_argument(
            "--masks",
            type=Path,
            help="folder with templates/ and textures/ of photographed masks, to paint scored "
            "faces (default: drawn ones); unmask: two thirds of them are for training",
        )

    def judges(sub: argparse.ArgumentParser) -> None:
        group = sub.add_mutually_exclusive_group()
        group.add_argument(
            "--features",
            type=Path,
            metavar="RUN",
            help="unmask: run folder of the attributes model, whose features tell how alike pictures look",
        )
        group.add_argument("--vgg", action="store_true", help="unmask: the same with VGG19 (needs internet)")

    def models(sub: argparse.ArgumentParser) -> None:
        sub.add_argument(
            "--models", type=Path, default=REPO / "converted_models", help="folder with the manifest"
        )

    sub = command(
        "prepare", "face: label the pictures with the teacher's landmarks; the others: pack the faces"
    )
    teachers(sub)
    teacher(sub)
    sub.add_argument(
        "--helper",
        type=Path,
        metavar="FILE",
        help="identity: another such network, .onnx, for better guesses at what the embeddings that come "
        "with the data would be of faces that nobody has",
    )
    masks(sub)
    run_folder(sub)
    sub = command("train", "train, or go on from the last checkpoint")
    run_folder(sub)
    judges(sub)
    sub.add_argument(
        "--epochs",
        type=int,
        nargs="+",
        metavar="N",
        help="epochs of each stage (default: those of the recipe, see docs/training.md)",
    )
    kind = sub.add_mutually_exclusive_group()
    kind.add_argument(
        "--from",
        dest="begin",
        type=Path,
        metavar="RUN",
        help="begin with the weights of another run folder, such as `restore` makes (its network may have "
        "fewer blocks), and train only the last stages of the recipe: as many as --epochs has numbers, or "
        "one",
    )
    kind.add_argument(
        "--student",
        action="store_true",
        help="unmask: the network that ours is compared with",
    )
    kind.add_argument(
        "--plain", action="store_true", help="attributes: the two-class model that ours is compared with"
    )
    sub = command(
        "restore",
        "make a run folder out of a shipped float32 file, to train on from there with `train --from`",
        choices=("attributes", "identity", "unmask"),
    )
    models(sub)
    run_folder(sub)
    sub.add_argument(
        "--out", type=Path, metavar="RUN", help="folder to write (default: RUN/restored, of --run)"
    )
    sub = command("convert", "write every precision, check parity with Keras, write manifest and card")
    run_folder(sub)
    teachers(sub)
    masks(sub)
    judges(sub)
    sub.add_argument("--out", type=Path, default=REPO / "converted_models", help="default: converted_models")
    sub.add_argument(
        "--size",
        metavar="WxH",
        help=f"input size (default: {', '.join(' '.join(item) for item in SIZES.items())})",
    )
    sub = command("evaluate", "score every precision on pictures never trained on")
    teachers(sub)
    teacher(sub)
    masks(sub)
    judges(sub)
    models(sub)
    run_folder(sub)
    sub.add_argument(
        "--report",
        type=Path,
        help="file to write, the rest goes beside it "
        f"(default: in benchmarks/results/, {', '.join(report.name for report in REPORTS.values())})",
    )
    sub = command(
        "sizes", "attributes: accuracy against latency of several sizes, trained alike", model=False
    )
    masks(sub)
    models(sub)
    run_folder(sub)
    sub.set_defaults(model="attributes")
    sub = command("compare", "compare the outputs of two .tflite files on held-out pictures", model=False)
    sub.set_defaults(model="face")
    sub.add_argument("files", type=Path, nargs=2, metavar="FILE")
    return main


def parse_size(text: str, model: str = "face") -> tuple[int, int]:
    """WxH as numbers.

    Raises:
        ValueError: if the model does not come in that size.
    """
    width, _, height = text.partition("x")
    step = MULTIPLES[model]
    whole = width.isdigit() and height.isdigit() and int(width) and int(height)
    if not (whole and int(width) % step == int(height) % step == 0):
        raise ValueError(f"--size {text}: give WIDTHxHEIGHT in multiples of {step}, such as {SIZES[model]}")
    if model != "face" and width != height:
        raise ValueError(f"--size {text}: the crops are square, such as {SIZES[model]}")
    return int(width), int(height)


def run(args: argparse.Namespace) -> int:
    """Does what the command line says; returns the exit code."""
    packed = args.command == "restore" or (args.model != "face" and args.command == "train")
    if not packed and not (args.data / "scenes").is_dir():
        raise FileNotFoundError(f"no data at {args.data}: give --data, a folder with scenes/ and faces/")
    args.run = getattr(args, "run", None) or Path("runs") / args.model
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # Both are read when Keras and TensorFlow are imported, which is inside the commands.
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if args.command in ("convert", "evaluate"):
        args.report = getattr(args, "report", None) or REPORTS[args.model]
    if args.command == "restore":
        _restore(args)
        return 0
    {"face": _face, "attributes": _attributes, "identity": _identity, "unmask": _unmask}[args.model](args)
    return 0


def _stages(stages: tuple, epochs: list[int] | None, begin: Path | None = None) -> tuple:
    from dataclasses import replace

    if begin is not None:
        if not (begin / "averaged.npz").exists():
            raise FileNotFoundError(f"no trained weights in {begin}: see `python -m export restore --help`")
        stages = stages[-len(epochs or [1]) :]
    if epochs and len(epochs) != len(stages):
        raise UsageError(
            f"--epochs takes {len(stages)} numbers for this model", remedy="give one number a stage"
        )
    counts = epochs or [s.epochs for s in stages]
    return tuple(replace(s, epochs=n) for s, n in zip(stages, counts, strict=True))


def say_files(entry: dict[str, Any], figure: str) -> None:
    """A line for each converted file; `figure` is what its parity is about, in a word or two."""
    for file in entry["files"].values():
        print(
            f"{file['file']:26} {file['bytes']:>9,} bytes  {figure} {file['parity']['value']:.4f}  "
            f"drop {file['parity']['drop']:+.4f}  min_runtime {file['min_runtime']}"
        )


def _restore(args: argparse.Namespace) -> None:
    from export.restore import restore

    path = restore(args.model, args.models, args.run / "packs", args.out or args.run / "restored")
    print(f"weights to go on from: {path}")


def _face(args: argparse.Namespace) -> None:
    if getattr(args, "begin", None):
        raise UsageError("--from is not for the face model", remedy="it trains from scratch in two hours")
    if args.command == "prepare":
        from export.data.scenes import YUNET, prepare

        if not args.teachers:
            raise ValueError(f"prepare needs --teachers, the folder with {YUNET}")
        out = prepare(args.data, args.teachers / YUNET, args.run.parent / "landmarks.json")
        print(f"wrote {out}")
    elif args.command == "train":
        from export.train.face import STAGES, train

        print(f"trained weights: {train(args.data, args.run, _stages(STAGES, args.epochs))}")
    elif args.command == "convert":
        from export.face_model import convert_face

        size = parse_size(args.size or SIZES["face"])
        entry = convert_face(args.data, args.run, args.out, size, teachers=args.teachers)
        say_files(entry, "AP")
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


def _attributes(args: argparse.Namespace) -> None:
    packs, plain = args.run / "packs", args.run / "plain"
    if args.command == "prepare":
        from export.data.attribute_faces import prepare
        from export.data.scenes import YUNET

        if not args.teachers:
            raise ValueError(f"prepare needs --teachers, the folder with {YUNET}")
        print(f"packed faces: {prepare(args.data, args.teachers, packs)}")
    elif args.command == "train":
        from export.train.attributes import STAGES, train, train_plain

        if args.plain:
            print(f"trained weights of the yardstick: {train_plain(packs, plain)}")
        else:
            stages = _stages(STAGES, args.epochs, args.begin)
            print(f"trained weights: {train(packs, args.run, stages, begin=args.begin)}")
    elif args.command == "convert":
        from export.attributes_model import convert_attributes

        entry = convert_attributes(
            args.data,
            args.run,
            packs,
            args.out,
            parse_size(args.size or SIZES["attributes"], "attributes")[0],
            teachers=args.teachers,
            masks=args.masks,
            plain_run=plain,
            report=args.report,
        )
        say_files(entry, "main figure")
    elif args.command == "evaluate":
        from export.attributes_report import table
        from export.evaluate_attributes import evaluate

        result = evaluate(
            args.data,
            args.models,
            teachers=args.teachers,
            masks=args.masks,
            plain=plain,
            report=args.report,
        )
        print(f"{table(result)}\n\nthe whole report: {args.report}")
    elif args.command == "sizes":
        from export.attributes_sizes import compare

        shipped = args.models / "attributes.int8.tflite"
        for row in compare(
            args.data,
            packs,
            args.run / "sizes",
            RESULTS / "attributes_sizes.json",
            shipped=shipped if shipped.exists() else None,
            masks=args.masks,
        ):
            print(f"{row['name']:16} main figure {row['main']:.4f}  int8 p50 {row['int8_ms']['p50']:.3f} ms")


def _identity(args: argparse.Namespace) -> None:
    packs = args.run / "packs"
    if args.command == "prepare":
        from export.data.identity_faces import prepare

        if not args.teacher:
            raise ValueError(
                "prepare needs --teacher, a face recognition network: docs/training.md says where to get one"
            )
        print(f"packed faces: {prepare(args.data, packs, args.teacher, args.helper)}")
    elif args.command == "train":
        from export.train.identity import STAGES, train

        stages = _stages(STAGES, args.epochs, args.begin)
        print(f"trained weights: {train(packs, args.run, stages, begin=args.begin)}")
    elif args.command == "convert":
        from export.identity_model import convert_identity

        size = parse_size(args.size or SIZES["identity"], "identity")[0]
        entry = convert_identity(
            args.data, args.run, packs, args.out, size, masks=args.masks, report=args.report
        )
        say_files(entry, "accuracy")
    elif args.command == "evaluate":
        from export.evaluate_identity import evaluate, table
        from export.evaluate_unlock import unlock_table

        result = evaluate(
            args.data,
            args.models,
            masks=args.masks,
            teacher=args.teacher,
            report=args.report,
            trials=True,
        )
        print(f"{table(result)}\n\n{unlock_table(result['unlock'])}\n\nthe whole report: {args.report}")


def _unmask(args: argparse.Namespace) -> None:
    packs = args.run / "packs"
    if args.command == "prepare":
        from export.data.unmask_faces import prepare

        print(f"packed faces: {prepare(args.data, packs, masks=args.masks)}")
        return
    from export.train.unmask import COMPARED, STAGES, own_features, train, vgg_features

    features = own_features(args.features) if args.features else vgg_features() if args.vgg else None
    if args.command == "train":
        from export.models.unmask import StudentConfig

        run, stages, network = args.run, STAGES, None
        if args.student:
            run, stages, network = run / "student", COMPARED, StudentConfig()
        stages = _stages(stages, args.epochs, args.begin)
        path = train(packs, run, stages, network, features=features, begin=args.begin)
        print(f"trained weights: {path}")
    elif args.command == "convert":
        from export.unmask_model import convert_unmask

        size = parse_size(args.size or SIZES["unmask"], "unmask")[0]
        entry = convert_unmask(
            args.data,
            args.run,
            packs,
            args.out,
            size,
            masks=args.masks,
            features=features,
            report=args.report,
        )
        for precision, file in entry["files"].items():
            print(
                f"{file['file']:24} {file['bytes']:>9,} bytes  region {file['parity']['value']:.2f} dB  "
                f"lost {file['parity']['drop']:+.3f}  {file['ms']:.1f} ms  min_runtime {file['min_runtime']}"
                + ("  (default)" if precision == entry["default"] else "")
            )
    elif args.command == "evaluate":
        from export.evaluate_unmask import evaluate, table

        result = evaluate(
            args.data, args.models, masks=args.masks, run=args.run, features=features, report=args.report
        )
        print(f"{table(result)}\n\nthe whole report: {args.report}")


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
