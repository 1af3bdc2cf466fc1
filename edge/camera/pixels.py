"""The bytes of a camera buffer to BGR, by the names that libcamera gives the formats.

A DRM name lists the bytes of a pixel from the last to the first: RGB888 is blue, green, red in memory.
"""

from __future__ import annotations

import cv2
import numpy as np

_PACKED: dict[str, tuple[int, int | None]] = {  # bytes of a pixel, conversion
    "RGB888": (3, None),
    "BGR888": (3, cv2.COLOR_RGB2BGR),
    "XRGB8888": (4, cv2.COLOR_BGRA2BGR),
    "XBGR8888": (4, cv2.COLOR_RGBA2BGR),
    "YUYV": (2, cv2.COLOR_YUV2BGR_YUYV),
    "YVYU": (2, cv2.COLOR_YUV2BGR_YVYU),
    "UYVY": (2, cv2.COLOR_YUV2BGR_UYVY),
}
_TWO_PLANES = {"NV12": cv2.COLOR_YUV2BGR_NV12, "NV21": cv2.COLOR_YUV2BGR_NV21}
_THREE_PLANES = {"YUV420": cv2.COLOR_YUV2BGR_I420, "YVU420": cv2.COLOR_YUV2BGR_YV12}

FORMATS = (*_PACKED, *_TWO_PLANES, *_THREE_PLANES, "MJPEG")
"""The formats that can be converted."""


def to_bgr(data: np.ndarray, pixel_format: str, width: int, height: int, stride: int) -> np.ndarray:
    """Converts one picture; YUV is taken for BT.601, 16 to 235, which is what OpenCV knows.

    Args:
        data: n uint8, the whole buffer; bytes after the picture do not matter.
        pixel_format: of `FORMATS`.
        width, height: in pixels; even for YUV.
        stride: bytes from the start of a row (of the first plane) to the start of the next. Of no meaning for
            MJPEG. In YUV420 and YVU420 the rows of the colour planes are half as far apart.

    Returns:
        height x width x 3 uint8, BGR, contiguous, in memory of its own.

    Raises:
        ValueError: another format; too few bytes; a picture that cannot be decoded or has another size.
    """
    if pixel_format == "MJPEG":
        return _decoded(data, width, height)
    if pixel_format in _PACKED:
        size, code = _PACKED[pixel_format]
        pixels = _rows(data, 0, width * size, height, stride).reshape(height, width, size)
        return pixels.copy() if code is None else cv2.cvtColor(pixels, code)
    if pixel_format in _TWO_PLANES:
        luma = _rows(data, 0, width, height, stride)
        chroma = _rows(data, height * stride, width, height // 2, stride).reshape(height // 2, width // 2, 2)
        return cv2.cvtColorTwoPlane(luma, chroma, _TWO_PLANES[pixel_format])
    if pixel_format in _THREE_PLANES:
        # The padding is converted too and cut off after: OpenCV takes three planes only without gaps.
        planes = _rows(data, 0, stride, height * 3 // 2, stride)
        picture = cv2.cvtColor(planes, _THREE_PLANES[pixel_format])
        return picture if stride == width else picture[:, :width].copy()
    raise ValueError(f"pixels of format {pixel_format} are not supported")


def _rows(data: np.ndarray, start: int, used: int, count: int, stride: int) -> np.ndarray:
    """`count` rows of `used` bytes as a view; the padding of the last row may be missing."""
    if stride < used:
        raise ValueError(f"rows of {used} bytes do not fit a stride of {stride}")
    if data.size < start + (count - 1) * stride + used:
        raise ValueError(f"{data.size} bytes are too few for the picture")
    if data.size < start + count * stride:
        data = np.pad(data, (0, start + count * stride - data.size))
    return data[start : start + count * stride].reshape(count, stride)[:, :used]


def _decoded(data: np.ndarray, width: int, height: int) -> np.ndarray:
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if picture is None:
        raise ValueError("the JPEG picture is damaged")
    if picture.shape[:2] != (height, width):
        raise ValueError(f"the JPEG picture has {picture.shape[1]}x{picture.shape[0]} pixels")
    return picture
