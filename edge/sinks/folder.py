"""A folder of pictures: annotated ones of the loop, and how any picture is named and written."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from urllib.parse import unquote, urlsplit

import cv2
import numpy as np

from edge.errors import SinkError
from edge.files import write_atomically
from edge.sinks.base import Canvas, Sink
from edge.types import Analysis, Frame

_QUALITY = 92
_MAX_SIDE = 65500  # of a JPEG, as its library has it


class OutputFolder:
    """Names files in a folder after the pictures they come from.

    Of several inputs with the same stem the later ones become STEM-2 and so on. A picture of the source is
    never overwritten; one of an earlier run into the same folder is.

    Args:
        folder: made if it is missing.
        inputs: files that must not be overwritten; each name that comes later is added.

    Raises:
        SinkError: the folder cannot be written to.
    """

    def __init__(self, folder: str, inputs: Iterable[str] = ()) -> None:
        self.path = Path(folder)
        # Lower case: on some disks A.jpg and a.jpg are one file.
        self._taken = {os.path.realpath(path).lower() for path in inputs}
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not os.access(self.path, os.W_OK | os.X_OK):
                raise PermissionError(None, "Permission denied")
        except OSError as error:
            raise SinkError(
                f"cannot write into {folder} ({error.strerror})", remedy="give another folder"
            ) from None

    def choose(self, name: str, *endings: str) -> list[Path]:
        """Files for a picture, one for each ending such as ".jpg", all with the same stem.

        Args:
            name: path or http(s) address of the picture.
            endings: what comes after the stem.
        """
        if "://" in name:
            name = unquote(urlsplit(name).path)
        else:
            self._taken.add(os.path.realpath(name).lower())
        stem, number = PurePath(name).stem or "picture", 1
        while True:
            start = stem if number == 1 else f"{stem}-{number}"
            paths = [self.path / f"{start}{ending}" for ending in endings]
            keys = {os.path.realpath(path).lower() for path in paths}
            if not keys & self._taken:
                self._taken |= keys
                return paths
            number += 1


class FolderSink(Sink):
    """Writes STEM.jpg for every picture with a name, and frame-000017.jpg for frames without.

    Args:
        folder, inputs: see `OutputFolder`.
        canvas: draws the pictures.

    Raises:
        SinkError: the folder cannot be written to.
    """

    def __init__(self, folder: str, canvas: Canvas, *, inputs: Iterable[str] = ()) -> None:
        self.name = f"folder {folder}"
        self._folder = OutputFolder(folder, inputs)
        self._canvas = canvas

    def write(self, frame: Frame, analysis: Analysis) -> None:
        self.save(frame, analysis)

    def save(self, frame: Frame, analysis: Analysis) -> Path:
        """Write the annotated picture; returns where to."""
        if frame.name is None:
            path = self._folder.path / f"frame-{frame.id:06d}.jpg"
        else:
            (path,) = self._folder.choose(frame.name, ".jpg")
        comment = ""
        if any(face.unmasked is not None for face in analysis.faces):
            from edge.tasks.unmask import NOTE

            comment = NOTE
        write_file(path, _jpeg(path, self._canvas.picture(frame, analysis), comment))
        return path


def _jpeg(path: Path, picture: np.ndarray, comment: str) -> bytes:
    if max(picture.shape) > _MAX_SIDE:
        size = f"{picture.shape[1]}x{picture.shape[0]}"
        raise SinkError(f"cannot write {path}", remedy=f"{size} pixels are more than JPEG allows")
    _, array = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    data: bytes = array.tobytes()
    if comment:
        # After the first segment, which names the format and must stay first.
        place = 4 + int.from_bytes(data[4:6], "big")
        text = comment.encode()
        data = data[:place] + b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text + data[place:]
    return data


def png(picture: np.ndarray, texts: Mapping[str, str]) -> bytes:
    """A PNG file with texts in it, which OpenCV cannot write.

    Args:
        picture: H x W or H x W x 3 (BGR) uint8.
        texts: by key, such as "Software" and "Description" (Latin-1).

    Raises:
        SinkError: OpenCV cannot encode a picture of this size.
    """
    try:
        done, array = cv2.imencode(".png", picture)
    except cv2.error:
        done = False
    if not done:
        size = f"{picture.shape[1]}x{picture.shape[0]}"
        raise SinkError(f"cannot write a PNG file of {size} pixels", remedy="give a smaller picture")
    data: bytes = array.tobytes()
    chunks = b""
    for key, text in texts.items():
        body = b"tEXt" + key.encode("latin-1") + b"\0" + text.encode("latin-1", "replace")
        chunks += struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    head = 8 + 25  # the signature and the header, which must come first
    return data[:head] + chunks + data[head:]


def write_file(path: Path, data: bytes) -> None:
    """Whole or not at all: a full disk leaves no half file behind.

    Raises:
        SinkError: it cannot be written.
    """
    try:
        write_atomically(path, data, durable=False)
    except OSError as error:
        raise SinkError(
            f"cannot write {path} ({error.strerror})", remedy="check free space and rights"
        ) from None
