"""One interpreter over ai-edge-litert or tflite-runtime, and the folder of models it loads from.

Any `.tflite` file: `Model("file.tflite").run(array)`. A shipped model, by name: `load_model("face")`, which
checks the file against `converted_models/manifest.json` before a byte of it reaches native code.

Environment: `MASKEDGE_RUNTIME` (litert or tflite) forces a runtime, `MASKEDGE_MODELS` names another folder.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import json
import logging
import os
import re
import struct
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from edge.errors import MaskedgeError, ModelError, RuntimeMissingError, UsageError
from edge.files import write_atomically

log = logging.getLogger(__name__)

MANIFEST_VERSION = 1
RUNTIMES = {"litert": ("ai-edge-litert", "ai_edge_litert"), "tflite": ("tflite-runtime", "tflite_runtime")}
"""Key to (distribution, module), in order of preference."""

# The op versions in a file are dated by TFLite's version; ai-edge-litert counts its own. Measured by offering
# each release ops of known date: from this release on, every op up to that TFLite version was accepted.
_LITERT_AS_TFLITE = (((2, 3), (2, 23)), ((1, 4), (2, 20)), ((1, 2), (2, 19)), ((0, 0), (2, 18)))

_PROBE = Path(__file__).parent / "assets" / "probe.tflite"
_REFETCH = "get the models again (git checkout -- converted_models, or reinstall maskedge)"


# --------------------------------------------------------------------------------------- native stderr

_stderr_lock = threading.Lock()
_LEVELS = {"I": logging.DEBUG, "V": logging.DEBUG, "D": logging.DEBUG, "W": logging.WARNING}
_NATIVE_LINE = re.compile(r"^(?:(INFO|VERBOSE|DEBUG|WARNING|ERROR|FATAL): |([IWEF])\d{4} )")


@contextmanager
def _native_stderr(problems: list[str], *, quiet: bool = False) -> Iterator[None]:
    """Send what native code writes to file descriptor 2 to the log instead of the terminal.

    INFO lines are logged at DEBUG, warnings and errors at their own level and added to `problems`. A line
    that is not native log output (another thread may print meanwhile) is passed on to the real stderr, or
    with `quiet` to the log at DEBUG. All of that also happens when the body raises.
    """
    caught = b""
    try:
        with _stderr_lock, ExitStack() as stack:
            try:
                # When stderr is closed there is nothing to catch, and a new file could even take its number.
                saved = os.dup(2)
                stack.callback(os.close, saved)
                sink = stack.enter_context(_memory_file())
            except OSError:
                sink = None
            if sink is None:
                yield
            else:
                _flush_stderr()
                os.dup2(sink.fileno(), 2)
                try:
                    yield
                finally:
                    _flush_stderr()
                    os.dup2(saved, 2)
                    sink.seek(0)
                    caught = sink.read()
    finally:
        # With the real stderr back and outside the lock, since log handlers write there themselves.
        _pass_on(caught.decode(errors="replace"), problems, quiet)


def _memory_file() -> IO[bytes]:
    """A file, not a pipe: it cannot fill up and block the writer."""
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("native_stderr"), "w+b")
    return tempfile.TemporaryFile()


def _flush_stderr() -> None:
    try:
        if sys.stderr is not None:
            sys.stderr.flush()
    except (OSError, ValueError):
        pass


def _pass_on(text: str, problems: list[str], quiet: bool) -> None:
    for line in text.splitlines(keepends=True):
        match = _NATIVE_LINE.match(line)
        if match is None and not quiet:
            try:
                os.write(2, line.encode())
            except OSError:
                log.warning("%s", line.rstrip())
            continue
        level = _LEVELS.get((match[1] or match[2])[0], logging.ERROR) if match else logging.DEBUG
        if "before absl::InitializeLog()" in line:  # said once, ahead of any first line, as a warning
            level = logging.DEBUG
        log.log(level, "native: %s", line.rstrip())
        if level >= logging.WARNING:
            problems.append(line.strip())


# -------------------------------------------------------------------------------------------- runtimes


@dataclass(slots=True, frozen=True)
class Runtime:
    """A TFLite runtime that has proven to work on this machine.

    Attributes:
        key: "litert" or "tflite".
        label: distribution and version, such as "ai-edge-litert 2.3.0".
        tflite_version: (major, minor) of the TFLite release whose ops it is sure to know.
        interpreter: its `Interpreter` class.
    """

    key: str
    label: str
    tflite_version: tuple[int, ...]
    interpreter: Any


def find_runtime(runtime: str | None = None) -> Runtime:
    """The runtime to use: the one asked for, else `MASKEDGE_RUNTIME`, else the first that works.

    Args:
        runtime: "litert" or "tflite" to force one.

    Raises:
        RuntimeMissingError: none works here.
        UsageError: no such runtime.
    """
    forced = runtime or os.environ.get("MASKEDGE_RUNTIME", "").strip()
    if forced and forced not in RUNTIMES:
        raise UsageError(f"unknown runtime {forced!r}", remedy=f"use one of {', '.join(RUNTIMES)}")
    reasons, remedy = [], ""
    for key in (forced,) if forced else RUNTIMES:
        try:
            return probe_runtime(key)
        except RuntimeMissingError as error:
            reasons.append(error.args[0])
            # Where one is installed but broken, mending that one is the shorter way. ai-edge-litert has no
            # wheel for 32-bit systems, so that there the last remedy is the one that can be followed.
            if not remedy or "not installed" not in error.args[0] or struct.calcsize("P") == 4:
                remedy = error.remedy
    raise RuntimeMissingError("no TFLite runtime works here: " + "; ".join(reasons), remedy=remedy)


@functools.cache
def probe_runtime(key: str) -> Runtime:
    """Load one runtime and run a tiny model with it.

    Importing proves nothing: tflite-runtime beside numpy 2 imports, and fails when an interpreter is built.

    Raises:
        RuntimeMissingError: it is not installed, or does not work here.
    """
    name, package = RUNTIMES[key]
    older = "'numpy<2' 'opencv-python-headless<4.12'"
    remedy = f"pip install --upgrade {name}" + (f" {older}" if key == "tflite" else "")
    problems: list[str] = []
    try:
        with _native_stderr(problems, quiet=True):
            interpreter_class = importlib.import_module(f"{package}.interpreter").Interpreter
            interpreter = interpreter_class(model_content=_PROBE.read_bytes(), num_threads=1)
            interpreter.allocate_tensors()
            interpreter.set_tensor(interpreter.get_input_details()[0]["index"], np.zeros((1, 4), np.float32))
            interpreter.invoke()
            answer = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        version = _package_version(name, package)
    except Exception as error:  # whatever a native module does while it loads, another runtime may still work
        if isinstance(error, ModuleNotFoundError) and error.name == package:
            raise RuntimeMissingError(f"{name} is not installed", remedy=remedy) from None
        why = _one_line(error, problems)
        if isinstance(error, SystemError) and _numbers(np.__version__) >= (2,):
            why = f"it needs numpy below 2, here is {np.__version__}"
            remedy = f"pip install --upgrade ai-edge-litert, or pip install {older}"
        raise RuntimeMissingError(f"{name} is installed but does not work: {why}", remedy=remedy) from error
    if not np.array_equal(answer, np.ones((1, 4), np.float32)):
        raise RuntimeMissingError(f"{name} {version} computes wrongly on this processor", remedy=remedy)
    number = _numbers(version)
    if key == "litert":
        number = next(tflite for litert, tflite in _LITERT_AS_TFLITE if number >= litert)
    found = Runtime(key, f"{name} {version}", number, interpreter_class)
    log.debug("runtime: %s", found.label)
    return found


def _package_version(name: str, package: str) -> str:
    version = getattr(sys.modules[package], "__version__", None)
    if version is None:
        from importlib.metadata import version as installed_version

        version = installed_version(name)
    return str(version)


def _numbers(version: str) -> tuple[int, ...]:
    """ "2.14.0" as (2, 14): the patch level never changes the ops."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def _one_line(error: BaseException, problems: Sequence[str] = ()) -> str:
    """What an exception and the native log lines say, without repeats, cut to a readable length."""
    text = " ".join(str(error).split()) or type(error).__name__
    for problem in problems:
        if problem.partition(": ")[2] not in text:
            text += f" [{problem}]"
    return text if len(text) <= 400 else text[:399] + "…"


