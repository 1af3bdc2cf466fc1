"""The command `maskedge`. Heavy imports stand inside the commands, so that --help is quick."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from edge import __version__
from edge.config import LOG_LEVELS, Config, default_file, flag_of, load_config, options_of
from edge.errors import InputError, MaskedgeError, ModelError, UsageError

if TYPE_CHECKING:
    import numpy as np

    from edge.camera import Source
    from edge.sinks import Canvas, Sink
    from edge.types import Analysis, Frame

log = logging.getLogger(__name__)

_LOADED = time.monotonic()

_EXAMPLES = """examples:
  maskedge run --source demo            the built-in clip
  maskedge run --source usb:0           a camera
  maskedge image photo.jpg --out found  a picture, and a copy with the boxes drawn in the folder found
  maskedge run --tasks mask             how masks are worn, without a look at gender
  maskedge unmask photo.jpg --out faces what may be under the masks, made up by a model
  maskedge doctor                       if anything does not work"""

_EXIT_CODES = """exit codes:
  0 done   1 some inputs failed, or an output could not be written   2 wrong use or configuration
  3 a model is missing or damaged   4 no camera, or it was lost   5 nobody enrolled   130 interrupted"""

_TASKS_HELP = """tasks: mask and gender unless --tasks says otherwise; faces are always found.
  --tasks mask   never looks at, stores or prints gender. It is a guess by appearance in two classes, and many
                 places should not collect it.
  --tasks face   faces alone; does not load the attributes model.
  --tasks mask,identity   maskedge run also names people who enrolled (maskedge enrol), masked or not.
  --tasks mask,unmask     maskedge run also shows what may be under the masks: plausible, not true."""


class _Parser(argparse.ArgumentParser):
    """Reports wrong use like every other error: in one line."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, remedy=f"see {self.prog} --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: arguments without the program's name; by default those of the process.

    Returns:
        The exit code.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    debug = bool(os.environ.get("MASKEDGE_DEBUG")) or "--debug" in argv
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # names of files may be no text at all
    try:
        code = _run(argv)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output has what it wanted (`| head`). Python would complain at its exit.
        _discard_stdout()
        return 0
    except MaskedgeError as error:
        if debug:
            raise
        return _fail(str(error), error.exit_code)
    except OSError as error:
        if debug:
            raise
        _discard_stdout()
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}: check free space and rights", 1)
    except Exception as error:
        if debug:
            raise
        what = " ".join(f"{type(error).__name__} {error}".split())
        return _fail(f"internal fault ({what}): run again with --debug and report what it prints", 1)


def _fail(message: str, code: int) -> int:
    if sys.stderr is not None:
        begin = "<3>" if _to_journal() else "maskedge: error: "
        print(f"{begin}{' '.join(message.split())}", file=sys.stderr)
    return code


def _discard_stdout() -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(argv: list[str]) -> int:
    parser = _parser(argv)
    try:
        args = parser.parse_args(argv)
    except SystemExit as done:  # --help and --version
        return int(done.code or 0)
    if args.command is None:
        parser.print_help(sys.stderr)
        return 2
    _start_log(args.log_level or ("debug" if args.debug else "warning"))
    run: Callable[[argparse.Namespace], int] = args.run
    return run(args)


def _start_log(level: str) -> None:
    handler = logging.StreamHandler()  # standard error as it is now
    handler.setFormatter(_JournalFormat() if _to_journal() else _LogFormat())
    for name in ("edge", "benchmarks"):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(level.upper())


def _to_journal() -> bool:
    """Whether standard error is the journal, which knows the name and time of each line by itself."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        info = os.fstat(2)
    except OSError:
        return False
    return (device, inode) == (str(info.st_dev), str(info.st_ino))


class _JournalFormat(logging.Formatter):
    _PRIORITY = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))

    def format(self, record: logging.LogRecord) -> str:
        priority = next((number for level, number in self._PRIORITY if record.levelno >= level), 7)
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).splitlines() or [""])


class _LogFormat(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        # On a terminal the line may hold the status of the loop.
        wipe = "\r\x1b[K" if sys.stderr is not None and sys.stderr.isatty() else ""
        return f"{wipe}maskedge: {level}{super().format(record)}"


# --------------------------------------------------------------------------------------------- options


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    parser = _Parser(
        prog="maskedge",
        description="Finds faces in pictures and camera streams and tells how each wears a mask. "
        "Nothing leaves this machine.",
        epilog=f"{_EXAMPLES}\n\n{_EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"maskedge {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)

    def add(name: str, run: Callable[[argparse.Namespace], int], help: str, epilog: str) -> _Parser:
        command: _Parser = commands.add_parser(
            name,
            help=help,
            description=f"{help[0].upper()}{help[1:]}.",
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.set_defaults(run=run)
        command.add_argument("--log-level", choices=LOG_LEVELS, help="how much to tell on standard error")
        command.add_argument("--debug", action="store_true", help="show where an error comes from")
        return command

    # Every start waits for this: the many options are for the command that was asked for.
    asked = next((word for word in argv if not word.startswith("-")), "")
    _add_run(add, asked)
    _add_image(add)
    _add_unmask(add)
    _add_unlock(add, asked)
    models = add(
        "models",
        _models,
        "list the models and check that their files are whole",
        "example:\n  maskedge models --check\n\nexit code 3: a file is missing or damaged",
    )
    _add_model_folder(models)
    models.add_argument("--json", action="store_true", help="print one JSON object")
    models.add_argument(
        "--check", action="store_true", help="also load each file with the runtime in use here"
    )
    doctor = add(
        "doctor",
        _doctor,
        "say what this machine has, what is missing, and what to do about it",
        """examples:
  maskedge doctor
  maskedge doctor --source picamera2      also read a frame from there, as the loop would
  maskedge doctor --config maskedge.toml

