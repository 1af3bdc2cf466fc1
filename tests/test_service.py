"""The service: its unit, and what the loop tells the service manager; real sockets, real processes.

A real systemd is in tests/pi/service/run.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edge
from edge import service
from edge.cli import main
from edge.config import Config
from edge.errors import UsageError
from edge.pacing import Pacer
from edge.sinks import Canvas
from edge.sinks.systemd import MARGIN_S, SystemdSink, notify
from edge.types import Analysis, Frame
from tests.camera_servers import MjpegCamera

ROOT = Path(__file__).parent.parent
FRAME = Frame(np.zeros((2, 2, 3), np.uint8), 0, 0.0)
ANALYSIS = Analysis(None, 0, 0.0, 2, 2, (), {"face": 1.4})

pytestmark = [
    pytest.mark.clock,
    pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs sockets of Unix"),
]


class Manager:
    """A socket such as a service manager listens on, and what came in: (seconds, VARIABLE, value)."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.got: list[tuple[float, str, str]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.settimeout(0.1)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                for line in self._socket.recv(4096).decode().splitlines():
                    name, _, value = line.partition("=")
                    self.got.append((time.monotonic(), name, value))

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._socket.close()

    def of(self, name: str) -> list[str]:
        return [value for _, other, value in list(self.got) if other == name]

    def fed(self) -> list[float]:
        return [at for at, name, _ in list(self.got) if name == "WATCHDOG"]

    def wait(self, true: Callable[[], Any], seconds: float = 15.0) -> bool:
        until = time.monotonic() + seconds
        while not true() and time.monotonic() < until:
            time.sleep(0.02)
        return bool(true())


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    # Not below tmp_path: the address of a socket has 108 characters at most.
    path = Path("/tmp") / f"maskedge-{os.getpid()}.sock"
    path.unlink(missing_ok=True)
    manager = Manager(str(path))
    yield manager
    manager.close()
    path.unlink(missing_ok=True)


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(manager: Manager) -> Iterator[Start]:
    """Starts `maskedge run` as a service with a watchdog of so many seconds."""
    running: list[subprocess.Popen[str]] = []

    def call(*argv: object, watchdog: float | None = 2.0) -> subprocess.Popen[str]:
        environment = os.environ | {"NOTIFY_SOCKET": manager.address}
        if watchdog is not None:
            environment["WATCHDOG_USEC"] = f"{watchdog * 1e6:.0f}"
        command = [sys.executable, "-m", "edge", "run", "--sink", "none", *map(str, argv)]
        running.append(
            subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment,
                text=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        )
        return running[-1]

    yield call
    for process in running:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGCONT)
        process.kill()
        process.communicate()


# ---------------------------------------------------------------------------- what the loop tells, for real


def test_ready_comes_with_the_first_result_and_the_end_is_announced(manager: Manager, start: Start) -> None:
    process = start("--source", "demo", "--loop")
    assert manager.wait(lambda: manager.of("READY"))
    assert manager.of("STATUS")[0] == "waiting for the first frame"
    assert manager.wait(lambda: len(manager.of("STATUS")) > 1)
    assert re.fullmatch(r"\d faces?, [\d.]+ ms(, \d+ fps)?", manager.of("STATUS")[1])
    assert manager.of("READY") == ["1"]
    process.send_signal(signal.SIGTERM)
    assert process.wait(15) == 0
    assert manager.wait(lambda: manager.of("STOPPING"))
    assert process.stderr
    assert re.search(r"\d+ frames in \d+ s, [\d.]+ fps, 0 dropped; ended by SIGTERM", process.stderr.read())