# --------------------------------------------------------------------------------------------- threads


def available_cores() -> int:
    """How many cores this process may use; taskset, systemd and containers leave fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def default_threads(model_sha: str, runtime: str) -> int:
    """Threads for a model: the stored result of `maskedge bench --tune` for it and this runtime, else 1 or 2.

    Not all cores: the camera, the encoder and the viewer need some too, and an invoke waits for its slowest
    thread, so that one thread too many on a busy machine costs far more than one too few (measured: 4 threads
    on 2 busy cores, 10 ms became 581 ms).

    Args:
        model_sha: SHA-256 of the file, hexadecimal.
        runtime: label of the runtime, such as "ai-edge-litert 2.3.0".
    """
    cores = available_cores()
    stored = _read_tuning().get(f"{model_sha} {runtime}")
    if isinstance(stored, dict):
        threads = stored.get("threads")
        # A result from when more cores were there, or fewer, says nothing about now.
        if isinstance(threads, int) and 1 <= threads <= cores and stored.get("cores") == cores:
            return threads
    return 2 if cores >= 3 else 1


def tuning_file() -> Path:
    """Where thread counts found by `maskedge bench --tune` are kept."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(cache) / "maskedge" / "tune.json"


def save_tuning(model_sha: str, runtime: str, threads: int) -> Path:
    """Store the best thread count of a model (see `default_threads`); returns the file written.

    Raises:
        MaskedgeError: the cache folder cannot be written.
    """
    path = tuning_file()
    results = _read_tuning() | {f"{model_sha} {runtime}": {"threads": threads, "cores": available_cores()}}
    text = json.dumps({"version": 1, "results": results}, indent=1, sort_keys=True)
    try:
        write_atomically(path, text + "\n")
    except OSError as error:
        remedy = "set XDG_CACHE_HOME to a folder you can write"
        raise MaskedgeError(f"cannot store the tuning in {path} ({error.strerror})", remedy=remedy) from error
    return path