exit codes: 0 the camera loop can run, else what it would end with: 2 configuration, 3 models, 4 camera""",
    )
    doctor.add_argument("--json", action="store_true", help="print one JSON object")
    doctor.add_argument(
        "--source", metavar="SOURCE", help="also read a frame from this source of maskedge run"
    )
    doctor.add_argument("--config", metavar="FILE", help="also check this file, and the source that it names")
    _add_service(add, asked)
    bench = add("bench", _bench, "measure how fast the models, or the camera loop, are on this machine", "")
    if asked == "bench":
        _add_bench(bench, argv[1] if len(argv) > 1 else "")
    add(
        "config",
        _config,
        "print a configuration file with every option, its range, default and reason",
        "example:\n  maskedge config > maskedge.toml\n  maskedge run --config maskedge.toml",
    )
    return parser


def _add_run(add: Callable[..., _Parser], asked: str) -> None:
    run = add(
        "run",
        _loop,
        "the camera loop: find faces, follow them, tell mask state and gender, show and write all of it",
        """examples:
  maskedge run                                   the first camera, or the demo clip where there is none
  maskedge run --source usb:0 --size 640x480     one camera
  maskedge run --source picamera2 --flip horizontal   a Raspberry Pi's own, as a mirror
  maskedge run --source clip.mp4 --out boxes.mp4 a video with the boxes drawn
  maskedge run --source rtsp://camera/stream --sink jsonl:faces.jsonl --sink summary
  maskedge run --source demo --loop --seconds 10 --sink jsonl:- | jq .faces
  maskedge run --tasks mask,unmask --view side-by-side   the camera, and beside it what may be under the masks

Every option can also stand in a file: see maskedge config.

"""
        + _TASKS_HELP
        + "\n\n"
        + _EXIT_CODES,
    )
    if asked == "run":
        _add_run_options(run)


_RUN_METAVARS = {
    "source": "SOURCE",
    "sink": "SINK",
    "tasks": "TASK[,TASK]",
    "view": "HOW",
    "size": "WxH",
    "models": "DIR",
    "precision": "NAME",
    "threads": "N",
    "frames": "N",
    "fps": "N",
    "rotation": "DEGREES",
    "flip": "HOW",
    "exposure": "US",
    "gain": "N",
    "focus": "DIOPTRES",
    "white_balance": "NAME",
    "score": "0..1",
    "seconds": "S",
    "camera_timeout": "S",
}
_METAVARS = _RUN_METAVARS | {
    "vault": "DIR",
    "vault_key": "KEY",
    "unlock_far": "RATE",
    "unlock_views": "N",
    "unlock_seconds": "S",
    "liveness": "NAME[,NAME]",
    "liveness_turns": "N",
    "audit": "FILE",
}
"""What the value of an option of `Config` is called in --help."""

_CAMERA_OPTIONS = ("source", "size", "fps", "rotation", "flip", "camera_timeout")
_MODEL_OPTIONS = ("precision", "threads", "score")


def _add_config_options(command: argparse.ArgumentParser, names: Sequence[str]) -> None:
    """Options of `Config`, with its help."""
    facts: dict[str, Any] = {one.name: one.metadata for one in fields(Config)}
    for name in names:
        command.add_argument(
            flag_of(name),
            dest=name,
            metavar=_METAVARS[name],
            action="append" if name == "sink" else "store",
            help=f"{facts[name]['help']}: {facts[name]['range']}".replace("%", "%%"),
        )


def _add_flag(command: argparse.ArgumentParser, name: str) -> None:
    """An option of `Config` that is on or off; left out it is as the file says."""
    facts: dict[str, Any] = {one.name: one.metadata for one in fields(Config)}
    command.add_argument(
        flag_of(name), dest=name, action="store_true", default=None, help=facts[name]["help"]
    )


def _add_config_file(command: argparse.ArgumentParser) -> None:
    command.add_argument("--config", metavar="FILE", help="TOML file with options; the command line wins")


def _add_run_options(run: argparse.ArgumentParser) -> None:
    _add_config_file(run)
    _add_config_options(run, [*_RUN_METAVARS])
    run.add_argument(
        "--out",
        metavar="PATH",
        help="also write here: FILE.mp4 or FILE.avi (annotated video), FILE.jsonl, or a folder for pictures",
    )
    _add_flag(run, "loop")


def _add_service(add: Callable[..., _Parser], asked: str) -> None:
    service = add(
        "service",
        _service,
        "run the camera loop as a service of systemd: from boot on, watched and restarted, without rights",
        """examples:
  sudo maskedge service install --source picamera2 --sink jsonl:faces.jsonl
  sudo maskedge service install --config /etc/maskedge.toml
  maskedge service status
  maskedge service logs --follow

