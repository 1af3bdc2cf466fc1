"""maskedge unmask, and the task unmask of maskedge run: on the built-in clip.

The face and attributes models are the shipped ones; the unmask model is a small one that fills a fixed part
of the crop with one colour.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.camera import open_source, read_image
from edge.cli import main
from edge.drawing import PURPLE
from edge.tasks.unmask import NOTE, TEMPLATE
from edge.tflite import load_manifest
from tests.camera_servers import http_server
from tests.tiny_models import unmask_model

BARE, MASKED, TWO = 5, 50, 300
"""Frames of the built-in clip: without a mask, with one, two masked faces."""


class Ran:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


Run = Callable[..., Ran]


@pytest.fixture(autouse=True)
def _no_display(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "MASKEDGE_DEBUG"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped models with a small unmask model."""
    folder = tmp_path_factory.mktemp("models")
    shipped = load_manifest().folder
    fields = json.loads((shipped / "manifest.json").read_text())
    for name in ("face", "attributes"):
        for file in fields["models"][name]["files"].values():
            shutil.copy(shipped / file["file"], folder / file["file"])
    region = np.zeros((128, 128), np.float32)
    region[64:112, 40:88] = 1
    data = unmask_model(region, (200, 120, 40))
    (folder / "unmask.tflite").write_bytes(data)
    file = {"file": "unmask.tflite", "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    precision = fields["models"]["face"]["default"]
    fields["models"]["unmask"] = {
        "task": "unmask",
        "version": "0.0.1",
        "default": precision,
        "alignment": {"template": TEMPLATE},
        "files": {precision: file},
    }
    (folder / "manifest.json").write_text(json.dumps(fields))
    return folder


@pytest.fixture(scope="module")
def frames() -> dict[int, np.ndarray]:
    with open_source("demo") as source:
        return {frame.id: frame.image for frame in source.frames() if frame.id in (BARE, MASKED, TWO)}


@pytest.fixture
def pictures(tmp_path: Path, frames: dict[int, np.ndarray]) -> Path:
    folder = tmp_path / "pictures"
    (folder / "below").mkdir(parents=True)
    for name, number in (("bare", BARE), ("masked", MASKED), ("two", TWO), ("below/masked", MASKED)):
        cv2.imwrite(str(folder / f"{name}.png"), frames[number])
    cv2.imwrite(str(folder / "nobody.jpg"), np.full((40, 60, 3), 90, np.uint8))
    (folder / "broken.jpg").write_bytes(b"no picture")
    return folder


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], models: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("MASKEDGE_MODELS", str(models))

    def call(*argv: object) -> Ran:
        code = main([str(one) for one in argv])
        return Ran(code, *capsys.readouterr())

    return call


def texts(path: Path) -> dict[str, str]:
    """The texts of a PNG file, each part of it checked."""
    data, at, found = path.read_bytes(), 8, {}
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0] == zlib.crc32(kind + body)
        if kind == b"tEXt":
            key, _, text = body.partition(b"\0")
            found[key.decode("latin-1")] = text.decode("latin-1")
        at += 12 + length
    assert at == len(data)
    return found


def is_marked(picture: np.ndarray) -> bool:
    return bool((picture[-1, -1] == PURPLE).all())


def load(path: Path, flags: int = cv2.IMREAD_UNCHANGED) -> np.ndarray:
    picture = cv2.imread(str(path), flags)
    assert picture is not None
    return picture


# ----------------------------------------------------------------------------------------- pictures


