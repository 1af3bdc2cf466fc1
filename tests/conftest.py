"""What every test may ask for, and how a run is kept apart from the user's own settings."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
# The user's models, stored tuning or screen must not change what the tests see.
_OWN_SETTINGS = ("MASKEDGE_MODELS", "DISPLAY", "WAYLAND_DISPLAY")


def pytest_configure(config: pytest.Config) -> None:
    for name in _OWN_SETTINGS:
        os.environ.pop(name, None)
    cache = tempfile.TemporaryDirectory(prefix="maskedge-test-cache-")
    config.add_cleanup(cache.cleanup)
    os.environ["XDG_CACHE_HOME"] = cache.name
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's errors, without its chatter


class _NeedsTensorFlow(pytest.Module):
    """A test module that is not even imported, since its imports would fail."""

    def collect(self) -> list[pytest.Item]:
        pytest.skip("TensorFlow is not installed here: make test-export", allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    export_part = Path(__file__).parent / "export" in module_path.parents
    if export_part and importlib.util.find_spec("tensorflow") is None:
        return _NeedsTensorFlow.from_parent(parent, path=module_path)
    return None


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """The command line sets up logging for its process; a test that calls it must not leave that behind."""
    loggers = [logging.getLogger(name) for name in ("edge", "benchmarks")]
    before = [(logger, list(logger.handlers), logger.level) for logger in loggers]
    yield
    for logger, handlers, level in before:
        logger.handlers[:] = handlers
        logger.setLevel(level)


@pytest.fixture(scope="session")
def demo_clip() -> Path:
    """The built-in clip, 640 x 480."""
    from edge.camera.demo import DEMO_CLIP

    return DEMO_CLIP


@pytest.fixture(scope="session")
def demo_truth() -> dict[str, Any]:
    """What is in the clip: `frames` has one list of faces (box, landmarks, worn mask) per frame."""
    return json.loads((ROOT / "tests" / "data" / "demo_truth.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the scene sets `ilc` and `empty_rooms` (images/ and annotations/); skips without them.

    They are looked for in MASKEDGE_DATA, unpacked (scenes/ilc) or packed (scenes_ilc.tar), else in a folder
    `shared/data` beside the checkout.
    """
    named = os.environ.get("MASKEDGE_DATA")
    data = Path(named).expanduser() if named else ROOT.parent / "shared" / "data"
    sets = ("ilc", "empty_rooms")
    if all((data / "scenes" / name / "images").is_dir() for name in sets):
        return data / "scenes"
    if not all((data / f"scenes_{name}.tar").is_file() for name in sets):
        pytest.skip("needs the training pictures: set MASKEDGE_DATA to the folder that holds scenes/ilc")
    unpacked = tmp_path_factory.mktemp("scenes")
    for name in sets:
        subprocess.run(["tar", "xf", data / f"scenes_{name}.tar", "-C", unpacked], check=True)
    return unpacked