def test_the_watchdog_is_fed_by_progress_and_starves_when_there_is_none(
    manager: Manager, start: Start
) -> None:
    process = start("--source", "demo", "--loop")
    assert manager.wait(lambda: len(manager.fed()) >= 4)
    fed = manager.fed()
    gaps = [later - earlier for earlier, later in itertools.pairwise(fed)]
    assert max(gaps) < 2.0  # never late
    assert min(gaps) > 0.3  # nor with every frame, of which there are 25 a second
    process.send_signal(signal.SIGSTOP)
    time.sleep(0.3)
    before = len(manager.fed())
    time.sleep(2.5)
    assert len(manager.fed()) == before
    process.send_signal(signal.SIGCONT)
    assert manager.wait(lambda: len(manager.fed()) > before)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_a_loop_that_hangs_in_an_output_starves_it_too(
    manager: Manager, start: Start, tmp_path: Path
) -> None:
    """The process lives and so do its other threads; the loop alone is stuck, as by a dead disk."""
    pipe = tmp_path / "results.jsonl"
    os.mkfifo(pipe)
    start("--source", "demo", "--loop", "--sink", f"jsonl:{pipe}", watchdog=1.0)
    reader = os.open(pipe, os.O_RDONLY)
    try:
        assert manager.wait(lambda: manager.of("READY"))
        # Nobody reads: 64 kB fill up within seconds.
        assert manager.wait(lambda: manager.fed() and time.monotonic() - manager.fed()[-1] > 3, 40)
    finally:
        os.close(reader)


def test_a_camera_that_falls_silent_ends_the_loop_before_the_watchdog(manager: Manager, start: Start) -> None:
    with MjpegCamera(period=0.02, hang_after=30) as camera:
        process = start("--source", camera.url, "--camera-timeout", "1.5", watchdog=3.0)
        assert manager.wait(lambda: manager.of("READY"))
        assert process.wait(20) == 4
    # The watchdog was given time for the wait, and not fed during it.
    assert manager.of("WATCHDOG_USEC") == [f"{(1.5 + MARGIN_S) * 1e6:.0f}"]
    assert manager.of("EXTEND_TIMEOUT_USEC") == [f"{(1.5 + 2 * MARGIN_S) * 1e6:.0f}"]
    stopping = next(at for at, name, _ in manager.got if name == "STOPPING")
    assert stopping - manager.fed()[-1] > 1.0
    assert not manager.of("RELOADING")


def test_a_camera_that_never_comes_is_never_ready(manager: Manager, start: Start) -> None:
    process = start("--source", "/dev/video99", "--camera-timeout", "0.5")
    assert process.wait(20) == 4
    assert manager.wait(lambda: manager.of("STOPPING"))
    assert manager.of("READY") == []


def test_without_a_service_manager_nothing_is_told(manager: Manager) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "NOTIFY_SOCKET"}
    command = [sys.executable, "-m", "edge", "run", "--source", "demo", "--frames", "3", "--sink", "none"]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=60, capture_output=True)
    assert manager.got == []


# -------------------------------------------------------------------------------------- the single messages


@pytest.mark.parametrize("abstract", [False, True])
def test_notify_reaches_both_kinds_of_socket(abstract: bool, tmp_path: Path) -> None:
    if abstract and not sys.platform.startswith("linux"):
        pytest.skip("sockets without a file are Linux's")
    address = f"@maskedge-test-{os.getpid()}" if abstract else f"/tmp/maskedge-notify-{os.getpid()}"
    manager = Manager(address)
    try:
        assert notify("READY=1\nSTATUS=naïve", {"NOTIFY_SOCKET": address})
        assert manager.wait(lambda: len(manager.got) == 2)
        assert [(name, value) for _, name, value in manager.got] == [("READY", "1"), ("STATUS", "naïve")]
    finally:
        manager.close()
        if not abstract:
            os.unlink(address)


@pytest.mark.parametrize(
    "environment", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "nonsense"}, {"NOTIFY_SOCKET": "/no/such"}]
)
def test_nobody_to_tell_is_no_trouble(environment: dict[str, str]) -> None:
    assert notify("READY=1", environment) is False


