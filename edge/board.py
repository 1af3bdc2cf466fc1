"""What the machine says of itself: model, temperature, throttling, clock.

Every function takes the root of the file system, so that a folder can stand in for another machine. Each
returns None where the system does not tell.
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path("/")

THROTTLED = ("under-voltage", "frequency capped", "throttled", "soft temperature limit")
"""Names of bits 0 to 3 of the throttling bits, which tell of now; bits 16 to 19 are the same, of the past."""


def read(path: str | Path) -> str:
    """Text of a file of /proc or /sys, "" where there is none."""
    try:
        return Path(path).read_text(errors="replace").strip("\0\n ")
    except OSError:
        return ""


def model(root: Path = ROOT) -> str | None:
    """Name of the board, such as "Raspberry Pi 5 Model B Rev 1.0"."""
    return read(root / "proc/device-tree/model") or None


def is_pi(root: Path = ROOT) -> bool:
    """Whether this is a Raspberry Pi."""
    return (model(root) or "").startswith("Raspberry Pi")


def cpu_model(root: Path = ROOT) -> str:
    """Name of the processor as the system gives it; never empty."""
    for line in read(root / "proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model"):
            return value.strip()
    import platform

    return model(root) or platform.processor() or platform.machine()


def operating_system() -> str:
    """Name and version of the system, such as "Debian GNU/Linux 12 (bookworm)"."""
    import platform

    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return f"{platform.system()} {platform.release()}"


def governor(root: Path = ROOT) -> str | None:
    """CPU frequency governor of the first core."""
    return read(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or None


def frequency_mhz(root: Path = ROOT) -> tuple[float, float] | None:
    """Clock of the first core now and at most, MHz."""
    folder = root / "sys/devices/system/cpu/cpu0/cpufreq"
    texts = [read(folder / name) for name in ("scaling_cur_freq", "cpuinfo_max_freq")]
    if not all(text.isdigit() for text in texts):
        return None
    return int(texts[0]) / 1000, int(texts[1]) / 1000


def temperature_c(root: Path = ROOT) -> float | None:
    """Hottest thermal zone, degrees Celsius."""
    values = [read(path) for path in (root / "sys/class/thermal").glob("thermal_zone*/temp")]
    return max((int(value) / 1000 for value in values if value.lstrip("-").isdigit()), default=None)


def throttled() -> int | None:
    """A Raspberry Pi's throttling bits; 0 is none, now or since it was switched on. Starts a program."""
    import shutil
    import subprocess  # not at the start, which the camera loop would wait for

    if shutil.which("vcgencmd") is None:
        return None
    try:
        command = ["vcgencmd", "get_throttled"]
        text = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout
        return int(text.partition("=")[2].strip(), 16)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def throttled_now(root: Path = ROOT) -> int | None:
    """Bits 0 to 3 alone, from the kernel's files: quick, and allowed to everyone.

    The kernel reads the firmware every two seconds and keeps the answer; what its file says of the past is
    what happened since that reading, so it is left out. (It notes once per boot that the file is deprecated.
    What is to replace it tells of the voltage alone.)
    """
    for pattern in ("soc*/soc*firmware/get_throttled", "*firmware/get_throttled"):
        for path in (root / "sys/devices/platform").glob(pattern):
            try:
                return int(read(path), 16) & 0xF
            except ValueError:
                continue
    for path in (root / "sys/class/hwmon").glob("hwmon*/name"):
        if read(path) == "rpi_volt" and (alarm := read(path.with_name("in0_lcrit_alarm"))).isdigit():
            return int(alarm != "0")
    return None


def throttled_names(bits: int) -> tuple[str, ...]:
    """Names of the bits that are set among 0 to 3; shift by 16 for those of the past."""
    return tuple(name for bit, name in enumerate(THROTTLED) if bits >> bit & 1)