def _read_tuning() -> dict[str, Any]:
    try:
        stored = json.loads(tuning_file().read_text(encoding="utf-8"))
        results = stored["results"]
        return results if isinstance(results, dict) else {}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("ignoring the unreadable tuning file %s (%s)", tuning_file(), error)
        return {}


# -------------------------------------------------------------------------------------------- manifest


@dataclass(slots=True, frozen=True)
class ModelFile:
    """One precision of a model: a file in the models folder.

    Attributes:
        file: its name; sha256: its digest, hexadecimal; bytes: its size.
        parameters, macs: of the network; macs are for one picture.
        min_runtime: lowest TFLite version that knows its ops, or "".
        parity: how far it is from the Keras model.
    """

    file: str
    sha256: str
    bytes: int
    parameters: int | None = None
    macs: int | None = None
    min_runtime: str = ""
    parity: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True, frozen=True)
class ModelEntry:
    """One model of the manifest; the attributes are the keys of the manifest's contract.

    Attributes:
        default: precision to load when none is asked for.
        input: width, height, color, dtype, layout.
        outputs: name and shape of each.
        thresholds: name to {"value", "figure"}, the figure being where the value came from.
        files: precision to file.
    """

    name: str
    task: str
    version: str
    default: str
    files: Mapping[str, ModelFile]
    default_reason: str = ""
    input: Mapping[str, Any] = field(default_factory=dict)
    outputs: Sequence[Mapping[str, Any]] = ()
    labels: Sequence[str] = ()
    thresholds: Mapping[str, Any] = field(default_factory=dict)
    strides: Sequence[int] = ()
    alignment: Any = None
    licence: str = ""
    training_data: Sequence[Any] = ()
    metrics: Sequence[Mapping[str, Any]] = ()

    def threshold(self, name: str) -> float:
        """Value of one threshold.

        Raises:
            ModelError: the manifest does not give it.
        """
        value = self.thresholds.get(name)
        value = value.get("value") if isinstance(value, dict) else value
        if not isinstance(value, (int, float)):
            raise ModelError(f"model {self.name}: the manifest has no threshold {name!r}", remedy=_REFETCH)
        return float(value)

    def template(self, default: Sequence[Sequence[float]]) -> np.ndarray:
        """Where the landmarks lie in the model's crop, 5 x 2 float64 in its sides; `default` if not given."""
        return np.asarray(self.alignment["template"] if self.alignment else default, np.float64)

    def precision(self, wanted: str | None = None) -> str:
        """The precision asked for, or the default one.

        Raises:
            ModelError: there is no file of that precision.
        """
        precision = wanted or self.default
        if precision not in self.files:
            raise ModelError(
                f"model {self.name} has no precision {precision!r}", remedy=f"it has {', '.join(self.files)}"
            )
        return precision