def test_a_masked_face_is_completed_and_the_rest_stays(run: Run, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = run("unmask", pictures / "masked.png", "--out", out, "--save-mask", "--no-mark")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == f"{pictures}/masked.png: 1 face completed -> {out}/masked.png\n"
    before, after = load(pictures / "masked.png"), load(out / "masked.png")
    region = load(out / "masked.mask.png")
    assert after.shape == before.shape
    assert region.shape == before.shape[:2]
    assert (after[region == 0] == before[region == 0]).all()
    assert 0.01 < (region == 255).mean() < 0.2
    # The mask of the clip is blue; the model's colour is not.
    assert np.median(after[region == 255], axis=0)[0] < 100 < np.median(before[region == 255], axis=0)[0]


def test_the_mark_and_the_metadata(run: Run, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for options, marked in (([], True), (["--no-mark"], False)):
        assert run("unmask", pictures / "masked.png", "--out", out, *options).code == 0
        assert is_marked(load(out / "masked.png")) is marked
        known = texts(out / "masked.png")
        assert known["Description"] == NOTE
        assert "plausible, not true" in NOTE
        assert known["Software"].startswith("maskedge ")
    assert [path.name for path in out.iterdir()] == ["masked.png"]


def test_a_whole_folder(run: Run, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = run("unmask", pictures, "/no/x.jpg", "--out", out, "--save-mask")
    assert ran.code == 1
    told = {
        "bare.png": f": no mask -> {out}/bare.png",
        "below/masked.png": f": 1 face completed -> {out}/masked.png",
        "broken.jpg": " is not a picture that can be read, or is damaged",
        "masked.png": f": 1 face completed -> {out}/masked-2.png",
        "nobody.jpg": f": no face -> {out}/nobody.png",
        "two.png": f": 2 faces completed -> {out}/two.png",
    }
    *lines, last = ran.out.splitlines()
    for line, (name, words) in zip(lines, told.items(), strict=True):
        assert line.startswith(f"{pictures}/{name}{words}")
    assert last.startswith("/no/x.jpg does not exist")
    assert ran.err == "maskedge: 2 of 7 pictures could not be read\n"
    stems = ("bare", "masked", "masked-2", "nobody", "two")
    assert {path.name for path in out.iterdir()} == {f"{s}{e}" for s in stems for e in (".png", ".mask.png")}


def test_pictures_without_a_mask_are_written_as_they_are(run: Run, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run("unmask", pictures / "bare.png", pictures / "nobody.jpg", "--out", out, "--save-mask")
    for name, given in (("bare", "bare.png"), ("nobody", "nobody.jpg")):
        assert (load(out / f"{name}.png") == read_image(pictures / given)).all()
        assert "Description" not in texts(out / f"{name}.png")
        assert not load(out / f"{name}.mask.png").any()


def test_no_picture_of_the_input_is_overwritten(run: Run, pictures: Path) -> None:
    before = {path: path.read_bytes() for path in pictures.rglob("*.*")}
    cv2.imwrite(str(pictures / "masked.mask.png"), np.zeros((9, 9), np.uint8))
    ran = run("unmask", pictures, "--out", pictures, "--save-mask")
    assert ran.code == 1  # the broken one
    assert {path: path.read_bytes() for path in before} == before
    assert load(pictures / "masked.mask.png").shape == (9, 9)
    assert (pictures / "masked-2.png").is_file()
    assert (pictures / "masked-2.mask.png").is_file()


KINDS = {
    "grey": lambda image: cv2.cvtColor(image, cv2.COLOR_BGR2GRAY),
    "16 bits": lambda image: image.astype(np.uint16) * 257,
    "alpha": lambda image: np.dstack([image, np.full(image.shape[:2], 255, np.uint8)]),
    "large": lambda image: cv2.resize(image, (4000, 3000)),
    "small": lambda image: cv2.resize(image, (160, 120), interpolation=cv2.INTER_AREA),
}


@pytest.mark.parametrize("kind", KINDS)
def test_any_kind_of_picture(run: Run, frames: dict[int, np.ndarray], tmp_path: Path, kind: str) -> None:
    path = tmp_path / "in.png"
    cv2.imwrite(str(path), KINDS[kind](frames[MASKED]))
    ran = run("unmask", path, "--out", tmp_path / "out", "--save-mask", "--no-mark")
    assert ran.code == 0
    assert "1 face completed" in ran.out
    before, after = read_image(path), load(tmp_path / "out/in.png")
    region = load(tmp_path / "out/in.mask.png")
    assert after.shape == before.shape
    assert (after[region == 0] == before[region == 0]).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1)])
def test_pictures_of_a_few_pixels(run: Run, tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "in.png"
    cv2.imwrite(str(path), np.full((size[1], size[0], 3), 7, np.uint8))
    ran = run("unmask", path, "--out", tmp_path / "out")
    assert (ran.code, ran.err) == (0, "")
    assert load(tmp_path / "out/in.png").shape == (size[1], size[0], 3)


def test_an_address(run: Run, pictures: Path, tmp_path: Path) -> None:
    with http_server({"/m.png?key=secret": (200, (pictures / "masked.png").read_bytes())}) as address:
        ran = run("unmask", f"{address}/m.png?key=secret", "--out", tmp_path / "out")
    assert ran.out == f"{address}/m.png: 1 face completed -> {tmp_path}/out/m.png\n"


def test_it_cannot_write(run: Run, pictures: Path) -> None:
    ran = run("unmask", pictures / "masked.png", "--out", "/proc/no")
    assert ran.code == 1
    assert ran.err.startswith("maskedge: error: cannot write into /proc/no")
    assert ran.err.count("\n") == 1


def test_the_help_says_what_it_is_not(run: Run) -> None:
    words = " ".join(run("unmask", "--help").out.split())
    for said in ("plausible, not true", "Never take it as evidence", "never used to unlock"):
        assert said in words


def test_a_file_that_is_no_unmask_model(run: Run, models: Path, pictures: Path, tmp_path: Path) -> None:
    for path in models.iterdir():
        shutil.copy(path, tmp_path / path.name)
    fields = json.loads((models / "manifest.json").read_text())
    fields["models"]["unmask"]["files"] = fields["models"]["attributes"]["files"]
    fields["models"]["unmask"]["default"] = fields["models"]["attributes"]["default"]
    (tmp_path / "manifest.json").write_text(json.dumps(fields))
    ran = run("unmask", pictures / "masked.png", "--out", tmp_path / "out", "--models", tmp_path)
    assert ran.code == 3
    assert "is no unmask model" in ran.err
    assert ran.err.count("\n") == 1


# ------------------------------------------------------------------------------------------- the loop


def options(tmp_path: Path, *more: object) -> list[object]:
    """Frames 40 to 69 of the clip have one masked face."""
    path = tmp_path / "a.toml"
    path.write_text("unmask_wait = true\nunmask_seconds = 0\n")
    return ["run", "--source", "demo", "--tasks", "mask,unmask", "--frames", 60, "--config", path, *more]


def test_the_loop_shows_records_and_marks_it(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = run(*options(tmp_path, "--sink", "summary", "--sink", f"jsonl:{out}/a.jsonl", "--out", out / "f"))
    assert ran.code == 0
    assert "\nunmask " in ran.out
    assert "\nunmask_invoke " in ran.out
    assert "unmask (" in ran.err
    lines = [json.loads(line) for line in (out / "a.jsonl").open()]
    assert {key for line in lines for face in line["faces"] for key in face} == {
        "box", "score", "track", "landmarks", "mask",
    }  # fmt: skip
    plain, shown = out / "f/frame-000005.jpg", out / "f/frame-000055.jpg"
    assert NOTE.encode() in shown.read_bytes()
    assert NOTE.encode() not in plain.read_bytes()
    # JPEG changes colours a little.
    assert np.abs(load(shown)[-2, -2].astype(int) - PURPLE).max() < 40
    assert np.abs(load(plain)[-2, -2].astype(int) - PURPLE).max() > 40
    assert load(shown).shape == (480, 640, 3)


def test_side_by_side_is_twice_as_wide_from_the_first_frame_on(run: Run, tmp_path: Path) -> None:
    ran = run(*options(tmp_path, "--view", "side-by-side", "--out", tmp_path / "a.mp4"))
    assert ran.code == 0
    clip = cv2.VideoCapture(str(tmp_path / "a.mp4"))
    assert (clip.get(cv2.CAP_PROP_FRAME_WIDTH), clip.get(cv2.CAP_PROP_FRAME_HEIGHT)) == (1280, 480)
    assert clip.get(cv2.CAP_PROP_FRAME_COUNT) == 60


def test_beside_the_loop(run: Run, tmp_path: Path) -> None:
    """With its thread. What is ready when is a matter of luck, but every frame is there."""
    ran = run(
        "run", "--source", "demo", "--loop", "--tasks", "mask,unmask", "--frames", 75, "--sink", "summary",
        "--out", tmp_path / "f",
    )  # fmt: skip
    assert ran.code == 0
    assert "75 frames" in ran.out
    written = sorted((tmp_path / "f").iterdir())
    assert len(written) == 75
    assert sum(NOTE.encode() in path.read_bytes() for path in written) > 5


def test_the_loop_over_pictures(run: Run, pictures: Path, tmp_path: Path) -> None:
    ran = run("run", "--source", pictures, "--tasks", "mask,unmask", "--out", tmp_path / "f")
    assert ran.code == 1  # one is broken
    noted = {path.name for path in (tmp_path / "f").iterdir() if NOTE.encode() in path.read_bytes()}
    assert noted == {"masked.jpg", "masked-2.jpg", "two.jpg"}


def test_side_by_side_without_the_task_changes_nothing(run: Run, tmp_path: Path) -> None:
    ran = run(
        "run", "--source", "demo", "--tasks", "mask", "--view", "side-by-side", "--frames", 2, "--out",
        tmp_path / "f",
    )  # fmt: skip
    assert ran.code == 0
    assert load(tmp_path / "f/frame-000001.jpg").shape == (480, 640, 3)