@pytest.mark.parametrize(
    ("environment", "fed"),
    [
        ({"WATCHDOG_USEC": "2000000"}, True),
        ({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": str(os.getpid())}, True),
        ({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "1"}, False),  # meant for another process
        ({"WATCHDOG_USEC": "0"}, False),
        ({"WATCHDOG_USEC": "soon"}, False),
        ({}, False),
    ],
)
def test_the_watchdog_is_fed_where_there_is_one(
    environment: dict[str, str], fed: bool, manager: Manager
) -> None:
    sink = SystemdSink(Canvas(), environment={"NOTIFY_SOCKET": manager.address} | environment)
    for _ in range(5):
        sink.write(FRAME, ANALYSIS)
    sink.close()
    sink.close()
    assert manager.wait(lambda: manager.of("STOPPING"))
    assert len(manager.fed()) == fed
    assert (len(manager.of("READY")), len(manager.of("STOPPING"))) == (1, 1)


def test_the_status_tells_of_heat(manager: Manager, tmp_path: Path) -> None:
    now = [0.0]
    zone = tmp_path / "sys/class/thermal/thermal_zone0/temp"
    zone.parent.mkdir(parents=True)
    zone.write_text("83400\n")
    pacer = Pacer(root=tmp_path, clock=lambda: now[0])
    for _ in range(200):
        now[0] += 0.04 + pacer.rest()
    sink = SystemdSink(Canvas(), pacer, environment={"NOTIFY_SOCKET": manager.address})
    sink.write(FRAME, ANALYSIS)
    assert manager.wait(lambda: len(manager.of("STATUS")) == 2)
    assert manager.of("STATUS")[-1] == "0 faces, 1.4 ms, 83 °C, 1/2 of the frame rate because of 83 °C"


def test_telling_costs_nothing_between_two_reports(manager: Manager) -> None:
    environment = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "30000000"}
    sink = SystemdSink(Canvas(), environment=environment)
    sink.write(FRAME, ANALYSIS)
    begun = time.perf_counter()
    for _ in range(1000):
        sink.write(FRAME, ANALYSIS)
    assert (time.perf_counter() - begun) / 1000 < 5e-5
    assert manager.wait(lambda: manager.fed())
    assert len(manager.got) == 4  # waiting, READY, WATCHDOG, STATUS


# --------------------------------------------------------------------------------------------- the journal


def test_lines_for_the_journal_have_a_priority_and_no_name(tmp_path: Path) -> None:
    log = tmp_path / "journal"
    with log.open("w") as stream:
        info = os.fstat(stream.fileno())
        environment = os.environ | {"JOURNAL_STREAM": f"{info.st_dev}:{info.st_ino}"}
        for argv in (["--source", "demo", "--frames", "3"], ["--source", "no/such/file.mp4"]):
            subprocess.run(
                [sys.executable, "-m", "edge", "run", "--sink", "none", *argv],
                cwd=ROOT,
                env=environment,
                stderr=stream,
                timeout=60,
                check=False,
            )
    lines = log.read_text().splitlines()
    assert lines
    assert all(re.match(r"<[3-7]>\S", line) for line in lines)
    assert [line for line in lines if line.startswith("<6>demo: face")]
    assert lines[-1] == "<3>no/such/file.mp4 does not exist: check the path"


def test_other_streams_do_not(tmp_path: Path) -> None:
    environment = os.environ | {"JOURNAL_STREAM": "1:2"}  # inherited from a service
    command = [sys.executable, "-m", "edge", "run", "--source", "no/such/file.mp4"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert done.stderr.startswith("maskedge: error: ")


def test_a_message_of_several_lines_is_several_lines_of_the_journal() -> None:
    from edge.cli import _JournalFormat

    record = logging.LogRecord("edge", logging.WARNING, "f", 1, "one\ntwo", None, None)
    assert _JournalFormat().format(record) == "<4>one\n<4>two"


# ------------------------------------------------------------------------------------------------- the unit


def unit(*arguments: str, **options: Any) -> dict[str, list[str]]:
    """Keys of the unit to their values."""
    text = service.unit_text(
        arguments, **({"network": False, "python": "/opt/maskedge/bin/python"} | options)
    )
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def test_the_unit_says_what_it_must() -> None:
    keys = unit("--source", "usb:0")
    assert keys["Type"] == ["notify"]
    assert keys["ExecStart"] == [
        "/opt/maskedge/bin/python -P -X faulthandler -m edge run --source usb:0",
    ]
    assert keys["WatchdogSec"] == ["30"]
    assert keys["Restart"] == ["on-failure"]
    assert keys["DynamicUser"] == ["yes"]
    assert keys["IPAddressDeny"] == ["any"]
    assert "AF_INET" not in keys["RestrictAddressFamilies"][0]


def test_a_network_camera_gets_the_network() -> None:
    keys = unit("--source", "rtsp://camera/stream", network=True)
    assert "IPAddressDeny" not in keys
    assert "AF_INET AF_INET6" in keys["RestrictAddressFamilies"][0]
    assert keys["After"] == ["network.target"]


@pytest.mark.parametrize(
    ("version", "keys"), [(252, {"RestartSec"}), (257, {"RestartSec", "RestartSteps", "RestartMaxDelaySec"})]
)
def test_pauses_grow_where_systemd_can(version: int, keys: set[str]) -> None:
    assert {key for key in unit(version=version) if re.match(r"Restart(Sec|Steps|Max)", key)} == keys


@pytest.mark.parametrize(
    ("word", "quoted"),
    [
        ("rtsp://a/b?x=%41$1", '"rtsp://a/b?x=%%41$$1"'),
        ("/srv/my pictures", '"/srv/my pictures"'),
        ('a"b\\c', '"a\\"b\\\\c"'),
        ("100%", "100%%"),
    ],
)
def test_words_come_through_systemd_unchanged(word: str, quoted: str) -> None:
    assert unit("--source", word)["ExecStart"][0].endswith(f"--source {quoted}")


def test_what_lies_in_a_home_is_shown_to_the_service_and_nothing_else_of_it() -> None:
    keys = unit(visible=[Path("/home/ada/maskedge"), Path("/home/ada/my pictures")])
    assert keys["ProtectHome"] == ["tmpfs"]
    assert keys["BindReadOnlyPaths"] == ["/home/ada/maskedge", '"/home/ada/my pictures"']
    assert unit()["ProtectHome"] == ["yes"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd")
def test_systemd_finds_nothing_wrong_with_it(tmp_path: Path) -> None:
    path = tmp_path / service.UNIT
    version = service.systemd_version()
    assert version is not None
    path.write_text(
        service.unit_text(["--source", "a b%c"], network=False, visible=[tmp_path], version=version)
    )
    done = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True, timeout=60)
    about_it = [line for line in done.stderr.splitlines() if service.UNIT in line]
    assert about_it == []
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager", path],
        capture_output=True,
        text=True,
        timeout=60,
    )
    level = re.search(r"level for \S+: ([\d.]+)", done.stdout)
    assert level, done.stderr
    assert float(level[1]) < 1.5


# ------------------------------------------------------------------------------------- install and the rest


@pytest.fixture
def installed_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if maskedge were installed in this Python, which the tests may run without.

    The checkout counts as hidden, as one in a home does: others may not be let into where it lies.
    """
    monkeypatch.setattr(service, "_check_installed", lambda: None)
    monkeypatch.setattr(
        service, "HIDDEN", (*service.HIDDEN, Path(service.__file__).parents[1], Path(sys.prefix))
    )


@pytest.fixture
def hidden_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of which the service sees only what is named to it, wherever the tests keep their files."""
    monkeypatch.setattr(service, "HIDDEN", (*service.HIDDEN, tmp_path))
    return tmp_path


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A systemctl that writes down its arguments, on a machine that systemd does not run."""
    called = tmp_path / "called"
    program = tmp_path / "bin" / "systemctl"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {called}\n[ "$1" != --version ] || echo "systemd 252 (252.1)"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    monkeypatch.setattr(service, "_is_running", lambda: False)
    called.touch()
    return called


def test_installing_writes_the_unit_once_and_removing_it_ends_it(
    systemctl: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "units"
    folder.mkdir()
    text = service.unit_text(["--source", "usb:0"], network=False)
    assert service.install(text, folder=folder) == 0
    assert "written" in capsys.readouterr().out
    path = folder / service.UNIT
    assert path.read_text() == text
    assert path.stat().st_mode & 0o777 == 0o644
    before = path.stat().st_mtime_ns
    assert service.install(text, folder=folder) == 0
    assert "unchanged" in capsys.readouterr().out
    assert path.stat().st_mtime_ns == before
    assert service.install(text + "\n", folder=folder) == 0
    assert "written" in capsys.readouterr().out
    assert service.uninstall(folder=folder) == 0
    assert not path.exists()
    assert service.uninstall(folder=folder) == 0
    assert "nothing to remove" in capsys.readouterr().out
    assert systemctl.read_text().split("\n")[:-1] == [f"enable {service.UNIT}"] * 3 + [
        f"disable {service.UNIT}"
    ]


def test_a_dry_run_writes_nothing(
    systemctl: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "units"
    assert service.install("[Unit]\n", folder=folder, dry_run=True) == 0
    assert not folder.exists()
    assert systemctl.read_text() == ""
    assert f"systemctl enable {service.UNIT}" in capsys.readouterr().out


def test_without_rights_the_command_with_sudo_is_named(
    systemctl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["/opt/maskedge/bin/maskedge", "service", "install", "--source", "a b"])
    folder = tmp_path / "units"
    folder.mkdir(mode=0o555)
    user = os.getuid()
    if user == 0:
        os.setreuid(65534, -1)  # whom os.access asks for
    try:
        with pytest.raises(UsageError) as raised:
            service.install("[Unit]\n", folder=folder)
    finally:
        if user == 0:
            os.setreuid(0, -1)
    assert raised.value.remedy == "sudo /opt/maskedge/bin/maskedge service install --source 'a b'"
    assert systemctl.read_text() == ""


def test_without_systemd_there_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for call in (lambda: service.install("", folder=tmp_path), service.status, service.logs):
        with pytest.raises(UsageError, match=r"no systemd|no journalctl"):
            call()
    assert service.systemd_version() is None


@pytest.mark.usefixtures("installed_python", "systemctl")
def test_the_command_line_becomes_that_of_the_service(
    hidden_tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(hidden_tmp_path)
    file = hidden_tmp_path / "maskedge.toml"
    file.write_text("score = 0.6\n")
    file.chmod(0o644)
    argv = ["--config", "maskedge.toml", "--source", "usb:0", "--sink", "jsonl:a.jsonl", "--out", "b.mp4"]
    assert main(["service", "print", *argv, "--loop", "--tasks", "mask"]) == 0
    printed = capsys.readouterr().out
    command = next(line for line in printed.splitlines() if line.startswith("ExecStart="))
    words = command.partition(" run ")[2].split()
    assert words[:2] == ["--config", str(file)]
    assert words[-2:] == ["--out", "b.mp4"]
    for pair in ("--source usb:0", "--sink jsonl:a.jsonl", "--tasks mask", "--loop"):
        assert pair in " ".join(words)
    # What the service is to run is understood by maskedge run.
    from edge.cli import _parser

    again = ["run", *words]
    assert _parser(again).parse_args(again).source == "usb:0"


@pytest.mark.usefixtures("installed_python", "systemctl")
def test_a_service_without_outputs_writes_no_summary() -> None:
    assert "--sink none" in service.prepare([], Config())
    assert "--sink none" not in service.prepare([], Config(), out="a.jsonl")
    assert "--sink none" not in service.prepare([], Config(sink=("jsonl:a.jsonl",)))


@pytest.mark.usefixtures("installed_python", "systemctl")
@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--sink", "jsonl:/home/ada/a.jsonl"], "the service cannot write /home/ada/a.jsonl"),
        (["--out", "~/a.mp4"], "the service cannot write ~/a.mp4"),
        (["--score", "7"], "--score 7 must be between"),
        (["--config", "no/such.toml"], "cannot read no/such.toml"),
    ],
)
def test_what_could_not_work_is_refused_before_anything_is_written(
    argv: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["service", "install", *argv]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.usefixtures("installed_python", "systemctl")
def test_outputs_below_its_own_folder_are_fine() -> None:
    service.prepare([], Config(sink=("jsonl:/var/lib/maskedge/a.jsonl", "jsonl:-", "summary")))


@pytest.mark.usefixtures("installed_python", "systemctl")
def test_a_file_that_others_may_not_read_is_refused(hidden_tmp_path: Path) -> None:
    file = hidden_tmp_path / "maskedge.toml"
    file.write_text("")
    file.chmod(0o600)
    with pytest.raises(UsageError) as raised:
        service.prepare(["--config", str(file)], Config(), config_file=str(file))
    assert raised.value.remedy == f"sudo chmod o+r {file}"
    file.chmod(0o644)
    text = service.prepare(["--config", str(file)], Config(), config_file=str(file))
    bound = [line.partition("=")[2] for line in text.splitlines() if line.startswith("BindReadOnlyPaths=")]
    # By itself, or with a folder above it that is bound anyway.
    assert any(file.is_relative_to(path) for path in bound)


def test_a_folder_that_others_may_not_enter_is_refused_where_the_service_sees_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "HIDDEN", ())
    file = tmp_path / "maskedge.toml"
    file.write_text("")
    file.chmod(0o644)
    tmp_path.chmod(0o700)
    with pytest.raises(UsageError) as raised:
        service._check_readable(file)
    assert raised.value.remedy == f"sudo chmod o+rx {tmp_path}"


def test_a_python_without_maskedge_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True, timeout=60)
    monkeypatch.setattr(sys, "executable", str(bare / "bin/python"))
    with pytest.raises(UsageError, match="maskedge is not installed in"):
        service._check_installed()
    assert edge.__file__  # although it can be imported here


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"LoadState": "not-found"}, ["not installed"]),
        (
            {"ActiveState": "active", "SubState": "running", "MainPID": "7", "StatusText": "1 face, 3 ms"}
            | {"UnitFileState": "enabled", "MemoryCurrent": "88000000", "NRestarts": "2"},
            ["process 7; starts at boot", "now: 1 face, 3 ms", "memory: 88 MB", "restarted 2 times"],
        ),
        (
            {
                "ActiveState": "activating",
                "SubState": "auto-restart",
                "ExecMainCode": "1",
                "ExecMainStatus": "4",
            }
            | {"Result": "exit-code", "MemoryCurrent": "18446744073709551615"},
            [
                "waits before it tries again; does not start at boot",
                "exit code 4 (no camera, or it was lost)",
            ],
        ),
        (
            {"ActiveState": "failed", "Result": "watchdog", "ExecMainCode": "2"},
            ["failed", "the watchdog ended it"],
        ),
        ({"ActiveState": "failed", "Result": "timeout"}, ["it gave no result in time"]),
        ({"ActiveState": "inactive", "ExecMainCode": "0"}, ["stopped"]),
        ({"ActiveState": "failed", "ExecMainCode": "2", "ExecMainStatus": "9"}, ["by signal 9"]),
    ],
)
def test_the_status_in_words(facts: dict[str, str], said: list[str]) -> None:
    text = "\n".join(service.in_words({"LoadState": "loaded"} | facts))
    assert all(words in text for words in said), text
    assert "18446744" not in text


def test_the_exit_codes_are_those_of_the_program() -> None:
    from edge import errors

    classes = [one for one in vars(errors).values() if isinstance(one, type)]
    codes = {one.exit_code for one in classes if issubclass(one, errors.MaskedgeError)}
    assert codes <= set(service.EXIT_CODES)
