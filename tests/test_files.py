"""The one way in which files are written."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from edge.files import write_atomically


def test_files_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "result.json"
    write_atomically(path, "one")
    write_atomically(path, "zwölf")
    write_atomically(path.with_name("picture"), b"\x00\xff", durable=False)
    assert path.read_bytes() == "zwölf".encode()
    assert path.with_name("picture").read_bytes() == b"\x00\xff"
    assert sorted(item.name for item in path.parent.iterdir()) == ["picture", "result.json"]
    with pytest.raises(IsADirectoryError):
        write_atomically(path.parent, "text")
    if Path("/dev/null").exists():
        write_atomically(Path("/dev/null"), "text")
        assert not Path("/dev/null").is_file()


def test_a_full_disk_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "result.json"
    write_atomically(path, "old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["result.json"]


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "there")
    write_atomically(tmp_path / "link", "text")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there").read_text() == "text"


def test_what_is_there_already_can_be_kept(tmp_path: Path) -> None:
    path = tmp_path / "key"
    write_atomically(path, b"first", exclusive=True)
    with pytest.raises(FileExistsError):
        write_atomically(path, b"second", exclusive=True)
    assert path.read_bytes() == b"first"
    assert [item.name for item in tmp_path.iterdir()] == ["key"]


def test_rights_are_never_wider_than_asked_for(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        write_atomically(tmp_path / "private", b"secret", mode=0o600)
        write_atomically(tmp_path / "usual", b"text")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "private").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "usual").stat().st_mode) == 0o644