@dataclass(slots=True, frozen=True)
class Manifest:
    """The models in a folder, by name."""

    folder: Path
    models: Mapping[str, ModelEntry]

    def entry(self, name: str) -> ModelEntry:
        """The entry of a model.

        Raises:
            ModelError: there is no such model.
        """
        if name not in self.models:
            known = ", ".join(self.models) or "none"
            raise ModelError(f"no model {name!r} in {self.folder}", remedy=f"known models: {known}")
        return self.models[name]

    def read(self, name: str, precision: str | None = None, *, runtime: Runtime | None = None) -> bytes:
        """The content of a model file, after its hash (and with `runtime` its op versions) proved right.

        Raises:
            ModelError: unknown, missing, damaged, or newer than the runtime.
        """
        entry = self.entry(name)
        precision = entry.precision(precision)
        item = entry.files[precision]
        label, path = f"model {name} ({precision})", self.folder / item.file
        if runtime is not None and _numbers(item.min_runtime) > runtime.tflite_version:
            version = runtime.tflite_version
            fits = [key for key, other in entry.files.items() if _numbers(other.min_runtime) <= version]
            remedy = "pip install --upgrade ai-edge-litert"
            if fits:
                remedy += f", or use precision {' or '.join(fits)}"
            stands_for = "" if runtime.key == "tflite" else f" (like TFLite {version[0]}.{version[1]})"
            raise ModelError(
                f"{label} needs TFLite {item.min_runtime}, here is {runtime.label}{stands_for}", remedy=remedy
            )
        data = _read_file(path, label)
        if item.bytes and len(data) != item.bytes:
            wrong = f"{label}: {path} has {len(data)} bytes instead of {item.bytes}"
            raise ModelError(wrong, remedy=_REFETCH)
        if hashlib.sha256(data).hexdigest() != item.sha256:
            wrong = f"{label}: {path} is not the file of the manifest (its SHA-256 differs)"
            raise ModelError(wrong, remedy=_REFETCH)
        return data


def models_dir() -> Path:
    """Folder of the models: `MASKEDGE_MODELS`, else the checkout's, else the installed one."""
    if os.environ.get("MASKEDGE_MODELS"):
        return Path(os.environ["MASKEDGE_MODELS"]).expanduser()
    package = Path(__file__).resolve().parent
    checkout = package.parent / "converted_models"
    return checkout if checkout.is_dir() else package / "converted_models"


_default_models_dir = models_dir  # for functions with a parameter of that name


def load_manifest(models_dir: str | Path | None = None) -> Manifest:
    """Read `manifest.json` of a models folder, by default of `edge.tflite.models_dir()`.

    Raises:
        ModelError: the folder or the manifest is missing or malformed.
    """
    folder = Path(models_dir) if models_dir is not None else _default_models_dir()
    path = folder / "manifest.json"
    if not folder.is_dir():
        remedy = f"set MASKEDGE_MODELS to the folder, or {_REFETCH}"
        raise ModelError(f"no models folder {folder}", remedy=remedy)
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw["version"] != MANIFEST_VERSION:
            raise ModelError(
                f"{path} has version {raw['version']!r}, this program reads {MANIFEST_VERSION}",
                remedy="use models and program of the same release",
            )
        models = {name: _entry(name, item) for name, item in raw["models"].items()}
    except FileNotFoundError:
        raise ModelError(f"no manifest.json in {folder}", remedy=_REFETCH) from None
    except OSError as error:
        raise ModelError(f"cannot read {path} ({error.strerror})", remedy="check its permissions") from error
    except KeyError as error:
        raise ModelError(f"{path} is malformed (no {error})", remedy=_REFETCH) from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{path} is malformed ({_one_line(error)})", remedy=_REFETCH) from error
    return Manifest(folder, models)


