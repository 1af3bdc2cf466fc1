"""The camera loop as a service of systemd: writes the unit, starts it, tells how it is.

The unit is `Type=notify`; what the loop tells systemd is in `edge.sinks.systemd`.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from edge.config import Config
from edge.errors import MaskedgeError, UsageError
from edge.files import write_atomically

UNIT = "maskedge.service"
UNIT_FOLDER = Path("/etc/systemd/system")
STATE = Path("/var/lib/maskedge")
"""The only folder, but for its cache, that the service can write; its relative paths begin here."""

HIDDEN = tuple(map(Path, ("/home", "/root", "/run/user", "/tmp", "/var/tmp")))
"""What the service does not see of the real machine, but for what is named to it."""

EXIT_CODES = {
    0: "done",
    1: "an output could not be written",
    2: "wrong configuration",
    3: "a model is missing or damaged",
    4: "no camera, or it was lost",
    5: "nobody enrolled",
}

# What is missing is so for a reason: ProcSubset=pid would hide /proc/cpuinfo, which the model runtime reads
# on ARM, and PrivateDevices=yes the cameras.
_TEMPLATE = """\
# Written by `maskedge service install`, which replaces it. Changes of your own: sudo systemctl edit maskedge
[Unit]
Description=maskedge: finds faces and how they wear their masks
{unit}
[Service]
Type=notify
NotifyAccess=main
ExecStart={command}
# The loop feeds the watchdog with each frame that went all the way; faulthandler then says where it hung.
WatchdogSec=30
TimeoutStopSec=30
Restart=on-failure
# Wrong configuration, a damaged model, nobody enrolled: trying again would not help.
RestartPreventExitStatus=2 3 5
{restart}
# An unprivileged user that exists while the service runs; the group video may open cameras.
DynamicUser=yes
SupplementaryGroups=video
UMask=0077
StateDirectory=maskedge
StateDirectoryMode=0750
CacheDirectory=maskedge
WorkingDirectory={state}
Environment=HOME={state} XDG_CACHE_HOME=%C {environment}
SyslogIdentifier=maskedge

MemoryMax=75%
TasksMax=64
# A dump of the memory would hold pictures of people.
LimitCORE=0

# Cameras and nothing else: USB and sensors, the media graph, the memory that pictures are put in.
DevicePolicy=closed
DeviceAllow=char-video4linux rw
DeviceAllow=char-media rw
DeviceAllow=char-dma_heap rw

