"""Every option of the camera loop: from a TOML file, the command line, or its default."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.errors import UsageError

if TYPE_CHECKING:
    import argparse

TASKS = ("face", "mask", "gender", "identity", "unmask")
VIEWS = ("in-place", "side-by-side")
LIVENESS = ("alike", "screen", "turn")
FARS = (1e-3, 1e-4, 1e-5)
"""False accept rates for which the manifest has thresholds: of one view, against one template."""
LOG_LEVELS = ("debug", "info", "warning", "error")
FLIPS = ("none", "horizontal", "vertical", "both")
WHITE_BALANCES = ("auto", "incandescent", "tungsten", "fluorescent", "indoor", "daylight", "cloudy")
PRECISIONS = ("float32", "float16", "dynamic", "int8", "int16x8")

Check = Callable[[Any], Any]


def _number(low: float, high: float, *, whole: bool = False) -> Check:
    def check(value: Any) -> Any:
        kinds = int if whole else (int, float)
        if isinstance(value, str):
            try:
                value = int(value) if whole else float(value)
            except ValueError:
                raise ValueError(f"must be a {'whole ' if whole else ''}number") from None
        if isinstance(value, bool) or not isinstance(value, kinds):
            raise ValueError(f"must be a {'whole ' if whole else ''}number")
        if not low <= value <= high:
            raise ValueError(f"must be between {low:g} and {high:g}")
        return value if whole else float(value)

    return check


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be a text")
    return value


def _one_of(*choices: str) -> Check:
    def check(value: Any) -> str:
        if value not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return str(value)

    return check


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) and item for item in value):
        raise ValueError('must be a list of texts, such as ["summary"]')
    return tuple(value)


def _tasks(value: Any) -> tuple[str, ...]:
    names = tuple(name.strip() for text in _texts(value) for name in text.split(",") if name.strip())
    unknown = [name for name in names if name not in TASKS]
    if unknown or not names:
        wrong = f"has no task {unknown[0]!r}; " if unknown else ""
        raise ValueError(f"{wrong}must name tasks of: {', '.join(TASKS)}")
    return tuple(dict.fromkeys(names))


def _liveness(value: Any) -> tuple[str, ...] | None:
    names = tuple(name.strip() for text in _texts(value) for name in text.split(",") if name.strip())
    if names == ("auto",):
        return None
    if names in ((), ("none",)):
        return ()
    if any(name not in LIVENESS for name in names):
        raise ValueError(f"must be auto, none, or of: {', '.join(LIVENESS)}")
    return tuple(dict.fromkeys(names))


def _far(value: Any) -> float:
    number: float = _number(0, 1)(value)
    if number not in FARS:
        raise ValueError("must be 0.001, 0.0001 or 0.00001, for which there are measured thresholds")
    return number


def _size(value: Any) -> tuple[int, int]:
    if isinstance(value, str) and (match := re.fullmatch(r"(\d{1,5}) *[x×X] *(\d{1,5})", value.strip())):
        value = [int(match[1]), int(match[2])]
    if (
        not isinstance(value, (list, tuple))
        or len(value) != 2
        or not all(
            isinstance(side, int) and not isinstance(side, bool) and 16 <= side <= 16384 for side in value
        )
    ):
        raise ValueError("must be WIDTHxHEIGHT in pixels, such as 640x480")
    return value[0], value[1]


def _number_or_auto(low: float, high: float) -> Check:
    number = _number(low, high)
    return lambda value: "auto" if value == "auto" else number(value)


def _rotation(value: Any) -> int:
    if isinstance(value, bool) or str(value) not in ("0", "90", "180", "270"):
        raise ValueError("must be 0, 90, 180 or 270")
    return int(value)


def _option(default: Any, check: Check, help: str, *, range: str, why: str, example: str = "") -> Any:
    """A field of `Config`: `help` says what it does, `range` what it may be, `why` why it is as it is."""
    facts = {"check": check, "help": help, "range": range, "why": why, "example": example}
    return field(default=default, metadata=facts)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of `maskedge run`; `maskedge config` prints them with what each is for.

    Raises:
        UsageError: a value is of the wrong kind or out of its range.
    """

    source: str = _option(
        "auto",
        _text,
        "where frames come from",
        range="auto, demo, picamera2, picamera2:N (a Raspberry Pi's own camera), usb:N, a video, picture, "
        "folder or glob, or a http(s) or rtsp(s) address",
        why="auto takes the first camera there is, the Pi's own before USB; without any, the built-in clip",
    )
    sink: tuple[str, ...] = _option(
        (),
        _texts,
        "where results go",
        range="any of window, video:FILE, jsonl:FILE (- is standard output), folder:DIR, summary; or none",
        why="none given means a window where there is a display, and the summary",
        example='["video:out.mp4", "jsonl:faces.jsonl", "summary"]',
    )
    tasks: tuple[str, ...] = _option(
        ("mask", "gender"),
        _tasks,
        "what to tell of faces, which are always found",
        range=", ".join(TASKS),
        why="mask alone never looks at gender, which many places should not collect; face alone is fastest",
    )
    seconds: float | None = _option(
        None,
        _number(0.01, 1e9),
        "end after this many seconds",
        range="0.01 or more; left out: never",
        why="for trials and measurements",
        example="60",
    )
    frames: int | None = _option(
        None,
        _number(1, 1e12, whole=True),
        "end after this many frames",
        range="1 or more; left out: never",
        why="for trials and measurements",
        example="1000",
    )
    size: tuple[int, int] | None = _option(
        None,
        _size,
        "picture size to ask a USB or Raspberry Pi camera for, WIDTHxHEIGHT",
        range="16x16 to 16384x16384; left out: what a USB camera likes, 1280x720 of a Pi's own",
        why="the model looks at a small picture anyway: more than 640x480 mostly costs decoding time (USB)",
        example='"640x480"',
    )
    fps: float | None = _option(
        None,
        _number(0.01, 1000),
        "frames per second to ask a camera for, or to replay a file at",
        range="0.01 to 1000; left out: the camera's own, and files as fast as they can be read",
        why="a lower rate saves power and heat",
        example="15",
    )
    rotation: int = _option(
        0,
        _rotation,
        "turn a camera's pictures clockwise by this many degrees",
        range="0, 90, 180 or 270",
        why="faces must be upright to be found; by 180 costs nothing on a Pi's own camera",
    )
    flip: str = _option(
        "none",
        _one_of(*FLIPS),
        "mirror a camera's pictures, after the rotation",
        range=", ".join(FLIPS),
        why="people who see themselves on a screen expect horizontal, which is a mirror",
    )
    exposure: float | str = _option(
        "auto",
        _number_or_auto(1, 1e9),
        "exposure time of a Raspberry Pi's camera in microseconds",
        range="auto, or 1 to 1000000000",
        why="a short one keeps moving faces sharp, at the price of light; over 33333 lowers the frame rate",
    )
    gain: float | str = _option(
        "auto",
        _number_or_auto(1, 256),
        "gain of the sensor of a Raspberry Pi's camera",
        range="auto, or 1 (none) to 256; sensors end earlier, mostly at 8 to 22",
        why="makes up for a short exposure, at the price of noise",
    )
    focus: float | str = _option(
        "auto",
        _number_or_auto(0, 50),
        "focus of a Raspberry Pi's camera that has a motor, in dioptres: 1 / distance in metres",
        range="auto (continuous), or 0 (far away) to 50",
        why="where all stand at one place, a fixed focus never hunts: 1.0 is one metre, 2.0 is half a metre",
    )
    white_balance: str = _option(
        "auto",
        _one_of(*WHITE_BALANCES),
        "white balance of a Raspberry Pi's camera",
        range=", ".join(WHITE_BALANCES),
        why="auto may drift where one colour fills the picture, such as a wall or a uniform",
    )
    loop: bool = _option(
        False,
        _flag,
        "begin a file anew at its end, for ever",
        range="true or false",
        why="lets the demo stand in for a camera",
    )
    camera_timeout: float = _option(
        10.0,
        _number(0.1, 86400),
        "seconds without a frame after which a camera counts as lost (exit code 4)",
        range="0.1 to 86400",
        why="cameras need up to 5 s to start; a plugged-out cable should not go unseen for long",
    )
    models: str | None = _option(
        None,
        _text,
        "folder of the models and their manifest.json",
        range="a folder; left out: MASKEDGE_MODELS, else the models that came along",
        why="to try models of your own",
        example='"converted_models"',
    )
    precision: str | None = _option(
        None,
        _one_of(*PRECISIONS),
        "precision of the models",
        range=", ".join(PRECISIONS) + "; left out: the default in the manifest",
        why="the manifest says which one is fastest without losing accuracy, and why",
        example='"int8"',
    )
    threads: int | None = _option(
        None,
        _number(1, 256, whole=True),
        "threads of the model",
        range="1 to 256; left out: the result of maskedge bench --tune, else by the free cores",
        why="more than there are idle cores is slower, by far",
        example="2",
    )
    score: float | None = _option(
        None,
        _number(0.01, 0.999),
        "faces with a lower score are left out",
        range="0.01 to 0.999; left out: the threshold in the manifest, with the figure it came from",
        why="lower finds more faces, and more that are none",
        example="0.6",
    )
    keep_score: float | None = _option(
        None,
        _number(0.01, 0.999),
        "faces between this score and the one above are kept while they continue a track",
        range="0.01 to 0.999; left out: the same as score, which turns it off",
        why="bridges frames in which a face is blurred, without letting weak ones start a track",
        example="0.35",
    )
    track_iou: float = _option(
        0.2,
        _number(0.01, 0.99),
        "overlap from which a box is the same face as in the frame before",
        range="0.01 to 0.99",
        why="the tracker predicts motion, so little overlap is enough; faces next to each other overlap less",
    )
    track_seconds: float = _option(
        1.0,
        _number(0, 60),
        "how long a face that is not seen keeps its id",
        range="0 to 60",
        why="long enough for a hand before the face, too short for somebody else to step in",
    )
    attributes_seconds: float = _option(
        0.08,
        _number(0, 60),
        "how often mask state and gender of each face are looked at",
        range="0 (every frame) to 60",
        why="a change of mask is shown this and two or three frames late; new and unclear faces do not wait",
    )
    reject: bool = _option(
        True,
        _flag,
        "leave out what the attributes model takes for no face",
        range="true or false; only with the tasks mask or gender",
        why="hands, prints and patterns fool the face model now and then",
    )
    jsonl_max_mb: float = _option(
        50.0,
        _number(0, 1e6),
        "size at which a jsonl file is put aside as FILE.1, FILE.2, ...",
        range="0 (never) to 1000000",
        why="about 100 000 frames; a memory card must not fill up unseen",
    )
    jsonl_backups: int = _option(
        3,
        _number(0, 1000, whole=True),
        "how many jsonl files that were put aside are kept",
        range="0 to 1000",
        why="with the size above this bounds the disk space",
    )
    slow_when_hot: bool = _option(
        True,
        _flag,
        "lower the frame rate of a camera while the board is hot or throttled",
        range="true or false",
        why="a board that throttles itself is slower still, and for longer; without sensors nothing happens",
    )
    hot_celsius: float = _option(
        80.0,
        _number(40, 120),
        "temperature from which the board counts as hot; 5 degrees below it counts as cool again",
        range="40 to 120",
        why="a Raspberry Pi lowers its own clock from 80 on",
    )
    identity_seconds: float = _option(
        0.3,
        _number(0, 60),
        "how often each face is compared with the people enrolled",
        range="0 (every frame) to 60; only with the task identity",
        why="names do not change; new faces do not wait",
    )
    view: str = _option(
        "in-place",
        _one_of(*VIEWS),
        "how pictures with the task unmask are shown and recorded",
        range=f"{', '.join(VIEWS)}; only with the task unmask",
        why="side by side shows what was there and what was made up; in place the picture keeps its size",
    )
    unmask_seconds: float = _option(
        0.1,
        _number(0, 60),
        "how often each masked face is completed anew",
        range="0 (as often as the machine can) to 60; only with the task unmask",
        why="in between the last one moves along with the face; the less often, the cooler the board",
    )
    unmask_wait: bool = _option(
        False,
        _flag,
        "let the loop wait until all masked faces of a frame are completed",
        range="true or false; only with the task unmask",
        why="for clips that are recorded from a file: each frame has its own; with a camera it costs frames",
    )
    vault: str | None = _option(
        None,
        _text,
        "folder of the templates of people who enrolled",
        range="a folder; left out: ~/.local/share/maskedge/vault, as a service /var/lib/maskedge/vault",
        why="apart from the key, so that a copy of one is not a copy of both",
        example='"/var/lib/maskedge/vault"',
    )
    vault_key: str = _option(
        "file",
        _text,
        "what the templates are encrypted with",
        range="file (~/.config/maskedge/vault.key), file:PATH, credential:NAME of systemd, or passphrase",
        why="a file needs nobody to type; a credential can be bound to the machine; a passphrase is nowhere",
    )
    unlock_far: float = _option(
        1e-4,
        _far,
        "false accept rate of one view against one template; the manifest has the threshold measured for it",
        range="0.001, 0.0001 or 0.00001",
        why="three views must agree on top of it; a lower rate refuses the right person more often",
    )
    unlock_views: int = _option(
        3,
        _number(3, 100, whole=True),
        "views of one face that must agree to unlock",
        range="3 to 100",
        why="one view may be a lucky one",
    )
    unlock_seconds: float = _option(
        10.0,
        _number(0.5, 120),
        "how long an attempt to unlock may take",
        range="0.5 to 120",
        why="time for two turns of the head, too little to try many faces",
    )
    liveness: tuple[str, ...] | None = _option(
        None,
        _liveness,
        "signs of life that unlocking asks for",
        range="auto, none, or any of alike (not a still picture), screen (no grid of pixels), turn (turns "
        "of the head, as asked)",
        why="auto is all three with a camera, and none with a file, which is a recording anyway",
        example='["alike", "screen"]',
    )
    liveness_turns: int = _option(
        2,
        _number(1, 8, whole=True),
        "turns of the head that are asked for, left or right by chance",
        range="1 to 8",
        why="a video of turns has them right by chance one time in 2 to the power of this",
    )
    audit: str | None = _option(
        None,
        _text,
        "file for a line about each enrolment and attempt to unlock",
        range="a file; left out: audit.jsonl in the folder of the templates",
        why="who came in when, and who tried",
        example='"/var/log/maskedge-audit.jsonl"',
    )
    audit_pictures: bool = _option(
        False,
        _flag,
        "also keep a picture of each attempt, beside that file",
        range="true or false",
        why="pictures of people are kept only where somebody decided so",
    )
    log_level: str = _option(
        "info",
        _one_of(*LOG_LEVELS),
        "how much to tell on standard error",
        range=", ".join(LOG_LEVELS),
        why="info is a handful of lines",
    )

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if value is None and one.default is None:
                continue
            object.__setattr__(self, one.name, _checked(one.name, value, f"{one.name} = {_shown(value)}"))
        if "unmask" in self.tasks and "mask" not in self.tasks:
            raise UsageError(
                "the task unmask needs the task mask, which tells what to complete",
                remedy="--tasks mask,unmask",
            )
        if self.keep_score is not None and self.score is not None and self.keep_score > self.score:
            raise UsageError(
                f"keep_score = {self.keep_score:g} is above score = {self.score:g}",
                remedy="it must not be higher",
            )


