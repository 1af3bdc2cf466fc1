"""Where results go: a window, a video, lines of JSON, a folder of pictures, a summary."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from edge.errors import UsageError
from edge.sinks.base import Background, Canvas, Sink

ACCEPTED = "window, video:FILE, jsonl:FILE (- is standard output), folder:DIR, summary or none"
VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".avi")

__all__ = ["ACCEPTED", "VIDEO_SUFFIXES", "Background", "Canvas", "Sink", "open_sink", "parse_sink"]


def parse_sink(spec: str) -> tuple[str, str]:
    """Split the text of `--sink` into kind and path, without opening anything.

    Args:
        spec: `window`, `video:FILE`, `jsonl:FILE`, `jsonl:-`, `folder:DIR`, `summary`, `none`, or a bare
            FILE.mp4, FILE.avi (video) or FILE.jsonl.

    Returns:
        Kind, and path or "".

    Raises:
        UsageError: spec is none of these.
    """
    kind, colon, path = spec.partition(":")
    if kind in ("window", "summary", "none") and not colon:
        return kind, ""
    if kind in ("video", "jsonl", "folder") and colon:
        if not path:
            raise UsageError(f"sink {spec!r} names no file", remedy=f"for example {kind}:{_EXAMPLES[kind]}")
        if kind == "video" and Path(path).suffix.lower() not in VIDEO_SUFFIXES:
            raise UsageError(
                f"cannot tell the kind of video from {path!r}",
                remedy=f"use one of {', '.join(VIDEO_SUFFIXES)}",
            )
        return kind, path
    suffix = Path(spec).suffix.lower()
    if suffix in VIDEO_SUFFIXES:
        return "video", spec
    if suffix == ".jsonl":
        return "jsonl", spec
    raise UsageError(f"unknown sink {spec!r}", remedy=f"use {ACCEPTED}")


_EXAMPLES = {"video": "out.mp4", "jsonl": "faces.jsonl", "folder": "pictures"}


def open_sink(
    spec: str,
    *,
    canvas: Canvas | None = None,
    live: bool = False,
    fps: float | None = None,
    inputs: Iterable[str] = (),
    jsonl_max_bytes: int = 50_000_000,
    jsonl_backups: int = 3,
) -> Sink:
    """Open a sink by its text form (see `parse_sink`); it is a context manager.

    With a live source, sinks that may be slow (video, jsonl, folder) write in a thread of their own and skip
    what they cannot keep up with, so that the loop never waits; the window shows at most 30 pictures per
    second. With files and pictures every frame is written, and a window plays at the pace of the source.

    Args:
        spec: kind and path.
        canvas: shared by all sinks of a loop, so that each frame is drawn once.
        live: the source is a camera.
        fps: frames per second of the source where known.
        inputs: pictures of the source, which a folder of results must not overwrite.
        jsonl_max_bytes: size at which a jsonl file is rotated; 0 never.
        jsonl_backups: how many rotated files are kept.

    Raises:
        UsageError: spec is unknown.
        SinkError: the output cannot be opened.
    """
    kind, path = parse_sink(spec)
    canvas = canvas or Canvas()
    if kind == "window":
        from edge.sinks.window import WindowSink

        return WindowSink(canvas, live=live, fps=fps)
    if kind == "video":
        from edge.sinks.video import VideoSink

        return Background(VideoSink(path, canvas, live=live, fps=fps), capacity=4, drop=live)
    if kind == "jsonl":
        from edge.sinks.jsonl import JsonlSink

        jsonl = JsonlSink(path, max_bytes=jsonl_max_bytes, backups=jsonl_backups)
        return Background(jsonl, capacity=256, drop=True) if live else jsonl
    if kind == "folder":
        from edge.sinks.folder import FolderSink

        return Background(FolderSink(path, canvas, inputs=inputs), capacity=4, drop=live)
    if kind == "summary":
        from edge.sinks.summary import SummarySink

        return SummarySink()
    return Sink()
