"""The doctor: every finding names what to do, and the exit code says whether the loop can run."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge import doctor, tflite
from edge.errors import MaskedgeError, RuntimeMissingError, UsageError
from tests.test_tflite import write_models


def by_name(checks: list[doctor.Check], name: str) -> list[doctor.Check]:
    return [check for check in checks if check.name == name]


def put(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def program(path: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts a program before all others of its name."""
    put(path.parent, path.name, f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(path.parent), prepend=os.pathsep)


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


def test_two_opencvs_are_pointed_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    packages = "opencv-python", "OpenCV_contrib.Python".replace(".", "_")
    for name in packages:  # beside the one that the tests run with
        folder = tmp_path / f"{name}-4.11.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 4.11.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    warning = next(doctor._opencv())
    assert warning.status == "warn"
    assert "opencv-python 4.11.0" in warning.message
    assert "pip uninstall -y opencv-contrib-python opencv-python " in warning.remedy
    assert "pip install" in warning.remedy


def test_the_same_opencv_twice_does_no_harm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in an environment that sees the system's packages."""
    from importlib.metadata import distributions

    names = {one.metadata["Name"].lower() for one in distributions()} & set(doctor.OPENCV_PACKAGES)
    for name in names:
        folder = tmp_path / f"{name}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert not any("overwrite" in check.message for check in doctor._opencv())


def test_an_opencv_that_does_not_load_stops_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)  # import cv2 now raises ImportError
    assert [check.status for check in doctor._opencv()][-1] == "fail"


