"""One object per line, as JSON: analyses, or what else happens."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

from edge.errors import SinkError
from edge.sinks.base import Sink
from edge.types import Analysis, Frame


class Lines:
    """Appends objects to a file, each line at once and whole: readers can follow, and a crash loses nothing.

    A file past `max_bytes` becomes FILE.1, FILE.1 becomes FILE.2 and so on; only `backups` of them are kept.

    Args:
        path: of the file, or `-` for standard output.
        max_bytes: largest size of a file; 0 for no limit.
        backups: how many full files are kept besides the current one.
        mode: rights of a new file.

    Raises:
        SinkError: the file cannot be written.
    """

    def __init__(
        self, path: str, *, max_bytes: int = 50_000_000, backups: int = 3, mode: int = 0o666
    ) -> None:
        self._path = None if path == "-" else Path(path)
        self._max_bytes = max_bytes
        self._backups = backups
        self._mode = mode
        self._file = -1
        self._bytes = 0
        self._regular = False
        if self._path is not None:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._open(self._path)
            except OSError as error:
                raise self._failed(error) from None

    def append(self, item: dict[str, Any]) -> None:
        """Write one line.

        Raises:
            SinkError: the file cannot be written.
        """
        line = json.dumps(item) + "\n"
        if self._path is None:
            # Not caught here: a reader that went away is no error (see cli.main).
            sys.stdout.write(line)
            sys.stdout.flush()
            return
        data = line.encode()
        try:
            if (
                self._regular
                and self._max_bytes
                and self._bytes
                and self._bytes + len(data) > self._max_bytes
            ):
                self._rotate(self._path)
            self._put(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise self._failed(error) from None

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _put(self, data: bytes) -> None:
        written = 0
        try:
            while written < len(data):
                written += os.write(self._file, data[written:])
        except OSError:
            if written and self._regular:
                os.ftruncate(self._file, self._bytes)  # no half line: the lines before stay readable
            raise
        self._bytes += written

    def _open(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, self._mode)
        state = os.fstat(self._file)
        self._regular = stat.S_ISREG(state.st_mode)
        self._bytes = state.st_size if self._regular else 0
        if self._bytes:
            with path.open("rb") as file:
                file.seek(-1, os.SEEK_END)
                torn = file.read(1) != b"\n"
            if torn:  # the power failed in the middle of a line: the next one must not be glued to it
                self._put(b"\n")

    def _rotate(self, path: Path) -> None:
        self.close()
        if self._backups < 1:
            path.unlink(missing_ok=True)
        for number in range(self._backups, 0, -1):
            older = path.with_name(f"{path.name}.{number - 1}") if number > 1 else path
            if older.exists():
                os.replace(older, path.with_name(f"{path.name}.{number}"))
        self._open(path)

    def _failed(self, error: OSError) -> SinkError:
        return SinkError(
            f"cannot write {self._path} ({error.strerror})",
            remedy="check the folder, its rights and free space",
        )


class JsonlSink(Sink):
    """Every analysis as a line; arguments as for `Lines`."""

    def __init__(self, path: str, *, max_bytes: int = 50_000_000, backups: int = 3) -> None:
        self.name = f"jsonl {path}"
        self._lines = Lines(path, max_bytes=max_bytes, backups=backups)

    def write(self, frame: Frame, analysis: Analysis) -> None:
        self._lines.append(analysis.to_json())

    def close(self) -> None:
        self._lines.close()
