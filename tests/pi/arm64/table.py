"""The table of docs/raspberry-pi.md: each set of packages with its size on a Pi and what it costs to start.

    python tests/pi/arm64/table.py [CACHE]

Sizes are those of the wheels for the Pi's processor, unpacked. Times and memory are measured on this machine
with the same versions, since the emulator's would mean nothing; they are left out where a set's Python (3.11,
3.13) is not on PATH.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from sets import ROOT, Combination, chosen, package_set

RUNS = 9
TEST_TOOLS = {"pytest", "packaging", "pluggy", "iniconfig", "pygments"}
SYSTEM = {"bookworm": {"numpy"}, "trixie": {"numpy"}}
"""What the system brings with a set of pins."""

# A process of its own, as the program is: import the runtime and OpenCV, then one picture of the clip's size.
MEASURE = """
import sys, time
start = time.process_time()
import cv2
from edge.tflite import find_runtime, load_model
find_runtime()
imported = time.process_time()
import numpy as np
from edge.tasks.face import FaceDetector
FaceDetector(load_model("face", threads=1)).detect(np.full((480, 640, 3), 90, np.uint8))
first = time.process_time()
import resource
print(imported - start, first - imported, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def size_mb(folder: Path, without: set[str]) -> float:
    """Of the distributions in a folder, less the test tools and those named."""
    total = 0
    for found in distributions(path=[str(folder)]):
        if found.name.lower() not in TEST_TOOLS | without:
            total += sum(
                Path(found.locate_file(file)).stat().st_size
                for file in found.files or []
                if Path(found.locate_file(file)).is_file()
            )
    return total / 1e6


def python_of(version: str) -> str | None:
    """A Python of that version on PATH."""
    for name in (f"python{version}", "python3", sys.executable):
        done = subprocess.run([name, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
                              capture_output=True, text=True, check=False) if name else None  # fmt: skip
        if done and done.returncode == 0 and done.stdout.strip() == version:
            return name
    return None


def cost(one: Combination, cache: Path) -> str:
    """Import, first result and memory here: processor time, best of several, since others work here too."""
    python = python_of(one.python)
    if python is None:
        return f"no Python {one.python} here | | |"
    folder = cache / f"x86-{one.suite}-{one.pins}"
    if not (folder / ".ready").exists():
        subprocess.run([python, "-m", "venv", "--clear", folder], check=True)
        pins = ROOT / "constraints" / f"{one.pins}.txt"
        subprocess.run(
            [folder / "bin" / "python", "-m", "pip", "install", "-q", "-c", pins, *one.wheels], check=True
        )
        (folder / ".ready").touch()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    rows = []
    for _ in range(RUNS):
        done = subprocess.run(
            [folder / "bin" / "python", "-c", MEASURE],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        rows.append([float(word) for word in done.stdout.split()])
    imported, first, memory = (min(column) for column in zip(*rows, strict=True))
    return f"{imported:.2f} s | {first:.2f} s | {memory:.0f} MB |"


def main() -> None:
    cache = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / ".pi-cache").resolve() / "arm64"
    cache.mkdir(parents=True, exist_ok=True)
    print("| release | processor | pins | runtime | in the venv | import | first result | memory |")
    print("|---|---|---|---|--:|--:|--:|--:|")
    for one in chosen(""):
        if one.cpu == "cortex-a53":  # the same packages as for the A72
            continue
        packages = package_set(cache, one)
        found = distributions(path=[str(packages)])
        versions = {package.name.lower().replace("_", "-"): package.version for package in found}
        runtime = f"{one.wheels[0]} {versions[one.wheels[0]]}"
        size = size_mb(packages, SYSTEM.get(one.pins, set()))
        measured = cost(one, cache) if one.arch == "arm64" else "not measured | | |"
        system = f"{one.suite.title()}, Python {one.python} | {one.arch}"
        print(f"| {system} | {one.pins}.txt | {runtime} | {size:.0f} MB | {measured}", flush=True)
    print(f"\nImport and first result: processor time on {platform.machine()}, best of {RUNS}.")


if __name__ == "__main__":
    main()