exit codes: 0 done, or it runs   1 it does not run   2 wrong use, no rights, or no systemd""",
    )
    if asked != "service":
        return
    actions = service.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=_Parser)

    def action(name: str, help: str, epilog: str = "") -> _Parser:
        one: _Parser = actions.add_parser(
            name,
            help=help,
            description=f"{help[0].upper()}{help[1:]}.",
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        return one

    outputs = (
        "Options are those of maskedge run. Outputs lie in /var/lib/maskedge, all that the service can write."
    )
    install = action(
        "install", "write the unit, start it now and at each boot; again: with the new options", outputs
    )
    install.add_argument("--dry-run", action="store_true", help="only show what would be written and run")
    for one in (install, action("print", "print the unit that install would write", outputs)):
        one.add_argument("--log-level", choices=LOG_LEVELS, help="how much to tell in the journal")
        _add_run_options(one)
    action("uninstall", "stop the service and remove its unit; what it has written stays")
    action("status", "tell whether it runs and how it is doing; exit code 1: it does not run")
    logs = action("logs", "show what it has told the journal")
    logs.add_argument("--follow", "-f", action="store_true", help="go on with what it tells from now on")
    logs.add_argument(
        "--lines", "-n", type=int, default=50, metavar="N", help="how many (default %(default)s)"
    )


def _add_image(add: Callable[..., _Parser]) -> None:
    image = add(
        "image",
        _image,
        "find the faces in pictures, and tell mask state and gender",
        """examples:
  maskedge image photo.jpg                       a line for people: a woman, mask under her nose (94 %)
  maskedge image --json photos/ > faces.jsonl    one JSON object a line, folders searched recursively
  maskedge image photos/ https://example.org/a.jpg --out found

Pictures come in the order given, also those that cannot be read; then the exit code is 1. With --json each is
one line, else each face is: face 1 is the leftmost one.

"""
        + _TASKS_HELP,
    )
    image.add_argument("paths", nargs="+", metavar="PATH", help="picture, folder, glob or http(s) address")
    image.add_argument("--json", action="store_true", help="print one JSON object per picture")
    image.add_argument("--out", metavar="DIR", help="write annotated copies here, as DIR/STEM.jpg")
    image.add_argument(
        "--show", action="store_true", help="show each picture; any key goes on, q or Esc ends"
    )
    _add_model_folder(image)
    _add_config_options(image, ("tasks", *_MODEL_OPTIONS))


def _add_unmask(add: Callable[..., _Parser]) -> None:
    unmask = add(
        "unmask",
        _unmask,
        "show what may be under the masks in pictures: made up by a model, plausible, not true",
        """examples:
  maskedge unmask photo.jpg --out faces            writes faces/photo.png, the whole picture at its own size
  maskedge unmask photos/ --out faces --save-mask  and faces/STEM.mask.png: white is what masks hide, black
                                                   what is exactly as it was

What a mask hides is not in the picture. A model makes up a mouth and nose that fit the rest; the person's own
look different. Never take it as evidence of who somebody is or what they look like; it is never used to
unlock. Each picture says so: by the word reconstruction in its lower right corner, and in its metadata.
--no-mark leaves the word out, for measuring; the metadata stays.

Completed are faces whose mask covers the mouth (maskedge image tells); pictures without any are written as
they are, without the word, and called "no mask". docs/unmask.md tells more.

