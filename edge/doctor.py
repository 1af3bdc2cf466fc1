"""What this machine has, what is missing for the camera loop, and what to do about it.

Each check is one function of the table `CHECKS`, which yields its findings. A "fail" stops the loop; a "warn"
costs speed or a convenience. Where a check looks at files of the system, their root is an argument, so that a
folder can stand in for another machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from edge.board import (
    ROOT,
    cpu_model,
    frequency_mhz,
    governor,
    is_pi,
    operating_system,
    read,
    temperature_c,
    throttled,
    throttled_names,
    throttled_now,
)
from edge.board import model as board
from edge.config import Config, load_config
from edge.errors import MaskedgeError, ModelError, RuntimeMissingError, UsageError
from edge.tflite import (
    RUNTIMES,
    Model,
    available_cores,
    find_runtime,
    load_manifest,
    models_dir,
    probe_runtime,
)

__all__ = ["Check", "board", "cpu_model", "governor", "operating_system", "temperature_c", "throttled"]

OPENCV_PACKAGES = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)
HOT_CELSIUS = 80.0
"""From here a Raspberry Pi lowers its clock."""

LOW_DISK_MB, LOW_MEMORY_MB = 200.0, 300.0
RELEASE_YEAR = 2026
"""A clock that shows an earlier year was never set: a Raspberry Pi has none that runs without power."""


@dataclass(slots=True, frozen=True)
class Check:
    """One finding.

    Attributes:
        name: what was looked at.
        status: "ok"; "warn": the loop runs, but slower or without something; "fail": it cannot run.
        message: what was found, one line.
        remedy: what to do, one line, or "".
        code: of a "fail", the exit code that the loop would end with.
    """

    name: str
    status: Literal["ok", "warn", "fail"]
    message: str
    remedy: str = ""
    code: int = 3


def has_display() -> bool:
    """Whether a window can be opened; where not, OpenCV's attempt would abort the process."""
    if sys.platform in ("darwin", "win32"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


# ------------------------------------------------------------------------------------------------- checks


def _python() -> Iterator[Check]:
    version, found = sys.version_info[:2], f"{platform.python_version()} ({sys.executable})"
    if version < (3, 11):
        yield Check("python", "fail", found, "install Python 3.11 to 3.13", 2)
    elif version > (3, 13):
        yield Check("python", "warn", f"{found} is newer than what is tested", "use Python 3.11 to 3.13")
    else:
        yield Check("python", "ok", found)


def _machine(
    bits: int = 64 if sys.maxsize > 2**32 else 32, processor: str = platform.machine()
) -> Iterator[Check]:
    yield Check("machine", "ok", f"{board() or cpu_model()}, {processor}, {operating_system()}")
    if bits == 32:
        below = (
            "a 32-bit system on a 64-bit kernel" if processor in ("aarch64", "x86_64") else "a 32-bit system"
        )
        remedy = "use the 64-bit system; with 32 bit only tflite-runtime on Python 3.11 works: pip install "
        remedy += "tflite-runtime 'numpy<2' 'opencv-python-headless<4.12'"
        yield Check("machine", "warn", f"{below}: pip takes wheels for armv7l, and models are slower", remedy)


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
    from importlib.metadata import distributions, version

    fitting = "'opencv-python-headless<4.12'" if version("numpy") < "2" else "opencv-python-headless"
    # By name, since the same one twice, in the environment and in the system, does no harm: the first counts.
    installed: dict[str, str] = {}
    for one in distributions():
        name = (one.metadata["Name"] or "").lower().replace("_", "-")
        if name in OPENCV_PACKAGES:
            installed.setdefault(name, one.version)
    if len(installed) > 1:
        found = " and ".join(f"{name} {number}" for name, number in sorted(installed.items()))
        remedy = f"pip uninstall -y {' '.join(sorted(installed))}, then pip install {fitting}"
        yield Check("opencv", "warn", f"{found} overwrite each other's files", remedy)
    try:
        import cv2
    except Exception as error:  # a missing libGL, or numpy of the other kind, which is no ImportError
        remedy = f"pip install --force-reinstall --no-deps {fitting}"
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


def _picamera2(root: Path = ROOT) -> Iterator[Check]:
    """The library of a Raspberry Pi's own camera, which comes with the system and not from pip."""
    from importlib.util import find_spec

    from edge.camera import picamera2

    system = root / "usr/lib/python3/dist-packages/picamera2"
    install = "sudo apt install -y python3-picamera2"
    spec = find_spec("picamera2")
    if spec is None:
        if system.is_dir():
            inside = os.path.realpath(sys.base_prefix) == "/usr"
            python = "python3" if inside else "/usr/bin/python3 (this Python is not the system's)"
            remedy = (
                f"make the environment anew: {python} -m venv --clear --system-site-packages {sys.prefix}"
            )
            message = "the system has picamera2, but this environment does not see it"
            yield Check("picamera2", "warn", f"{message}: the Raspberry Pi's own camera is off", remedy)
        elif is_pi(root):
            message = "not installed: the Raspberry Pi's own camera is off, USB cameras are not"
            yield Check("picamera2", "warn", message, install)
        return
    try:
        picamera2._library()
    except MaskedgeError as error:
        yield Check("picamera2", "warn", error.args[0], error.remedy)
        return
    where = Path(spec.origin or "").parent
    if is_pi(root) and where != system:
        remedy = f"pip uninstall -y picamera2, then {install}"
        message = f"{where} comes from pip, and may not fit the system's libcamera"
        yield Check("picamera2", "warn", message, remedy)
    else:
        cameras = picamera2.find_cameras()
        yield Check("picamera2", "ok", ", ".join(cameras) or "works; no camera is connected to the board")


def _cameras(dev: Path = Path("/dev"), proc: Path = Path("/proc")) -> Iterator[Check]:
    nodes = sorted(dev.glob("video*"), key=lambda path: (len(path.name), path.name))
    names, denied = [], []
    for node in nodes:
        try:
            name = capture_device_name(node)
        except PermissionError:
            denied.append(node)
        except OSError:
            continue  # busy, or not a video node: nothing the user could change here
        else:
            if name:
                names.append(f"{node} ({name})")
    if denied:
        yield Check(
            "camera", "warn", f"no permission to open {', '.join(map(str, denied))}", _join(denied[0])
        )
    if names:
        yield Check("camera", "ok", ", ".join(names))
    elif not denied:
        remedy = "plug one in, or use --source demo, a file or a URL"
        yield Check("camera", "warn", "no camera found on /dev/video*", remedy)
    if nodes:
        yield from _busy(dev, proc)


def _join(node: Path) -> str:
    """What lets this user open a device: its group, mostly `video`."""
    import grp
    import pwd

    user = os.environ.get("SUDO_USER") or pwd.getpwuid(os.geteuid()).pw_name
    try:
        group = grp.getgrgid(node.stat().st_gid)
    except (OSError, KeyError):
        return f"sudo usermod -aG video {user}, then log out and in again"
    if group.gr_gid == 0:
        return "only root may open it: check the rules of udev"
    if user in group.gr_mem and group.gr_gid not in os.getgroups():
        return f"you are in the group {group.gr_name}, but not in this session: log out and in again"
    return f"sudo usermod -aG {group.gr_name} {user}, then log out and in again"


def _busy(dev: Path, proc: Path) -> Iterator[Check]:
    """Who has a camera open, as far as this user may see."""
    begins = (f"{dev}/video", f"{dev}/media")
    users: dict[tuple[str, str], set[str]] = {}
    hidden = False
    for folder in proc.glob("[0-9]*"):
        if folder.name == str(os.getpid()):
            continue
        try:
            links = [os.readlink(link) for link in (folder / "fd").iterdir()]
        except PermissionError:
            hidden = True
            continue
        except OSError:
            continue  # ended meanwhile
        for link in links:
            if link.startswith(begins):
                command = _command(folder)
                own = "\0run\0" in command and ("maskedge" in command or "\0edge\0" in command)
                name = "maskedge itself" if own else read(folder / "comm") or "unknown"
                users.setdefault((name, folder.name), set()).add(link)
    rest = " (programs of other users are seen with sudo only)" if hidden else ""
    for (name, process), opened in sorted(users.items()):
        what = ", ".join(sorted(opened))
        if name in ("pipewire", "wireplumber"):  # open without use; they let go when somebody asks
            yield Check(
                "camera use", "ok", f"{what}: open in {name} (process {process}), which only watches it"
            )
            continue
        remedy = f"if it should not: kill {process}"
        if name == "maskedge itself":
            remedy = "as a service: sudo systemctl stop maskedge; else end that one"
        yield Check("camera use", "warn", f"{what}: in use by {name} (process {process}){rest}", remedy)
    if not users:
        yield Check("camera use", "ok", f"nothing else has a camera open{rest}")


def _command(folder: Path) -> str:
    try:
        return (folder / "cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


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
                data = manifest.read(entry.name, precision, runtime=runtime)
                if runtime is not None and precision == entry.default:
                    _try_model(data, f"model {entry.name} ({precision})")
                good += 1
            except ModelError as error:
                status: Literal["warn", "fail"] = "fail" if precision == entry.default else "warn"
                yield Check("models", status, error.args[0], error.remedy)
    if good:
        names = ", ".join(f"{entry.name} {entry.version}" for entry in manifest.models.values())
        yield Check("models", "ok", f"{names}: {good} file(s) with the right hash in {manifest.folder}")


def _try_model(data: bytes, name: str) -> None:
    """One run on nothing: a hash proves the file, not that this processor and this numpy can run it.

    Its structure is checked first, as that of a foreign file: tflite-runtime crashes on a broken one.

    Raises:
        ModelError: it cannot be run.
    """
    import numpy as np

    model = Model(data, name=name, threads=1)
    try:
        model.run(*(np.zeros(one.shape, one.dtype) for one in model.inputs))
    except Exception as error:  # as with loading, the runtimes raise several kinds
        message = f"{name} loads but does not run ({' '.join(str(error).split())[:200]})"
        raise ModelError(message, remedy="pip install --upgrade ai-edge-litert") from error


def _processor(root: Path = ROOT) -> Iterator[Check]:
    usable, cores, how, clock = available_cores(), os.cpu_count() or 1, governor(root), frequency_mhz(root)
    message = f"{usable} of {cores} cores"
    if clock is not None:
        message += f", {clock[0]:.0f} of {clock[1]:.0f} MHz"
    message += f", governor {how}" if how else ""
    if how == "powersave" and not (root / "sys/devices/system/cpu/intel_pstate").exists():
        remedy = "echo ondemand | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
        yield Check("processor", "warn", f"{message} keeps the lowest clock", remedy)
    elif how in ("ondemand", "conservative"):
        yield Check("processor", "ok", f"{message}, which follows the load; to measure, set performance")
    else:
        yield Check("processor", "ok", message)


def _temperature(root: Path = ROOT) -> Iterator[Check]:
    celsius, bits = temperature_c(root), throttled()
    if bits is None:  # without vcgencmd, or without the right to ask the firmware
        bits = throttled_now(root) or 0
    message = "unknown" if celsius is None else f"{celsius:.0f} °C"
    now, past = throttled_names(bits), throttled_names(bits >> 16)
    past = tuple(name for name in past if name not in now)
    if now:
        message += f"; now: {', '.join(now)}"
    if past:
        message += f"; since it was switched on: {', '.join(past)}"
    if "under-voltage" in (*now, *past):
        remedy = "use the official power supply and a short cable; take power-hungry USB devices off"
        yield Check("temperature", "warn", message, remedy)
    elif now or past or (celsius is not None and celsius >= HOT_CELSIUS):
        remedy = "add a heat sink or a fan, or lower --fps; maskedge run slows down by itself while it is hot"
        yield Check("temperature", "warn", message, remedy)
    else:
        yield Check("temperature", "ok", message)


def _disk(folders: Sequence[Path] | None = None, root: Path = ROOT) -> Iterator[Check]:
    """Room where results go and the models lie; a memory card with errors is made read-only by the kernel."""
    seen = set()
    for folder in folders or (Path.cwd(), models_dir(), Path("/var/lib/maskedge")):
        try:
            info = os.statvfs(folder)
            device = os.stat(folder).st_dev
        except OSError:
            continue  # what is missing is said elsewhere
        if device in seen:
            continue
        seen.add(device)
        free_mb = info.f_bavail * info.f_frsize / 1e6
        message = f"{free_mb / 1000:.1f} GB free in {folder}"
        if info.f_flag & os.ST_RDONLY:
            remedy = "write elsewhere; if it should be writable, dmesg tells why it is not"
            yield Check("disk", "warn", f"{folder} is on a read-only file system", remedy)
        elif free_mb < LOW_DISK_MB:
            yield Check("disk", "warn", message, "make room before recording video")
        else:
            yield Check("disk", "ok", message)
    for line in read(root / "proc/mounts").splitlines():
        _, point, kind, options, *_ = [*line.split(), "", "", "", ""]
        if point != "/":
            continue
        if kind == "overlay":
            message = "the system lies under an overlay: what is written there is gone at the next start"
            yield Check("disk", "ok", message)
        elif "ro" in options.split(","):
            remedy = (
                "if it was not made so on purpose the card has errors: dmesg tells, and save what is on it"
            )
            yield Check("disk", "warn", "the system's file system is read-only", remedy)


def _memory(root: Path = ROOT) -> Iterator[Check]:
    for line in read(root / "proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            free_mb = int(line.split()[1]) * 1024 / 1e6
            low = free_mb < LOW_MEMORY_MB
            remedy = "close other programs, or use a system without a desktop" if low else ""
            message = f"{free_mb / 1000:.1f} GB available"
            yield Check("memory", "warn" if low else "ok", message, remedy)
    limit = _memory_limit(root)
    if limit is not None and limit / 1e6 < LOW_MEMORY_MB:
        message = f"this session or container may use {limit / 1e6:.0f} MB only"
        yield Check("memory", "warn", message, "raise its limit (MemoryMax of systemd, --memory of Docker)")


def _memory_limit(root: Path) -> int | None:
    """The lowest memory limit of the control groups that this process is in, bytes."""
    limits = []
    for line in read(root / "proc/self/cgroup").splitlines():
        number, controllers, path = [*line.split(":", 2), "", ""][:3]
        if number == "0":
            base, name = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            base, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        inner = base / path.lstrip("/")
        limits += [read(folder / name) for folder in (inner, *inner.parents) if folder.is_relative_to(base)]
    return min((int(limit) for limit in limits if limit.isdigit()), default=None)


def _clock(now: Callable[[], float] = time.time) -> Iterator[Check]:
    """A wrong clock makes secure addresses fail, and names and times of results useless."""
    shown = time.strftime("%Y-%m-%d %H:%M", time.localtime(now()))
    remedy = "connect to a network, or: sudo timedatectl set-time 'YYYY-MM-DD HH:MM'"
    if time.gmtime(now()).tm_year < RELEASE_YEAR:
        yield Check("clock", "warn", f"it shows {shown}: it was never set", remedy)
        return
    synchronised = ""
    if shutil.which("timedatectl"):
        command = ["timedatectl", "show", "--property=NTPSynchronized", "--value"]
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(command, capture_output=True, text=True, timeout=5)
            synchronised = done.stdout.strip()
    if synchronised == "no":
        yield Check("clock", "warn", f"{shown}, not synchronised with a time server", remedy)
    else:
        yield Check("clock", "ok", shown + (", synchronised" if synchronised == "yes" else ""))


def _source(config: Config) -> Iterator[Check]:
    """The source that the loop is to read: one frame of it, in the same way."""
    from edge.camera import open_source

    begun = time.monotonic()
    try:
        with open_source(config.source, size=config.size, timeout=config.camera_timeout) as source:
            frame = next(source.frames(), None)
    except MaskedgeError as error:
        yield Check("source", "fail", error.args[0], error.remedy, error.exit_code)
        return
    if frame is None:
        yield Check("source", "fail", f"{config.source} has no frames", "choose another with --source", 1)
        return
    height, width = frame.image.shape[:2]
    took = time.monotonic() - begun
    yield Check("source", "ok", f"{source.name}: a frame of {width}x{height} after {took:.1f} s")


CHECKS: tuple[Callable[[], Iterator[Check]], ...] = (
    _python,
    _machine,
    _runtime,
    _opencv,
    _display,
    _picamera2,
    _cameras,
    _models,
    _processor,
    _temperature,
    _disk,
    _memory,
    _clock,
)


def run_doctor(*, config_file: str | None = None, source: str | None = None) -> list[Check]:
    """All findings, in the order of `CHECKS`. A check that breaks is itself a finding.

    Args:
        config_file: of the loop, to be checked as well.
        source: of the loop; with it, or with a file that names one, a frame is read from there.
    """
    found: list[Check] = []
    checks: list[Callable[[], Iterator[Check]]] = list(CHECKS)
    try:
        config = load_config(config_file, {"source": source})
        if source or (config_file and config.source != "auto"):
            checks.append(lambda: _source(config))
    except UsageError as error:
        found.append(Check("config", "fail", error.args[0], error.remedy, error.exit_code))
    for check in checks:
        try:
            found.extend(check())
        except Exception as error:  # the doctor must get to the end on the oddest machine
            message = f"could not be checked ({type(error).__name__}: {error})"
            found.append(
                Check(check.__name__.strip("_"), "warn", message, "report it: this is a fault of ours")
            )
    return found


def exit_code(checks: Sequence[Check]) -> int:
    """0 when the loop can run, else what it would end with: options are looked at first, cameras last."""
    return min((check.code for check in checks if check.status == "fail"), default=0)


def to_json(checks: Sequence[Check]) -> dict[str, Any]:
    """JSON-ready: `version`, `ok`, `exit_code` and the list `checks`."""
    code = exit_code(checks)
    return {"version": 1, "ok": code == 0, "exit_code": code, "checks": [asdict(check) for check in checks]}


def report(checks: Sequence[Check], *, as_json: bool = False) -> str:
    """The findings for a reader, one line each with the remedy below, or as one line of JSON."""
    if as_json:
        return json.dumps(to_json(checks), ensure_ascii=False)
    lines = []
    for check in checks:
        lines.append(f"{check.status:4}  {check.name:<11}  {check.message}")
        if check.remedy:
            lines.append(f"{'':19}-> {check.remedy}")
    code = exit_code(checks)
    lines.append(
        "the camera loop can run" if not code else f"the camera loop cannot run: see fail (exit code {code})"
    )
    return "\n".join(lines)


def main(*, as_json: bool = False, config_file: str | None = None, source: str | None = None) -> int:
    """Print the report; returns the exit code."""
    checks = run_doctor(config_file=config_file, source=source)
    print(report(checks, as_json=as_json))
    return exit_code(checks)
