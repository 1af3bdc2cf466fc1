"""What a benchmark ran on, and what disturbed it: the machine block of the result files, and the reasons
that make a row invalid.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from edge import board
from edge.tflite import available_cores, find_runtime

OTHERS_CORES = 0.1
"""More than this taken by other programs, on average, and a row does not count."""
WAITED_SHARE = 0.02
"""Share of its time that the measuring thread may spend waiting for a core."""
STEAL_CORES = 0.02
"""The same for what the host gave to other guests."""
CLOCK_RATIO = 0.9
"""The slowest clock seen must be at least this share of the fastest."""
THROTTLED_NOW, THROTTLED_SINCE_START = 0xF, 0xF0000
"""Bits of `vcgencmd get_throttled`: at this moment, and ever since the machine was switched on."""

_CPU = Path("/sys/devices/system/cpu")
_POWERCAP = Path("/sys/class/powercap")
_HWMON = Path("/sys/class/hwmon")


# -------------------------------------------------------------------------------------------- the machine


def machine() -> dict[str, Any]:
    """What is measured on: the machine block of the result files, as it is before the first row."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "cpu": board.cpu_model(),
        "board": board.model(),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "usable_cores": available_cores(),
        "governor": board.governor(),
        "temperature_c": board.temperature_c(),
        "throttled": board.throttled(),
        "load": None if load is None else round(load, 2),
        "os": board.operating_system(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "runtime": find_runtime().label,
        **git_state(),
    }


def machine_after(spent: Spent) -> dict[str, Any]:
    """The fields of the machine block that are known only at the end; `spent` is all of the run."""
    return {
        "governor_after": board.governor(),
        "temperature_c_after": board.temperature_c(),
        "throttled_after": board.throttled(),
        "other_programs_cores": _round(spent.others_cores),
        "steal_cores": _round(spent.steal_cores),
        "frequency_mhz_min": spent.slowest_mhz,
        "frequency_mhz_max": spent.fastest_mhz,
    }


def git_state() -> dict[str, Any]:
    """`git_commit` and `git_dirty` of the checkout this file lies in, None outside of one."""
    nothing = {"git_commit": None, "git_dirty": None}
    checkout = Path(__file__).resolve().parent.parent
    if not (checkout / ".git").exists():
        return nothing
    # Without optional locks `git status` leaves the index alone, which another process may be writing.
    git = ["git", "--no-optional-locks", "-C", str(checkout)]
    try:
        commit, status = (
            subprocess.run([*git, *command], capture_output=True, text=True, timeout=10, check=True).stdout
            for command in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        )
    except (OSError, subprocess.SubprocessError):
        return nothing
    return {"git_commit": commit.strip(), "git_dirty": bool(status.strip())}


def frequency_mhz(cpu: Path = _CPU) -> float | None:
    """Clock of the fastest core at this moment, MHz, or None where the system does not tell.

    The fastest one: idle cores may be clocked down, and say nothing about those that compute.
    """
    fastest = 0.0
    for file in cpu.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"):
        with contextlib.suppress(OSError, ValueError):
            fastest = max(fastest, int(file.read_text()) / 1000)
    return fastest or None


# -------------------------------------------------------------------------------------------- disturbance


@dataclass(slots=True)
class Usage:
    """Processor time so far, seconds: `busy` and `steal` of all cores together, `own` of this process, and
    how long the calling thread stood ready and waited for a core. None where the system does not tell.
    """

    wall: float
    own: float
    busy: float | None
    steal: float | None
    waited: float | None


def usage() -> Usage:
    """The counters at this moment."""
    busy = steal = waited = None
    with contextlib.suppress(OSError, ValueError):
        with open("/proc/stat", "rb") as file:
            ticks = [int(value) / os.sysconf("SC_CLK_TCK") for value in file.readline().split()[1:9]]
        user, nice, system, _idle, _iowait, irq, softirq, steal = ticks
        busy = user + nice + system + irq + softirq
    with contextlib.suppress(OSError, ValueError, IndexError):
        waited = int(Path("/proc/thread-self/schedstat").read_bytes().split()[1]) / 1e9
    return Usage(time.monotonic(), time.process_time(), busy, steal, waited)


