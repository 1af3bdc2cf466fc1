"""A folder of annotated pictures."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path, PurePath
from urllib.parse import unquote, urlsplit

import cv2
import numpy as np

from edge.errors import SinkError
from edge.sinks.base import Canvas, Sink
from edge.types import Analysis, Frame

_QUALITY = 92
_MAX_SIDE = 65500  # of a JPEG, as its library has it


class FolderSink(Sink):
    """Writes STEM.jpg for every picture with a name, and frame-000017.jpg for frames without.

    Of several inputs with the same stem the later ones become STEM-2.jpg and so on. A picture of the source
    is never overwritten; one of an earlier run into the same folder is.

    Args:
        folder: made if it is missing.
        canvas: draws the pictures.
        inputs: files that must not be overwritten; each written frame's own name is added.

    Raises:
        SinkError: the folder cannot be written to.
    """

    def __init__(self, folder: str, canvas: Canvas, *, inputs: Iterable[str] = ()) -> None:
        self.name = f"folder {folder}"
        self._folder = Path(folder)
        self._canvas = canvas
        # Lower case: on some disks A.jpg and a.jpg are one file.
        self._taken = {os.path.realpath(path).lower() for path in inputs}
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            if not os.access(self._folder, os.W_OK | os.X_OK):
                raise PermissionError(None, "Permission denied")
        except OSError as error:
            raise SinkError(
                f"cannot write into {folder} ({error.strerror})", remedy="give another folder"
            ) from None

    def write(self, frame: Frame, analysis: Analysis) -> None:
        self.save(frame, analysis)

    def save(self, frame: Frame, analysis: Analysis) -> Path:
        """Write the annotated picture; returns where to."""
        number = f"frame-{frame.id:06d}.jpg"
        path = self._folder / number if frame.name is None else self._choose(frame.name)
        _write_picture(path, self._canvas.picture(frame, analysis))
        return path

    def _choose(self, name: str) -> Path:
        if "://" in name:
            name = unquote(urlsplit(name).path)
        else:
            self._taken.add(os.path.realpath(name).lower())
        stem, number = PurePath(name).stem or "picture", 1
        while True:
            path = self._folder / (f"{stem}.jpg" if number == 1 else f"{stem}-{number}.jpg")
            key = os.path.realpath(path).lower()
            if key not in self._taken:
                self._taken.add(key)
                return path
            number += 1


def _write_picture(path: Path, picture: np.ndarray) -> None:
    """Whole or not at all: a full disk leaves no half picture behind."""
    part = path.with_name(f".{path.name}.part")
    if max(picture.shape) > _MAX_SIDE:
        size = f"{picture.shape[1]}x{picture.shape[0]}"
        raise SinkError(f"cannot write {path}", remedy=f"{size} pixels are more than JPEG allows")
    _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    try:
        part.write_bytes(data.tobytes())
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise SinkError(
            f"cannot write {path} ({error.strerror})", remedy="check free space and rights"
        ) from None
