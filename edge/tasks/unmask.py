"""What may be under a mask: completes the face of an aligned crop, and puts it back into the whole picture.

What comes out is plausible, not true: the model has never seen what the mask hides. It is made to be looked
at; it must never be evidence, and never enters a decision about who somebody is.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from edge.errors import ModelError
from edge.geometry import align, similarity
from edge.tasks.attributes import TEMPLATE
from edge.types import Face

if TYPE_CHECKING:
    from edge.tflite import Model, ModelEntry

__all__ = ["COVERING", "NOTE", "TEMPLATE", "Completion", "Patch", "Unmasker", "covered", "uncovered"]

COVERING = ("nose_out", "correct")
"""Mask states in which there is something to complete. On the chin a mask hides no part of the face."""

NOTE = (
    "reconstruction: plausible, not true; what a mask hides was made up by a model; never use it as evidence"
)
"""Goes with every picture that shows one, as metadata."""

# Up to the first value of the map the picture stays exactly as it is; from the second on the completion is
# shown, which is itself the picture where the map is low: faded twice, the rim of the mask would be seen.
_LEAVE, _REPLACE = 0.02, 0.25
_FADE = 0.04  # of the crop's side: a mask that reaches beyond the crop ends softly there

# ---- colour at the seam
_COARSE = 32  # cells a side in which the colour is looked at
_SPREAD = 4.0  # cells; how far the rim counts, an eighth of the crop
_FAINT = 0.5  # grey values; where less than this of the rim reaches, deep under a mask, the colour stays
_DARKER, _LIGHTER = -0.4, 0.6  # of a cell's colour; a larger change is another thing, not another light

_TILE = 1 << 20  # pixels put in at a time: a face may fill 200 megapixels


def covered(face: Face, *, likely: bool = False) -> bool:
    """Whether a mask hides a part of the face, as far as its attributes tell.

    Args:
        face: with its mask state.
        likely: where the state is unknown, whether the states that hide a part are together likelier than
            not: for photos, of which no second view will tell. How a mask is worn may be unclear where it is
            clear that there is one.
    """
    if face.mask is None:
        return False
    if face.mask["state"] is None and likely:
        return sum(face.mask.get("scores", {}).get(state, 0.0) for state in COVERING) > 0.5
    return face.mask["state"] in COVERING


@dataclass(slots=True, frozen=True)
class Completion:
    """A face as it may look, in the frame of its aligned crop. Arrays are not to be written to.

    Attributes:
        pixels: S x S x 3 uint8 BGR; of meaning where `alpha` is above 0.
        alpha: S x S float32, 0 (the picture stays exactly as it is) to 1 (it is replaced).
        rect: x0, y0, x1, y1 of the part of the crop with `alpha` above 0, crop pixels; x1 <= x0 for none.
        coarse: 32 x 32 x 3 float32, `pixels` reduced.
        rim: 32 x 32 float32, 1 where `coarse` shows the picture itself, else 0.
        light: 32 x 32 x 3 float32, above 0: the colour of `coarse` on the rim, spread over all of it.
        hidden: S x S float32, 0..1, how much of each pixel the mask hides; 0 where `alpha` is 0.
    """

    pixels: np.ndarray
    alpha: np.ndarray
    rect: tuple[int, int, int, int]
    coarse: np.ndarray
    rim: np.ndarray
    light: np.ndarray
    hidden: np.ndarray

    @classmethod
    def of(cls, pixels: np.ndarray, alpha: np.ndarray, hidden: np.ndarray | None = None) -> Completion:
        """From the attributes of these names; `hidden` None is the same as `alpha`."""
        some = (alpha > 0).astype(np.uint8)
        x, y, width, height = cv2.boundingRect(some)
        small = cv2.resize(pixels, (_COARSE, _COARSE), interpolation=cv2.INTER_AREA)
        # One cell apart from the seam: what is half hidden would give the mask's colour to the skin.
        spread = cv2.dilate(cv2.resize(alpha, (_COARSE, _COARSE), interpolation=cv2.INTER_AREA), _NEIGHBOURS)
        rim, coarse = (spread <= 0) * _shown(small), small.astype(np.float32)
        light = cv2.GaussianBlur(coarse * rim[..., None], (0, 0), _SPREAD) + np.float32(_FAINT)
        rect = (x, y, x + width, y + height)
        return cls(pixels, alpha, rect, coarse, rim, light, alpha if hidden is None else hidden)


_NEIGHBOURS = np.ones((3, 3), np.uint8)


@dataclass(slots=True, frozen=True)
class Patch:
    """A completion and where it belongs.

    Attributes:
        completion: of this face, in a live view from an earlier frame.
        landmarks: 5 x 2 float, pixels of the picture that it is put into.
    """

    completion: Completion
    landmarks: np.ndarray


class Unmasker:
    """Runs the unmask model on faces, one invoke each.

    Attributes:
        model: as given.
        last_invoke_ms: time of the bare model in the last call, summed over its faces, milliseconds.
    """

    def __init__(self, model: Model, entry: ModelEntry | None = None) -> None:
        """Args:
        model: an unmask model of this project: 1 x S x S x 3 RGB in, uint8 or (int16x8) float32 0..255; out,
            in any order, the completed face, 1 x S x S x 3 float32 0..255 or uint8, and the map of what is
            hidden, 1 x S x S x 1 float32 0..1.
        entry: its manifest entry, for the alignment; None takes `TEMPLATE`.

        Raises:
            ModelError: the model has other inputs or outputs.
        """
        self.model = model
        self._template = entry.template(TEMPLATE) if entry else np.array(TEMPLATE)
        shapes = {spec.shape: place for place, spec in enumerate(model.outputs)}
        shape = model.inputs[0].shape
        size = shape[1] if len(shape) == 4 else 0
        try:
            # Told apart by shape: converters keep neither order nor names of outputs.
            self._completed, self._map = shapes[1, size, size, 3], shapes[1, size, size, 1]
            kinds = model.outputs[self._completed].dtype, model.outputs[self._map].dtype
            fits = (
                shape == (1, size, size, 3) and kinds[0] in (np.float32, np.uint8) and kinds[1] == np.float32
            )
        except KeyError:
            fits = False
        if not fits or model.inputs[0].dtype not in (np.uint8, np.float32):
            raise ModelError(f"{model.name} is no unmask model", remedy="convert or download it again")
        self.size = int(size)
        self._pixels = np.zeros((1, size, size, 3), np.uint8)
        self._window = _window(self.size)
        self.last_invoke_ms = 0.0

    def look(self, image: np.ndarray, landmarks: np.ndarray) -> Completion:
        """Complete one face.

        Args:
            image: H x W x 3 uint8 BGR; not changed.
            landmarks: 5 x 2 pixels of it, in `LANDMARK_NAMES` order.

        Raises:
            ValueError: the landmarks coincide or the picture is empty, see `edge.geometry.align`.
            ModelError: the runtime failed.
        """
        crop = align(image, landmarks, self._template, self.size)
        cv2.cvtColor(crop, cv2.COLOR_BGR2RGB, dst=self._pixels[0])
        begun = time.perf_counter()
        outputs = self.model.run_raw(self._pixels)
        self.last_invoke_ms = (time.perf_counter() - begun) * 1e3
        completed, hidden = outputs[self._completed][0], outputs[self._map][0, :, :, 0]
        if completed.dtype != np.uint8:
            completed = cv2.convertScaleAbs(np.maximum(completed, 0))  # rounds, and keeps to 255
        hidden = np.nan_to_num(hidden, posinf=1, neginf=0).clip(0, 1)
        alpha = ((hidden - np.float32(_LEAVE)) * np.float32(1 / (_REPLACE - _LEAVE))).clip(
            0, 1
        ) * self._window
        bgr = cv2.cvtColor(completed, cv2.COLOR_RGB2BGR)
        return Completion.of(bgr, alpha, np.where(alpha > 0, hidden, np.float32(0)))

    def picture(self, image: np.ndarray, faces: Iterable[Face]) -> tuple[np.ndarray, np.ndarray]:
        """A whole picture with what may be under the masks of its faces.

        Args:
            image: H x W x 3 uint8 BGR, of any size; not changed.
            faces: of it, with mask states; those that are not `covered`, if only likely, are left alone.

        Returns:
            A new picture, H x W x 3 uint8 BGR, and H x W float32, 0..1, how much of each pixel masks hide:
            where that is 0 the picture is exactly the one given.

        Raises:
            ModelError: the runtime failed.
        """
        patches, spent = [], 0.0
        for face in faces:
            if not covered(face, likely=True):
                continue
            try:
                patches.append(Patch(self.look(image, face.landmarks), face.landmarks))
            except ValueError:
                continue  # points that are none of a face: there is nothing to complete
            spent += self.last_invoke_ms
        self.last_invoke_ms = spent
        region = np.zeros(image.shape[:2], np.float32)
        return uncovered(image, patches, template=self._template, region=region, fine=True), region


def uncovered(
    image: np.ndarray,
    patches: Iterable[Patch],
    *,
    template: np.ndarray | None = None,
    region: np.ndarray | None = None,
    fine: bool = False,
) -> np.ndarray:
    """A picture with completed faces in their places, their colour matched to what is around them.

    Args:
        image: H x W x 3 uint8 BGR; not changed.
        patches: where they overlap, the later one is seen.
        template: 5 x 2 of the model's alignment, in sides of the crop; None takes `TEMPLATE`.
        region: H x W float32 that is raised to how much of each pixel masks hide, 0..1.
        fine: for pictures that are looked at for long: enlarges by cubic interpolation and matches the colour
            exactly, which takes twice as long.

    Returns:
        A new picture; where nothing is replaced it is exactly the one given.
    """
    out = image.copy()
    goal = np.asarray(TEMPLATE if template is None else template, np.float64)
    for patch in patches:
        _put(out, image, patch, goal, region, fine)
    return out


def _put(
    out: np.ndarray,
    image: np.ndarray,
    patch: Patch,
    template: np.ndarray,
    region: np.ndarray | None,
    fine: bool,
) -> None:
    completion = patch.completion
    x0, y0, x1, y1 = completion.rect
    if x1 <= x0:
        return
    size = completion.alpha.shape[0]
    try:
        pixels = _matched(completion, image, patch.landmarks, template, fine)
        (a, b, dx), (c, d, dy) = similarity(patch.landmarks, template * size).tolist()
    except ValueError:
        return
    alpha, hidden = completion.alpha[y0:y1, x0:x1], completion.hidden[y0:y1, x0:x1]
    scale = math.hypot(a, c)  # crop pixels per pixel of the picture
    # Half a pixel: points are measured from the corner of the first pixel, cv2 counts from its middle.
    dx += 0.5 * (a + b) - 0.5 - x0
    dy += 0.5 * (c + d) - 0.5 - y0
    # Its corners in the picture, a pixel further out for what interpolation adds.
    corners = [
        ((a * u + c * v) / scale**2, (a * v - c * u) / scale**2)
        for u in (-1 - dx, x1 - x0 - dx)
        for v in (-1 - dy, y1 - y0 - dy)
    ]
    height, width = out.shape[:2]
    left, top = (max(math.floor(min(corner[axis] for corner in corners)), 0) for axis in (0, 1))
    right = min(math.ceil(max(x for x, _ in corners)) + 1, width)
    bottom = min(math.ceil(max(y for _, y in corners)) + 1, height)
    if left >= right or top >= bottom:
        return
    # Interpolation looks at the nearest pixels only: it flickers where a face is much smaller than the crop.
    for _ in range(int(math.log2(max(scale, 1.0)))):
        before = alpha.shape[::-1]
        small = max(1, before[0] // 2), max(1, before[1] // 2)
        pixels = cv2.resize(pixels, small, interpolation=cv2.INTER_AREA)
        alpha = cv2.resize(alpha, small, interpolation=cv2.INTER_AREA)
        hidden = cv2.resize(hidden, small, interpolation=cv2.INTER_AREA)
        across, down = small[0] / before[0], small[1] / before[1]
        a, b, dx = a * across, b * across, (dx + 0.5) * across - 0.5
        c, d, dy = c * down, d * down, (dy + 0.5) * down - 0.5
    flags = cv2.INTER_CUBIC if fine and scale < 1 else cv2.INTER_LINEAR
    step_x = min(right - left, 1 << 13)  # cv2 counts in 16 bits
    step_y = max(1, _TILE // step_x)
    for y in range(top, bottom, step_y):
        for x in range(left, right, step_x):
            part = out[y : min(y + step_y, bottom), x : min(x + step_x, right)]
            matrix = np.array([[a, b, dx + a * x + b * y], [c, d, dy + c * x + d * y]])
            shape = part.shape[1], part.shape[0]
            new = cv2.warpAffine(
                pixels,
                matrix,
                shape,
                flags=flags | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_REPLICATE,
            )
            linear = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            share = cv2.warpAffine(alpha, matrix, shape, flags=linear)
            # It weighs and rounds so that a share of 0 keeps every value of a pixel, which the tests prove.
            part[...] = cv2.blendLinear(new, part, share, 1 - share)
            if region is not None:
                where = region[y : y + part.shape[0], x : x + part.shape[1]]
                np.maximum(where, cv2.warpAffine(hidden, matrix, shape, flags=linear), out=where)


def _matched(
    completion: Completion, image: np.ndarray, landmarks: np.ndarray, template: np.ndarray, fine: bool
) -> np.ndarray:
    """The part `rect` of the completed pixels, in the light of the picture that it is put into.

    By how much the picture around the hidden part is brighter than the same in the completion, in each
    colour, is carried on into it: the ratio at the rim, spread by a normalised convolution. For the picture
    that the completion was made from it is 1 where the model copies what is bare; without `fine`, which takes
    twice as long, only about 1.
    """
    x0, y0, x1, y1 = completion.rect
    pixels = completion.pixels[y0:y1, x0:x1]
    coarse = align(image, landmarks, template, completion.alpha.shape[0] if fine else _COARSE)
    if fine:
        coarse = cv2.resize(coarse, (_COARSE, _COARSE), interpolation=cv2.INTER_AREA)
    change = coarse - completion.coarse
    change = np.clip(change, _DARKER * completion.coarse, _LIGHTER * completion.coarse)
    change *= (completion.rim * _shown(coarse))[..., None]
    light: np.ndarray = cv2.GaussianBlur(change, (0, 0), _SPREAD) / completion.light
    if float(np.abs(light).max()) < 1 / 256:
        return pixels
    light += 1
    size = completion.alpha.shape[0]
    return cv2.multiply(pixels, cv2.resize(light, (size, size))[y0:y1, x0:x1], dtype=cv2.CV_8U)


def _shown(coarse: np.ndarray) -> np.ndarray:
    """1 where an aligned crop shows the picture, 0 in and beside the black where that ends; float32."""
    black = cv2.dilate(cv2.inRange(coarse, (0, 0, 0), (0, 0, 0)), _NEIGHBOURS)
    return (black == 0).astype(np.float32)


def _window(size: int) -> np.ndarray:
    """size x size float32: 1, falling to 0 towards the border."""
    away = np.minimum(np.arange(size), np.arange(size)[::-1]).astype(np.float32)
    ramp = np.minimum(away / np.float32(max(1.0, _FADE * size)), np.float32(1))
    return np.minimum(ramp[:, None], ramp)
