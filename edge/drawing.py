"""Draws what was found onto a picture, at any size from a thumbnail to 4K."""

from __future__ import annotations

import math
import unicodedata

import cv2
import numpy as np

from edge.types import Analysis, Face

Color = tuple[int, int, int]

# Okabe and Ito's palette, which people with any kind of colour blindness can tell apart; BGR.
ORANGE: Color = (0, 159, 230)
SKY: Color = (233, 180, 86)
GREEN: Color = (115, 158, 0)
YELLOW: Color = (66, 228, 240)
BLUE: Color = (178, 114, 0)
VERMILION: Color = (0, 94, 213)
PURPLE: Color = (167, 121, 204)
BLACK: Color = (0, 0, 0)
WHITE: Color = (255, 255, 255)
GREY: Color = (190, 190, 190)

TRACK_COLORS = (SKY, ORANGE, GREEN, YELLOW, PURPLE, BLUE, VERMILION)
MASK_COLORS = {"correct": GREEN, "nose_out": YELLOW, "chin": ORANGE, "none": VERMILION}
MASK_WORDS = {"correct": "mask", "nose_out": "nose out", "chin": "mask on chin", "none": "no mask"}
# The less the mask covers, the less is drawn of each side of the box, in parts of the side: whole lines, long
# dashes, short dashes, corners. It tells the states apart where there is no room for text and no colour seen.
MASK_LINES: dict[str, tuple[tuple[float, float], ...]] = {
    "correct": ((0.0, 1.0),),
    "nose_out": ((0.0, 0.2), (0.4, 0.6), (0.8, 1.0)),
    "chin": ((0.0, 0.08), (0.23, 0.31), (0.46, 0.54), (0.69, 0.77), (0.92, 1.0)),
    "none": ((0.0, 0.2), (0.8, 1.0)),
}
MARK_WORDS = ("reconstruction", "recon", "rec")
GENDER_WORDS = {"female": "woman", "male": "man"}

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_FONT_CAP = 22.0  # height of a capital letter at font scale 1, pixels
_MIN_CAP = 8.0  # smallest height that can be read


def color_of(face: Face) -> Color:
    """BGR colour of a face: by mask state, grey where that is not clear; without that task by track."""
    if face.mask:
        return MASK_COLORS.get(face.mask["state"], GREY)
    return TRACK_COLORS[(face.track or 0) % len(TRACK_COLORS)]


def label_of(face: Face) -> str:
    """Short text for a face, in the characters that OpenCV's fonts have: "#3 nose out 94%  woman 91%"."""
    parts = []
    if face.identity and face.identity.get("name"):
        parts.append(str(face.identity["name"]))
    elif face.track is not None:
        parts.append(f"#{face.track}")
    if face.mask:
        parts.append(_words(MASK_WORDS, face.mask["state"], face.mask["score"], unknown="mask ?"))
    elif not face.gender:
        parts.append(_percent(face.score))
    text = " ".join(parts)
    if face.gender:
        # Unknown gender is nothing that needs to be said; next to nothing else it is.
        told = _words(GENDER_WORDS, face.gender["label"], face.gender["score"], unknown="" if text else "?")
        text = "  ".join(part for part in (text, told) if part)
    text = unicodedata.normalize("NFKD", text)
    return "".join(c for c in text if not unicodedata.combining(c)).encode("ascii", "replace").decode()


def _words(words: dict[str, str], key: str | None, score: float, *, unknown: str) -> str:
    return unknown if key is None else f"{words.get(key, key)} {_percent(score)}"


def _percent(score: float) -> str:
    return f"{min(score, 0.99):.0%}"  # nothing is certain


def status_of(analysis: Analysis, fps: float | None = None) -> str:
    """The status line: faces, milliseconds of the analysis and frames per second, as far as known."""
    count = len(analysis.faces)
    parts = [f"{count} face{'' if count == 1 else 's'}"]
    if "face" in analysis.timing_ms:
        models_ms = analysis.timing_ms["face"] + analysis.timing_ms.get("attributes", 0.0)
        parts.append(f"{models_ms:.1f} ms")
    if fps:
        parts.append(f"{fps:.0f} fps")
    return "  ".join(parts)


