from __future__ import annotations

import logging
import os
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.camera import find_pictures, open_source, read_image
from edge.camera.base import LAST_PAUSE_S, OpenCvCamera, to_bgr8
from edge.camera.demo import DEMO_CLIP
from edge.camera.network import NetworkCamera, public_url
from edge.camera.pictures import MAX_PIXELS, Pictures
from edge.camera.usb import UsbCamera, list_devices, query
from edge.camera.video import VideoFile
from edge.errors import CameraError, InputError, MaskedgeError, UsageError
from tests.camera_servers import MjpegCamera, http_server, rtsp_camera, silent_server, unused_port

REPO = Path(__file__).resolve().parent.parent
LONG = LAST_PAUSE_S * 10


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loopback must be reached directly, also where a proxy is configured."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture(autouse=True)
def _no_thread_left() -> object:
    yield
    deadline = time.monotonic() + 4
    while left := [t.name for t in threading.enumerate() if t.name.startswith("camera ")]:
        assert time.monotonic() < deadline, left
        time.sleep(0.02)


def picture(width: int = 60, height: int = 40) -> np.ndarray:
    """Four quarters of different colours, so that every turn and flip shows."""
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2] = (200, 30, 30)
    image[: height // 2, width // 2 :] = (30, 200, 30)
    image[height // 2 :, : width // 2] = (30, 30, 200)
    image[height // 2 :, width // 2 :] = (220, 220, 220)
    return image


def encode(suffix: str, image: np.ndarray) -> bytes:
    fine, data = cv2.imencode(suffix, image)
    assert fine
    return data.tobytes()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, bits: int, colour: int, rows: bytes, *extra: bytes) -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    body = png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + body


def exif(orientation: int, order: str = "<") -> bytes:
    mark = b"II*\0" if order == "<" else b"MM\0*"
    entry = struct.pack(order + "HHIHH", 274, 3, 1, orientation, 0)
    return mark + struct.pack(order + "IH", 8, 1) + entry + bytes(4)


def jpeg_with_exif(image: np.ndarray, block: bytes) -> bytes:
    data = encode(".jpg", image)
    block = b"Exif\0\0" + block
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + data[2:]


def gif(levels: str) -> bytes:
    """1 x 1 frames of 100 ms: "r" red, "w" white."""
    frame = b"!\xf9\x04\x04\x0a\0\0\0" + b",\0\0\0\0\x01\0\x01\0\0\x02\x02"
    frames = b"".join(frame + (b"\x44" if level == "r" else b"\x4c") + b"\x01\0" for level in levels)
    return b"GIF89a\x01\0\x01\0\x80\0\0" + b"\xff\0\0\xff\xff\xff" + frames + b";"


def level(number: int) -> int:
    return 20 + 9 * (number % 25)


def write_video(path: Path, count: int = 25, *, codec: str = "MJPG", fps: float = 20.0) -> Path:
    """Every frame has its own grey level, so that each can be told from the others."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, (64, 48))
    assert writer.isOpened()
    for number in range(count):
        writer.write(np.full((48, 64, 3), level(number), np.uint8))
    writer.release()
    return path


def numbers(frames: list) -> list[int]:
    """Which of the frames of `write_video` these are."""
    return [round((float(frame.image.mean()) - 20) / 9) for frame in frames]


# Pictures


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("orientation", "stored"),
    [
        (0, lambda shown: shown),
        (1, lambda shown: shown),
        (2, lambda shown: shown[:, ::-1]),
        (3, lambda shown: shown[::-1, ::-1]),
        (4, lambda shown: shown[::-1]),
        (5, lambda shown: shown.swapaxes(0, 1)),
        (6, lambda shown: np.rot90(shown, 1)),
        (7, lambda shown: shown.swapaxes(0, 1)[::-1, ::-1]),
        (8, lambda shown: np.rot90(shown, -1)),
        (9, lambda shown: shown),
    ],
)
def test_exif_orientation_is_applied(orientation, stored, order, tmp_path):
    shown = picture()
    lying = np.ascontiguousarray(stored(shown))
    block = exif(orientation, order)
    # The tag of a PNG sits in a chunk of its own before the pixels.
    as_png = encode(".png", lying)
    as_png = as_png[:33] + png_chunk(b"eXIf", block) + as_png[33:]
    as_webp = encode(".webp", lying)
    as_webp += b"EXIF" + struct.pack("<I", len(block)) + block
    as_webp = as_webp[:4] + struct.pack("<I", len(as_webp) - 8) + as_webp[8:]
    for name, data in {"a.jpg": jpeg_with_exif(lying, block), "a.png": as_png, "a.webp": as_webp}.items():
        (tmp_path / name).write_bytes(data)
        image = read_image(tmp_path / name)
        assert image.shape == shown.shape, name
        assert image.flags.c_contiguous, name
        # The webp and jpeg encoders bleed at the colour borders.
        assert np.abs(image.astype(int) - shown).mean() < 8, name


def test_damaged_exif_does_not_cost_the_picture():
    for block in (b"", b"II", b"II*\0\xff\xff\xff\xff", b"XX*\0" + bytes(20), exif(6)[:12]):
        assert read_image(jpeg_with_exif(picture(), block)).shape == (40, 60, 3)


GREY = np.full((4, 6), 77, np.uint8)
COLOUR = np.full((4, 6, 3), (10, 20, 30), np.uint8)
WHITE = (255, 255, 255)
CLEAR = png_chunk(b"tRNS", b"\xff\0")
PALETTE = png_chunk(b"PLTE", bytes([9, 9, 9, 1, 2, 3]))


def with_alpha(alpha: int) -> np.ndarray:
    return np.dstack([COLOUR, np.full((4, 6), alpha, np.uint8)])


@pytest.mark.parametrize(
    ("name", "data", "shape", "bgr"),
    [
        ("grey jpeg", encode(".jpg", GREY), (4, 6), (77, 77, 77)),
        ("grey png", encode(".png", GREY), (4, 6), (77, 77, 77)),
        ("colour", encode(".png", COLOUR), (4, 6), (10, 20, 30)),
        ("opaque", encode(".png", with_alpha(255)), (4, 6), (10, 20, 30)),
        ("half", encode(".png", with_alpha(128)), (4, 6), (132, 137, 142)),
        ("bitmap with an unused byte", encode(".bmp", with_alpha(0)), (4, 6), (10, 20, 30)),
        ("16 bits", encode(".png", COLOUR.astype(np.uint16) * 257), (4, 6), (10, 20, 30)),
        ("16 bits grey", encode(".png", GREY.astype(np.uint16) * 257), (4, 6), (77, 77, 77)),
        ("16 bits alpha", encode(".png", with_alpha(255).astype(np.uint16) * 257), (4, 6), (10, 20, 30)),
        ("16 bits tiff", encode(".tiff", COLOUR.astype(np.uint16) * 257), (4, 6), (10, 20, 30)),
        ("float tiff", encode(".tiff", COLOUR.astype(np.float32) / 255), (4, 6), (10, 20, 30)),
        ("1 x 1", encode(".png", COLOUR[:1, :1]), (1, 1), (10, 20, 30)),
        ("1 x 1 jpeg", encode(".jpg", COLOUR[:1, :1]), (1, 1), (10, 20, 30)),
        ("1 bit", png(8, 1, 1, 0, b"\0\xff"), (1, 8), WHITE),
        ("grey with alpha", png(1, 1, 8, 4, b"\0\x64\x80"), (1, 1), (177, 177, 177)),
        ("palette, transparent", png(1, 1, 8, 3, b"\0\1", PALETTE, CLEAR), (1, 1), WHITE),
        ("palette", png(1, 1, 8, 3, b"\0\1", PALETTE), (1, 1), (3, 2, 1)),
        ("one row", encode(".png", COLOUR[:1]), (1, 6), (10, 20, 30)),
        ("bytes after the end", encode(".jpg", COLOUR) + b"trailer" * 9, (4, 6), (10, 20, 30)),
        ("pnm", encode(".ppm", COLOUR), (4, 6), (10, 20, 30)),
        ("webp", encode(".webp", COLOUR), (4, 6), (10, 20, 30)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_odd_pictures_become_bgr8(name, data, shape, bgr):
    image = read_image(data)
    assert image.dtype == np.uint8
    assert image.shape == (*shape, 3)
    assert image.flags.c_contiguous
    assert np.abs(image.astype(int) - bgr).max() <= 4, (name, image[0, 0])


def test_transparent_parts_are_white():
    image = np.dstack([picture(), np.full((40, 60), 255, np.uint8)])
    image[:, :30, 3] = 0
    read = read_image(encode(".png", image))
    assert (read[:, :30] == 255).all()
    assert (read[:, 30:] == picture()[:, 30:]).all()


def test_alpha_of_tall_pictures_is_blended_in_every_strip():
    image = np.zeros((1000, 3, 4), np.uint8)
    image[..., 3] = np.linspace(255, 0, 1000).astype(np.uint8)[:, None]
    expected = 255 - image[..., :1].astype(int) * 0 - image[..., 3:].astype(int)
    assert (to_bgr8(image) == expected).all()


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32, np.float64])
def test_every_number_of_channels_and_type_converts(channels, kind):
    top = {np.uint8: 255, np.uint16: 65535}.get(kind, 1.0)
    image = np.full((3, 5, channels), top, kind)
    assert (to_bgr8(image) == 255).all()
    assert to_bgr8(image).shape == (3, 5, 3)


def test_other_types_of_number_are_refused():
    with pytest.raises(ValueError, match="int32"):
        to_bgr8(np.zeros((2, 2), np.int32))


def cut(suffix: str, keep: float) -> bytes:
    noise = np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8)
    data = encode(suffix, noise)
    return data[: int(len(data) * keep)]


def jpeg_of_size(width: int, height: int) -> bytes:
    data = bytearray(encode(".jpg", COLOUR))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty"),
        (b"x", "not a picture"),
        (b"just a text file\n" * 50, "not a picture"),
        (bytes(1000), "not a picture"),
        (b"\xff\xd8", "truncated"),
        (b"\xff\xd8\xff\xd9", "not a picture"),
        (b"\x89PNG\r\n\x1a\n", "truncated"),
        (b"BM" + bytes(10), "truncated"),
        (b"II*\0" + bytes(4), "damaged"),
        (b"RIFF\xff\0\0\0WEBPVP8 ", "truncated"),
        *((cut(".jpg", keep), "truncated") for keep in (0.02, 0.3, 0.6, 0.999)),
        *((cut(".png", keep), "truncated") for keep in (0.02, 0.3, 0.6, 0.999)),
        *((cut(".webp", keep), "truncated") for keep in (0.02, 0.5, 0.99)),
        (cut(".bmp", 0.5), "not a picture"),
        (cut(".tiff", 0.5), ""),
        (encode(".png", COLOUR)[:33] + encode(".png", COLOUR)[-12:], "not a picture"),
        (png(20000, 20000, 8, 0, b""), "20000 x 20000 pixels, more than 200 megapixels"),
        (png(100000, 100000, 8, 0, b""), "100000 x 100000 pixels"),
        (jpeg_of_size(60000, 60000), "60000 x 60000 pixels"),
        (b"BM" + bytes(16) + struct.pack("<ii", 50000, -50000) + bytes(40), "50000 x 50000 pixels"),
        (b"GIF89a" + struct.pack("<HH", 65535, 65535) + bytes(20), "65535 x 65535 pixels"),
    ],
    ids=lambda value: f"{len(value)} bytes" if isinstance(value, bytes) else value[:20],
)
def test_bad_pictures_end_in_one_line(data, says, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(data)
    for source, name in ((tmp_path / "bad.jpg", "bad.jpg"), (data, "the picture")):
        with pytest.raises(InputError) as raised:
            read_image(source)
        assert says in str(raised.value)
        assert name in str(raised.value)
        assert "\n" not in str(raised.value)
        assert raised.value.exit_code == 1
        assert raised.value.remedy


def test_a_large_picture_within_the_limit_is_read():
    width, height = 12000, 8400
    assert width * height > 100_000_000
    assert width * height < MAX_PIXELS
    image = read_image(png(width, height, 1, 0, (b"\0" + b"\xaa" * (width // 8)) * height))
    assert image.shape == (height, width, 3)
    assert image[5, 0].tolist() == [255] * 3
    assert image[5, 1].tolist() == [0] * 3


def test_what_is_no_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    cases = {
        tmp_path / "missing.jpg": "does not exist",
        tmp_path: "is a folder",
        tmp_path / "pipe.jpg": "is no file",
        Path("/dev/zero"): "is no file",
        tmp_path / ("x" * 300): "cannot be read",
    }
    for path, says in cases.items():
        with pytest.raises(InputError, match=says):
            read_image(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_image("nul\0.jpg")


def test_pictures_are_fetched_from_the_web(monkeypatch):
    data = encode(".png", COLOUR)
    answers = {
        "/a.png": (200, data),
        "/none": (200, b""),
        "/large": (200, bytes(2000)),
        "/a%20b.png": (200, data),
    }
    with http_server(answers) as url:
        assert (read_image(f"{url}/a.png") == COLOUR).all()
        assert (read_image(f"{url}/a b.png") == COLOUR).all()
        with pytest.raises(InputError, match="answers 404"):
            read_image(f"{url}/other.png")
        with pytest.raises(InputError, match="is empty"):
            read_image(f"{url}/none")
        monkeypatch.setattr("edge.camera.pictures.MAX_FETCH_BYTES", 1000)
        with pytest.raises(InputError, match="is larger than"):
            read_image(f"{url}/large")
    for wrong, says in {
        f"http://127.0.0.1:{unused_port()}/a.png": "Connection refused",
        "http://": "cannot be fetched",
        "http://127.0.0.1:x/": "cannot be fetched",
        "ftp://127.0.0.1/a.png": "give a http or https address",
        "file:///etc/hostname": "give a http or https address",
    }.items():
        with pytest.raises(InputError, match=says):
            read_image(wrong)


def test_a_server_that_never_answers_does_not_hold_a_picture_up(monkeypatch):
    monkeypatch.setattr("edge.camera.pictures.FETCH_S", 0.6)
    with silent_server() as port, pytest.raises(InputError, match="no answer"):
        read_image(f"http://127.0.0.1:{port}/a.png")


def picture_tree(folder: Path) -> list[Path]:
    """Good pictures, in the order they should come, among what is to be left alone."""
    names = ["10.png", "A.JPG", "a/1.png", "a/2/deep.jpeg", "a/3.webp", "b.bmp"]
    for place, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(path.suffix.lower(), np.full((8, 8, 3), 30 * place, np.uint8)))
    for name in ("notes.txt", ".hidden.jpg", "a/._1.png", ".cache/x.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"nothing")
    return [folder / name for name in names]


def test_a_folder_is_searched_recursively_in_sorted_order(tmp_path):
    expected = picture_tree(tmp_path)
    with open_source(str(tmp_path)) as source:
        frames = list(source.frames())
    assert [frame.name for frame in frames] == [str(path) for path in expected]
    assert [frame.id for frame in frames] == list(range(len(expected)))
    assert [round(float(frame.image.mean()) / 30) for frame in frames] == list(range(len(expected)))
    assert source.frame_count == len(expected)
    assert not source.live
    assert source.dropped == 0
    assert source.failed == []


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.png", ["10.png"]),
        ("a/*", ["a/1.png", "a/2/deep.jpeg", "a/3.webp"]),
        ("**/*.png", ["10.png", "a/1.png"]),
        ("[ab]*/[13].*", ["a/1.png", "a/3.webp"]),
    ],
)
def test_a_glob_gives_its_matches_in_sorted_order(pattern, names, tmp_path):
    picture_tree(tmp_path)
    with open_source(str(tmp_path / pattern)) as source:
        assert [frame.name for frame in source.frames()] == [str(tmp_path / name) for name in names]


def test_a_file_whose_name_looks_like_a_glob_is_a_file(tmp_path):
    (tmp_path / "a[1].png").write_bytes(encode(".png", COLOUR))
    with open_source(str(tmp_path / "a[1].png")) as source:
        assert len(list(source.frames())) == 1


def test_find_pictures_keeps_the_given_order_and_names_what_is_missing(tmp_path):
    tree = picture_tree(tmp_path)
    given = [str(tmp_path / "missing.jpg"), "http://host/x.jpg?y=[1]", str(tmp_path / "a"), str(tree[0])]
    assert find_pictures(given) == [*given[:2], *map(str, tree[2:5]), str(tree[0])]
    assert find_pictures([]) == []
    (tmp_path / "empty").mkdir()
    for nothing in ("empty", "*.tif"):
        with pytest.raises(InputError, match="no picture in"):
            find_pictures([str(tmp_path / nothing)])


def test_a_bad_picture_does_not_end_the_run(tmp_path, caplog):
    for name in ("1.png", "3.png"):
        (tmp_path / name).write_bytes(encode(".png", COLOUR))
    (tmp_path / "2.jpg").write_bytes(cut(".jpg", 0.5))
    seen = []
    with caplog.at_level(logging.WARNING), open_source(str(tmp_path), loop=True) as source:
        for frame in source.frames():
            seen.append((Path(frame.name).name, frame.id))
            if len(seen) == 5:
                break
    assert seen == [("1.png", 0), ("3.png", 2), ("1.png", 3), ("3.png", 5), ("1.png", 6)]
    assert [path for path, _ in source.failed] == [str(tmp_path / "2.jpg")]
    assert "truncated" in source.failed[0][1]
    assert len([record for record in caplog.records if "2.jpg" in record.getMessage()]) == 1


@pytest.mark.parametrize("loop", [False, True])
@pytest.mark.parametrize("count", [1, 3])
def test_a_set_without_any_good_picture_is_an_error(count, loop, tmp_path):
    for number in range(count):
        (tmp_path / f"{number}.jpg").write_bytes(b"no picture")
    spec = str(tmp_path if count > 1 else tmp_path / "0.jpg")
    with open_source(spec, loop=loop) as source, pytest.raises(InputError, match=r"0\.jpg is not a picture"):
        list(source.frames())
    assert len(source.failed) == count


# Video files


@pytest.mark.parametrize(("suffix", "codec"), [(".avi", "MJPG"), (".mp4", "mp4v"), (".mkv", "MJPG")])
@pytest.mark.parametrize("consumer_s", [0.0, 0.01])
def test_a_video_gives_every_frame_in_order(suffix, codec, consumer_s, tmp_path):
    path = write_video(tmp_path / f"clip{suffix}", codec=codec)
    before = time.monotonic()
    frames = []
    with open_source(str(path)) as source:
        for frame in source.frames():
            frames.append(frame)
            time.sleep(consumer_s)
    assert [frame.id for frame in frames] == list(range(25))
    assert numbers(frames) == list(range(25))
    assert source.size == (64, 48)
    assert source.fps == pytest.approx(20)
    assert source.frame_count == 25
    assert source.dropped == 0
    assert not source.live
    times = [frame.time for frame in frames]
    assert times == sorted(times)
    assert before <= source.started <= times[0] <= times[-1] <= time.monotonic()
    for frame in frames:
        assert frame.image.shape == (48, 64, 3)
        assert frame.image.dtype == np.uint8
        assert frame.image.flags.c_contiguous
        assert frame.name is None


def test_decoding_stays_only_a_little_ahead_of_the_consumer(tmp_path):
    path = write_video(tmp_path / "clip.avi")
    ages = []
    with open_source(str(path)) as source:
        for frame in source.frames():
            ages.append(time.monotonic() - frame.time)
            time.sleep(0.03)
    # Two frames wait in the queue: each is as old as the consumer takes for the two before it.
    assert 0.03 < np.median(ages) < 2


def test_a_gif_is_a_video(tmp_path):
    (tmp_path / "a.gif").write_bytes(gif("rwr"))
    with open_source(str(tmp_path / "a.gif")) as source:
        shown = [frame.image[0, 0].tolist() for frame in source.frames()]
    assert shown == [[0, 0, 255], [255, 255, 255], [0, 0, 255]]


def test_a_loop_begins_anew_and_ids_go_on(tmp_path):
    path = write_video(tmp_path / "clip.avi", 4)
    with open_source(str(path), loop=True) as source:
        frames = [frame for frame, _ in zip(source.frames(), range(10), strict=False)]
    assert [frame.id for frame in frames] == list(range(10))
    assert numbers(frames) == [0, 1, 2, 3] * 2 + [0, 1]


def test_fps_sets_the_pace_of_a_file_and_still_no_frame_is_lost(tmp_path):
    path = write_video(tmp_path / "clip.avi", 11)
    with open_source(str(path), fps=25) as source:
        frames = list(source.frames())
    assert numbers(frames) == list(range(11))
    assert 0.38 < frames[-1].time - frames[0].time < 20
    assert np.median(np.diff([frame.time for frame in frames])) == pytest.approx(0.04, abs=0.02)


def test_content_counts_where_the_suffix_says_nothing(tmp_path):
    video = write_video(tmp_path / "clip.avi", 3).rename(tmp_path / "clip.data")
    (tmp_path / "photo").write_bytes(encode(".png", COLOUR))
    with open_source(str(video)) as source:
        assert len(list(source.frames())) == 3
    with open_source(str(tmp_path / "photo")) as source:
        assert isinstance(source, Pictures)
        assert len(list(source.frames())) == 1


def test_a_video_is_read_from_the_web(tmp_path):
    data = write_video(tmp_path / "clip.avi", 7).read_bytes()
    with http_server({"/clip.avi": (200, data)}) as url:
        with open_source(f"{url}/clip.avi") as source:
            assert numbers(list(source.frames())) == list(range(7))
        with pytest.raises(InputError, match=r"none\.mp4 cannot be fetched: the server answers 404"):
            open_source(f"{url}/none.mp4")


def test_bad_videos_end_in_one_line_and_without_noise(tmp_path, capfd):
    whole = write_video(tmp_path / "whole.mp4", codec="mp4v").read_bytes()
    os.mkfifo(tmp_path / "pipe.mp4")
    cases = {
        "missing.mp4": (None, "does not exist"),
        "empty.mp4": (b"", "is empty"),
        "text.mp4": (b"no video " * 99, "is not a video"),
        "garbage.avi": (bytes(range(256)) * 40, "is not a video"),
        "cut1.mp4": (whole[: len(whole) // 2], "is not a video"),
        "whatever.xyz": (b"no video " * 99, "is not a video"),
        "cut.gif": (b"GIF89a", "is not a video"),
    }
    for name, (data, says) in cases.items():
        if data is not None:
            (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError) as raised:
            open_source(str(tmp_path / name))
        assert says in str(raised.value)
        assert name in str(raised.value)
        assert "\n" not in str(raised.value)
    with pytest.raises(InputError, match="is no file"):
        open_source(str(tmp_path / "pipe.mp4"))
    assert capfd.readouterr() == ("", "")


def test_a_video_that_ends_early_gives_what_it_has_and_says_so(tmp_path, caplog):
    path = write_video(tmp_path / "clip.avi")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 3 // 4])
    with open_source(str(path)) as source:
        frames = list(source.frames())
    assert 3 < len(frames) < 20
    # FFmpeg may fill up the frame that was cut with the one before.
    assert numbers(frames)[:-1] == list(range(len(frames) - 1))
    assert "cut off" in caplog.text


def test_frames_are_not_written_to_again(tmp_path):
    path = write_video(tmp_path / "clip.avi")
    with open_source(str(path)) as source:
        frames = list(source.frames())
    assert len({frame.image.__array_interface__["data"][0] for frame in frames}) == len(frames)
    assert numbers(frames) == list(range(25))


def test_closing_a_file_early_ends_its_frames_and_thread(tmp_path):
    path = write_video(tmp_path / "clip.avi")
    source = open_source(str(path))
    frames = source.frames()
    assert next(frames).id == 0
    source.close()
    source.close()
    assert list(frames) == []
    assert list(source.frames()) == []
    # Never started: closing must free the file, and nothing starts afterwards.
    unused = open_source(str(path))
    unused.close()
    with unused:
        assert list(unused.frames()) == []


def test_the_demo_clip_plays_whole(caplog):
    with open_source("demo") as source:
        count = sum(1 for _ in source.frames())
    assert source.name == "demo"
    assert not source.live
    assert source.size == (640, 480)
    assert count == source.frame_count
    assert count / source.fps >= 12
    assert DEMO_CLIP.stat().st_size < 2_000_000


def test_the_demo_in_a_loop_keeps_its_own_rate():
    with open_source("demo", loop=True) as source:
        times = [frame.time for frame, _ in zip(source.frames(), range(12), strict=False)]
    assert np.median(np.diff(times)) == pytest.approx(1 / source.fps, rel=0.5)


def test_auto_takes_the_demo_where_there_is_no_camera(caplog):
    if any(device.usable for device in list_devices()):
        pytest.skip("this machine has a camera")
    with open_source("auto") as source:
        assert next(source.frames()).image.shape == (480, 640, 3)
    assert source.name == "demo"
    assert "no usable camera" in caplog.text
    assert "demo" in caplog.text


# Live sources


def test_a_slow_consumer_gets_the_newest_frame_and_the_rest_is_counted():
    with MjpegCamera(period=0.01) as camera, open_source(camera.url, timeout=3) as source:
        frames, behind, ages = [], [], []
        for frame in source.frames():
            frames.append(frame)
            behind.append(camera.sent - round(float(frame.image.mean())))
            ages.append(time.monotonic() - frame.time)
            if len(frames) == 12:
                break
            time.sleep(0.1)
        dropped = source.dropped
    ids = [frame.id for frame in frames]
    assert source.live
    assert ids == sorted(set(ids))
    # Every frame was either handed over or counted as dropped, but for the one that waits.
    assert 0 <= ids[-1] + 1 - len(ids) <= dropped <= ids[-1] + 3 - len(ids)
    assert dropped > 30
    assert np.median(behind) <= 60
    assert np.median(ages) < 2
    assert source.size == (160, 120)
    # What was handed over stays as it was.
    assert [round(float(frame.image.mean())) for frame in frames] == ids


def test_a_camera_that_comes_back_goes_on(caplog):
    caplog.set_level(logging.INFO)
    camera = MjpegCamera()
    camera.start()
    with open_source(camera.url, timeout=LONG) as source:
        frames = source.frames()
        first = [next(frames).id for _ in range(3)]
        camera.stop()
        threading.Timer(0.8, camera.start).start()
        deadline = time.monotonic() + 8
        while "sends frames again" not in caplog.text:
            first.append(next(frames).id)
            assert time.monotonic() < deadline
        first += [next(frames).id for _ in range(3)]
    camera.stop()
    assert first == sorted(set(first))
    assert "stopped sending frames; trying again" in caplog.text
    assert "Connection refused; trying again" in caplog.text
    # One line for each new reason, not one for each attempt.
    assert caplog.text.count("Connection refused") == 1


def test_a_camera_that_stays_away_is_an_error_within_the_time_out(capfd):
    camera = MjpegCamera()
    camera.start()
    with open_source(camera.url, timeout=1.2) as source:
        frames = source.frames()
        seen = [next(frames)]
        camera.stop()
        with pytest.raises(CameraError, match=r"no frame from .* for 1.2 s \(Connection refused\)") as raised:
            seen.extend(frames)
        assert 1.1 < time.monotonic() - seen[-1].time < 15
    assert raised.value.exit_code == 4
    assert raised.value.remedy
    assert capfd.readouterr().err == ""


def test_a_camera_that_falls_silent_is_an_error_within_the_time_out():
    with MjpegCamera(hang_after=5) as camera, open_source(camera.url, timeout=1.5) as source:
        seen = []
        with pytest.raises(CameraError, match="no frame"):
            seen.extend(source.frames())
        assert len(seen) >= 1
        assert 1.4 < time.monotonic() - seen[-1].time < 15


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("http://127.0.0.1:{port}/x", "Connection refused"),
        ("rtsp://127.0.0.1:{port}/x", "Connection refused"),
        ("http://name.invalid/x", "."),
        ("usb:97", r"there is no /dev/video97 \(cameras here: .*\)"),
        ("/dev/video98", "there is no /dev/video98"),
        ("usb:/dev/null", "it cannot be opened"),
    ],
)
def test_no_camera_from_the_start_is_an_error_within_the_time_out(spec, says, capfd):
    begun = time.monotonic()
    with (
        open_source(spec.format(port=unused_port()), timeout=0.7) as source,
        pytest.raises(CameraError, match=says) as raised,
    ):
        list(source.frames())
    assert 0.6 < time.monotonic() - begun < 15
    assert raised.value.exit_code == 4
    assert "\n" not in str(raised.value)
    assert capfd.readouterr().err == ""


class Driver:
    """Stands in for OpenCV on a V4L2 device: gives these frames (None: undecodable), then is lost."""

    def __init__(self, *frames: np.ndarray | None) -> None:
        self._frames = list(frames)
        self.released = False

    def get(self, prop: int) -> float:
        return {cv2.CAP_PROP_FRAME_WIDTH: 6.0, cv2.CAP_PROP_FRAME_HEIGHT: 4.0}.get(prop, 0.0)

    def grab(self) -> bool:
        time.sleep(0.03)
        return bool(self._frames)

    def retrieve(self) -> tuple[bool, np.ndarray | None]:
        frame = self._frames.pop(0)
        return frame is not None, frame

    def release(self) -> None:
        self.released = True


class DriverCamera(OpenCvCamera):
    def __init__(self, *drivers: Driver) -> None:
        super().__init__("driver", timeout=4, call_limit=1, remedy="none")
        self._drivers = list(drivers)

    def _connect(self) -> Driver:
        if not self._drivers:
            raise CameraError("no driver left")
        return self._drivers.pop(0)


def test_what_drivers_do_to_frames_is_put_right():
    wide = np.arange(72, dtype=np.uint8)
    driver = Driver(None, None, wide.reshape(1, 72), GREY, COLOUR.astype(np.uint16) * 257)
    with DriverCamera(driver) as source:
        frames = source.frames()
        images = [next(frames).image for _ in range(3)]
    assert (images[0] == wide.reshape(4, 6, 3)).all()
    assert (images[1] == 77).all()
    assert (images[2] == COLOUR).all()
    assert all(image.shape == (4, 6, 3) for image in images)


def test_a_camera_whose_frames_are_all_broken_is_opened_anew():
    broken, works = Driver(*[None] * 50), Driver(COLOUR)
    with DriverCamera(broken, works) as source:
        frames = source.frames()
        assert (next(frames).image == COLOUR).all()
        assert broken.released
        with pytest.raises(CameraError, match="no driver left"):
            next(frames)
    assert works.released


def test_a_page_that_is_no_camera_is_named_as_such():
    with (
        http_server({"/": (200, b"<html>hello</html>")}) as url,
        open_source(f"{url}/", timeout=0.7) as source,
        pytest.raises(CameraError, match="sends no video"),
    ):
        list(source.frames())


def test_rtsp_gives_its_frames():
    with rtsp_camera() as url, open_source(url, timeout=6) as source:
        frames = []
        for frame in source.frames():
            frames.append(frame)
            if len(frames) == 10:
                break
    shown = [round(float(frame.image.mean())) for frame in frames]
    assert source.live
    assert source.size == (160, 120)
    assert shown == sorted(set(shown))
    assert shown[-1] - shown[0] < 60


def test_password_is_sent_and_never_shown(caplog):
    with MjpegCamera(authorization="Basic YWRhOnMzY3JldA==") as camera:
        url = camera.url.replace("//", "//ada:s3cret@") + "?token=s3cret"
        with open_source(url, timeout=3) as source:
            next(source.frames())
        assert camera.paths[-1] == "/stream?token=s3cret"
        for wrong in (camera.url, url.replace("ada:s3cret", "eve:s3cret")):
            with (
                open_source(wrong, timeout=0.6) as refused,
                pytest.raises(CameraError, match="answers 401 Unauthorized"),
            ):
                list(refused.frames())
    with open_source(url, timeout=0.6) as gone, pytest.raises(CameraError) as raised:
        list(gone.frames())
    for text in (source.name, repr(threading.enumerate()), caplog.text, str(raised.value)):
        assert "s3cret" not in text
    assert public_url("rtsp://u:p@h:8554/a/b?c=d#e") == "rtsp://h:8554/a/b"


@pytest.mark.parametrize("scheme", ["http", "rtsp"])
def test_closing_while_blocked_in_open_is_prompt(scheme):
    with silent_server() as port:
        source = open_source(f"{scheme}://127.0.0.1:{port}/x", timeout=1.6)
        source.start()
        time.sleep(0.2)
        begun = time.monotonic()
        source.close()
        assert time.monotonic() - begun < 10


def test_closing_while_blocked_in_read_ends_the_consumer():
    with MjpegCamera(hang_after=5) as camera:
        source = open_source(camera.url, timeout=3)
        taken: list[int] = []
        consumer = threading.Thread(target=lambda: taken.extend(frame.id for frame in source.frames()))
        consumer.start()
        deadline = time.monotonic() + 3
        while not taken and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.2)
        begun = time.monotonic()
        source.close()
        consumer.join(1)
        assert not consumer.is_alive()
        assert time.monotonic() - begun < 10
        assert taken


def test_closing_during_the_pause_is_immediate():
    source = open_source("usb:97", timeout=LONG)
    source.start()
    time.sleep(0.1)
    begun = time.monotonic()
    source.close()
    assert time.monotonic() - begun < 5


SCRIPT = """
import sys, threading, time
from edge.camera import open_source
source = open_source(sys.argv[1], timeout=float(sys.argv[2]))
{body}
"""


def run_script(body: str, url: str, timeout: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(body=body), url, str(timeout)],
        cwd=REPO, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.parametrize("timeout", [0.8, 60.0])
def test_the_interpreter_ends_in_peace_while_the_thread_is_blocked(timeout):
    with silent_server() as port:
        process = run_script("source.start(); time.sleep(0.3)", f"http://127.0.0.1:{port}/x", timeout)
        out, err = process.communicate(timeout=15)
    assert (process.returncode, out, err) == (0, "", "")


def test_interrupt_ends_a_waiting_consumer():
    # A shell's background job starts with SIGINT ignored, and Python then leaves it so.
    body = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    with source:
        print("ready", flush=True)
        for frame in source.frames():
            print("frame", flush=True)
except KeyboardInterrupt:
    sys.exit(130)
"""
    with silent_server() as port:
        process = run_script(body, f"http://127.0.0.1:{port}/x", 60)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.2)
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=15)
    assert (process.returncode, out, err) == (130, "", "")
    assert time.monotonic() - begun < 12