@pytest.mark.parametrize(
    ("celsius", "bits", "status", "words"),
    [
        (None, None, "ok", "unknown"),
        (48.3, 0, "ok", "48 °C"),
        (84.0, None, "warn", "84 °C"),
        (60.0, 0x50000, "warn", "60 °C; since it was switched on: under-voltage, throttled"),
        (60.0, 0x50005, "warn", "60 °C; now: under-voltage, throttled"),
        (60.0, 0x70005, "warn", "now: under-voltage, throttled; since it was switched on: frequency capped"),
        (60.0, 0x20000, "warn", "since it was switched on: frequency capped"),
        (81.0, 0x00008, "warn", "now: soft temperature limit"),
    ],
)
def test_heat_and_throttling(
    celsius: float | None,
    bits: int | None,
    status: str,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if celsius is not None:
        put(tmp_path, "sys/class/thermal/thermal_zone0/temp", f"{celsius * 1000:.0f}\n")
    if bits is not None:
        program(tmp_path / "bin/vcgencmd", f"echo throttled={bits:#x}", monkeypatch)
    (check,) = doctor._temperature(tmp_path)
    assert check.status == status
    assert words in check.message
    assert bool(check.remedy) == (status != "ok")
    assert ("power supply" in check.remedy) == ("under-voltage" in check.message)


def test_without_vcgencmd_the_kernel_tells_of_throttling(tmp_path: Path) -> None:
    put(tmp_path, "sys/devices/platform/soc/soc:firmware/get_throttled", "50005\n")
    (check,) = doctor._temperature(tmp_path)
    assert check.message == "unknown; now: under-voltage, throttled"


@pytest.mark.parametrize(
    ("output", "bits"), [("throttled=0x50005", 0x50005), ("throttled=0x0", 0), ("nonsense", None)]
)
def test_vcgencmd_is_read(
    output: str, bits: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "vcgencmd", f"echo {output}", monkeypatch)
    assert doctor.throttled() == bits


# ------------------------------------------------------------------------------------------- cameras


def test_without_a_camera_there_is_a_way_to_go_on(tmp_path: Path) -> None:
    (check,) = doctor._cameras(dev=tmp_path)
    assert (check.status, "demo" in check.remedy) == ("warn", True)


def test_cameras_that_may_not_be_opened_are_told_from_those_that_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (0, 1, 2, 10):
        (tmp_path / f"video{number}").touch()

    def name_of(node: Path) -> str:  # root, whom the tests may run as, is never refused
        if node.name == "video1":
            raise PermissionError
        if node.name == "video2":
            raise OSError
        return "HD Webcam" if node.name == "video0" else ""  # video10 captures nothing

    monkeypatch.setattr(doctor, "capture_device_name", name_of)
    denied, found, _ = doctor._cameras(dev=tmp_path)
    assert denied.status == "warn"
    assert denied.message.endswith("/video1")
    assert denied.remedy
    assert (found.status, found.message) == ("ok", f"{tmp_path}/video0 (HD Webcam)")


def test_the_group_that_opens_a_camera_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import grp

    node = tmp_path / "video0"
    node.touch()
    others = [group for group in grp.getgrall() if group.gr_gid not in (0, *os.getgroups())]
    if not others or os.geteuid() != 0:
        pytest.skip("needs a group to give a file to")
    os.chown(node, -1, others[0].gr_gid)
    monkeypatch.setenv("SUDO_USER", "ada")
    assert doctor._join(node) == f"sudo usermod -aG {others[0].gr_name} ada, then log out and in again"
    os.chown(node, -1, 0)
    assert "udev" in doctor._join(node)


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a process that holds a file open, as a program holds a camera."""
    running = []

    def start(path: Path, *argv: str) -> subprocess.Popen[str]:
        script = f"import sys, time; held = open({str(path)!r}); print('open', flush=True); time.sleep(60)"
        command = [sys.executable, "-c", script, *argv]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        running.append(process)
        assert process.stdout
        assert process.stdout.readline() == "open\n"
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_who_holds_a_camera_is_found(tmp_path: Path, holder: Callable[..., subprocess.Popen[str]]) -> None:
    for name in ("video0", "video1", "media0"):
        (tmp_path / name).touch()
    process = holder(tmp_path / "video0")
    (check,) = (one for one in doctor._cameras(dev=tmp_path) if one.name == "camera use")
    comm = Path(f"/proc/{process.pid}/comm").read_text().strip()
    assert check.status == "warn"
    assert check.message.startswith(f"{tmp_path}/video0: in use by {comm} (process {process.pid})")
    assert f"kill {process.pid}" in check.remedy
    process.kill()
    process.wait()
    (check,) = (one for one in doctor._cameras(dev=tmp_path) if one.name == "camera use")
    assert (check.status, check.message.startswith("nothing else")) == ("ok", True)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_the_own_service_is_known(tmp_path: Path, holder: Callable[..., subprocess.Popen[str]]) -> None:
    (tmp_path / "media0").touch()
    (tmp_path / "video0").touch()
    holder(tmp_path / "media0", "-m", "edge", "run", "--source", "picamera2")
    (check,) = (one for one in doctor._cameras(dev=tmp_path) if one.name == "camera use")
    assert "maskedge itself" in check.message
    assert "systemctl stop maskedge" in check.remedy


def test_programs_that_only_watch_cameras_are_no_trouble(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/video0").touch()
    put(tmp_path, "proc/77/comm", "wireplumber\n")
    (tmp_path / "proc/77/fd").mkdir()
    (tmp_path / "proc/77/fd/9").symlink_to(tmp_path / "dev/video0")
    (check,) = doctor._busy(tmp_path / "dev", tmp_path / "proc")
    assert (check.status, "wireplumber (process 77)" in check.message) == ("ok", True)


def test_that_other_users_programs_cannot_be_seen_is_said(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root sees all")
    (tmp_path / "proc/1/fd").mkdir(parents=True)
    (tmp_path / "proc/1/fd").chmod(0)
    (check,) = doctor._busy(tmp_path / "dev", tmp_path / "proc")
    (tmp_path / "proc/1/fd").chmod(0o755)
    assert "sudo" in check.message


def test_a_file_is_no_camera(tmp_path: Path) -> None:
    (tmp_path / "video0").write_bytes(b"")
    with pytest.raises(OSError, match=r"."):
        doctor.capture_device_name(tmp_path / "video0")


# ----------------------------------------------------------------------------------- a Raspberry Pi's traps

PI_MODEL = "proc/device-tree/model"


def test_picamera2_that_the_environment_does_not_see(tmp_path: Path) -> None:
    (tmp_path / "usr/lib/python3/dist-packages/picamera2").mkdir(parents=True)
    (check,) = doctor._picamera2(tmp_path)
    assert check.status == "warn"
    assert "does not see it" in check.message
    assert "venv --clear --system-site-packages" in check.remedy


def test_picamera2_is_only_missed_on_a_raspberry_pi(tmp_path: Path) -> None:
    assert list(doctor._picamera2(tmp_path)) == []
    put(tmp_path, PI_MODEL, "Raspberry Pi 5 Model B Rev 1.0\0")
    (check,) = doctor._picamera2(tmp_path)
    assert (check.status, check.remedy) == ("warn", "sudo apt install -y python3-picamera2")


def test_picamera2_built_for_another_numpy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the import on Bookworm says after pip laid numpy 2 over the system's."""
    text = "numpy.dtype size changed, may indicate binary incompatibility"
    put(tmp_path, "picamera2/__init__.py", f"raise ValueError({text!r})\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "picamera2", raising=False)
    (check,) = doctor._picamera2(tmp_path)
    assert check.status == "warn"
    assert "numpy<2" in check.remedy


def test_32_bit_on_a_64_bit_kernel() -> None:
    machine, check = doctor._machine(bits=32, processor="aarch64")
    assert machine.status == "ok"
    assert check.status == "warn"
    assert "32-bit system on a 64-bit kernel" in check.message
    assert "tflite-runtime" in check.remedy


@pytest.mark.parametrize(
    ("governor", "status", "words"),
    [
        ("powersave", "warn", "lowest clock"),
        ("ondemand", "ok", "to measure, set performance"),
        ("performance", "ok", "performance"),
        ("", "ok", "cores"),
    ],
)
def test_the_governor(governor: str, status: str, words: str, tmp_path: Path) -> None:
    folder = "sys/devices/system/cpu/cpu0/cpufreq"
    if governor:
        put(tmp_path, f"{folder}/scaling_governor", governor)
        put(tmp_path, f"{folder}/scaling_cur_freq", "600000")
        put(tmp_path, f"{folder}/cpuinfo_max_freq", "1800000")
    (check,) = doctor._processor(tmp_path)
    assert (check.status, words in check.message) == (status, True)
    assert ("600 of 1800 MHz" in check.message) == bool(governor)


@pytest.mark.parametrize(
    ("mounts", "status", "words"),
    [
        ("/dev/mmcblk0p2 / ext4 rw,noatime 0 0\n", None, ""),
        ("/dev/mmcblk0p2 / ext4 ro,noatime,errors=remount-ro 0 0\n", "warn", "read-only"),
        ("/dev/mmcblk0p2 / ext4 rw,errors=remount-ro 0 0\n", None, ""),
        ("overlayroot / overlay rw,lowerdir=/l 0 0\n", "ok", "gone at the next start"),
    ],
)
def test_a_card_that_cannot_be_written(mounts: str, status: str | None, words: str, tmp_path: Path) -> None:
    put(tmp_path, "proc/mounts", "proc /proc proc rw 0 0\n" + mounts)
    found = [check for check in doctor._disk([], tmp_path) if "free in" not in check.message]
    assert [check.status for check in found] == ([status] if status else [])
    assert all(words in check.message for check in found)


def test_a_folder_on_a_read_only_file_system() -> None:
    read_only = [Path(line.split()[1]) for line in mounts() if "ro" in line.split()[3].split(",")]
    if not read_only:
        pytest.skip("no read-only file system here")
    checks = [check for check in doctor._disk(read_only[:1]) if "is on a read-only" in check.message]
    assert [check.status for check in checks] == ["warn"]


def mounts() -> list[str]:
    return Path("/proc/mounts").read_text().splitlines() if sys.platform.startswith("linux") else []


def test_a_full_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "LOW_DISK_MB", 1e12)
    (check,) = (one for one in doctor._disk([tmp_path], tmp_path) if "free in" in one.message)
    assert (check.status, check.remedy) == ("warn", "make room before recording video")


@pytest.mark.parametrize(
    ("cgroup", "file", "limit", "status"),
    [
        ("0::/system.slice/a.service\n", "system.slice/a.service/memory.max", "104857600", "warn"),
        ("0::/system.slice/a.service\n", "system.slice/memory.max", "104857600", "warn"),
        ("0::/system.slice/a.service\n", "system.slice/a.service/memory.max", "max", None),
        ("4:memory:/docker/1\n", "memory/docker/1/memory.limit_in_bytes", "104857600", "warn"),
        ("4:memory:/docker/1\n", "memory/docker/1/memory.limit_in_bytes", "9223372036854771712", None),
    ],
)
def test_a_limit_of_memory(cgroup: str, file: str, limit: str, status: str | None, tmp_path: Path) -> None:
    put(tmp_path, "proc/self/cgroup", cgroup)
    put(tmp_path, f"sys/fs/cgroup/{file}", limit)
    found = list(doctor._memory(tmp_path))
    assert [check.status for check in found] == ([status] if status else [])
    assert all("105 MB" in check.message for check in found)


@pytest.mark.parametrize(("available", "status"), [("200000", "warn"), ("2000000", "ok")])
def test_little_memory(available: str, status: str, tmp_path: Path) -> None:
    put(tmp_path, "proc/meminfo", f"MemTotal: 4000000 kB\nMemAvailable:   {available} kB\n")
    assert [check.status for check in doctor._memory(tmp_path)] == [status]


def test_a_clock_that_was_never_set() -> None:
    (check,) = doctor._clock(lambda: 0.0)
    assert (check.status, "never set" in check.message) == ("warn", True)


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [("no", "warn", "not synchronised"), ("yes", "ok", ", synchronised"), ("", "ok", "")],
)
def test_a_clock_that_drifts(
    answer: str, status: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "timedatectl", f"echo {answer}", monkeypatch)
    (check,) = doctor._clock(lambda: 2e9)
    assert (check.status, words in check.message) == (status, True)


