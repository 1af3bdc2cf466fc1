"""The combinations of release, packages and processor that are tried, and how each is fetched."""

from __future__ import annotations

import hashlib
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
SKIPPED = 77
STEP_LIMIT_S = 1800

GLIBC_64 = ("2_34", "2_28", "2_27", "2_17")  # of the wheels; Bookworm has glibc 2.36, Trixie 2.41
PLATFORMS = {
    "arm64": [f"manylinux_{glibc}_aarch64" for glibc in GLIBC_64] + ["manylinux2014_aarch64"],
    "armhf": ["manylinux_2_34_armv7l"],
}


@dataclass(frozen=True)
class Combination:
    """One system to try: a release, a set of pinned packages, a processor.

    Attributes:
        suite, arch: of Debian, which Raspberry Pi OS is built on.
        pins: name of the constraints file.
        wheels: what pip installs.
        debs: what apt installs besides Python.
        cpu: as qemu calls it. Never "max": qemu 7.2 computes int8 wrongly with it.
        tests: "all" (but LEFT_OUT), "core" (CORE) or "none".
        precisions: of the models to run: "all", or "default" for the one that is taken without being named.
    """

    suite: str
    arch: str
    pins: str
    cpu: str
    tests: str
    precisions: str = "all"
    wheels: tuple[str, ...] = ("ai-edge-litert", "opencv-python-headless")
    debs: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.suite} {self.arch}, {self.pins}.txt, {self.cpu}"

    @property
    def family(self) -> str:
        return "tflite" if "tflite-runtime" in self.wheels else "litert"

    @property
    def python(self) -> str:
        return {"bookworm": "3.11", "trixie": "3.13"}[self.suite]


TFLITE = {"wheels": ("tflite-runtime", "opencv-python-headless")}
# 32 bit has no wheels of numpy and OpenCV: they come from the system, as on a Pi.
TFLITE_32 = {"wheels": ("tflite-runtime",), "debs": ("python3-numpy", "python3-opencv")}
# The longest first: two run at a time.
COMBINATIONS = [
    Combination("bookworm", "arm64", "bookworm", "cortex-a72", "all"),
    Combination("trixie", "arm64", "trixie", "cortex-a72", "core"),
    Combination("bookworm", "arm64", "tflite", "cortex-a72", "core", **TFLITE),
    # The same Python as the first and the same runtime: its models and pictures say enough.
    Combination("bookworm", "arm64", "litert", "cortex-a72", "none"),
    Combination("bookworm", "armhf", "tflite", "cortex-a7", "core", **TFLITE_32),
    Combination("bookworm", "arm64", "bookworm", "cortex-a53", "none", "default"),
    Combination("trixie", "arm64", "trixie", "cortex-a53", "none", "default"),
]


def chosen(part_of_name: str) -> list[Combination]:
    """Those with that in their name; raises Failed where there is none."""
    found = [one for one in COMBINATIONS if part_of_name in one.name]
    if not found:
        raise Failed(f"no combination has {part_of_name!r} in its name")
    return found


class Failed(Exception):
    """Something did not pass; the message says what."""


class Skip(Exception):
    """It cannot be tried here; the message says why."""


def call(command: list[Any], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run, with output as text; never raises for an exit code."""
    words = [str(word) for word in command]
    return subprocess.run(
        words, capture_output=True, text=True, cwd=ROOT, timeout=STEP_LIMIT_S, check=False, **options
    )


def checked(what: str, command: list[Any], **options: Any) -> str:
    """Its standard output; raises Failed with the end of its output for an exit code that is not 0."""
    done = call(command, **options)
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-25:])
        raise Failed(f"{what} ended with {done.returncode}: {shlex.join(map(str, command))[:300]}\n{tail}")
    return done.stdout


def debian_root(cache: Path, one: Combination) -> Path:
    """Folder with the release's Python for that processor, made once."""
    path = cache / "-".join(("root", one.suite, one.arch))
    if not path.is_dir():
        new = path.with_suffix(".new")
        done = call([HERE / "root.sh", one.suite, one.arch, new, *one.debs])
        if done.returncode == SKIPPED:
            raise Skip(done.stderr.strip().splitlines()[-1])
        if done.returncode != 0:
            raise Failed(f"root.sh {one.suite} {one.arch}: {done.stderr.strip()[-500:]}")
        new.rename(path)
    return path


def package_set(cache: Path, one: Combination) -> Path:
    """Folder with the wheels of a set, and pytest, which pip chooses for that processor; made once."""
    pins = [ROOT / "constraints" / f"{name}.txt" for name in (one.pins, "dev")]
    key = hashlib.sha256(
        b"".join(pin.read_bytes() for pin in pins) + " ".join(one.wheels).encode()
    ).hexdigest()[:8]
    path = cache / "-".join(("set", one.suite, one.arch, one.pins, key))
    if path.is_dir():
        return path
    new = path.with_suffix(".new")
    shutil.rmtree(new, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--target", new, "--no-compile"]
    pip += ["--only-binary=:all:", "--implementation", "cp", "--python-version", one.python]
    for tag in PLATFORMS[one.arch]:
        pip += ["--platform", tag]
    # Without the numpy that tflite-runtime asks for: there is no wheel of it for 32 bit.
    no_deps = ["--no-deps"] if one.arch == "armhf" else []
    for command in (
        [*pip, *no_deps, "-c", pins[0], *one.wheels],
        [*pip, "-c", pins[1], "pytest", "packaging"],
    ):
        done = call(command)
        if done.returncode != 0:
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            raise Skip(
                f"pip could not fetch the wheels of {one.name}: {(errors or ['no message'])[-1][:300]}"
            )
    # Tests start sys.executable: in there that has to be the emulator, with the same settings.
    (new / "sitecustomize.py").write_text(
        'import os, sys\nsys.executable = os.environ["MASKEDGE_EMULATED_PYTHON"]\n', encoding="utf-8"
    )
    new.rename(path)
    return path
