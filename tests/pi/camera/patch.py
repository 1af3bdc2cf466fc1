"""Makes the chroot's picamera2 take libcamera's virtual camera; run once, when the chroot is built.

What a Raspberry Pi has and the virtual camera has not, and nothing else: a module `pykms` (a preview on a
bare screen), raw modes, and buffers whose planes lie in one piece of a dma heap.
"""

from __future__ import annotations

import sysconfig
from pathlib import Path

packages = Path(sysconfig.get_path("purelib"))
(packages / "pykms.py").write_text(
    "class PixelFormat:\n    RGB888 = BGR888 = XRGB8888 = XBGR8888 = YUV420 = YVU420 = NV12 = MJPEG = 0\n"
)
file = packages / "picamera2" / "picamera2.py"
text = file.read_text(encoding="utf-8")
for before, after in {
    "    def _get_raw_modes(self):\n": "    def _get_raw_modes(self):\n"
    "        if self.camera.id.startswith('Virtual'):\n"
    "            stream = self.camera.generate_configuration([VIEWFINDER]).at(0)\n"
    "            size = (stream.size.width, stream.size.height)\n"
    "            return [{'format': str(stream.pixel_format), 'size': size}]\n",
    "self.allocator = DmaAllocator() if allocator is None else allocator": (
        "from .allocators import LibcameraAllocator\n        self.allocator = LibcameraAllocator(self.camera)"
    ),
}.items():
    assert text.count(before) == 1, f"this version of picamera2 is another one: {before!r}"
    text = text.replace(before, after)
file.write_text(text, encoding="utf-8")