# Specifications


@pytest.mark.parametrize(
    ("spec", "kind", "name"),
    [
        ("usb:0", UsbCamera, "/dev/video0"),
        ("usb:12", UsbCamera, "/dev/video12"),
        ("3", UsbCamera, "/dev/video3"),
        ("/dev/video1", UsbCamera, "/dev/video1"),
        ("usb:/dev/v4l/by-id/usb-cam", UsbCamera, "/dev/v4l/by-id/usb-cam"),
        ("/dev/v4l/by-path/x", UsbCamera, "/dev/v4l/by-path/x"),
        ("http://host:81/stream", NetworkCamera, "http://host:81/stream"),
        ("https://u:p@host/video.mjpg?x=1", NetworkCamera, "https://host/video.mjpg"),
        ("rtsp://host/clip.mp4", NetworkCamera, "rtsp://host/clip.mp4"),
        ("rtsps://host/1", NetworkCamera, "rtsps://host/1"),
        (" demo ", VideoFile, "demo"),
    ],
)
def test_specifications(spec, kind, name):
    source = open_source(spec)
    assert type(source) is kind
    assert source.name == name
    source.close()


@pytest.mark.parametrize(
    "spec",
    ["", " ", "webcam", "usb", "usb:", "usb:x", "usb:-1", "picamera3", "ftp://host/x", "file:///tmp/x.mp4",
     "rtsp://", "http://", "http://host:x/", "http://host:99999/", "http://[::1/"],
)  # fmt: skip
def test_unknown_specifications_say_what_is_accepted(spec):
    with pytest.raises(UsageError, match="unknown source") as raised:
        open_source(spec)
    assert raised.value.exit_code == 2
    for word in ("auto", "demo", "usb:0", "video", "folder", "rtsp"):
        assert word in raised.value.remedy


@pytest.mark.parametrize(
    "options",
    [{"size": (0, 480)}, {"size": (640, -1)}, {"fps": 0}, {"fps": -5}, {"fps": float("nan")},
     {"fps": float("inf")}, {"timeout": 0}, {"timeout": -1}, {"timeout": float("nan")}],
)  # fmt: skip
def test_impossible_options_are_refused(options):
    with pytest.raises(UsageError, match="not possible"):
        open_source("usb:0", **options)


@pytest.mark.parametrize("spec", ["missing.mp4", "nowhere/at/all", "./webcam", "nowhere/*.jpg"])
def test_missing_files_are_named(spec, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MaskedgeError, match=r"webcam|missing|nowhere") as raised:
        open_source(spec)
    assert type(raised.value) is InputError


def test_what_is_no_camera_device_is_not_listed():
    assert query("/dev/null") is None
    assert query("/dev/video97") is None
    assert all(device.path.startswith("/dev/video") for device in list_devices())