@dataclass(slots=True)
class Spent:
    """Processor time between pairs of `Usage`, summed, and the clocks seen meanwhile.

    Attributes:
        wall, own, busy, steal, waited: seconds; see `Usage`.
        slowest_mhz, fastest_mhz: or None.
    """

    wall: float = 0.0
    own: float = 0.0
    busy: float | None = 0.0
    steal: float | None = 0.0
    waited: float | None = 0.0
    slowest_mhz: float | None = None
    fastest_mhz: float | None = None

    def add(self, before: Usage, after: Usage) -> None:
        """Count what passed between the two."""
        self.wall += after.wall - before.wall
        self.own += after.own - before.own
        for name in ("busy", "steal", "waited"):
            one, two, total = getattr(before, name), getattr(after, name), getattr(self, name)
            known = one is not None and two is not None and total is not None
            setattr(self, name, total + two - one if known else None)

    def join(self, other: Spent) -> None:
        """Count what another has seen, at another time."""
        self.wall += other.wall
        self.own += other.own
        for name in ("busy", "steal", "waited"):
            one, two = getattr(self, name), getattr(other, name)
            setattr(self, name, None if one is None or two is None else one + two)
        self.add_clock(other.slowest_mhz)
        self.add_clock(other.fastest_mhz)

    def add_clock(self, mhz: float | None) -> None:
        """Count a reading of `frequency_mhz`."""
        if mhz is not None:
            self.slowest_mhz = min(mhz, self.slowest_mhz or mhz)
            self.fastest_mhz = max(mhz, self.fastest_mhz or mhz)

    @property
    def others_cores(self) -> float | None:
        """Mean number of cores that other programs kept busy."""
        if self.busy is None or self.wall <= 0:
            return None
        return max(0.0, self.busy - self.own) / self.wall

    @property
    def steal_cores(self) -> float | None:
        """Mean number of cores that the host of a virtual machine took away."""
        return None if self.steal is None or self.wall <= 0 else max(0.0, self.steal) / self.wall

    @property
    def waited_share(self) -> float | None:
        """Share of the time in which the thread could have computed, and had no core."""
        return None if self.waited is None or self.wall <= 0 else max(0.0, self.waited) / self.wall

    def to_json(self) -> dict[str, Any]:
        """The fields of a row."""
        return {
            "other_programs_cores": _round(self.others_cores),
            "waited_share": _round(self.waited_share, 4),
            "steal_cores": _round(self.steal_cores),
            "frequency_mhz_min": self.slowest_mhz,
            "frequency_mhz_max": self.fastest_mhz,
        }

    def problems(self) -> list[str]:
        """Why what was measured meanwhile does not count; empty where nothing speaks against it."""
        found = []
        if (self.others_cores or 0) > OTHERS_CORES:
            found.append(f"other programs took {self.others_cores:.2f} cores")
        if (self.waited_share or 0) > WAITED_SHARE:
            found.append(f"it waited for a core {100 * (self.waited_share or 0):.0f} % of the time")
        if (self.steal_cores or 0) > STEAL_CORES:
            found.append(f"the host took {self.steal_cores:.2f} cores for other guests (steal)")
        if self.slowest_mhz and self.fastest_mhz and self.slowest_mhz < CLOCK_RATIO * self.fastest_mhz:
            found.append(f"the clock changed between {self.slowest_mhz:.0f} and {self.fastest_mhz:.0f} MHz")
        return found


class Guard:
    """Watches what concerns all rows alike: the governor and the throttling bits.

    Args:
        throttled: bits of `vcgencmd get_throttled`, of now and of the past; starts a program, so it is asked
            at the beginning and at the end.
        throttled_now: its bits of now, from the kernel.
        governor: of the processor's clock.
    """

    def __init__(
        self,
        throttled: Callable[[], int | None] = board.throttled,
        throttled_now: Callable[[], int | None] = board.throttled_now,
        governor: Callable[[], str | None] = board.governor,
    ) -> None:
        self._throttled, self._throttled_now, self._governor = throttled, throttled_now, governor
        self._first_governor, self._first_bits = governor(), throttled() or 0

    def problems(self, *, last: bool = False) -> list[str]:
        """What is wrong at this moment; at the `last` time also what happened unseen since the beginning."""
        found = []
        bits, governor = self._throttled_now() or 0, self._governor()
        if last:
            now = self._throttled() or 0
            bits |= now & THROTTLED_NOW | now & ~self._first_bits & THROTTLED_SINCE_START
        if bits:
            found.append(f"the firmware throttled the clock (get_throttled {bits:#x})")
        if governor != self._first_governor:
            found.append(f"the CPU governor changed from {self._first_governor} to {governor}")
        return found


def _round(value: float | None, digits: int = 3) -> float | None:
    return None if value is None else round(value, digits)


# ------------------------------------------------------------------------------------------------- memory


