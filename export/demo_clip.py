"""Makes the built-in demo clip and the record of what is in it.

    python -m export.demo_clip --out edge/assets/demo.mp4 --truth tests/data/demo_truth.json

The person is astronaut Eileen Collins, from the public-domain NASA portrait that scikit-image ships; she is
cut out, moved, scaled and tilted over backgrounds drawn here, and wears masks drawn by `edge.masks`.
The clip is the same on every run with the same versions of OpenCV and NumPy.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from edge.errors import MaskedgeError, SinkError, UsageError
from edge.masks import Color, Design, Worn, paint_mask
from edge.types import LANDMARKS_MIRRORED

logger = logging.getLogger(__name__)

WIDTH, HEIGHT, FPS, SECONDS = 640, 480, 25, 15.2
BITRATE = "860k"

# The portrait, 512 x 512: found by hand. Box: forehead (under the fringe) to chin, cheek to cheek.
LANDMARKS = np.array([(202.5, 101.5), (247.0, 103.0), (222.5, 125.5), (201.5, 140.5), (242.5, 142.0)])
BOX = (178.5, 64.0, 90.0, 114.0)
# What may be the person, and what surely is: the start of the cut-out.
_PERHAPS = (
    (150, 8),
    (300, 8),
    (315, 110),
    (310, 200),
    (330, 240),
    (365, 290),
    (370, 340),
    (500, 340),
    (511, 420),
    (511, 511),
    (10, 511),
    (15, 330),
    (40, 240),
    (100, 205),
    (100, 160),
    (140, 130),
    (140, 60),
)
_SURELY = (
    (190, 35),
    (240, 28),
    (285, 60),
    (288, 98),
    (264, 124),
    (256, 160),
    (250, 190),
    (290, 215),
    (300, 250),
    (345, 290),
    (352, 345),
    (440, 352),
    (485, 400),
    (490, 505),
    (35, 505),
    (35, 400),
    (55, 280),
    (110, 225),
    (125, 170),
    (165, 160),
    (184, 160),
    (184, 124),
    (175, 110),
    (162, 80),
    (168, 60),
)
_ENLARGE = 2  # the portrait is painted on at this size, so that masks stay sharp close up
_FADE = 6  # frames from one mask to the next

_BLUE = Design()
_DOTS = Design("cloth", "dots", (0.55, 0.16, 0.12), (0.9, 0.9, 0.92), (0.55, 0.16, 0.12), 0.22, pleats=0)
_BLACK = Design("surgical", "plain", (0.09, 0.09, 0.09), inner=(0.1, 0.1, 0.1), relief=1.3)
_WHITE = Design("respirator", "plain", (0.9, 0.91, 0.91), pleats=0, border=0.03, reach=1.15, relief=1.2)
_CHECKS = Design("cloth", "checks", (0.25, 0.25, 0.7), (0.85, 0.87, 0.9), (0.2, 0.2, 0.6), 0.2, 0.8, pleats=0)
_SCARF = Design(
    "bandana",
    "print",
    (0.2, 0.45, 0.15),
    (0.75, 0.8, 0.7),
    scale=0.25,
    pleats=0,
    loops=False,
    reach=1.45,
    length=0.5,
)


@dataclass(frozen=True)
class Actor:
    """One walk through the picture.

    Attributes:
        path: (seconds, centre x, centre y, face width, tilt in degrees), from entry to exit.
        outfits: (from second on, how the mask is worn or "none", its design).
        twin: mirrored, in a suit of another colour.
    """

    path: tuple[tuple[float, float, float, float, float], ...]
    outfits: tuple[tuple[float, str, Design | None], ...]
    twin: bool = False


ACTORS = (
    Actor(
        (
            (0.0, 330, 235, 120, 0),
            (1.2, 260, 225, 150, -7),
            (2.5, 320, 245, 220, 6),
            (3.6, 420, 235, 165, 9),
            (4.6, 470, 220, 125, -3),
            (5.8, 455, 240, 110, -8),
            (6.8, 510, 235, 100, 4),
            (8.0, 720, 240, 95, 0),
            (8.8, 860, 240, 95, 0),
        ),
        (
            (0.0, "none", None),
            (1.3, "correct", _BLUE),
            (2.9, "nose_out", _BLUE),
            (4.2, "chin", _BLUE),
            (5.4, "none", None),
            (6.4, "correct", _BLACK),
        ),
    ),
    Actor(
        (
            (2.5, -172, 240, 75, 0),
            (4.7, 110, 225, 80, 6),
            (6.0, 190, 215, 115, -6),
            (7.2, 260, 235, 150, 4),
            (8.2, 180, 240, 130, 8),
            (9.6, -270, 235, 120, 0),
        ),
        ((0.0, "correct", _DOTS), (5.4, "nose_out", _DOTS), (6.8, "none", None), (8.0, "correct", _CHECKS)),
        twin=True,
    ),
    Actor(
        (
            (9.6, 745, 262, 45, 0),
            (11.5, 550, 258, 45, 5),
            (12.5, 430, 250, 80, -6),
            (13.7, 400, 245, 215, 6),
            (14.4, 470, 240, 190, 0),
            (15.4, 800, 235, 170, -4),
        ),
        ((0.0, "correct", _WHITE), (12.3, "nose_out", _WHITE), (13.4, "chin", _WHITE), (14.3, "none", None)),
    ),
    Actor(
        (
            (10.6, -140, 240, 60, 0),
            (12.2, 90, 235, 65, -8),
            (13.2, 150, 225, 75, 6),
            (14.2, 130, 230, 70, 0),
            (15.4, -160, 235, 70, 5),
        ),
        ((0.0, "correct", _SCARF), (12.5, "chin", _BLACK), (13.6, "nose_out", _BLACK)),
        twin=True,
    ),
)


class Portrait(NamedTuple):
    """The cut-out person: premultiplied BGRA float32 at falling sizes, each half the one before."""

    levels: tuple[np.ndarray, ...]


def load_portrait() -> np.ndarray:
    """The 512 x 512 x 3 uint8 BGR portrait of scikit-image."""
    try:
        from skimage import data
    except ImportError as error:
        raise UsageError("the demo clip needs scikit-image", remedy="pip install scikit-image") from error
    return np.ascontiguousarray(data.astronaut()[..., ::-1])


def cut_out(portrait: np.ndarray) -> np.ndarray:
    """Soft matte of the person, H x W float32, 0..1."""
    labels: np.ndarray = np.full(portrait.shape[:2], cv2.GC_BGD, np.uint8)
    cv2.fillPoly(labels, [np.array(_PERHAPS, np.int32)], cv2.GC_PR_FGD)
    cv2.fillPoly(labels, [np.array(_SURELY, np.int32)], cv2.GC_FGD)
    cv2.setRNGSeed(0)
    state = np.zeros((2, 1, 65))  # of the colour models, filled by the call
    nowhere = (0, 0, 0, 0)
    cv2.grabCut(portrait, labels, nowhere, state[0], state[1], 6, cv2.GC_INIT_WITH_MASK)
    matte = ((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)).astype(np.float32)
    # Pulled in a little, so that no rim of the old background comes along.
    return np.clip((cv2.GaussianBlur(matte, (0, 0), 1.2) - 0.35) / 0.6, 0, 1)


def recolour(portrait: np.ndarray) -> np.ndarray:
    """The same person in a suit of another colour: strong orange below the face turns blue."""
    hsv = cv2.cvtColor(portrait, cv2.COLOR_BGR2HSV)
    suit = (hsv[..., 1] > 110) & ((hsv[..., 0] < 16) | (hsv[..., 0] > 172))
    suit[:185] = False
    hsv[..., 0] = np.where(suit, (hsv[..., 0].astype(int) + 96) % 180, hsv[..., 0])
    hsv[..., 1] = np.where(suit, hsv[..., 1] * 0.7, hsv[..., 1])
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)


def dress(
    portrait: np.ndarray, matte: np.ndarray, worn: str, design: Design | None, seed: int, twin: bool
) -> Portrait:
    """The cut-out person wearing this mask, or none."""
    size = (portrait.shape[1] * _ENLARGE, portrait.shape[0] * _ENLARGE)
    large = cv2.resize(recolour(portrait) if twin else portrait, size, interpolation=cv2.INTER_CUBIC)
    alpha = cv2.resize(matte, size, interpolation=cv2.INTER_LINEAR)
    if worn != "none":
        state: Worn = worn  # type: ignore[assignment]
        points = (LANDMARKS + 0.5) * _ENLARGE - 0.5
        painted = paint_mask(large, points, worn=state, design=design, rng=np.random.default_rng(seed))
        large, alpha = painted.image, np.maximum(alpha, painted.region)
    picture: np.ndarray = np.dstack([large * alpha[..., None], alpha]).astype(np.float32)
    if twin:
        picture = picture[:, ::-1].copy()
    levels: list[np.ndarray] = [picture]
    for _ in range(2):
        half = (levels[-1].shape[1] // 2, levels[-1].shape[0] // 2)
        levels.append(cv2.resize(levels[-1], half, interpolation=cv2.INTER_AREA))
    return Portrait(tuple(levels))


def _pose(actor: Actor, frame: int) -> tuple[float, float, float, float]:
    """Centre x, y, face width and tilt (degrees) of a frame, smooth in time."""
    times, *columns = (np.array(column, float) for column in zip(*actor.path, strict=True))
    # A Hann window over 0.8 s rounds the corners of the keyed path.
    span = np.arange(-10, 11)
    weights = np.hanning(len(span) + 2)[1:-1]
    at = (frame + span) / FPS
    x, y, width, tilt = (
        float(np.average(np.interp(at, times, column), weights=weights)) for column in columns
    )
    return x, y, width, tilt


def _placing(actor: Actor, frame: int) -> np.ndarray:
    """2 x 3 affine from portrait pixels to the picture."""
    x, y, width, tilt = _pose(actor, frame)
    scale = width / BOX[2]
    centre = np.array([BOX[0] + BOX[2] / 2, BOX[1] + BOX[3] / 2])
    flip = np.diag([-1.0, 1.0]) if actor.twin else np.eye(2)
    angle = np.deg2rad(tilt)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ flip
    return np.hstack([turn, ((x, y) - turn @ centre)[:, None]])


def _warp(portrait: Portrait, placing: np.ndarray, twin: bool) -> np.ndarray:
    """The person placed in the picture, H x W x 4 float32, premultiplied."""
    scale = float(np.sqrt(abs(np.linalg.det(placing[:, :2]))))
    level, zoom = 0, 1.0 / _ENLARGE
    while level + 1 < len(portrait.levels) and scale * zoom * 2 <= 1.0:
        level, zoom = level + 1, zoom * 2
    picture = portrait.levels[level]
    # Pixel centres of the level to those of the portrait; a twin's levels are stored mirrored.
    side = picture.shape[1] * zoom
    to_portrait = np.array([[zoom, 0, zoom / 2 - 0.5], [0, zoom, zoom / 2 - 0.5], [0, 0, 1]])
    if twin:
        to_portrait = np.array([[-1, 0, side - 1], [0, 1, 0], [0, 0, 1]]) @ to_portrait
    matrix = placing @ to_portrait
    return cv2.warpAffine(picture, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR, borderValue=(0, 0, 0, 0))


class Stage:
    """Backgrounds that change with time: a few drawn scenes, each melting into the next."""

    def __init__(self) -> None:
        rng = np.random.default_rng(7)
        grain = rng.normal(0, 2.0, (HEIGHT, WIDTH)).astype(np.float32)
        self._grain = cv2.GaussianBlur(grain, (0, 0), 0.8)[..., None]
        coarse = rng.uniform(0, 1, (14, 26, 3)).astype(np.float32)
        coarse = 0.3 * coarse + 0.7 * coarse.mean(axis=2, keepdims=True)
        self._cloud = cv2.resize(coarse, (WIDTH * 2, HEIGHT), interpolation=cv2.INTER_CUBIC)
        self._shapes = rng.uniform(0, 1, (9, 8))

    def _gradient(self, first: Color, second: Color, angle: float) -> np.ndarray:
        yy, xx = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
        t = ((xx / WIDTH - 0.5) * np.cos(angle) + (yy / HEIGHT - 0.5) * np.sin(angle) + 0.5).clip(0, 1)[
            ..., None
        ]
        return np.array(first, np.float32) * (1 - t) + np.array(second, np.float32) * t

    def _panels(self, picture: np.ndarray, time: float, corners: int) -> None:
        for a, b, c, d, e, blue, green, red in self._shapes:
            centre = np.array([(a * 900 + (b - 0.5) * 140 * time) % 900 - 130, c * HEIGHT])
            angles = np.arange(corners) * 2 * np.pi / corners + (d - 0.5) * time + e * 6
            ring = np.stack([np.cos(angles) * (50 + 110 * d), np.sin(angles) * (40 + 60 * e)], axis=1)
            colour = (60 + 150 * blue, 60 + 150 * green, 60 + 150 * red)
            cv2.fillPoly(picture, [((centre + ring) * 16).astype(np.int32)], colour, cv2.LINE_AA, 4)

    def _scene(self, index: int, time: float) -> np.ndarray:
        if index == 0:
            picture = self._gradient((190, 150, 110), (90, 120, 160), 0.4 + 0.15 * time)
            self._panels(picture, time, 4)
        elif index == 1:
            shift = int(20 * time) % WIDTH
            picture = 50 + 150 * self._cloud[:, shift : shift + WIDTH]
        else:
            picture = self._gradient((70, 60, 50), (120, 160, 130), 1.2 - 0.1 * time)
            self._panels(picture, time + 40, 3)
            for k in range(5):
                x = (k * 150 + 35 * time) % 750 - 60
                cv2.line(picture, (int(x), 0), (int(x) - 90, HEIGHT), (150, 190, 200), 9, cv2.LINE_AA)
        return picture

    def draw(self, time: float) -> np.ndarray:
        """H x W x 3 float32 background of this second."""
        index, part = divmod(time / 4.0, 1.0)
        picture = self._scene(int(index) % 3, time)
        melt = float(np.clip((part - 0.85) / 0.15, 0, 1))
        if melt > 0:
            picture = picture * (1 - melt) + self._scene((int(index) + 1) % 3, time) * melt
        return picture + self._grain

    def counter(self, picture: np.ndarray) -> None:
        """A counter in the foreground, behind which a small bust ends."""
        picture[438:] = picture[438:] * 0.12 + np.array((48, 44, 40), np.float32)
        picture[438:442] = (110, 105, 100)


def _outfit(actor: Actor, frame: int) -> tuple[int, int, float]:
    """Outfit worn, the one before it, and how far the change has come, 0..1."""
    current = max(k for k, (start, _, _) in enumerate(actor.outfits) if k == 0 or start * FPS <= frame)
    if current == 0:
        return 0, 0, 1.0
    return current, current - 1, float(np.clip((frame - actor.outfits[current][0] * FPS + 1) / _FADE, 0, 1))


def _truth(index: int, actor: Actor, frame: int, cover: np.ndarray) -> dict[str, Any] | None:
    """What is seen of one actor's face; `cover` H x W: how much nearer people hide of each pixel."""
    placing = _placing(actor, frame)
    x, y, w, h = BOX
    corners = np.array([(x, y), (x + w, y), (x + w, y + h), (x, y + h)]) @ placing[:, :2].T + placing[:, 2]
    # The upright box of the tilted face keeps the face's own size, as people draw it.
    scale = float(np.sqrt(abs(np.linalg.det(placing[:, :2]))))
    bx, by = corners.mean(axis=0) - scale * np.array([w, h]) / 2
    bw, bh = scale * w, scale * h
    x0, x1 = np.clip([bx, bx + bw], 0, WIDTH)
    y0, y1 = np.clip([by, by + bh], 0, HEIGHT)
    if x1 - x0 < 1 or y1 - y0 < 1:
        return None
    hidden = float(cover[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))].mean())
    visible = (x1 - x0) * (y1 - y0) / (bw * bh) * (1 - hidden)
    points = LANDMARKS @ placing[:, :2].T + placing[:, 2]
    if actor.twin:  # the mirrored person's right is the portrait's left
        points = points[list(LANDMARKS_MIRRORED)]
    current, before, part = _outfit(actor, frame)
    state = actor.outfits[current if part >= 0.5 else before][1]
    return {
        "id": index,
        "box": [round(float(value), 1) for value in (bx, by, bw, bh)],
        "landmarks": [[round(float(value), 1) for value in point] for point in points],
        "mask": state,
        "changing": part < 1.0,
        "visible": round(float(visible), 2),
        "partial": bool(visible < 0.97),
    }


