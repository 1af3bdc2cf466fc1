"""deploy/install-pi.sh: what it would do on each system, and what it refuses; nothing is installed here."""

from __future__ import annotations

import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "deploy" / "install-pi.sh"

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(
        shutil.which("dpkg-query") is None, reason="dpkg is not there: not Debian, Ubuntu or Raspberry Pi OS"
    ),
]


class Machine:
    """A system by its /etc/os-release and architecture, with a home folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.home.mkdir()

    def install(
        self,
        codename: str,
        arch: str,
        *arguments: str | Path,
        script: Path = SCRIPT,
        identity: str = "debian",
        **more: str,
    ) -> subprocess.CompletedProcess[str]:
        release = self.folder / "os-release"
        release.write_text(
            f'PRETTY_NAME="{identity.title()} ({codename})"\nVERSION_CODENAME={codename}\nID={identity}\n'
        )
        environment = {
            name: value for name, value in os.environ.items() if name not in ("PYTHON", "SUDO_USER")
        }
        environment |= {"HOME": str(self.home), "MASKEDGE_OS_RELEASE": str(release), "MASKEDGE_ARCH": arch}
        environment.pop("XDG_DATA_HOME", None)
        return subprocess.run(
            ["sh", str(script), *map(str, arguments)],
            env=environment | more,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def commands(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The commands of a dry run, without the sudo that only another user's run has."""
    assert done.returncode == 0, done.stderr
    lines = [line.strip().removeprefix("sudo ") for line in done.stdout.splitlines() if line.startswith("  ")]
    return [line.partition("PIP_ROOT_USER_ACTION=ignore ")[2] or line for line in lines]


@pytest.mark.parametrize(
    ("codename", "arch", "site", "pins"),
    [
        ("bookworm", "arm64", True, "bookworm"),
        ("trixie", "arm64", True, "trixie"),
        ("bookworm", "amd64", False, "litert"),
        ("noble", "amd64", False, "litert"),
    ],
)
def test_each_system_gets_its_set(machine: Machine, codename: str, arch: str, site: bool, pins: str) -> None:
    done = machine.install(codename, arch, "--dry-run")
    lines = commands(done)
    (venv,) = (line for line in lines if " -m venv " in line)
    assert venv.endswith("-m venv --system-site-packages /opt/maskedge" if site else "-m venv /opt/maskedge")
    (first, second) = (line for line in lines if "pip -q install" in line)
    assert f"-c {ROOT}/constraints/{pins}.txt" in first
    assert "--no-deps" not in first
    assert "--no-deps --force-reinstall" in second
    # A package of apt, never of PyPI: there picamera2 would be built without the system's libcamera.
    assert not any("picamera2" in line for line in lines if "pip" in line)
    assert any("python3-picamera2" in line for line in lines) == site
    assert "ln -sfn /opt/maskedge/bin/maskedge /usr/local/bin/maskedge" in lines
    assert lines[-1] == "/opt/maskedge/bin/maskedge doctor"


def test_32_bit_bookworm_takes_numpy_and_opencv_from_the_system(machine: Machine) -> None:
    lines = commands(machine.install("bookworm", "armhf", "--dry-run", identity="raspbian"))
    (apt,) = (line for line in lines if "apt-get -qq install" in line)
    assert {"python3-numpy", "python3-opencv", "python3-picamera2", "--no-install-recommends"} <= set(
        apt.split()
    )
    installs = [line for line in lines if "pip -q install" in line]
    assert all("--no-deps" in line for line in installs)
    assert installs[0].endswith(f"-c {ROOT}/constraints/tflite.txt tflite-runtime")


