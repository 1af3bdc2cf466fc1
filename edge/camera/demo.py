"""The built-in clip, for machines without a camera."""

from __future__ import annotations

from pathlib import Path

from edge.camera.video import VideoFile
from edge.errors import InputError

DEMO_CLIP = Path(__file__).resolve().parent.parent / "assets" / "demo.mp4"


def open_demo(*, fps: float | None = None, loop: bool = False) -> VideoFile:
    """The clip as a video file: every frame, as fast as frames are taken.

    With `loop` it stands in for a camera: it never ends and plays at its own rate, or at `fps`.

    Raises:
        InputError: the clip is not where it was installed.
    """
    if not DEMO_CLIP.is_file():
        raise InputError(f"the built-in clip {DEMO_CLIP} is missing", remedy="install maskedge again")
    source = VideoFile(str(DEMO_CLIP), fps=fps, loop=loop, name="demo")
    if loop and fps is None:
        source.pace = source.fps
    return source
