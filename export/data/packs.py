"""Packed training faces: arrays on disk, one `.npy` file a field, so that pictures can be mapped."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from tqdm import tqdm

Pack = TypeVar("Pack")
"""A dataclass of arrays with one row a face, `images` among them."""
Row = dict[str, Any]

FEW = 200  # tasks that are not worth starting further processes for


def save(pack: Any, folder: Path) -> None:
    """Writes one `.npy` file a field."""
    folder.mkdir(parents=True, exist_ok=True)
    for one in fields(pack):
        np.save(folder / f"{one.name}.npy", getattr(pack, one.name))
    (folder / "ready").write_text(f"{len(pack.images)}\n")


def save_whole(file: Path, array: np.ndarray) -> None:
    """Writes an `.npy` file; interrupted while it is written, it is not there."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f"part.{file.name}")
    np.save(temporary, array)
    temporary.replace(file)


def whole(folder: Path, kind: type[Any]) -> bool:
    """Whether a pack is there with all that is kept of faces by now."""
    names = ["ready", *(f"{one.name}.npy" for one in fields(kind))]
    return all((folder / name).exists() for name in names)


def load(folder: Path, kind: type[Pack]) -> Pack:
    """What `save` wrote; pictures stay on disk until they are used.

    Raises:
        FileNotFoundError: there is none, or it was packed when less was kept of faces.
    """
    if not whole(folder, kind):
        raise FileNotFoundError(f"no packed faces in {folder}, or not all of them: run `prepare` again")
    return kind(
        **{
            one.name: np.load(folder / f"{one.name}.npy", mmap_mode="r" if one.name == "images" else None)
            for one in fields(kind)  # type: ignore[arg-type]
        }
    )


def on_every_core(
    function: Callable[[Any], Any], tasks: Sequence[Any], title: str, *, unit: str = "face", chunk: int = 32
) -> Iterator[Any]:
    """What a function, of the top level of a module, gives for each of its arguments, with a progress bar."""
    with contextlib.ExitStack() as stack:
        each: Iterable[Any] = map(function, tasks)
        if len(tasks) >= FEW:
            # Not forked: TensorFlow's threads, where it is loaded, would not survive that. One thread of
            # OpenCV each: there is a process a core.
            context = multiprocessing.get_context("spawn")
            pool = stack.enter_context(context.Pool(initializer=cv2.setNumThreads, initargs=(1,)))
            each = pool.imap(function, tasks, chunksize=chunk)
        yield from tqdm(each, total=len(tasks), desc=title, unit=unit)


def collect(
    function: Callable[[Any], list[Row] | Row | None],
    tasks: Sequence[Any],
    title: str,
    folder: Path,
    kind: type[Any],
    dtypes: dict[str, Any],
) -> None:
    """Runs a function over all tasks, on every core, and saves its rows as one pack, unless that is there.

    Args:
        function: gives a row, rows, or None; of the top level of a module.
        tasks: its arguments.
        title: for the progress bar.
        folder: of the pack.
        kind: dataclass of the pack.
        dtypes: of its fields.
    """
    if whole(folder, kind):
        return
    rows: list[Row] = []
    for got in on_every_core(function, tasks, title):
        rows += got if isinstance(got, list) else [got] if got else []
    names = [one.name for one in fields(kind)]
    save(kind(**{k: np.array([r[k] for r in rows], dtypes[k]) for k in names}), folder)
