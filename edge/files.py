"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path


def write_atomically(
    path: Path, data: bytes | str, *, mode: int = 0o666, exclusive: bool = False, durable: bool = True
) -> None:
    """Write a file so that a reader, or a full disk, meets the old content or the new, never half.

    Args:
        path: of the file; missing folders are made. A link is followed; a device or a pipe is written to.
        data: its whole content; text becomes UTF-8.
        mode: rights of the file, of which those that the umask takes away are missing.
        exclusive: do not replace a file that is there already.
        durable: also after a power cut; pictures by the dozen can go without.

    Raises:
        FileExistsError: `exclusive`, and it is there.
        OSError: it cannot be written.
    """
    content = data.encode() if isinstance(data, str) else data
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file() and not path.is_dir():
        path.write_bytes(content)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        if exclusive:
            os.link(part, path)
        else:
            os.replace(part, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            part.unlink()
    if durable:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
