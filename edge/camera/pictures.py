"""Pictures: one, a folder of them, or a glob; and the one function that reads a picture."""

from __future__ import annotations

import glob
import http.client
import logging
import os
import re
import struct
import time
from collections.abc import Generator, Sequence
from pathlib import Path

import cv2
import numpy as np

from edge.camera.base import Source, check_file, quiet_opencv, to_bgr8
from edge.camera.network import failure, is_url, public_url, request
from edge.errors import InputError
from edge.types import Frame

log = logging.getLogger(__name__)

PICTURE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2",
)  # fmt: skip
MAX_PIXELS = 200_000_000
MAX_BYTES = 512 << 20
MAX_FETCH_BYTES = 64 << 20
FETCH_S = 20.0
READABLE = "give a JPEG, PNG, WebP, BMP, TIFF or PNM picture"


def read_image(source: str | Path | bytes, *, name: str | None = None) -> np.ndarray:
    """Reads a picture as it should be shown.

    EXIF orientation is applied; grey becomes three equal channels, 16 bits become 8, and what is transparent
    is painted over white.

    Args:
        source: a file, a http(s) address (at most 64 MiB, 20 s), or the bytes of a picture file.
        name: what to call it in messages; by default the path or the address.

    Returns:
        H x W x 3 uint8, 0..255, BGR, contiguous.

    Raises:
        InputError: it is missing, empty, truncated, no picture, of an unknown kind or above 200 megapixels.
    """
    if isinstance(source, bytes):
        return _decode(source, name or "the picture")
    text = str(source)
    if is_url(text):
        name = name or public_url(text)
        return _decode(_fetch(text, name), name)
    return _decode(_load(text, name or text), name or text)


def find_pictures(paths: Sequence[str]) -> list[str]:
    """Files, addresses, folders and globs to one list of pictures, in the order given.

    A folder is searched recursively, in sorted order, for the usual suffixes; what is hidden is left out. A
    file or address is taken as it is, existing or not, so that its reader can report it by name.

    Raises:
        InputError: a folder or glob holds no picture.
    """
    found: list[str] = []
    for path in paths:
        if os.path.isdir(path):
            inside = _search(path)
        elif not is_url(path) and not os.path.lexists(path) and glob.has_magic(path):
            matches = sorted(glob.glob(path, recursive=True), key=_order)
            folders = {match: _search(match) for match in matches if os.path.isdir(match)}
            inside = [one for match in matches for one in folders.get(match, [match])]
        else:
            found.append(path)
            continue
        if not inside:
            raise InputError(f"no picture in {path}", remedy=READABLE)
        found += inside
    return found


class Pictures(Source):
    """A set of pictures, one frame each; `Frame.name` is the path, `Frame.id` the place in the set.

    A picture that cannot be read is left out with a warning and listed in `failed`.

    Args:
        paths: files or http(s) addresses, as `find_pictures` gives them.
        name: as in `Source`.
        fps: pictures per second; None reads as fast as they are taken.
        loop: begins anew at the end, for ever; ids go on.

    Raises:
        InputError: (from `frames()`) not one picture can be read.
    """

    _room = 1  # pictures may be huge

    def __init__(
        self, paths: Sequence[str], *, name: str, fps: float | None = None, loop: bool = False
    ) -> None:
        super().__init__(name, fps=fps, frame_count=len(paths))
        self._paths = list(paths)
        self._loop = loop

    def _produce(self) -> Generator[Frame, None, None]:
        number, due = 0, time.monotonic()
        bad: dict[str, str] = {}
        while not self._stop.is_set():
            for path in self._paths:
                if self._stop.is_set():
                    return
                number += 1
                if path in bad:
                    continue
                try:
                    self._may_block(FETCH_S if is_url(path) else 0.0)
                    image = read_image(path)
                except InputError as error:
                    bad[path] = str(error)
                    self.failed.append((path, str(error)))
                    if len(self._paths) > 1:
                        log.warning("left out: %s", error)
                    continue
                if self.fps:
                    due = self._keep_pace(due, 1 / self.fps)
                yield Frame(image, number - 1, time.monotonic(), path)
                del image
            if len(bad) == len(set(self._paths)):
                first = self.failed[0][1]
                several = f"none of the {len(bad)} pictures can be read; the first: "
                raise InputError(several + first if len(bad) > 1 else first)
            if not self._loop:
                return