def load_config(path: str | Path | None = None, overrides: Mapping[str, Any] | None = None) -> Config:
    """The options of a TOML file, overridden by those of the command line.

    Args:
        path: of the file, or None for none.
        overrides: key to value; a value of None leaves the key as it is.

    Raises:
        UsageError: the file cannot be read, or a key or value in it is wrong; names file and line.
    """
    values: dict[str, Any] = {}
    if path is not None:
        text = _read(Path(path))
        try:
            values = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise UsageError(
                f"{path} is not TOML ({error})", remedy="compare it with `maskedge config`"
            ) from None
        known = [one.name for one in fields(Config)]
        for key, value in values.items():
            where = f"{path}, line {_line(text, key)}"
            if key not in known:
                near = difflib.get_close_matches(key.replace("-", "_").lower(), known, n=1, cutoff=0.5)
                remedy = f"did you mean {near[0]!r}?" if near else "`maskedge config` lists all keys"
                raise UsageError(f"{where}: unknown key {key!r}", remedy=remedy)
            _checked(key, value, f"{where}: {key} = {_shown(value)}")
    for key, value in (overrides or {}).items():
        if value is not None:
            shown = " ".join(map(str, value)) if isinstance(value, list) else value
            values[key] = _checked(key, value, f"{flag_of(key)} {shown}")
    return Config(**values)