def render() -> tuple[list[np.ndarray], list[list[dict[str, Any]]]]:
    """All frames (H x W x 3 uint8 BGR) and, for each, the faces in it."""
    portrait = load_portrait()
    matte = cut_out(portrait)
    dressed = [
        [
            dress(portrait, matte, worn, design, 31 * k + j // 9, a.twin)
            for j, (_, worn, design) in enumerate(a.outfits)
        ]
        for k, a in enumerate(ACTORS)
    ]
    stage = Stage()
    frames, truth = [], []
    for frame in range(round(SECONDS * FPS)):
        time = frame / FPS
        picture = stage.draw(time)
        present = [k for k, a in enumerate(ACTORS) if a.path[0][0] <= time <= a.path[-1][0]]
        present.sort(key=lambda k: _pose(ACTORS[k], frame)[2])  # the smaller stand farther away
        layers = []
        for k in present:
            current, before, part = _outfit(ACTORS[k], frame)
            placing = _placing(ACTORS[k], frame)
            layer = _warp(dressed[k][current], placing, ACTORS[k].twin)
            if part < 1.0:
                layer = part * layer + (1 - part) * _warp(dressed[k][before], placing, ACTORS[k].twin)
            layers.append(layer)
            picture = picture * (1 - layer[..., 3:]) + layer[..., :3]
        stage.counter(picture)
        faces = []
        for position, k in enumerate(present):
            cover = np.zeros((HEIGHT, WIDTH), np.float32)
            for nearer in layers[position + 1 :]:
                cover = np.maximum(cover, nearer[..., 3])
            faces.append(_truth(k, ACTORS[k], frame, cover))
        frames.append(np.clip(picture + 0.5, 0, 255).astype(np.uint8))
        truth.append(sorted((face for face in faces if face), key=lambda face: int(face["id"])))
    return frames, truth


def write_clip(frames: Sequence[np.ndarray], path: Path) -> None:
    """MPEG-4 part 2 in mp4: every OpenCV reads it, and it is cheap to decode on a small computer.

    OpenCV's own writer has no bit rate to set and makes twice the bytes.
    """
    try:
        import imageio_ffmpeg  # type: ignore[import-untyped]
    except ImportError as error:
        raise UsageError("the demo clip needs imageio-ffmpeg", remedy="pip install imageio-ffmpeg") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    # No B frames (decoding order is display order); bit-exact flags keep date and version out of the file.
    options = "-mbd rd -trellis 2 -g 50 -bf 0 -flags:v +bitexact+mv4"
    options += " -fflags +bitexact -map_metadata -1 -movflags +faststart"
    try:
        writer = imageio_ffmpeg.write_frames(
            str(part),
            (WIDTH, HEIGHT),
            pix_fmt_in="bgr24",
            pix_fmt_out="yuv420p",
            fps=FPS,
            codec="mpeg4",
            bitrate=BITRATE,
            macro_block_size=16,
            output_params=options.split(),
        )
        writer.send(None)
        for frame in frames:
            writer.send(frame)
        writer.close()
        part.replace(path)
    except OSError as error:
        raise SinkError(
            f"cannot write {path}: {error}", remedy="check the folder and the free space"
        ) from error
    finally:
        part.unlink(missing_ok=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m export.demo_clip", description="make the built-in demo clip"
    )
    parser.add_argument("--out", type=Path, default=Path("edge/assets/demo.mp4"), help="the clip (mp4)")
    parser.add_argument(
        "--truth", type=Path, default=Path("tests/data/demo_truth.json"), help="what is in it (JSON)"
    )
    options = parser.parse_args(argv)
    try:
        frames, truth = render()
        write_clip(frames, options.out)
        options.truth.parent.mkdir(parents=True, exist_ok=True)
        lines = ",\n".join(json.dumps(faces, separators=(",", ":")) for faces in truth)
        head = json.dumps({"version": 1, "fps": FPS, "width": WIDTH, "height": HEIGHT})[:-1]
        options.truth.write_text(f'{head}, "frames": [\n{lines}\n]}}\n', encoding="utf-8")
    except MaskedgeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: cannot write: {error}", file=sys.stderr)
        return 1
    print(f"{options.out}: {len(frames)} frames, {options.out.stat().st_size / 1e6:.2f} MB; {options.truth}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