def _order(path: str) -> tuple[str, ...]:
    return Path(path).parts


def _search(folder: str) -> list[str]:
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            os.path.join(parent, name)
            for name in files
            if name.lower().endswith(PICTURE_SUFFIXES) and not name.startswith(".")
        ]
    return sorted(found, key=_order)


def _load(path: str, name: str) -> bytes:
    if check_file(path, name, remedy=READABLE) > MAX_BYTES:
        raise InputError(f"{name} is larger than {MAX_BYTES >> 20} MiB", remedy="give a smaller picture")
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{name} cannot be read ({error.strerror})", remedy="check the disk") from None


def _fetch(url: str, name: str) -> bytes:
    if not url.lower().startswith(("http://", "https://")):
        raise InputError(f"{name} cannot be fetched", remedy="give a http or https address, or a file")
    ends = time.monotonic() + FETCH_S
    data = bytearray()
    try:
        with request(url, timeout=FETCH_S / 2) as reply:
            expected = int(reply.headers.get("Content-Length") or 0)
            # read1 returns what has come so far: a server that trickles cannot stretch the limit.
            while max(len(data), expected) <= MAX_FETCH_BYTES and (part := reply.read1(1 << 16)):
                data += part
                if time.monotonic() > ends:
                    raise InputError(f"{name} took longer than {FETCH_S:g} s", remedy="download it first")
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise InputError(f"{name} cannot be fetched: {failure(error)}", remedy="check the address") from None
    if max(len(data), expected) > MAX_FETCH_BYTES:
        raise InputError(f"{name} is larger than {MAX_FETCH_BYTES >> 20} MiB", remedy="download it first")
    if len(data) < expected:
        raise InputError(f"{name} came only in part", remedy="try again")
    return bytes(data)


def _decode(data: bytes, name: str) -> np.ndarray:
    if not data:
        raise InputError(f"{name} is empty", remedy=READABLE)
    try:
        width, height, orientation = _header(data)
    except (ValueError, struct.error, IndexError):
        # OpenCV fills what is missing with grey, in some versions without a word.
        raise InputError(f"{name} is truncated or damaged", remedy="copy or download it again") from None
    if width * height > MAX_PIXELS:
        raise _too_large(name, width, height)
    quiet_opencv()
    # JPEG has neither alpha nor 16 bits, but CMYK, which only IMREAD_COLOR converts.
    jpeg = data.startswith(b"\xff\xd8")
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION if jpeg else cv2.IMREAD_UNCHANGED
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        image = None
    if image is None or image.size == 0:
        raise InputError(f"{name} is not a picture that can be read, or is damaged", remedy=READABLE)
    if image.shape[0] * image.shape[1] > MAX_PIXELS:
        raise _too_large(name, image.shape[1], image.shape[0])
    # Many programs write 32-bit bitmaps whose fourth byte is unused, and zero.
    if data.startswith(b"BM") and image.ndim == 3 and not image[..., 3:].any():
        image = image[..., :3]
    try:
        return _turn(to_bgr8(image), orientation)
    except ValueError as error:
        raise InputError(f"{name}: {error}", remedy=READABLE) from None


def _too_large(name: str, width: int, height: int) -> InputError:
    return InputError(
        f"{name} has {width} x {height} pixels, more than {MAX_PIXELS // 10**6} megapixels",
        remedy="give a smaller picture",
    )