def _entry(name: str, raw: Mapping[str, Any]) -> ModelEntry:
    """One checked entry; KeyError, TypeError or ValueError tell what is wrong with it."""
    files = {}
    for precision, item in raw["files"].items():
        known = {key: item[key] for key in (f.name for f in fields(ModelFile)) if item.get(key) is not None}
        file = ModelFile(**known)
        if not isinstance(file.file, str) or Path(file.file).name != file.file:
            raise ValueError(f"model {name}: {file.file!r} is not a plain file name")
        if not re.fullmatch(r"[0-9a-f]{64}", str(file.sha256)):
            raise ValueError(f"model {name} ({precision}): bad sha256")
        if not isinstance(file.bytes, int) or not isinstance(file.min_runtime, str):
            raise TypeError(f"model {name} ({precision}): bad bytes or min_runtime")
        files[precision] = file
    if raw["default"] not in files:
        raise ValueError(f"model {name}: no file of its default precision {raw['default']!r}")
    known = {key: raw[key] for key in (f.name for f in fields(ModelEntry)) if raw.get(key) is not None}
    kinds = {"input": dict, "thresholds": dict, "outputs": list, "labels": list, "strides": list}
    for key, kind in kinds.items():
        if not isinstance(known.get(key, kind()), kind):
            raise TypeError(f"model {name}: {key} is not a {kind.__name__}")
    return ModelEntry(**known | {"name": name, "files": files})