# ------------------------------------------------------------------------------------ models, really run


def test_a_model_that_is_whole_but_cannot_be_run(models: Path) -> None:
    """The right hash of a file that no runtime takes: only building an interpreter tells."""
    content = (models / "face.int8.tflite").read_bytes()
    content = content[: len(content) // 2]
    (models / "face.int8.tflite").write_bytes(content)
    manifest = json.loads((models / "manifest.json").read_text())
    item = manifest["models"]["face"]["files"]["int8"]
    item |= {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    (models / "manifest.json").write_text(json.dumps(manifest))
    checks = list(doctor._models())
    assert [check.status for check in checks] == ["fail", "ok"]
    assert doctor.exit_code(checks) == 3


# -------------------------------------------------------------------------- the source and the configuration


def test_a_source_is_read_as_the_loop_reads_it(models: Path, demo_clip: Path) -> None:
    checks = doctor.run_doctor(source=str(demo_clip))
    (check,) = by_name(checks, "source")
    assert (check.status, "a frame of 640x480" in check.message) == ("ok", True)
    assert doctor.exit_code(checks) == 0


@pytest.mark.parametrize(
    ("source", "code"),
    [("/dev/video99", 4), ("nonsense", 2), ("no/such/file.mp4", 1)],
)
def test_a_source_that_cannot_be_read_gives_the_code_of_the_loop(
    source: str, code: int, tmp_path: Path
) -> None:
    file = tmp_path / "maskedge.toml"
    file.write_text("camera_timeout = 0.5\n")
    checks = doctor.run_doctor(config_file=str(file), source=source)
    (check,) = by_name(checks, "source")
    assert (check.status, bool(check.remedy)) == ("fail", True)
    assert doctor.exit_code(checks) == code
    # The loop itself ends with the same.
    from edge.cli import main

    assert main(["run", "--source", source, "--camera-timeout", "0.5", "--sink", "none"]) == code


def test_a_wrong_configuration_comes_first(models: Path, tmp_path: Path) -> None:
    (models / "manifest.json").unlink()
    file = tmp_path / "maskedge.toml"
    file.write_text("scroe = 1\n")
    checks = doctor.run_doctor(config_file=str(file))
    assert doctor.exit_code(checks) == 2
    assert "did you mean 'score'" in by_name(checks, "config")[0].remedy


# ---------------------------------------------------------------------------------------------- the report


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
