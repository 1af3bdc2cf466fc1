"""The project around the code: versions, pins, what `edge` imports, the Makefile, the model files."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import edge

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def pins(*names: str) -> list[Requirement]:
    lines = [
        line for name in names for line in (ROOT / "constraints" / f"{name}.txt").read_text().splitlines()
    ]
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def run_make(*arguments: str, cwd: Path = ROOT, path: str | None = None) -> subprocess.CompletedProcess[str]:
    """`make` as a user calls it, without the variables of the `make test` this may run in."""
    environment = {
        k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PYTHON")
    }
    if path is not None:
        environment["PATH"] = path
    return subprocess.run(
        ["make", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


# ------------------------------------------------------------------------------------------ versions


def test_installed_version_is_that_of_the_code() -> None:
    assert importlib.metadata.version("maskedge") == edge.__version__


def test_changelog_starts_with_this_version() -> None:
    headings = re.findall(
        r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    assert headings[0] == edge.__version__


@pytest.mark.parametrize("name", ["litert", "tflite", "bookworm", "trixie", "dev", "export"])
def test_every_constraint_pins_one_version(name: str) -> None:
    for pin in pins(name):
        assert [spec.operator for spec in pin.specifier] == ["=="], f"{pin} in {name}.txt"


@pytest.mark.parametrize(
    ("extra", "constraints"),
    [
        (None, ("litert",)),
        (None, ("bookworm",)),
        (None, ("trixie",)),
        ("tflite", ("tflite",)),
        ("export", ("litert", "export")),
        ("dev", ("dev",)),
    ],
)
def test_what_the_project_asks_for_is_pinned_within_its_range(
    extra: str | None, constraints: tuple[str, ...]
) -> None:
    asked = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    assert asked
    for requirement in map(Requirement, asked):
        name = canonicalize_name(requirement.name)
        pinned = [pin for pin in pins(*constraints) if canonicalize_name(pin.name) == name]
        assert pinned, f"{name} is not pinned"
        for pin in pinned:
            version = next(iter(pin.specifier)).version
            assert requirement.specifier.contains(version), f"{pin} does not fit {requirement}"


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_no_name_is_pinned_twice_for_one_python(python: str) -> None:
    environment = {"python_version": python, "python_full_version": f"{python}.0"}
    valid = [
        canonicalize_name(pin.name)
        for pin in pins("litert", "dev", "export")
        if pin.marker is None or pin.marker.evaluate(environment)
    ]
    assert sorted(valid) == sorted(set(valid))


# ------------------------------------------------------------------------------- what `edge` brings along

IMPORT_ALL_OF_EDGE = """
import importlib, json, pkgutil, sys
before = set(sys.modules)
import edge
names = [m.name for m in pkgutil.walk_packages(edge.__path__, "edge.") if not m.name.endswith("__main__")]
for name in names:
    importlib.import_module(name)
# What Cython leaves in sys.modules for itself has no spec.
new = {m.partition(".")[0] for m in set(sys.modules) - before if getattr(sys.modules[m], "__spec__", None)}
print(json.dumps([names, sorted(new)]))
"""


def test_edge_imports_only_numpy_and_opencv() -> None:
    """No TensorFlow and nothing of export/, and a runtime or a camera library only when it is needed."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL_OF_EDGE], cwd=ROOT, capture_output=True, text=True, check=True
    )
    names, imported = json.loads(done.stdout)
    assert {"edge.cli", "edge.tflite", "edge.pipeline", "edge.camera.demo"} <= set(names)
    third_party = set(imported) - set(sys.stdlib_module_names) - {"edge"}
    assert third_party == {"numpy", "cv2"}


# ------------------------------------------------------------------------------------------- Makefile


@needs_make
def test_test_pi_runs_every_part_unless_some_are_named() -> None:
    assert run_make("-n", "test-pi").stdout.splitlines()[-1].strip() == "exec tests/pi/run"
    assert run_make("-n", "test-pi", "PARTS=camera").stdout.splitlines()[-1] == "exec tests/pi/run camera"


@needs_make
def test_make_alone_lists_every_command() -> None:
    commands = re.findall(r"^\.PHONY: ([a-z-]+)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert {"run", "test", "setup", "setup-export", "lint", "type", "train", "convert", "evaluate"} <= set(
        commands
    )
    done = run_make()
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^  make (\S+) +\S", done.stdout, flags=re.MULTILINE) == commands
    assert max(map(len, done.stdout.splitlines())) <= 110