exit codes: 0 done   1 some pictures could not be read, or one not written   2 wrong use   3 no model""",
    )
    unmask.add_argument("paths", nargs="+", metavar="PATH", help="picture, folder, glob or http(s) address")
    unmask.add_argument("--out", required=True, metavar="DIR", help="folder to write DIR/STEM.png into")
    unmask.add_argument(
        "--save-mask", action="store_true", help="also write DIR/STEM.mask.png, what masks hide"
    )
    unmask.add_argument(
        "--no-mark", action="store_true", help="leave out the word reconstruction, to measure"
    )
    _add_model_folder(unmask)
    _add_config_options(unmask, _MODEL_OPTIONS)


def _add_unlock(add: Callable[..., _Parser], asked: str) -> None:
    """The commands of `edge.unlock`, which is imported by the command that is run alone."""
    options: dict[str, tuple[_Parser, bool, bool]] = {}

    def of(action: str) -> Callable[[argparse.Namespace], int]:
        def run(args: argparse.Namespace) -> int:
            from edge.unlock import commands

            done: int = getattr(commands, action)(args)
            return done

        return run

    enrol = add(
        "enrol",
        of("enrol"),
        "enrol somebody, from a camera, a clip or pictures: encrypted templates, no pictures, are kept",
        """examples:
  maskedge enrol ada                        the camera says what to do: without a mask, then with one
  maskedge enrol ada --source photos/ada/   pictures of one person, each alone in it
  maskedge enrol ada --no-masked            masks are painted on the bare views instead

exit codes: 0 enrolled   1 too few good views   2 wrong use, or the vault cannot be opened   4 no camera""",
    )
    enrol.add_argument("name", metavar="NAME", help="of the person")
    enrol.add_argument("--views", type=int, default=8, metavar="N", help="of each kind (default %(default)s)")
    enrol.add_argument(
        "--seconds", type=float, default=90.0, metavar="S", help="end after this long (default %(default)s)"
    )
    enrol.add_argument("--no-masked", action="store_true", help="do not ask for views with a mask on")
    enrol.add_argument("--replace", action="store_true", help="instead of the templates there are")
    options["enrol"] = enrol, True, False

    listing = add("people", of("people"), "list who is enrolled", "exit code 5: nobody")
    listing.add_argument("--json", action="store_true", help="print one JSON object")
    options["people"] = listing, False, False

    forget = add(
        "forget",
        of("forget"),
        "remove somebody who enrolled, for good",
        "Older copies of the vault cannot be opened any more either.\n\nexit code 1: there is no such person",
    )
    forget.add_argument("name", metavar="NAME", help="as maskedge people prints it")
    options["forget"] = forget, False, False

    codes = """exit codes, which are the contract:
  0 yes   1 no: not recognised, not alive, nobody there, or locked out   2 wrong use, configuration or vault
  3 a model is missing or damaged   4 no camera, or it was lost   5 nobody (of that name) is enrolled

A prototype: docs/unlock.md says what it stops and what it does not."""
    verify = add(
        "verify",
        of("verify"),
        "tell whether the person at the camera is NAME, masked or not",
        f"example:\n  maskedge verify ada && echo welcome\n\n{codes}",
    )
    verify.add_argument("name", metavar="NAME", help="as maskedge people prints it")
    options["verify"] = verify, True, True
    unlock = add(
        "unlock",
        of("unlock"),
        "tell whether the person at the camera is enrolled, masked or not, and run a command if so",
        f"""examples:
  maskedge unlock && echo open
  maskedge unlock --exec 'loginctl unlock-session'   MASKEDGE_NAME says who it was
  maskedge unlock --source clip.mp4 --liveness none  a trial

{codes}""",
    )
    unlock.add_argument("--exec", metavar="COMMAND", help="run this by the shell on success")
    options["unlock"] = unlock, True, True
    if asked in options:
        command, source, decides = options[asked]
        _add_unlock_options(command, source=source, decides=decides)

    embed = add(
        "embed",
        of("embed"),
        "write the embedding of the largest face of each picture",
        """example:
  maskedge embed photos/ --out embeddings.npz

