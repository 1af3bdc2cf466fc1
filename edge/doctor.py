"""What this machine has, what is missing for the camera loop, and what to do about it.

Each check is one function of the table `CHECKS`, which yields its findings. A "fail" stops the loop; a "warn"
costs speed or a convenience.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from edge.errors import MaskedgeError, ModelError, RuntimeMissingError
from edge.tflite import RUNTIMES, available_cores, find_runtime, load_manifest, probe_runtime

OPENCV_PACKAGES = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)
HOT_CELSIUS = 80.0
"""From here a Raspberry Pi lowers its clock."""


@dataclass(slots=True, frozen=True)
class Check:
    """One finding.

    Attributes:
        name: what was looked at.
        status: "ok"; "warn": the loop runs, but slower or without something; "fail": it cannot run.
        message: what was found, one line.
        remedy: what to do, one line, or "".
    """

    name: str
    status: Literal["ok", "warn", "fail"]
    message: str
    remedy: str = ""


# ----------------------------------------------------------------- facts, which the benchmarks record too


def _read(path: str | Path) -> str:
    """Text of a file of /proc or /sys, "" where there is none."""
    try:
        return Path(path).read_text(errors="replace").strip("\0\n ")
    except OSError:
        return ""


def board() -> str:
    """Name of the board, such as "Raspberry Pi 5 Model B Rev 1.0", or ""."""
    return _read("/proc/device-tree/model")


def cpu_model() -> str:
    """Name of the processor as the system gives it."""
    for line in _read("/proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model"):
            return value.strip()
    return board() or platform.processor() or platform.machine()


def operating_system() -> str:
    """Name and version of the system, such as "Debian GNU/Linux 12 (bookworm)"."""
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return f"{platform.system()} {platform.release()}"


def governor() -> str:
    """CPU frequency governor of the first core, or "" where the system shows none."""
    return _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def temperature_c() -> float | None:
    """Hottest thermal zone in degrees Celsius, or None."""
    values = [_read(path) for path in Path("/sys/class/thermal").glob("thermal_zone*/temp")]
    return max((int(value) / 1000 for value in values if value.lstrip("-").isdigit()), default=None)


def throttled() -> int | None:
    """A Raspberry Pi's throttling bits (0: none, now or since it was switched on), or None elsewhere."""
    if shutil.which("vcgencmd") is None:
        return None
    try:
        command = ["vcgencmd", "get_throttled"]
        text = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout
        return int(text.partition("=")[2].strip(), 16)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def has_display() -> bool:
    """Whether a window can be opened; where not, OpenCV's attempt would abort the process."""
    if sys.platform in ("darwin", "win32"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


# ------------------------------------------------------------------------------------------------- checks


def _python() -> Iterator[Check]:
    version, found = sys.version_info[:2], f"{platform.python_version()} ({sys.executable})"
    if version < (3, 11):
        yield Check("python", "fail", found, "install Python 3.11 to 3.13")
    elif version > (3, 13):
        yield Check("python", "warn", f"{found} is newer than what is tested", "use Python 3.11 to 3.13")
    else:
        yield Check("python", "ok", found)


def _machine() -> Iterator[Check]:
    bits = "64" if sys.maxsize > 2**32 else "32"
    yield Check("machine", "ok", f"{board() or cpu_model()}, {platform.machine()}, {operating_system()}")
    if bits == "32":
        remedy = "use a 64-bit system; on 32 bit only tflite-runtime on Python 3.11 works"
        yield Check("machine", "warn", "32-bit Python", remedy)


def _runtime() -> Iterator[Check]:
    """Each runtime by building an interpreter: import alone would miss tflite-runtime beside numpy 2."""
    import numpy as np

    try:
        used = find_runtime()
    except MaskedgeError as error:
        yield Check("runtime", "fail", error.args[0], error.remedy)
        return
    yield Check("runtime", "ok", f"{used.label} runs models, numpy {np.__version__}")
    for key in RUNTIMES:
        try:
            probe_runtime(key)
        except RuntimeMissingError as error:
            if "not installed" not in error.args[0]:
                yield Check("runtime", "warn", error.args[0], error.remedy)


def _opencv() -> Iterator[Check]:
    from importlib.metadata import PackageNotFoundError, version

    installed = []
    for name in OPENCV_PACKAGES:
        try:
            installed.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    if len(installed) > 1:
        names = " ".join(name.split()[0] for name in installed)
        remedy = f"pip uninstall {names}, then pip install opencv-python-headless"
        yield Check("opencv", "warn", f"{' and '.join(installed)} overwrite each other's files", remedy)
    try:
        import cv2
    except Exception as error:  # a missing libGL, or numpy of the other kind, which is no ImportError
        remedy = "pip install --force-reinstall opencv-python-headless"
        yield Check("opencv", "fail", f"cannot be imported: {' '.join(str(error).split())[:200]}", remedy)
        return
    toolkit = gui_toolkit(cv2.getBuildInformation())
    if toolkit and not has_display():
        message = f"{cv2.__version__} can open windows ({toolkit}), but there is no display"
        yield Check("opencv", "warn", message, "use --sink video:FILE or jsonl:FILE, or set DISPLAY")
    else:
        yield Check("opencv", "ok", f"{cv2.__version__}, {toolkit or 'headless: no windows'}")


def gui_toolkit(build_information: str) -> str:
    """What OpenCV draws windows with, from `cv2.getBuildInformation()`; "" for a headless one."""
    lines = iter(build_information.splitlines())
    for line in lines:
        key, _, value = line.strip().partition(":")
        if key != "GUI":
            continue
        if value.strip() and value.strip() != "NONE":
            return value.strip()
        if value.strip() == "NONE":
            return ""
        for detail in lines:  # one toolkit a line, up to an empty line
            name, _, has = detail.strip().partition(":")
            if not name:
                return ""
            if has.strip().startswith("YES"):
                return name
    return ""


def _display() -> Iterator[Check]:
    if has_display():
        name = os.environ.get("WAYLAND_DISPLAY") or os.environ.get("DISPLAY") or platform.system()
        yield Check("display", "ok", name)
    else:
        yield Check(
            "display", "warn", "no display: the window sink is off", "use --sink video:FILE or jsonl:FILE"
        )


def _cameras() -> Iterator[Check]:
    nodes = sorted(Path("/dev").glob("video*"), key=lambda path: (len(path.name), path.name))
    names, denied = [], []
    for node in nodes:
        try:
            name = capture_device_name(node)
        except PermissionError:
            denied.append(str(node))
        except OSError:
            continue  # busy, or not a video node: nothing the user could change here
        else:
            if name:
                names.append(f"{node} ({name})")
    if denied:
        remedy = "sudo usermod -aG video $USER, then log out and in again"
        yield Check("camera", "warn", f"no permission to open {', '.join(denied)}", remedy)
    if names:
        yield Check("camera", "ok", ", ".join(names))
    elif not denied:
        remedy = "plug one in, or use --source demo, a file or a URL"
        yield Check("camera", "warn", "no camera found", remedy)


def capture_device_name(node: str | Path) -> str:
    """Name of a V4L2 camera, "" for a node that captures nothing (a Raspberry Pi has several such).

    Raises:
        OSError: it cannot be opened or asked.
    """
    import fcntl
    import struct

    querycap, capture, device_caps = 0x80685600, 0x1 | 0x1000, 0x80000000  # from linux/videodev2.h
    handle = os.open(node, os.O_RDWR | os.O_NONBLOCK)
    try:
        answer = fcntl.ioctl(handle, querycap, bytes(104))
    finally:
        os.close(handle)
    _, card, _, _, whole, own, *_ = struct.unpack("16s32s32sIII3I", answer)
    caps = own if whole & device_caps else whole
    return card.rstrip(b"\0").decode(errors="replace") or "camera" if caps & capture else ""


def _models() -> Iterator[Check]:
    """Every file of the manifest; only a model's default file can stop the loop."""
    try:
        manifest = load_manifest()
    except ModelError as error:
        yield Check("models", "fail", error.args[0], error.remedy)
        return
    if not manifest.models:
        yield Check("models", "fail", f"{manifest.folder} has no models", "python -m export convert face")
        return
    try:
        runtime = find_runtime()
    except MaskedgeError:
        runtime = None  # a finding of its own; the hashes can be checked without
    good = 0
    for entry in manifest.models.values():
        for precision in entry.files:
            try:
                manifest.read(entry.name, precision, runtime=runtime)
                good += 1
            except ModelError as error:
                status: Literal["warn", "fail"] = "fail" if precision == entry.default else "warn"
                yield Check("models", status, error.args[0], error.remedy)
    if good:
        names = ", ".join(f"{entry.name} {entry.version}" for entry in manifest.models.values())
        yield Check("models", "ok", f"{names}: {good} file(s) with the right hash in {manifest.folder}")


def _processor() -> Iterator[Check]:
    usable, cores, how = available_cores(), os.cpu_count() or 1, governor()
    message = f"{usable} of {cores} cores" + (f", governor {how}" if how else "")
    if how == "powersave" and not Path("/sys/devices/system/cpu/intel_pstate").exists():
        remedy = "echo schedutil | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
        yield Check("processor", "warn", f"{message} keeps the lowest clock", remedy)
    else:
        yield Check("processor", "ok", message)


def _temperature() -> Iterator[Check]:
    celsius, bits = temperature_c(), throttled()
    message = "unknown" if celsius is None else f"{celsius:.0f} °C"
    if bits:
        # Bits 0 to 3 are now, 16 to 19 since the start; 0 and 16 are the voltage.
        when = "now" if bits & 0xF else "since it was switched on"
        low = bits & 0x10001
        remedy = "use the official power supply" if low else "add a heat sink or a fan"
        what = "low voltage" if low else "throttling"
        yield Check("temperature", "warn", f"{message}, {what} {when} (get_throttled {bits:#x})", remedy)
    elif celsius is not None and celsius >= HOT_CELSIUS:
        yield Check("temperature", "warn", f"{message}: too hot for full speed", "add a heat sink or a fan")
    else:
        yield Check("temperature", "ok", message)


def _space() -> Iterator[Check]:
    free_mb = shutil.disk_usage(Path.cwd()).free / 1e6
    low = free_mb < 200
    remedy = "make room before recording video" if low else ""
    yield Check("disk", "warn" if low else "ok", f"{free_mb / 1000:.1f} GB free in {Path.cwd()}", remedy)
    for line in _read("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            free_mb = int(line.split()[1]) / 1000
            low = free_mb < 300
            remedy = "close other programs" if low else ""
            yield Check("memory", "warn" if low else "ok", f"{free_mb / 1000:.1f} GB available", remedy)


CHECKS: tuple[Callable[[], Iterator[Check]], ...] = (
    _python,
    _machine,
    _runtime,
    _opencv,
    _display,
    _cameras,
    _models,
    _processor,
    _temperature,
    _space,
)


def run_doctor() -> list[Check]:
    """All findings, in the order of `CHECKS`. A check that breaks is itself a finding."""
    found: list[Check] = []
    for check in CHECKS:
        try:
            found.extend(check())
        except Exception as error:  # the doctor must get to the end on the oddest machine
            message = f"could not be checked ({type(error).__name__}: {error})"
            found.append(Check(check.__name__.strip("_"), "warn", message))
    return found


def exit_code(checks: Sequence[Check]) -> int:
    """0 when the loop can run, else 3."""
    return 3 if any(check.status == "fail" for check in checks) else 0


def to_json(checks: Sequence[Check]) -> dict[str, Any]:
    """JSON-ready: `version`, `ok` and the list `checks`."""
    return {"version": 1, "ok": exit_code(checks) == 0, "checks": [asdict(check) for check in checks]}


def report(checks: Sequence[Check], *, as_json: bool = False) -> str:
    """The findings for a reader, one line each with the remedy below, or as one line of JSON."""
    if as_json:
        return json.dumps(to_json(checks), ensure_ascii=False)
    lines = []
    for check in checks:
        lines.append(f"{check.status:4}  {check.name:<11}  {check.message}")
        if check.remedy:
            lines.append(f"{'':19}-> {check.remedy}")
    lines.append(
        "the camera loop can run" if exit_code(checks) == 0 else "the camera loop cannot run: see fail"
    )
    return "\n".join(lines)


def main(*, as_json: bool = False) -> int:
    """Print the report; returns the exit code."""
    checks = run_doctor()
    print(report(checks, as_json=as_json))
    return exit_code(checks)