def _turn(image: np.ndarray, orientation: int) -> np.ndarray:
    """Applies EXIF orientation 1..8; OpenCV does so for some formats, in some versions, with some flags."""
    if orientation >= 5:
        image = cv2.transpose(image)
    # After the transposition: 6 and 2 mirror left to right, 7 and 3 both ways, 8 and 4 top to bottom.
    flip = {2: 1, 6: 1, 3: -1, 7: -1, 4: 0, 8: 0}.get(orientation)
    return image if flip is None else cv2.flip(image, flip)


def _header(data: bytes) -> tuple[int, int, int]:
    """Width, height (0 where not known before decoding) and EXIF orientation of a complete picture file.

    Raises:
        ValueError, struct.error, IndexError: the file ends too early.
    """
    if data.startswith(b"\xff\xd8"):
        return _jpeg_header(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png_header(data)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return 0, 0, _webp_orientation(data)
    if data.startswith(b"BM"):
        width, height = struct.unpack_from("<ii", data, 18)
        return abs(width), abs(height), 1
    if data.startswith((b"GIF87a", b"GIF89a")):
        return *struct.unpack_from("<HH", data, 6), 1
    if data.startswith((b"II*\0", b"MM\0*")):
        # OpenCV turns TIFFs itself, with any flags.
        tags = _tiff_tags(data)
        return tags.get(256, 0), tags.get(257, 0), 1
    return 0, 0, 1


_JPEG_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])", re.DOTALL)


def _jpeg_header(data: bytes) -> tuple[int, int, int]:
    width, height, orientation, at = 0, 0, 1, 2
    # From segment to segment; after a scan's header the search runs over its data, where 00 follows FF.
    while marker := _JPEG_MARKER.search(data, at):
        kind, at = marker[1][0], marker.end()
        if kind == 0xD9:
            return width, height, orientation
        if kind in (0x01, 0xD8):
            continue
        (length,) = struct.unpack_from(">H", data, at)
        body = data[at + 2 : at + length]
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", body, 1)
        elif kind == 0xE1 and body.startswith(b"Exif\0\0"):
            orientation = _orientation(body)
        at += max(length, 2)
    raise ValueError("no end of image")


def _png_header(data: bytes) -> tuple[int, int, int]:
    width, height = struct.unpack_from(">II", data, 16)
    orientation, at = 1, 8
    while True:
        length, kind = struct.unpack_from(">I4s", data, at)
        if at + 12 + length > len(data):
            raise ValueError("cut off")
        if kind == b"IEND":
            return width, height, orientation
        if kind == b"eXIf":
            orientation = _orientation(data[at + 8 : at + 8 + length])
        at += 12 + length


def _webp_orientation(data: bytes) -> int:
    (length,) = struct.unpack_from("<I", data, 4)
    if length + 8 > len(data):
        raise ValueError("cut off")
    at, orientation = 12, 1
    while at + 8 <= length + 8:
        kind, length_of_part = struct.unpack_from("<4sI", data, at)
        if kind == b"EXIF":
            orientation = _orientation(data[at + 8 : at + 8 + length_of_part])
        at += 8 + length_of_part + length_of_part % 2
    return orientation


def _orientation(exif: bytes) -> int:
    """The orientation of an EXIF block, 1 where it has none or is damaged: that must not cost the picture."""
    try:
        value = _tiff_tags(exif.removeprefix(b"Exif\0\0")).get(274, 1)
    except (ValueError, struct.error, IndexError):
        return 1
    return value if 1 <= value <= 8 else 1


def _tiff_tags(data: bytes) -> dict[int, int]:
    """The tags of the first directory whose value is one 16-bit or 32-bit number."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        raise ValueError("neither byte order")
    (at,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, at)
    tags = {}
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind, values = struct.unpack_from(order + "HHI", data, entry)
        if values == 1 and kind in (3, 4):
            (tags[tag],) = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, entry + 8)
    return tags