def annotate(
    image: np.ndarray, analysis: Analysis, *, fps: float | None = None, beside: bool = False
) -> np.ndarray:
    """Draw completed faces, boxes, landmarks, labels and a status line.

    Where the analysis has completed faces (`Face.unmasked`), they are shown without landmarks, and the
    picture is marked as a reconstruction.

    Args:
        image: H x W x 3 uint8 BGR; is not changed.
        analysis: of this picture, in its pixels.
        fps: frames per second for the status line, or None to leave it out.
        beside: leave the picture as it is, and add one with the completed faces to its right.

    Returns:
        A new picture of the same kind and size, with `beside` twice as wide. Line width and text grow with
        the picture; text that could not be read, in pictures of a few pixels, is left out.
    """
    image = np.ascontiguousarray(image)
    height, width = image.shape[:2]
    patches = [face.unmasked for face in analysis.faces if face.unmasked is not None]
    other = image
    if patches:
        from edge.tasks.unmask import uncovered

        other = uncovered(image, patches)
        if beside:
            mark(other)
    out = other if patches and not beside else image.copy()
    unit = math.sqrt(width * height) / 640
    line = max(1, round(2 * unit))
    cap = max(_MIN_CAP, 13 * unit)
    faces = [face for face in analysis.faces if all(map(math.isfinite, face.box))]
    for face in faces:
        _box(out, face, line)
    for face in faces:
        if beside or face.unmasked is None:
            _landmarks(out, face, line)
    for face in faces:  # labels last, so that no box of another face runs through them
        x, y, _, h = face.box
        size = _text_size(label_of(face), cap, width, height)
        if size is None:
            continue
        above = y - size.height - line
        top = above if above >= 0 else y + h + line
        if top + size.height > height:
            top = max(y, 0) + line  # no room above or below: inside
        _text(out, size, x - line // 2, top, color_of(face))
    status = _text_size(status_of(analysis, fps), cap, width, height)
    if status is not None:
        _text(out, status, 0, height, BLACK)
    if patches and not beside:
        mark(out)  # last, so that no box or label covers it
    return np.hstack((out, other)) if beside else out


def mark(picture: np.ndarray) -> np.ndarray:
    """Say in the lower right corner that a picture is a reconstruction.

    Args:
        picture: H x W x 3 uint8 BGR, is drawn on. Where it is too small for the word a shorter one is taken,
            and in pictures of a few pixels a square of a colour that faces do not have.

    Returns:
        The same array.
    """
    height, width = picture.shape[:2]
    cap = max(_MIN_CAP, 11 * math.sqrt(width * height) / 640)
    for word in MARK_WORDS:
        size = _text_size(word, cap, width, height)
        if size is not None:
            _text(picture, size, width, height, PURPLE)
            return picture
    side = max(1, min(width, height) // 3)
    picture[height - side :, width - side :] = PURPLE
    return picture


class _Text:
    """A text with the font scale, thickness and size of the plate behind it, pixels."""

    __slots__ = ("baseline", "height", "pad", "scale", "text", "thickness", "width")

    def __init__(self, text: str, cap: float) -> None:
        self.text = text
        self.scale = cap / _FONT_CAP
        self.thickness = max(1, round(cap / 9))
        (width, height), self.baseline = cv2.getTextSize(text, _FONT, self.scale, self.thickness)
        self.pad = max(1, round(cap / 4))
        self.width = width + 2 * self.pad
        self.height = height + self.baseline + self.pad


def _text_size(text: str, cap: float, width: int, height: int) -> _Text | None:
    """Lay a text out; None where not even the smallest readable size fits into the picture."""
    size = _Text(text, cap)
    if size.width > width and cap > _MIN_CAP:
        size = _Text(text, max(_MIN_CAP, cap * width / size.width * 0.97))
    return size if size.width <= width and size.height <= height // 2 else None


def _text(out: np.ndarray, size: _Text, x: float, y: float, color: Color) -> None:
    """Text on a plate of the colour, moved as far as needed to lie inside the picture."""
    height, width = out.shape[:2]
    left = int(min(max(x, 0), width - size.width))
    top = int(min(max(y, 0), height - size.height))
    cv2.rectangle(out, (left, top), (left + size.width - 1, top + size.height - 1), color, cv2.FILLED)
    b, g, r = color
    ink = BLACK if 0.114 * b + 0.587 * g + 0.299 * r > 110 else WHITE
    origin = (left + size.pad, top + size.height - size.baseline - size.pad // 2)
    cv2.putText(out, size.text, origin, _FONT, size.scale, ink, size.thickness, cv2.LINE_AA)


def _box(out: np.ndarray, face: Face, line: int) -> None:
    x, y, w, h = face.box
    left, top = _point(out, x, y)
    right, bottom = _point(out, x + w, y + h)
    state = face.mask["state"] if face.mask else None
    parts = MASK_LINES.get(state or "", MASK_LINES["correct"])
    rim = line + max(2, line)  # dark, so that the box is seen on any background
    if 0.15 * min(right - left, bottom - top) < rim:
        parts = MASK_LINES["correct"]  # in a box this small the gaps would close
    for color, thickness in ((BLACK, rim), (color_of(face), line)):
        if len(parts) == 1:
            cv2.rectangle(out, (left, top), (right, bottom), color, thickness)
            continue
        for begin, end in parts:
            for y_ in (top, bottom):
                ends = (left + round(begin * (right - left)), y_), (left + round(end * (right - left)), y_)
                cv2.line(out, *ends, color, thickness)
            for x_ in (left, right):
                ends = (x_, top + round(begin * (bottom - top))), (x_, top + round(end * (bottom - top)))
                cv2.line(out, *ends, color, thickness)


def _landmarks(out: np.ndarray, face: Face, line: int) -> None:
    # Dots must not hide a small face: at most a twentieth of it.
    radius = max(1, min(line, round(min(face.box[2:]) / 20)))
    for x, y in face.landmarks:
        if math.isfinite(x) and math.isfinite(y):
            cv2.circle(out, _point(out, x, y), radius, WHITE, cv2.FILLED, cv2.LINE_AA)


def _point(out: np.ndarray, x: float, y: float) -> tuple[int, int]:
    """Rounded, and kept near the picture: OpenCV overflows on coordinates far outside."""
    height, width = out.shape[:2]
    return round(min(max(x, -width), 2 * width)), round(min(max(y, -height), 2 * height))