def reset_peak_rss() -> None:
    """Let `peak_rss_mb` count from now on; where that is not allowed it stays the peak since the start."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_rss_mb() -> float | None:
    """Highest resident memory of this process since the start or the reset, MB, or None where unknown."""
    return _memory("VmHWM")


def rss_mb() -> float | None:
    """Resident memory of this process at this moment, MB, or None where unknown."""
    return _memory("VmRSS")


def available_mb() -> float | None:
    """Memory that programs can still have without swapping, MB, or None where unknown."""
    return _memory("MemAvailable", Path("/proc/meminfo"))


def _memory(name: str, path: Path = Path("/proc/self/status")) -> float | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in path.read_text().splitlines():
            if line.startswith(f"{name}:"):
                return round(int(line.split()[1]) * 1024 / 1e6, 1)
    return None


# ------------------------------------------------------------------------------------------------- energy


class EnergyMeter:
    """Energy that the board used while the `with` block ran, where the board tells.

    A counter (powercap, as RAPL has it) is exact. Where there is only a power (hwmon, such as an INA219, or
    the power chip of a Raspberry Pi 5), it is sampled once a second and its mean taken.

    Attributes:
        source: what told, or None.
    """

    def __init__(self, *, powercap: Path = _POWERCAP, hwmon: Path = _HWMON, every_s: float = 1.0) -> None:
        self._every_s = every_s
        # Packages only: their parts, and the copies that some kernels show besides, would count twice.
        self._counters = [
            folder / "energy_uj"
            for folder in sorted(powercap.glob("intel-rapl:*"))
            if _text(folder / "name").startswith("package")
        ]
        self._power: Callable[[], float | None] | None = None
        self.source: str | None = None
        if self._counters and None not in self._read_counters():
            self.source = "powercap"
        elif (sensor := _power_sensor(hwmon)) is not None:
            self.source, self._power = f"hwmon {sensor.parent.name}", lambda: _microwatts(sensor)
        elif pmic_power_w() is not None:
            self.source, self._power = "vcgencmd pmic_read_adc", pmic_power_w
        self._watts: list[float] = []
        self._joules: float | None = None
        self._start: list[float | None] = []
        self._begun = self._seconds = 0.0
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> EnergyMeter:
        self._begun = time.monotonic()
        self._start = self._read_counters() if self.source == "powercap" else []
        if self._power is not None:
            self._thread = threading.Thread(target=self._sample, name="energy", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        if self._thread is not None:
            self._thread.join()
        self._seconds = time.monotonic() - self._begun
        if self._start:
            passed = 0.0
            for path, start, end in zip(self._counters, self._start, self._read_counters(), strict=True):
                if start is None or end is None:
                    return
                wrapped = (_number(path.with_name("max_energy_range_uj")) or 0.0) if end < start else 0.0
                passed += end - start + wrapped
            self._joules = passed / 1e6

    @property
    def joules(self) -> float | None:
        """Energy of the block, or None."""
        if self._watts:
            return float(np.mean(self._watts)) * self._seconds
        return self._joules

    @property
    def watts(self) -> float | None:
        """Mean power of the block, or None."""
        return None if self.joules is None or self._seconds <= 0 else self.joules / self._seconds

    def _sample(self) -> None:
        assert self._power is not None
        while not self._done.is_set():
            watts = self._power()
            if watts is not None:
                self._watts.append(watts)
            self._done.wait(self._every_s)

    def _read_counters(self) -> list[float | None]:
        return [_number(path) for path in self._counters]


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, ValueError):
        return ""


def _number(path: Path) -> float | None:
    try:
        return float(_text(path))
    except ValueError:
        return None


def _power_sensor(hwmon: Path) -> Path | None:
    found = sorted(hwmon.glob("hwmon*/power1_input"))
    return next((path for path in found if _number(path) is not None), None)


def _microwatts(path: Path) -> float | None:
    value = _number(path)
    return None if value is None else value / 1e6


def pmic_power_w() -> float | None:
    """Sum of the rails that the power chip of a Raspberry Pi 5 measures, watts, or None elsewhere.

    The supply's own losses, and what hangs on USB, are not part of it.
    """
    if shutil.which("vcgencmd") is None:
        return None
    try:
        command = ["vcgencmd", "pmic_read_adc"]
        text = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return sum_of_rails(text)


def sum_of_rails(text: str) -> float | None:
    """Watts from the lines `NAME_A current(0)=0.1A` and `NAME_V volt(8)=3.3V` of `vcgencmd pmic_read_adc`."""
    values: dict[str, dict[str, float]] = {}
    for rail, kind, value in re.findall(r"^\s*(\S+)_([AV])\s+\w+\(\d+\)=([\d.]+)[AV]", text, re.MULTILINE):
        values.setdefault(rail, {})[kind] = float(value)
    watts = [pair["A"] * pair["V"] for pair in values.values() if len(pair) == 2]
    return sum(watts) if watts else None


# ----------------------------------------------------------------------------------------------- figures


def thin(values: Sequence[float], times: Sequence[float], most: int) -> tuple[list[float], list[float]]:
    """At most `most` of the samples with their times, evenly spaced in their order."""
    if len(values) <= most:
        return list(values), list(times)
    places = np.linspace(0, len(values) - 1, most).round().astype(int)
    return [values[i] for i in places], [times[i] for i in places]
