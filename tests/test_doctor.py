"""The doctor: every finding names what to do, and the exit code says whether the loop can run."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge import doctor, tflite
from edge.errors import MaskedgeError, RuntimeMissingError, UsageError
from tests.test_tflite import write_models


def by_name(checks: list[doctor.Check], name: str) -> list[doctor.Check]:
    return [check for check in checks if check.name == name]


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = write_models(tmp_path / "models")
    monkeypatch.setenv("MASKEDGE_MODELS", str(folder))
    return folder


def test_a_machine_with_models_and_a_runtime_can_run(models: Path) -> None:
    checks = doctor.run_doctor()
    assert doctor.exit_code(checks) == 0
    assert [check.status for check in by_name(checks, "models")] == ["ok"]
    names = {check.name for check in checks}
    assert names >= {
        "python",
        "machine",
        "runtime",
        "opencv",
        "display",
        "camera",
        "models",
        "processor",
        "disk",
    }
    assert all(check.remedy for check in checks if check.status != "ok")
    assert all("\n" not in check.message + check.remedy for check in checks)


def test_missing_models_stop_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKEDGE_MODELS", str(tmp_path / "nowhere"))
    checks = doctor.run_doctor()
    assert doctor.exit_code(checks) == 3
    (check,) = by_name(checks, "models")
    assert (check.status, "no models folder" in check.message) == ("fail", True)


def test_an_empty_manifest_stops_the_loop(models: Path) -> None:
    (models / "manifest.json").write_text('{"version": 1, "models": {}}')
    assert [check.status for check in doctor._models()] == ["fail"]


@pytest.mark.parametrize(("precision", "status", "code"), [("int8", "fail", 3), ("float32", "warn", 0)])
def test_only_a_damaged_default_stops_the_loop(models: Path, precision: str, status: str, code: int) -> None:
    (models / f"face.{precision}.tflite").write_bytes(b"cut off")
    checks = list(doctor._models())
    assert [check.status for check in checks] == [status, "ok"]
    assert precision in checks[0].message
    assert doctor.exit_code(checks) == code


@pytest.mark.parametrize(
    "error",
    [
        RuntimeMissingError("no TFLite runtime works here", remedy="pip install one"),
        UsageError("unknown runtime"),
    ],
)
def test_without_a_runtime_the_loop_cannot_run(
    models: Path, monkeypatch: pytest.MonkeyPatch, error: MaskedgeError
) -> None:
    def find_runtime() -> tflite.Runtime:
        raise error

    monkeypatch.setattr(doctor, "find_runtime", find_runtime)
    checks = doctor.run_doctor()
    assert doctor.exit_code(checks) == 3
    assert [(check.status, check.message) for check in by_name(checks, "runtime")] == [
        ("fail", error.args[0])
    ]
    assert [check.status for check in by_name(checks, "models")] == [
        "ok"
    ]  # the hashes are checked all the same


def test_a_broken_second_runtime_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    real = tflite.find_runtime()

    def probe_runtime(key: str) -> tflite.Runtime:
        if key == real.key:
            return real
        raise RuntimeMissingError(
            "it is installed but does not work: it needs numpy below 2", remedy="numpy<2"
        )

    monkeypatch.setattr(doctor, "probe_runtime", probe_runtime)
    assert [(check.status, check.remedy) for check in doctor._runtime()] == [("ok", ""), ("warn", "numpy<2")]


@pytest.mark.parametrize(
    ("text", "toolkit"),
    [
        ("  GUI:                           NONE\n    VTK support:     NO\n", ""),
        ("  GUI: \n    QT:            NO\n    GTK+:       YES (ver 3.24)\n\n  Media I/O:\n", "GTK+"),
        ("  GUI:                           QT5\n    QT:          YES (ver 5.15.16 )\n", "QT5"),
        ("  GUI: \n    QT:        NO\n\n  Media I/O: \n    ZLib:     YES\n", ""),
        ("", ""),
    ],
)
def test_the_gui_of_opencv_is_read_from_its_build(text: str, toolkit: str) -> None:
    assert doctor.gui_toolkit(text) == toolkit


@pytest.mark.parametrize(
    ("environment", "status"),
    [
        ({}, "warn"),
        ({"DISPLAY": ":0"}, "ok"),
        ({"WAYLAND_DISPLAY": "wayland-0"}, "ok"),
        ({"DISPLAY": ""}, "warn"),
    ],
)
@pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="always has a display")
def test_a_display_is_looked_for(
    environment: dict[str, str], status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert [check.status for check in doctor._display()] == [status]


def test_a_gui_opencv_without_a_display_is_pointed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "gui_toolkit", lambda build: "QT5")
    monkeypatch.setattr(doctor, "has_display", lambda: False)
    assert any("no display" in check.message for check in doctor._opencv() if check.status == "warn")


def test_two_opencvs_are_pointed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: "4.11.0")
    warning = next(doctor._opencv())
    assert warning.status == "warn"
    assert "opencv-python-headless" in warning.remedy


def test_an_opencv_that_does_not_load_stops_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)  # import cv2 now raises ImportError
    assert [check.status for check in doctor._opencv()][-1] == "fail"


@pytest.mark.parametrize(
    ("celsius", "bits", "status", "words"),
    [
        (None, None, "ok", "unknown"),
        (48.3, 0, "ok", "48 °C"),
        (84.0, None, "warn", "too hot"),
        (60.0, 0x50000, "warn", "low voltage since"),
        (60.0, 0x50005, "warn", "low voltage now"),
        (60.0, 0x20000, "warn", "throttling since"),
        (81.0, 0x00008, "warn", "throttling now"),
    ],
)
def test_heat_and_throttling(
    celsius: float | None, bits: int | None, status: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "temperature_c", lambda: celsius)
    monkeypatch.setattr(doctor, "throttled", lambda: bits)
    (check,) = doctor._temperature()
    assert check.status == status
    assert words in check.message


@pytest.mark.parametrize(
    ("output", "bits"), [("throttled=0x50005", 0x50005), ("throttled=0x0", 0), ("nonsense", None)]
)
def test_vcgencmd_is_read(
    output: str, bits: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "vcgencmd"
    program.write_text(f"#!/bin/sh\necho {output}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert doctor.throttled() == bits


def test_without_a_camera_there_is_a_way_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter(()))
    (check,) = doctor._cameras()
    assert (check.status, "demo" in check.remedy) == ("warn", True)


def test_cameras_that_may_not_be_opened_are_told_from_those_that_may(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [Path(f"/dev/video{number}") for number in (0, 1, 2, 10)]

    def name_of(node: Path) -> str:
        if node.name == "video1":
            raise PermissionError
        if node.name == "video2":
            raise OSError
        return "HD Webcam" if node.name == "video0" else ""  # video10 captures nothing

    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter(nodes))
    monkeypatch.setattr(doctor, "capture_device_name", name_of)
    denied, found = doctor._cameras()
    assert (denied.status, "group" in denied.remedy or "video" in denied.remedy) == ("warn", True)
    assert denied.message.endswith("/dev/video1")
    assert (found.status, found.message) == ("ok", "/dev/video0 (HD Webcam)")


def test_a_file_is_no_camera(tmp_path: Path) -> None:
    (tmp_path / "video0").write_bytes(b"")
    with pytest.raises(OSError, match=r"."):
        doctor.capture_device_name(tmp_path / "video0")


def test_a_check_that_breaks_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Iterator[doctor.Check]:
        raise ZeroDivisionError("odd machine")
        yield

    monkeypatch.setattr(doctor, "CHECKS", (broken,))
    (check,) = doctor.run_doctor()
    assert (check.name, check.status) == ("broken", "warn")
    assert "odd machine" in check.message


@pytest.mark.parametrize(
    ("checks", "code"),
    [
        ([], 0),
        ([doctor.Check("a", "ok", "fine"), doctor.Check("b", "warn", "slow", "hurry")], 0),
        ([doctor.Check("a", "fail", "broken", "mend it")], 3),
    ],
)
def test_the_report_in_both_forms(checks: list[doctor.Check], code: int) -> None:
    assert doctor.exit_code(checks) == code
    text = doctor.report(checks)
    assert all(check.message in text and check.remedy in text for check in checks)
    answer = json.loads(doctor.report(checks, as_json=True))
    assert answer["ok"] == (code == 0)
    assert [item["status"] for item in answer["checks"]] == [check.status for check in checks]


def test_main_prints_and_returns_the_code(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main(as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True
    (models / "manifest.json").unlink()
    assert doctor.main() == 3
    assert "manifest.json" in capsys.readouterr().out