@needs_make
def test_options_reach_the_program() -> None:
    done = run_make("-n", "run", "ARGS=--source demo --seconds 10")
    assert done.stdout.splitlines()[-1] == "exec .venv/bin/maskedge run --source demo --seconds 10"
    done = run_make("-n", "run", "RUNTIME=tflite")
    assert "exec .venv-tflite/bin/maskedge run" in done.stdout


@needs_make
def test_an_unknown_runtime_is_refused() -> None:
    done = run_make("run", "RUNTIME=onnx")
    assert done.returncode != 0
    assert "use RUNTIME=litert or RUNTIME=tflite" in done.stderr


@pytest.fixture
def bare_checkout(tmp_path: Path) -> Path:
    """As much of a checkout as a set-up needs to start, with nothing set up, below a folder with a space."""
    checkout = tmp_path / "my checkout"
    for name in (
        "Makefile",
        "pyproject.toml",
        "edge/__init__.py",
        *map(str, (ROOT / "constraints").glob("*.txt")),
    ):
        source = ROOT / name
        target = checkout / source.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
    return checkout


def fake_python(folder: Path, version: str, *, ensurepip: bool) -> Path:
    """A `python3` that says it is of that version, and that it has ensurepip or has not; no more."""
    folder.mkdir(exist_ok=True)
    path = folder / "python3"
    minor = ".".join(version.split(".")[:2])
    script = f"""#!/bin/sh
[ "$1" = -V ] && echo "Python {version}" && exit 0
case "$2" in
    *not\\ in*) case "$2" in *"{minor}"*) exit 0 ;; *) exit 1 ;; esac ;;
    *ensurepip*) exit {0 if ensurepip else 1} ;;
    *print*) echo {minor} ;;
esac
"""
    path.write_text(script)
    path.chmod(0o755)
    return path


@needs_make
@pytest.mark.parametrize(
    ("version", "ensurepip", "message"),
    [
        ("3.10.12", True, "needs Python 3.11, 3.12, 3.13, but"),
        ("3.14.0", True, "is 3.14.0: install one"),
        ("3.11.2", False, "sudo apt install python3.11-venv"),
        ("3.13.5", False, "sudo apt install python3.13-venv"),
    ],
)
def test_a_machine_that_is_not_ready_is_told_what_to_install(
    bare_checkout: Path, tmp_path: Path, version: str, ensurepip: bool, message: str
) -> None:
    python = fake_python(tmp_path / "bin", version, ensurepip=ensurepip)
    done = run_make("setup", f"PYTHON={python}", cwd=bare_checkout)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (bare_checkout / ".venv").exists()


@needs_make
def test_without_python_311_the_tflite_tests_are_skipped_aloud(bare_checkout: Path, tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    fake_python(tools, "3.13.5", ensurepip=True)
    for tool in ("make", "sh", "getconf", "cat"):
        (tools / tool).symlink_to(shutil.which(tool) or tool)
    done = run_make("test-tflite", cwd=bare_checkout, path=str(tools))
    assert done.returncode == 0, done.stderr
    assert "SKIPPED the tests with tflite-runtime: it needs Python 3.11" in done.stdout


@needs_make
def test_on_a_pi_the_edge_part_alone_is_tested(bare_checkout: Path, tmp_path: Path) -> None:
    board = tmp_path / "model"
    board.write_bytes(b"Raspberry Pi 4 Model B Rev 1.4\0")
    python = fake_python(tmp_path / "bin", "3.10.12", ensurepip=True)
    done = run_make("test", f"DEVICE_MODEL={board}", f"PYTHON={python}", cwd=bare_checkout)
    assert "this is a Raspberry Pi 4 Model B Rev 1.4: testing the edge part alone" in done.stdout
    # It went on to the edge part, which this Python is too old for, and to nothing else.
    assert "maskedge: .venv needs Python" in done.stderr
    assert "SKIPPED" not in done.stdout
    assert "TensorFlow " not in done.stderr


@pytest.mark.parametrize("script", [".ci/run", "deploy/install-pi.sh", "tests/pi/run"])
def test_scripts_are_executable(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)


# --------------------------------------------------------------------------------------------- models


def test_model_files_are_those_of_the_manifest_and_small_enough_for_git() -> None:
    folder = ROOT / "converted_models"
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    listed = {file["file"]: file for model in manifest["models"].values() for file in model["files"].values()}
    assert listed
    assert {path.name for path in folder.glob("*.tflite")} == set(listed)
    for name, file in listed.items():
        size = (folder / name).stat().st_size
        assert size == file["bytes"], name
        assert size < 40e6, name
    for name, model in manifest["models"].items():
        assert (folder / f"{name}.md").is_file(), f"{name} has no card"
        assert model["default"] in model["files"]