def _read_file(path: Path, label: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ModelError(f"{label}: no file {path}", remedy=_REFETCH) from None
    except OSError as error:
        remedy = "check the path and its permissions"
        raise ModelError(f"{label}: cannot read {path} ({error.strerror})", remedy=remedy) from error


# ------------------------------------------------------------------------------------- structure check

# Table to {field number: child}; "1", "4", "8" is a vector of scalars of that size, "table" a table of any
# kind, [name] a vector of such tables. Only what the runtimes follow blindly; scalars need no check.
_SCHEMA: dict[str, dict[int, Any]] = {
    "Model": {1: ["OperatorCode"], 2: ["SubGraph"], 3: "1", 4: ["Buffer"], 5: "4", 6: ["Metadata"]},
    "OperatorCode": {1: "1"},
    "SubGraph": {0: ["Tensor"], 1: "4", 2: "4", 3: ["Operator"], 4: "1"},
    "Tensor": {0: "4", 3: "1", 4: "Quantization", 7: "4"},
    "Quantization": {0: "4", 1: "4", 2: "4", 3: "8"},
    "Operator": {1: "4", 2: "4", 4: "table", 5: "1", 7: "1", 8: "4"},
    "Buffer": {0: "1"},
    "Metadata": {0: "1"},
    "table": {},
}


def _check_structure(data: bytes) -> None:
    """Follow the offsets of a `.tflite` file; tflite-runtime does not, and crashes on a damaged one.

    This finds truncated and garbled files. It is no defence against files made to do harm.

    Raises:
        ValueError: what is wrong.
    """
    if len(data) < 16 or data[4:8] != b"TFL3":
        raise ValueError("it has no TFLite identifier")
    size = len(data)

    def at(form: str, position: int) -> int:
        if not 0 <= position <= size - struct.calcsize(form):
            raise ValueError("it is truncated or damaged")
        return struct.unpack_from(form, data, position)[0]

    def vector(position: int, width: int) -> int:
        length = at("<I", position)
        if position + 4 + length * width > size:
            raise ValueError("it is truncated or damaged")
        return length

    def table(name: str, position: int) -> None:
        layout = position - at("<i", position)
        layout_size, table_size = at("<H", layout), at("<H", layout + 2)
        if layout_size < 4 or layout + layout_size > size or position + table_size > size:
            raise ValueError("it is truncated or damaged")
        for number, kind in _SCHEMA[name].items():
            entry = 4 + 2 * number
            offset = at("<H", layout + entry) if entry + 2 <= layout_size else 0
            if offset:
                follow(kind, position + offset)

    def follow(kind: Any, position: int) -> None:
        target = position + at("<I", position)
        if isinstance(kind, list):
            for number in range(vector(target, 4)):
                element = target + 4 + 4 * number
                table(kind[0], element + at("<I", element))
        elif kind.isdigit():
            vector(target, int(kind))
        else:
            table(kind, target)

    follow("Model", 0)


# ----------------------------------------------------------------------------------------------- model


@dataclass(slots=True, frozen=True)
class TensorSpec:
    """An input or output of a model.

    Attributes:
        shape: as in the file, batch first.
        dtype: as stored.
        scale, zero_point: real value = scale * (stored value - zero_point); scale 0 means not quantised.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    scale: float = 0.0
    zero_point: int = 0


class Model:
    """A loaded model, ready to run. It belongs to one thread at a time.

    Attributes:
        name: for messages.
        runtime: label of the runtime, such as "ai-edge-litert 2.3.0".
        threads: how many it computes with.
        inputs, outputs: what goes in and comes out, in the order of the file.
    """

    def __init__(
        self,
        path_or_bytes: str | Path | bytes,
        *,
        name: str = "",
        threads: int | None = None,
        runtime: Literal["litert", "tflite"] | None = None,
        sha256: str | None = None,
    ) -> None:
        """Load a `.tflite` file.

        Args:
            path_or_bytes: the file, or its content.
            name: for messages; default the file's name.
            threads: default by `default_threads`.
            runtime: force one; default by `find_runtime`.
            sha256: digest of the content where the caller has checked it; else the structure is checked here.

        Raises:
            ModelError: missing, damaged, or not for this runtime.
            UsageError: bad thread count or runtime.
        """
        if threads is not None and (not isinstance(threads, int) or threads < 1):
            raise UsageError(f"cannot run a model on {threads!r} threads", remedy="give a number from 1 on")
        if isinstance(path_or_bytes, bytes):
            self.name, data = name or "model", path_or_bytes
        else:
            path = Path(path_or_bytes)
            self.name, data = name or path.name, _read_file(path, "model")
        if sha256 is None:
            try:
                _check_structure(data)
            except ValueError as error:
                message = f"{self.name} is not a usable .tflite file ({error})"
                raise ModelError(message, remedy="convert or download it again") from None
        chosen = find_runtime(runtime)
        self.runtime = chosen.label
        self.sha256 = sha256 or hashlib.sha256(data).hexdigest()
        self.threads = threads or default_threads(self.sha256, chosen.label)
        problems: list[str] = []
        try:
            with _native_stderr(problems):
                self._interpreter = chosen.interpreter(model_content=data, num_threads=self.threads)
                self._interpreter.allocate_tensors()
        except Exception as error:  # the runtimes raise several kinds, none of them documented
            raise _load_error(self.name, chosen, _one_line(error, problems)) from error
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        self.inputs, self.outputs = tuple(map(_spec, inputs)), tuple(map(_spec, outputs))
        self._input_ids = tuple(int(item["index"]) for item in inputs)
        self._output_ids = tuple(int(item["index"]) for item in outputs)
        # On every frame: bound once, without a look-up each time.
        self._set, self._get = self._interpreter.set_tensor, self._interpreter.get_tensor
        log.debug("%s: %s, %d thread(s)", self.name, self.runtime, self.threads)

    def output(self, name: str) -> int:
        """Index of the one output whose name is, or else contains, `name`.

        Raises:
            ModelError: there is none, or several.
        """
        names = [spec.name for spec in self.outputs]
        if names.count(name) == 1:
            return names.index(name)
        found = [index for index, full in enumerate(names) if name in full]
        if len(found) != 1:
            count = "several outputs" if found else "no output"
            raise ModelError(f"{self.name} has {count} named {name!r}", remedy=f"it has {', '.join(names)}")
        return found[0]

    def set_inputs(self, *arrays: np.ndarray) -> None:
        """Copy one array into each input tensor.

        An array of the tensor's own dtype goes in unchanged, so uint8 pixels stay as they are.
        Other pixels and floats count as real values: they are quantised where the tensor is quantised, and
        converted where it is float32. A first dimension of 1 may be left out.

        Raises:
            ValueError: wrong number, shape or dtype of arrays.
        """
        if len(arrays) != len(self.inputs):
            raise ValueError(f"{self.name} takes {len(self.inputs)} input(s), not {len(arrays)}")
        for index, spec, array in zip(self._input_ids, self.inputs, arrays, strict=True):
            self._set(index, self._prepare(spec, array))

    def _prepare(self, spec: TensorSpec, array: np.ndarray) -> np.ndarray:
        array = np.asarray(array)
        if array.shape != spec.shape:
            if (1, *array.shape) != spec.shape:
                raise ValueError(f"{self.name}: input {spec.name} has shape {spec.shape}, not {array.shape}")
            array = array[None]
        if array.dtype == spec.dtype:
            return array
        # Pixels (uint8) and floats are real values; another integer type is more likely a mix-up.
        if array.dtype == np.uint8 or array.dtype.kind == "f":
            if spec.dtype == np.float32:
                return array.astype(np.float32)
            if spec.scale and spec.dtype.kind in "iu":
                limits = np.iinfo(spec.dtype)
                stored = np.rint(array.astype(np.float32) / np.float32(spec.scale)) + spec.zero_point
                return stored.clip(limits.min, limits.max).astype(spec.dtype)
        raise ValueError(f"{self.name}: input {spec.name} takes {spec.dtype}, not {array.dtype}")

    def invoke(self) -> None:
        """Compute, from what is in the input tensors."""
        try:
            self._interpreter.invoke()
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"{self.name} failed to run: {_one_line(error)}") from error

    def run(self, *arrays: np.ndarray) -> list[np.ndarray]:
        """One result per output, in the order of `outputs`: quantised ones as real float32, others as stored.

        Args:
            arrays: one per input; see `set_inputs`.

        Returns:
            Arrays of their own, which the next call does not touch.

        Raises:
            ValueError: an array does not fit.
            ModelError: the runtime failed.
        """
        return [_dequantise(*pair) for pair in zip(self.run_raw(*arrays), self.outputs, strict=True)]

    def run_raw(self, *arrays: np.ndarray) -> list[np.ndarray]:
        """Like `run`, with quantised outputs as they are stored."""
        self.set_inputs(*arrays)
        self.invoke()
        return [self._get(index) for index in self._output_ids]


def load_model(
    name: str | Path,
    *,
    precision: str | None = None,
    threads: int | None = None,
    models_dir: str | Path | None = None,
    runtime: Literal["litert", "tflite"] | None = None,
) -> Model:
    """Load a model of the manifest by name, or any `.tflite` file by path.

    Args:
        name: name in the manifest, or a path (which ends in `.tflite` or has a folder in it).
        precision: default is the manifest's; a file has only its own.
        threads, runtime: see `Model`.
        models_dir: folder of the manifest; default by `edge.tflite.models_dir()`.

    Raises:
        ModelError: missing, damaged, or not for this runtime.
        UsageError: a precision together with a path, bad thread count or runtime.
    """
    if is_path(name):
        if precision is not None:
            raise UsageError(f"{name} is a file and has one precision", remedy="leave the precision out")
        return Model(name, threads=threads, runtime=runtime)
    manifest = load_manifest(models_dir)
    entry = manifest.entry(str(name))
    precision = entry.precision(precision)
    data = manifest.read(entry.name, precision, runtime=find_runtime(runtime))
    digest = entry.files[precision].sha256
    return Model(data, name=f"{entry.name} ({precision})", threads=threads, runtime=runtime, sha256=digest)


def is_path(name: str | Path) -> bool:
    """Whether a model is meant by path rather than by its name in the manifest."""
    return isinstance(name, Path) or name.endswith(".tflite") or "/" in name or os.sep in name


def _spec(details: Mapping[str, Any]) -> TensorSpec:
    scale, zero_point = details["quantization"]
    shape = tuple(int(size) for size in details["shape"])
    return TensorSpec(details["name"], shape, np.dtype(details["dtype"]), float(scale), int(zero_point))


def _dequantise(stored: np.ndarray, spec: TensorSpec) -> np.ndarray:
    if not spec.scale or stored.dtype.kind not in "iu":
        return stored
    real = stored.astype(np.float32)
    real -= np.float32(spec.zero_point)
    real *= np.float32(spec.scale)
    return real


def _load_error(name: str, runtime: Runtime, reason: str) -> ModelError:
    if "Didn't find op for builtin opcode" in reason:
        newer = "install ai-edge-litert" if runtime.key == "tflite" else "install the newest ai-edge-litert"
        remedy = f"the file is newer than {runtime.label}; {newer}, or convert it with an older TensorFlow"
    elif "custom op" in reason or "Select TensorFlow op" in reason:
        remedy = "convert it with built-in TFLite ops only"
    else:
        remedy = "convert or download it again"
    return ModelError(f"{name} cannot be loaded by {runtime.label}: {reason}", remedy=remedy)