@pytest.mark.parametrize(
    ("codename", "arch", "identity", "message"),
    [
        ("trixie", "armhf", "raspbian", "no TFLite runtime has a wheel for it. Use the 64-bit system"),
        ("bullseye", "arm64", "debian", "use Raspberry Pi OS Bookworm or Trixie"),
        ("trixie", "riscv64", "debian", "Use a 64-bit Raspberry Pi OS, or x86-64"),
        ("", "amd64", "fedora", "is unknown to this script: use Raspberry Pi OS"),
    ],
)
def test_other_systems_are_told_plainly(
    machine: Machine, codename: str, arch: str, identity: str, message: str
) -> None:
    done = machine.install(codename, arch, "--dry-run", identity=identity)
    assert done.returncode == 2
    assert done.stdout == ""
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--wheel"], "--wheel needs a value"),
        (["--wheel", "there-is-none.whl"], "there is no file there-is-none.whl"),
        (["--wheel", "README.md"], "is no wheel"),
        (["--prefix", ""], "--prefix needs a value"),
        (["--user", "--prefix", "/x"], "exclude each other"),
        (["--uninstall", "--wheel", "a.whl"], "--wheel is for installing"),
        (["--sudo"], "unknown option --sudo"),
    ],
)
def test_wrong_use_is_refused_in_one_line(machine: Machine, arguments: list[str], message: str) -> None:
    done = machine.install("bookworm", "amd64", "--dry-run", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_dry_run_changes_nothing(machine: Machine) -> None:
    prefix = machine.folder / "my place"
    lines = commands(machine.install("trixie", "arm64", "--dry-run", "--prefix", prefix))
    assert f"mkdir -p '{prefix}'" in lines
    assert not any("/usr/local/bin" in line for line in lines)
    assert not prefix.exists()
    assert list(machine.home.iterdir()) == []


def test_for_one_user_nothing_is_written_outside_the_home(machine: Machine) -> None:
    lines = commands(machine.install("bookworm", "amd64", "--dry-run", "--user"))
    home = machine.home
    assert f"ln -sfn {home}/.local/share/maskedge/bin/maskedge {home}/.local/bin/maskedge" in lines
    assert not any("/opt" in line or "/usr/local" in line for line in lines)


def test_a_folder_of_somebody_else_is_never_touched(machine: Machine) -> None:
    prefix = machine.folder / "photos"
    prefix.mkdir()
    (prefix / "one.jpg").write_bytes(b"precious")
    for arguments in (("--dry-run",), ()):
        done = machine.install("bookworm", "amd64", "--uninstall", "--prefix", prefix, *arguments)
        assert done.returncode == 2
        assert "was not made by this script" in done.stderr
    assert (prefix / "one.jpg").read_bytes() == b"precious"


def test_uninstalling_removes_what_was_made_and_can_be_repeated(machine: Machine) -> None:
    prefix = machine.home / ".local" / "share" / "maskedge"
    link = machine.home / ".local" / "bin" / "maskedge"
    (prefix / "bin").mkdir(parents=True)
    (prefix / ".maskedge.started").touch()  # as an interrupted installation leaves it
    link.parent.mkdir()
    link.symlink_to(prefix / "bin" / "maskedge")
    done = machine.install("bookworm", "amd64", "--uninstall", "--user")
    assert done.returncode == 0, done.stderr
    assert not prefix.exists()
    assert not link.is_symlink()
    again = machine.install("bookworm", "amd64", "--uninstall", "--user")
    assert (again.returncode, again.stderr) == (0, "")
    assert "nothing is installed" in again.stdout


def test_uninstalling_leaves_a_command_of_another_origin(machine: Machine) -> None:
    link = machine.home / ".local" / "bin" / "maskedge"
    link.parent.mkdir(parents=True)
    link.symlink_to("/bin/true")
    assert machine.install("bookworm", "amd64", "--uninstall", "--user").returncode == 0
    assert os.readlink(link) == "/bin/true"


def test_without_a_checkout_the_pins_come_from_the_wheel(machine: Machine) -> None:
    alone = machine.folder / "download" / "install-pi.sh"
    alone.parent.mkdir()
    shutil.copy(SCRIPT, alone)
    done = machine.install("trixie", "arm64", "--dry-run", script=alone)
    assert done.returncode == 2
    assert "give the wheel with --wheel FILE" in done.stderr

    wheel = alone.parent / "maskedge-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("edge/constraints/trixie.txt", "numpy==2.2.4\n")
    lines = commands(machine.install("trixie", "arm64", "--dry-run", "--wheel", wheel, script=alone))
    (first, _) = (line for line in lines if "pip -q install" in line)
    assert first.endswith(f"/trixie.txt {wheel}")
    assert not any("pip -q wheel" in line for line in lines)

    wheel.write_bytes(b"PK cut short")
    done = machine.install("trixie", "arm64", "--dry-run", "--wheel", wheel, script=alone)
    assert done.returncode == 2
    assert "is damaged, or no wheel of maskedge" in done.stderr
    assert "Traceback" not in done.stderr


def test_pins_that_the_script_names_are_in_the_wheel() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    for pins in ("bookworm", "trixie", "tflite", "litert"):
        assert included[f"constraints/{pins}.txt"] == f"edge/constraints/{pins}.txt"