def flag_of(key: str) -> str:
    """What an option is called on the command line: those of the unlock commands go without that word."""
    return f"--{key.removeprefix('unlock_').replace('_', '-')}"


def options_of(args: argparse.Namespace) -> dict[str, Any]:
    """Those of the arguments of a command that are options of `Config`."""
    names = {one.name for one in fields(Config)}
    return {key: value for key, value in vars(args).items() if key in names}


_CHECKS: dict[str, Check] = {one.name: one.metadata["check"] for one in fields(Config)}


def _checked(key: str, value: Any, label: str) -> Any:
    try:
        return _CHECKS[key](value)
    except ValueError as error:
        raise UsageError(f"{label} {error}", remedy="see `maskedge config`") from None


def default_file() -> str:
    """A configuration file with every key, its default, range and reason."""
    parts = ["# Options of `maskedge run --config FILE`. What the command line says wins."]
    for one in fields(Config):
        facts = one.metadata
        lines = [f"# {facts['help']}", f"#   range: {facts['range']}", f"#   why: {facts['why']}"]
        if one.default is None or one.default == ():
            lines.append(f"# {one.name} = {facts['example']}")
        else:
            lines.append(f"{one.name} = {_shown(one.default)}")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _shown(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value)


def _line(text: str, key: str) -> int:
    """Number of the line that gives a top-level key or table, 1 if it cannot be told."""
    name = rf"""(?:{re.escape(key)}|"{re.escape(key)}"|'{re.escape(key)}')"""
    match = re.search(rf"^[ \t]*(?:{name}[ \t]*[=.]|\[+[ \t]*{name})", text, re.MULTILINE)
    return text.count("\n", 0, match.start()) + 1 if match else 1


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot read {path} ({error.strerror})", remedy="check --config") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8 text", remedy="save it as UTF-8") from None