The file holds the arrays files (n names) and embeddings (n x d, length 1; zeros where no face was found).""",
    )
    embed.add_argument("paths", nargs="+", metavar="PATH", help="picture, folder, glob or http(s) address")
    embed.add_argument("--out", required=True, metavar="FILE", help="where to write, such as embeddings.npz")
    _add_model_folder(embed)
    _add_config_options(embed, _MODEL_OPTIONS)


def _add_unlock_options(command: argparse.ArgumentParser, *, source: bool, decides: bool) -> None:
    """Of a command that opens the vault; `source`: and a camera; `decides`: and says yes or no."""
    _add_config_file(command)
    _add_config_options(command, ("vault", "vault_key"))
    if source:
        _add_config_options(command, (*_CAMERA_OPTIONS, "models", *_MODEL_OPTIONS))
    if decides:
        decisions = ("unlock_far", "unlock_views", "unlock_seconds", "liveness", "liveness_turns", "audit")
        _add_config_options(command, decisions)
        _add_flag(command, "audit_pictures")
    command.add_argument(
        "--passphrase-file",
        metavar="FILE",
        help="with --vault-key passphrase: its first line is the passphrase, instead of asking for it",
    )


_BENCHES = {
    "loop": ("benchmarks.loop", "", "the whole camera loop against its bare models"),
    "peers": ("benchmarks.peers", "", "our models against what one would take instead, in one run"),
    "report": ("benchmarks.report", "", "results as one HTML page with plots, and as Markdown"),
    "compare": ("benchmarks.compare", "", "two results: which rows differ by more than noise"),
    "estimate": ("benchmarks.estimate", "", "what a model would take on a Raspberry Pi that is not here"),
    "calibrate": (
        "benchmarks.calibrate",
        "",
        "false and true accepts of the identity model on your people",
    ),
    "validate": ("benchmarks.validate", "", "this benchmark against another, and against what must come out"),
}
"""Word after `maskedge bench` to module, prefix of `main` and `add_arguments` in it, and help."""


def _add_bench(bench: argparse.ArgumentParser, kind: str) -> None:
    """The options of the benchmark asked for; only its own module is imported."""
    import importlib

    if kind not in _BENCHES:
        from benchmarks import latency

        latency.add_arguments(bench)
        return
    kinds = bench.add_subparsers(dest="kind", parser_class=_Parser)
    name, prefix, help = _BENCHES[kind]
    command = kinds.add_parser(
        kind,
        description=f"{help[0].upper()}{help[1:]}.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module = importlib.import_module(name)
    command.set_defaults(run=getattr(module, f"{prefix}main"))
    command.add_argument("--log-level", choices=LOG_LEVELS, help="how much to tell on standard error")
    command.add_argument("--debug", action="store_true", help="show where an error comes from")
    getattr(module, f"add_{prefix}arguments")(command)


def _add_model_folder(command: argparse.ArgumentParser) -> None:
    command.add_argument("--models", metavar="DIR", help="folder of the models and their manifest.json")


# -------------------------------------------------------------------------------------------- commands


def _loop(args: argparse.Namespace) -> int:
    config = load_config(args.config, options_of(args))
    if not args.debug:
        _start_log(config.log_level)
    specs = _sink_specs(config, args.out)

    from edge import assembly
    from edge.pacing import Pacer
    from edge.pipeline import Pipeline
    from edge.sinks import Canvas
    from edge.tasks.attributes import AttributesVoter
    from edge.tracking import Tracker

    canvas = Canvas(beside="unmask" in config.tasks and config.view == "side-by-side")
    source = assembly.source(config)
    with source:  # a camera warms up while the model is loaded
        detector = assembly.detector(config, score=config.keep_score)
        start_score = 0.0 if config.keep_score is None else assembly.score(config)
        tracker = Tracker(iou=config.track_iou, max_age_s=config.track_seconds, start_score=start_score)
        estimator = assembly.estimator(config)
        labeller = None
        if estimator is not None:
            labeller = AttributesVoter(estimator, every_s=config.attributes_seconds, reject=config.reject)
        models = [detector.model] if estimator is None else [detector.model, estimator.model]
        namer = None
        if "identity" in config.tasks:
            from edge.unlock.commands import open_namer

            namer, embedder = open_namer(config)
            models.append(embedder.model)
        pacer = Pacer(config.hot_celsius) if source.live and config.slow_when_hot else None
        unmasker = None
        if "unmask" in config.tasks:
            from edge.unmasking import LiveUnmasker

            # One thread, unless asked for more: it runs beside the loop, which needs the other cores.
            completes = assembly.unmasker(config, threads=None if config.unmask_wait else 1)
            unmasker = LiveUnmasker(
                completes, every_s=config.unmask_seconds, wait=config.unmask_wait, pacer=pacer
            )
            models.append(completes.model)

        def on_first() -> None:
            for model in models:
                threads = f"{model.threads} thread{'' if model.threads == 1 else 's'}"
                log.info("%s: %s on %s, %s", source.name, model.name, model.runtime, threads)
            log.info("first result %.2f s after the start of the program", _since_start())

        sinks = _open_sinks(specs, source, config, canvas)
        if "NOTIFY_SOCKET" in os.environ:
            from edge.sinks.systemd import SystemdSink

            # The last one: a sink that hangs is to keep it from saying that all is well.
            sinks.append(SystemdSink(canvas, pacer, patience=config.camera_timeout if source.live else None))
        pipeline = Pipeline(
            source,
            detector,
            sinks,
            tracker=tracker,
            labeller=labeller,
            namer=namer,
            unmasker=unmasker,
            canvas=canvas,
            pacer=pacer,
            seconds=config.seconds,
            frames=config.frames,
            on_first=on_first,
        )
        report = pipeline.run(handle_signals=True)
    if report.ended == "SIGINT":
        return 130
    return 1 if report.failed else 0


def _sink_specs(config: Config, out: str | None) -> list[tuple[str, str, bool]]:
    """Kind and path of each sink, and whether the user asked for it."""
    from edge.sinks import VIDEO_SUFFIXES, parse_sink

    specs = [(*parse_sink(spec), True) for spec in config.sink]
    if not specs:
        specs = [("window", "", False), ("summary", "", False)]
    if out:
        suffix = Path(out).suffix.lower()
        kind = "video" if suffix in VIDEO_SUFFIXES else "jsonl" if suffix == ".jsonl" else "folder"
        specs.append((kind, out, True))
    paths = [os.path.realpath(path) for _, path, _ in specs if path not in ("", "-")]
    if len(set(paths)) < len(paths):
        raise UsageError("two sinks write to the same file", remedy="give each its own")
    if os.path.realpath(config.source) in paths and not os.path.isdir(config.source):
        raise UsageError(f"{config.source} is both source and output", remedy="write to another file")
    return specs


def _open_sinks(
    specs: Sequence[tuple[str, str, bool]], source: Source, config: Config, canvas: Canvas
) -> list[Sink]:
    from edge.errors import SinkError
    from edge.sinks import open_sink
    from edge.sinks.summary import StatusSink, SummarySink

    to_stdout = any(kind == "jsonl" and path == "-" for kind, path, _ in specs)
    sinks: list[Sink] = []
    try:
        for kind, path, asked in specs:
            if kind == "summary":
                sinks.append(SummarySink(sys.stderr if to_stdout else None))
                continue
            inputs = _inputs(config.source) if kind == "folder" and not source.live else ()
            try:
                sink = open_sink(
                    f"{kind}:{path}" if path else kind,
                    canvas=canvas,
                    live=source.live,
                    fps=config.fps or source.fps,
                    inputs=inputs,
                    jsonl_max_bytes=round(config.jsonl_max_mb * 1e6),
                    jsonl_backups=config.jsonl_backups,
                )
            except SinkError as error:
                if kind != "window":
                    raise
                # Without a screen the loop is still of use: the summary and the files go on.
                log.log(logging.WARNING if asked else logging.INFO, "no window: %s", error.remedy)
                continue
            sinks.append(sink)
    except BaseException:
        for sink in sinks:
            sink.close()
        raise
    if sys.stderr is not None and sys.stderr.isatty() and not any(sink.name == "window" for sink in sinks):
        sinks.append(StatusSink(canvas, sys.stderr))
    return sinks


def _inputs(source: str) -> list[str]:
    from edge.camera import find_pictures

    try:
        return find_pictures([os.path.expanduser(source)])
    except InputError:
        return []


def _image(args: argparse.Namespace) -> int:
    names = ("models", "tasks", "precision", "threads", "score")
    config = load_config(overrides={name: getattr(args, name) for name in names})
    if "unmask" in config.tasks:
        raise UsageError("maskedge image has no task 'unmask'", remedy="use maskedge unmask")

    from edge import assembly
    from edge.camera import read_image
    from edge.camera.network import is_url, public_url
    from edge.sinks import Canvas
    from edge.sinks.folder import FolderSink
    from edge.types import Analysis, Frame

    detector = assembly.detector(config)
    estimator = assembly.estimator(config)
    inputs = list(_expand(args.paths))
    canvas = Canvas()
    folder = None
    if args.out:
        folder = FolderSink(args.out, canvas, inputs=[path for path, error in inputs if error is None])
    show = _shower(canvas) if args.show else None
    begun = time.monotonic()
    failed = 0
    progress = _shows_progress(len(inputs))
    for number, (path, error) in enumerate(inputs):
        name = public_url(path) if is_url(path) else path
        if progress:
            _show_progress(number + 1, len(inputs))
        start = time.monotonic()
        try:
            if error is not None:
                raise error
            image = read_image(path)
            read = time.monotonic()
            faces = detector.detect(image)
            found = done = time.monotonic()
            if estimator is not None:
                faces = estimator.label(image, faces)
                done = time.monotonic()
        except InputError as problem:
            failed += 1
            _print_failed(name, str(problem), as_json=args.json)
            continue
        timing = {"capture": (read - start) * 1e3, "face": (found - read) * 1e3}
        if estimator is not None:
            timing["attributes"] = (done - found) * 1e3
        timing["total"] = timing["frame_age"] = (done - start) * 1e3
        height, width = image.shape[:2]
        analysis = Analysis(name, number, start - begun, width, height, faces, timing)
        frame = Frame(image, number, start, name)
        written = folder.save(frame, analysis) if folder else None
        _print_found(analysis, written, as_json=args.json)
        if show is not None and not show(frame, analysis):
            break
    return _ended(failed, len(inputs), progress=progress)


def _unmask(args: argparse.Namespace) -> int:
    names = ("models", "precision", "threads", "score")
    config = load_config(overrides={name: getattr(args, name) for name in names} | {"tasks": ["mask,unmask"]})

    from edge import assembly
    from edge.camera import read_image
    from edge.camera.network import is_url, public_url
    from edge.drawing import mark
    from edge.sinks.folder import OutputFolder, png, write_file
    from edge.tasks.unmask import NOTE, covered

    unmasker = assembly.unmasker(config)
    detector = assembly.detector(config)
    estimator = assembly.estimator(config)
    assert estimator is not None
    inputs = list(_expand(args.paths))
    folder = OutputFolder(args.out, [path for path, error in inputs if error is None])
    endings = (".png", ".mask.png") if args.save_mask else (".png",)
    failed = 0
    progress = _shows_progress(len(inputs))
    for number, (path, error) in enumerate(inputs):
        name = public_url(path) if is_url(path) else path
        if progress:
            _show_progress(number + 1, len(inputs))
        try:
            if error is not None:
                raise error
            image = read_image(path)
        except InputError as problem:
            failed += 1
            _print_failed(name, str(problem), as_json=False)
            continue
        faces = estimator.label(image, detector.detect(image))
        picture, region = unmasker.picture(image, faces)
        texts = {"Software": f"maskedge {__version__}"}
        count = sum(covered(face, likely=True) for face in faces)
        if region.any():
            texts["Description"] = NOTE
            told = f"{count} face{'' if count == 1 else 's'} completed"
            if not args.no_mark:
                mark(picture)
        elif count or any(face.mask is None or face.mask["state"] is None for face in faces):
            told = "no mask, as far as can be told"
        else:
            told = "no mask" if faces else "no face"
        written = folder.choose(name, *endings)
        write_file(written[0], png(picture, texts))
        if args.save_mask:
            # Upwards, so that what is black was not touched at all.
            write_file(written[1], png(_ceil(region), texts))
        print(f"{name}: {told} -> {written[0]}", flush=True)
    return _ended(failed, len(inputs), progress=progress)


def _ceil(region: np.ndarray) -> np.ndarray:
    """0..1 to 0..255, H x W uint8."""
    import numpy as np

    return np.ceil(region * np.float32(255)).clip(0, 255).astype(np.uint8)


def _shows_progress(count: int) -> bool:
    """Whether to count along on standard error: only on a terminal that does not show the results anyway."""
    return sys.stderr is not None and sys.stderr.isatty() and not sys.stdout.isatty() and count > 3


def _show_progress(number: int, count: int) -> None:
    print(f"\r{number} of {count} pictures\x1b[K", end="", file=sys.stderr, flush=True)


def _ended(failed: int, count: int, *, progress: bool) -> int:
    if progress:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    if failed and count > 1:
        print(f"maskedge: {failed} of {count} pictures could not be read", file=sys.stderr)
    return 1 if failed else 0


def _expand(paths: Sequence[str]) -> Iterator[tuple[str, InputError | None]]:
    """The pictures behind the arguments; an argument without any comes with the reason."""
    from edge.camera import find_pictures

    for path in paths:
        try:
            for found in find_pictures([path]):
                yield found, None
        except InputError as error:
            yield path, error


def _print_failed(name: str, reason: str, *, as_json: bool) -> None:
    if as_json:
        import json

        from edge.types import ANALYSIS_VERSION

        print(json.dumps({"version": ANALYSIS_VERSION, "image": name, "error": reason}), flush=True)
    else:
        print(reason if reason.startswith(name) else f"{name}: {reason}", flush=True)


def _print_found(analysis: Analysis, written: Path | None, *, as_json: bool) -> None:
    if as_json:
        import json

        print(json.dumps(analysis.to_json()), flush=True)
        return
    from edge.tasks.attributes import in_words

    # In the order in which they are seen, so that the numbers need not be drawn.
    faces = sorted(analysis.faces, key=lambda face: face.box[0] + face.box[2] / 2)
    lines = [in_words(face) for face in faces] or ["no face"]
    if len(lines) > 1:
        lines = [f"face {number}: {line}" for number, line in enumerate(lines, 1)]
    if written:
        lines[-1] += f" -> {written}"
    print("\n".join(f"{analysis.image}: {line}" for line in lines), flush=True)


def _shower(canvas: Canvas) -> Callable[[Frame, Analysis], bool] | None:
    """What shows a picture and returns whether to go on; None, with a warning, without a display."""
    from edge.sinks.window import why_no_window

    if reason := why_no_window():
        log.warning("cannot show pictures: %s", reason)
        return None
    import cv2

    def show(frame: Frame, analysis: Analysis) -> bool:
        cv2.namedWindow("maskedge", cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
        cv2.imshow("maskedge", canvas.picture(frame, analysis))
        while cv2.getWindowProperty("maskedge", cv2.WND_PROP_VISIBLE) >= 1:
            key = cv2.waitKey(100) & 0xFF
            if key != 0xFF:
                return key not in (ord("q"), 27)
        return True

    return show


def _models(args: argparse.Namespace) -> int:
    import json

    from edge.tflite import Model, find_runtime, load_manifest

    manifest = load_manifest(args.models)
    runtime = find_runtime() if args.check else None
    models: list[dict[str, Any]] = []
    damaged = 0
    for entry in manifest.models.values():
        files = []
        for precision, file in entry.files.items():
            problem = ""
            try:
                data = manifest.read(entry.name, precision, runtime=runtime)
                if args.check:
                    Model(data, name=f"{entry.name} ({precision})", threads=1)
            except ModelError as error:
                problem = str(error)
                damaged += 1
            files.append(
                {
                    "precision": precision,
                    "file": file.file,
                    "bytes": file.bytes,
                    "sha256": file.sha256,
                    "default": precision == entry.default,
                    "error": problem or None,
                }
            )
        models.append(
            {
                "name": entry.name,
                "task": entry.task,
                "version": entry.version,
                "licence": entry.licence,
                "training_data": list(entry.training_data),
                "metrics": list(entry.metrics),
                "files": files,
            }
        )
    if args.json:
        print(json.dumps({"version": 1, "folder": str(manifest.folder), "models": models}))
        return 3 if damaged else 0
    print(f"models in {manifest.folder}" if models else f"no models in {manifest.folder}")
    for model in models:
        licence = model["licence"] or "unknown"
        print(f"\n{model['name']} {model['version']} (task {model['task']})\n  licence: {licence}")
        for file in model["files"]:
            mark = "default" if file["default"] else ""
            state = file["error"] or ("loads" if args.check else "whole")
            print(f"  {file['precision']:9} {file['bytes'] / 1e6:6.2f} MB  {mark:7}  {file['file']}: {state}")
        default = next((file["precision"] for file in model["files"] if file["default"]), "")
        for metric in model["metrics"]:  # those of the other precisions are in --json and on the card
            if not isinstance(metric, dict) or metric.get("precision", default) == default:
                print(f"  {_metric(metric)}")
    return 3 if damaged else 0


def _metric(metric: Any) -> str:
    if not isinstance(metric, dict):
        return str(metric)
    value = metric.get("value")
    text = f"{metric.get('name', '?')} {f'{value:.4g}' if isinstance(value, float) else value}"
    facts = [
        f"n = {metric['n']}" if metric.get("n") is not None else "",
        str(metric.get("data") or ""),
        str(metric.get("precision") or ""),
    ]
    known = ", ".join(fact for fact in facts if fact)
    return f"{text} ({known})" if known else text


def _doctor(args: argparse.Namespace) -> int:
    from edge import doctor

    return doctor.main(as_json=args.json, config_file=args.config, source=args.source)


def _service(args: argparse.Namespace) -> int:
    from edge import service

    if args.action == "status":
        return service.status()
    if args.action == "logs":
        return service.logs(follow=args.follow, lines=args.lines)
    if args.action == "uninstall":
        return service.uninstall()
    given = options_of(args) | {"config": args.config, "out": args.out}
    given = {key: value for key, value in given.items() if value is not None}
    for key in ("config", "models", "source"):  # the service starts in a folder of its own
        if key in given and os.path.exists(path := os.path.expanduser(given[key])):
            given[key] = os.path.abspath(path)
    config_file, out = given.pop("config", None), given.pop("out", None)
    config = load_config(config_file, given)
    arguments = ["--config", config_file] if config_file else []
    for key, value in given.items():
        option = flag_of(key)
        for item in value if isinstance(value, list) else [value]:
            arguments += [option] if item is True else [option, item]
    if out:
        arguments += ["--out", out]
    text = service.prepare(arguments, config, out=out, config_file=config_file)
    if args.action == "print":
        print(text, end="")
        return 0
    return service.install(text, dry_run=args.dry_run)


def _bench(args: argparse.Namespace) -> int:
    from benchmarks import latency

    return latency.main(args)


def _config(args: argparse.Namespace) -> int:
    print(default_file(), end="")
    return 0


def _since_start() -> float:
    """Seconds since this process was started, the start of Python included where the system tells."""
    try:
        stat = Path("/proc/self/stat").read_text()
        started = int(stat.rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started
    except (OSError, ValueError, IndexError, AttributeError):
        return time.monotonic() - _LOADED