ProtectSystem=strict
{home}
PrivateTmp=yes
PrivateUsers=yes
PrivateIPC=yes
PrivateMounts=yes
ProtectProc=invisible
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
NoNewPrivileges=yes
CapabilityBoundingSet=
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RemoveIPC=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM
{network}
[Install]
WantedBy=multi-user.target
"""


def unit_text(
    arguments: Sequence[str],
    *,
    network: bool,
    visible: Iterable[Path] = (),
    version: int = 252,
    python: str = sys.executable,
) -> str:
    """The unit file.

    Args:
        arguments: of `maskedge run`.
        network: whether the service may talk to other machines.
        visible: files and folders below `HIDDEN` that the service has to read.
        version: of the systemd that is to read it.
        python: path of the interpreter that maskedge is installed in.
    """
    # -P: what lies in the working folder, which the service can write, must not become code.
    command = [python, "-P", "-X", "faulthandler", "-m", "edge", "run", *arguments]
    bound = list(dict.fromkeys(map(str, visible)))
    home = ["ProtectHome=tmpfs", *(f"BindReadOnlyPaths={_path(path)}" for path in bound)]
    # Since 254 systemd lets the pauses grow by itself; an older one would warn of the words.
    pauses = ["RestartSec=5", "RestartSteps=6", "RestartMaxDelaySec=5min"]
    families = f"RestrictAddressFamilies=AF_UNIX AF_NETLINK{' AF_INET AF_INET6' * network}"
    alone = ["# No network at all: pictures cannot leave this machine.", "IPAddressDeny=any"]
    # Not network-online.target, which may take minutes: a camera out of reach is tried again anyway.
    online = ["After=network.target"]
    return _TEMPLATE.format(
        unit="\n".join(
            ["# However often it fails, it is tried again.", "StartLimitIntervalSec=0", *online * network]
        )
        + "\n",
        command=" ".join(map(_quoted, command)),
        restart="\n".join(pauses if version >= 254 else ["RestartSec=10"]) + "\n",
        state="%S/maskedge",
        environment="PYTHONDONTWRITEBYTECODE=1",
        home="\n".join(home if bound else ["ProtectHome=yes"]),
        network="\n".join([*([] if network else alone), families]) + "\n",
    )


def _quoted(word: str) -> str:
    """A word of ExecStart: % and $ mean something there."""
    word = word.replace("%", "%%").replace("$", "$$")
    if re.fullmatch(r"[\w@%+=:,./$-]+", word):
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _path(path: str) -> str:
    """A path of BindReadOnlyPaths, where a colon would separate two."""
    return _quoted(path).replace(":", "\\:")


# ------------------------------------------------------------------------------------------------- checks


def prepare(
    arguments: Sequence[str], config: Config, *, out: str | None = None, config_file: str | None = None
) -> str:
    """The unit file for options of `maskedge run`, after a look whether the service could run with them.

    Args:
        arguments: of `maskedge run`, which gave config, out and config_file.

    Raises:
        UsageError: the service could not read something it needs, or not write an output.
    """
    import edge

    arguments = list(arguments)
    for spec in (*config.sink, *([out] if out else [])):
        _check_output(spec)
    if not config.sink and not out:
        # A service has no screen, and its summary would be a page in the log.
        arguments += ["--sink", "none"]
    needed = [Path(sys.prefix), Path(sys.base_prefix), Path(edge.__file__).resolve().parent.parent]
    for given in (config_file, config.models or os.environ.get("MASKEDGE_MODELS"), config.source):
        if given and os.path.exists(os.path.expanduser(given)) and not given.startswith("/dev/"):
            needed.append(Path(os.path.abspath(os.path.expanduser(given))))
    for path in needed:
        _check_readable(path)
    _check_installed()
    visible = [path for path in needed if any(path.is_relative_to(hidden) for hidden in HIDDEN)]
    visible = [
        path for path in visible if not any(path != other and path.is_relative_to(other) for other in visible)
    ]
    if config.models is None and "MASKEDGE_MODELS" in os.environ:
        arguments += ["--models", os.path.abspath(os.environ["MASKEDGE_MODELS"])]
    network = "://" in config.source
    return unit_text(arguments, network=network, visible=visible, version=systemd_version() or 252)


def _check_output(spec: str) -> None:
    _, _, path = spec.rpartition(":")
    if path.startswith(("/", "~")) and not Path(path).is_relative_to(STATE):
        remedy = f"name it without a folder: it then lies in {STATE}"
        raise UsageError(f"the service cannot write {path}: {STATE} is all it may write", remedy=remedy)


def _check_readable(path: Path) -> None:
    """Refuse what a user without rights could not open; parents below `HIDDEN`, made anew, do not count."""
    for part in (path, *path.parents):
        if part != path and any(
            hidden.is_relative_to(part) or part.is_relative_to(hidden) for hidden in HIDDEN
        ):
            return
        try:
            mode = part.stat().st_mode
        except OSError as error:
            raise UsageError(f"cannot read {part} ({error.strerror})", remedy="check the path") from None
        missing = (
            "rx" if part.is_dir() and not mode & 0o001 else "r" if part == path and not mode & 0o004 else ""
        )
        if missing:
            raise UsageError(
                f"the service, a user without rights, cannot read {part}",
                remedy=f"sudo chmod o+{missing} {part}",
            )


def _check_installed() -> None:
    """Refuse a Python that finds maskedge only from here, or in the home of one user."""
    command = [sys.executable, "-P", "-c", "import edge.cli, numpy, cv2"]
    environment = {"PATH": os.defpath, "HOME": "/nonexistent"}
    try:
        subprocess.run(command, cwd="/", env=environment, check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        raise UsageError(
            f"maskedge is not installed in {sys.executable}",
            remedy="install it with deploy/install-pi.sh or make setup, and call the maskedge of that",
        ) from None


def systemd_version() -> int | None:
    """Of this machine, such as 252; None where there is none."""
    if shutil.which("systemctl") is None:
        return None
    text = _systemctl("--version").stdout
    return int(match[1]) if (match := re.match(r"systemd (\d+)", text)) else None


def _is_running(root: Path = Path("/")) -> bool:
    """Whether systemd runs this machine, as sd_booted(3) tells; in a chroot or container it may not."""
    return (root / "run/systemd/system").is_dir()


def _systemctl(*arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(["systemctl", *arguments], capture_output=True, text=True, timeout=600)
    except (OSError, subprocess.SubprocessError) as error:
        raise UsageError(f"systemctl cannot be run ({error})", remedy="this needs systemd") from None


def _need_systemd() -> None:
    if shutil.which("systemctl") is None:
        raise UsageError(
            "this system has no systemd", remedy="start `maskedge run` in the way of your system"
        )


def _need_root(folder: Path) -> None:
    if not os.access(folder, os.W_OK):
        command = shlex.join([os.path.abspath(shutil.which(sys.argv[0]) or sys.argv[0]), *sys.argv[1:]])
        raise UsageError(f"{folder} cannot be written", remedy=f"sudo {command}")


# ----------------------------------------------------------------------------------------------- commands


def install(text: str, *, folder: Path = UNIT_FOLDER, dry_run: bool = False) -> int:
    """Write the unit, have it started now and at each boot; again with the same text it changes nothing.

    Returns:
        0, or 1 when the service does not come up.

    Raises:
        UsageError: no systemd, or no rights.
    """
    path = folder / UNIT
    if dry_run:
        print(f"would write {path}:\n\n{text}\nand run:\n  systemctl daemon-reload")
        print(f"  systemctl enable {UNIT}\n  systemctl restart {UNIT}")
        return 0
    _need_systemd()
    _need_root(folder)
    try:
        same = path.read_text(encoding="utf-8") == text
    except (OSError, UnicodeDecodeError):
        same = False
    if not same:
        write_atomically(path, text)
        path.chmod(0o644)
    print(f"{path}: {'unchanged' if same else 'written'}", flush=True)
    running = _is_running()
    if running:
        _must("daemon-reload")
    _must("enable", UNIT)
    if not running:
        print("systemd does not run here: the service starts at the next boot")
        return 0
    print("starting: waiting for the first result", flush=True)
    # A service that runs as it should is left alone.
    started = _systemctl("start" if same else "restart", UNIT)
    if started.returncode:
        print("the service does not come up:\n")
        status()
        print(f"\nsystemd tries again by itself unless the exit code is 2, 3 or 5; log: {_LOG}")
        return 1
    return status()


_LOG = "maskedge service logs"


def uninstall(*, folder: Path = UNIT_FOLDER) -> int:
    """Stop the service and remove its unit; what it has written stays.

    Raises:
        UsageError: no systemd, or no rights.
    """
    path = folder / UNIT
    if not path.exists():
        print(f"{path} is not there: nothing to remove")
        return 0
    _need_systemd()
    _need_root(folder)
    running = _is_running()
    _must("disable", *(["--now"] if running else []), UNIT)
    path.unlink(missing_ok=True)
    if running:
        _must("daemon-reload")
        _systemctl("reset-failed", UNIT)  # which fails where there is nothing to forget
    print(f"{path}: removed")
    if STATE.exists():
        print(
            f"what the service has written is kept: sudo rm -rf {STATE} {STATE.parent}/private/{STATE.name}"
        )
    return 0


def _must(*arguments: str) -> None:
    done = _systemctl(*arguments)
    if done.returncode:
        reason = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise MaskedgeError(f"systemctl {' '.join(arguments)} failed ({reason})", remedy=f"see {_LOG}")


def status() -> int:
    """Print how the service is; returns 0 when it runs, else 1.

    Raises:
        UsageError: no systemd.
    """
    _need_systemd()
    if not _is_running():
        raise UsageError(
            "systemd does not run this machine", remedy="services can only be asked for where it does"
        )
    keys = (
        "LoadState,UnitFileState,ActiveState,SubState,MainPID,StatusText,Result,ExecMainStatus,ExecMainCode,"
    )
    keys += "NRestarts,MemoryCurrent,ActiveEnterTimestamp,FragmentPath"
    lines = _systemctl("show", UNIT, "-p", keys).stdout.splitlines()
    facts = dict(line.split("=", 1) for line in lines if "=" in line)
    print("\n".join(in_words(facts)))
    return 0 if facts.get("ActiveState") == "active" else 1


def in_words(facts: dict[str, str]) -> list[str]:
    """A few lines from what `systemctl show` says of the service."""
    if facts.get("LoadState") != "loaded":
        return ["not installed: sudo maskedge service install"]
    active, code = facts.get("ActiveState", ""), facts.get("ExecMainStatus", "0")
    boot = "starts at boot" if facts.get("UnitFileState") == "enabled" else "does not start at boot"
    if active == "active":
        first = f"running since {facts.get('ActiveEnterTimestamp')}, process {facts.get('MainPID')}; {boot}"
    elif active == "activating" and facts.get("SubState") != "auto-restart":
        first = f"starting; {boot}"
    else:
        first = {"activating": "waits before it tries again", "failed": "failed"}.get(
            active, "stopped"
        ) + f"; {boot}"
    lines = [f"{UNIT}: {first}"]
    if active == "active" and facts.get("StatusText"):
        lines.append(f"  now: {facts['StatusText']}")
    elif active != "active" and (
        ended := _ending(facts.get("Result", ""), facts.get("ExecMainCode", ""), code)
    ):
        lines.append(f"  the last run ended: {ended}")
    memory = facts.get("MemoryCurrent", "")
    if memory.isdigit() and int(memory) < 2**60:  # all ones where it is not counted
        lines.append(f"  memory: {int(memory) / 1e6:.0f} MB")
    if facts.get("NRestarts", "0") != "0":
        lines.append(f"  restarted {facts['NRestarts']} times by systemd; log: {_LOG}")
    lines.append(f"  unit: {facts.get('FragmentPath')}")
    return lines


def _ending(result: str, how: str, code: str) -> str:
    """Why the last run ended, in words; "" where there was none."""
    if result == "watchdog":
        return "it hung, and the watchdog ended it"
    if result == "timeout":
        return "it gave no result in time"
    if how == "1":
        words = EXIT_CODES.get(int(code), "") if code.isdigit() else ""
        return f"exit code {code}{f' ({words})' if words else ''}"
    return f"by signal {code}" if how in ("2", "3") else ""


def logs(*, follow: bool = False, lines: int = 50) -> int:
    """Show the journal of the service; does not return but for errors.

    Raises:
        UsageError: no journal.
    """
    if shutil.which("journalctl") is None:
        raise UsageError("this system has no journalctl", remedy="this needs systemd")
    command = [
        "journalctl",
        "--unit",
        UNIT,
        "--lines",
        str(lines),
        "--no-pager",
        *(["--follow"] if follow else []),
    ]
    sys.stdout.flush()
    os.execvp(command[0], command)
