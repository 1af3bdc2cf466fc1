from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge import __version__
from edge.cli import main
from edge.tasks.attributes import TEMPLATE
from tests.camera_servers import http_server
from tests.tiny_models import constant_model

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _no_display(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "MASKEDGE_DEBUG"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder whose face model finds one face in every picture, a woman with her nose out."""
    folder = tmp_path_factory.mktemp("models")
    cells = 12 * 12 + 6 * 6 + 3 * 3
    scores = np.full((1, cells, 1), -9, np.float32)
    scores[0, 4 * 12 + 3, 0] = 3  # the cell with its centre at 28, 36 of 96 x 96
    boxes = np.tile(np.float32([0, 0, 1, 1]), (1, cells, 1))
    points = (np.float32(TEMPLATE) - 0.5).ravel() * 4.5
    outputs = {"scores": scores, "boxes": boxes, "landmarks": np.tile(points, (1, cells, 1))}
    data = constant_model((1, 96, 96, 3), outputs)
    (folder / "face.int8.tflite").write_bytes(data)
    logits = {"mask": [0, 0, 4, 0], "gender": [2.3, 0], "face": [3]}
    answers = {name: np.float32([values]) for name, values in logits.items()}
    attributes_data = constant_model((1, 32, 32, 3), answers)
    (folder / "attributes.int8.tflite").write_bytes(attributes_data)
    entry = {
        "task": "face",
        "version": "1.2.3",
        "default": "int8",
        "licence": "Apache-2.0",
        "thresholds": {"score": {"value": 0.5, "figure": "a test"}, "nms_iou": {"value": 0.4}},
        "metrics": [{"name": "AP", "value": 0.93123, "n": 100, "data": "scenes", "precision": "int8"}],
        "files": {
            "int8": {
                "file": "face.int8.tflite",
                "sha256": hashlib.sha256(data).hexdigest(),
                "bytes": len(data),
                "min_runtime": "1.14.0",
            }
        },
    }
    # The test pictures are flat grey: not sharp at all.
    limits = {"mask": 0.7, "gender": 0.7, "face": 0.5, "min_side": 10, "sharpness": 0}
    attributes = {
        "task": "attributes",
        "version": "0.5.0",
        "default": "int8",
        "thresholds": {name: {"value": value, "figure": "a test"} for name, value in limits.items()},
        "alignment": {"template": TEMPLATE},
        "files": {
            "int8": {
                "file": "attributes.int8.tflite",
                "sha256": hashlib.sha256(attributes_data).hexdigest(),
                "bytes": len(attributes_data),
            }
        },
    }
    entries = {"face": entry, "attributes": attributes}
    (folder / "manifest.json").write_text(json.dumps({"version": 1, "models": entries}))
    return folder


@pytest.fixture
def use_models(models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MASKEDGE_MODELS", str(models))
    return models


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with two pictures, a broken one, and one more in a folder below."""
    folder = tmp_path / "pictures"
    (folder / "below").mkdir(parents=True)
    for name in ("b.jpg", "a.png", "below/b.jpg"):
        cv2.imwrite(str(folder / name), np.full((96, 192, 3), 90, np.uint8))
    (folder / "broken.jpg").write_bytes(b"no picture")
    return folder


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (96, 96))
    for number in range(30):
        writer.write(np.full((96, 96, 3), 5 * number, np.uint8))
    writer.release()
    return path


class Ran:
    """What a command answered."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


Run = Callable[..., Ran]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process."""

    def call(*argv: object) -> Ran:
        code = main([str(one) for one in argv])
        return Ran(code, *capsys.readouterr())

    return call


def start(*argv: object, **more: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "edge", *map(str, argv)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | more
    return subprocess.Popen(command, cwd=ROOT, text=True, **pipes)


# -------------------------------------------------------------------------------------- wrong use


WRONG: list[tuple[list[str], int, str]] = [
    (["nonsense"], 2, "invalid choice"),
    (["image"], 2, "the following arguments are required: PATH"),
    (["run", "--nonsense"], 2, "unrecognized arguments: --nonsense"),
    (["run", "--sou", "demo"], 2, "unrecognized arguments"),
    (["run", "--fps"], 2, "expected one argument"),
    (["run", "--fps", "0"], 2, "--fps 0 must be between 0.01 and 1000"),
    (["run", "--seconds", "-1"], 2, "--seconds -1 must be between"),
    (["run", "--frames", "1.5"], 2, "--frames 1.5 must be a whole number"),
    (["run", "--size", "big"], 2, "--size big must be WIDTHxHEIGHT"),
    (["run", "--tasks", "face,age"], 2, "has no task 'age'"),
    (["image", "--tasks", "age", "x.jpg"], 2, "--tasks age has no task 'age'"),
    (["image", "--tasks", "mask,unmask", "x.jpg"], 2, "use maskedge unmask"),
    (["run", "--tasks", "gender,unmask"], 2, "unmask needs the task mask"),
    (["run", "--source", "demo", "--tasks", "mask,unmask"], 3, "no model 'unmask'"),
    (["run", "--view", "upside-down"], 2, "--view upside-down must be one of in-place, side-by-side"),
    (["unmask", "x.jpg"], 2, "required: --out"),
    (["unmask", "--out", "o"], 2, "required: PATH"),
    (["unmask", "x.jpg", "--out", "o", "--tasks", "mask"], 2, "unrecognized arguments"),
    (["unmask", "x.jpg", "--out", "o"], 3, "no model 'unmask'"),
    (["unmask", "x.jpg", "--out", "o", "--models", "/no/such"], 3, "no models folder /no/such"),
    (["unmask", "x.jpg", "--out", "o", "--score", "9"], 2, "--score 9 must be between"),
    (["run", "--sink", "nowhere"], 2, "unknown sink 'nowhere'"),
    (["run", "--sink", "video:a.txt"], 2, "use one of .mp4"),
    (["run", "--sink", "a.mp4", "--out", "./a.mp4"], 2, "two sinks write to the same file"),
    (["run", "--source", "a.mp4", "--out", "a.mp4"], 2, "both source and output"),
    (["run", "--source", "nonsense"], 2, "unknown source 'nonsense'"),
    (["run", "--source", "demo", "--score", "2"], 2, "--score 2 must be between"),
    (["run", "--config", "/no/such.toml"], 2, "cannot read /no/such.toml"),
    (["run", "--source", "/no/such.mp4"], 1, "/no/such.mp4 does not exist"),
    (["run", "--source", "usb:97", "--camera-timeout", "0.2"], 4, "/dev/video97"),
    (["run", "--source", "demo", "--models", "/no/such"], 3, "no models folder /no/such"),
    (["run", "--source", "demo", "--precision", "float16"], 3, "no precision 'float16'"),
    (["image", "x.jpg", "--models", "/no/such"], 3, "no models folder /no/such"),
    (["image", "x.jpg", "--threads", "0"], 2, "--threads 0 must be between"),
    (["models", "--models", "/no/such"], 3, "no models folder /no/such"),
]  # fmt: skip


@pytest.mark.usefixtures("use_models")
@pytest.mark.parametrize(("argv", "code", "message"), WRONG, ids=[" ".join(one[0]) for one in WRONG])
def test_wrong_use_is_one_line_with_a_remedy(run: Run, argv: list[str], code: int, message: str) -> None:
    ran = run(*argv)
    errors = [line for line in ran.err.splitlines() if line.startswith("maskedge: error: ")]
    assert ran.code == code
    assert len(errors) == 1
    assert message in errors[0]
    assert ": " in errors[0].removeprefix("maskedge: error: ")
    assert "Traceback" not in ran.err
    assert ran.out == ""


def test_a_fault_of_our_own_is_one_line_unless_asked_for(
    run: Run, monkeypatch: pytest.MonkeyPatch, use_models: Path
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("deep\ninside")

    monkeypatch.setattr("edge.tflite.load_model", broken)
    ran = run("image", "x.jpg")
    assert ran.code == 1
    assert ran.err == (
        "maskedge: error: internal fault (ZeroDivisionError deep inside): "
        "run again with --debug and report what it prints\n"
    )
    with pytest.raises(ZeroDivisionError):
        main(["image", "x.jpg", "--debug"])
    monkeypatch.setenv("MASKEDGE_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        main(["image", "x.jpg"])


# ------------------------------------------------------------------------------------------- help


def test_without_a_command_the_help_is_shown(run: Run) -> None:
    ran = run()
    assert ran.code == 2
    assert "maskedge run --source demo" in ran.err


@pytest.mark.parametrize(
    "command",
    [[], ["run"], ["image"], ["unmask"], ["models"], ["doctor"], ["service"], ["bench"], ["config"]],
)
def test_every_command_has_help(run: Run, command: list[str]) -> None:
    ran = run(*command, "--help")
    assert ran.code == 0
    assert "usage: maskedge" in ran.out
    assert ran.err == ""


def test_help_and_version_load_nothing_heavy() -> None:
    script = (
        "import sys; from edge.cli import main\n"
        "assert main(['--version']) == main(['run', '--help']) == 0\n"
        "heavy = {'numpy', 'cv2', 'ai_edge_litert', 'tflite_runtime', 'benchmarks'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    assert done.stderr == ""
    assert done.stdout.startswith(f"maskedge {__version__}\n")


def test_the_printed_configuration_can_be_used(
    run: Run, tmp_path: Path, clip: Path, use_models: Path
) -> None:
    path = tmp_path / "maskedge.toml"
    path.write_text(run("config").out.replace('source = "auto"', f'source = "{clip}"'))
    ran = run("run", "--config", path)
    assert ran.code == 0
    assert "30 frames" in ran.out


# ------------------------------------------------------------------------------------------ image


def test_image_prints_one_line_per_input_in_order_also_for_those_that_fail(
    run: Run, pictures: Path, use_models: Path
) -> None:
    empty = pictures / "empty"
    empty.mkdir()
    ran = run("image", "--json", "/no/x.jpg", pictures, pictures / "a.png", empty, pictures / "b.jpg")
    names = [
        "/no/x.jpg",
        *(f"{pictures}/{name}" for name in ("a.png", "b.jpg", "below/b.jpg", "broken.jpg", "a.png")),
    ]
    assert ran.code == 1
    assert [one["image"] for one in ran.lines] == [*names, str(empty), str(pictures / "b.jpg")]
    failed = [one for one in ran.lines if "error" in one]
    assert [one["image"] for one in failed] == ["/no/x.jpg", str(pictures / "broken.jpg"), str(empty)]
    assert all(one.keys() == {"version", "image", "error"} and one["version"] == 1 for one in failed)
    assert "3 of 8 pictures could not be read" in ran.err


def test_image_finds_the_face_in_pixels_of_the_original(run: Run, pictures: Path, use_models: Path) -> None:
    ran = run("image", "--json", pictures / "a.png")
    assert ran.code == 0
    (found,) = ran.lines
    assert found.keys() == {"version", "image", "frame", "time", "width", "height", "faces", "timing_ms"}
    assert (found["width"], found["height"]) == (192, 96)
    (face,) = found["faces"]
    # The picture is shown to the model at half its size; the cell's box is 8 e = 21.7 wide there.
    assert face["box"] == pytest.approx([56 - 21.75, 72 - 21.75, 43.5, 43.5], abs=0.1)
    assert face["track"] is None
    assert len(face["landmarks"]) == 5
    assert found["timing_ms"].keys() == {"capture", "face", "attributes", "total", "frame_age"}
    assert face["mask"]["state"] == "nose_out"
    assert face["mask"]["score"] == face["mask"]["scores"]["nose_out"] == pytest.approx(0.948, abs=1e-3)
    assert face["gender"] == {"label": "female", "score": pytest.approx(0.9089, abs=1e-4)}


def test_image_for_people(run: Run, pictures: Path, use_models: Path) -> None:
    ran = run("image", pictures / "a.png", pictures / "broken.jpg")
    first, second = ran.out.splitlines()
    assert first == f"{pictures}/a.png: a woman, mask under her nose (95 %)"
    assert second.startswith(f"{pictures}/broken.jpg ")
    assert "no face" in run("image", pictures / "a.png", "--score", "0.99").out


TASKS = [
    ("mask,gender", "a woman, mask under her nose (95 %)", {"mask", "gender"}),
    ("mask", "a person, mask under the nose (95 %)", {"mask"}),
    ("gender", "a woman (91 %)", {"gender"}),
    ("face", "a face of 43x43 px at 34,50 (95 %)", set()),
]


@pytest.mark.parametrize(("tasks", "words", "keys"), TASKS)
def test_only_what_was_asked_for_is_told(
    run: Run, pictures: Path, clip: Path, use_models: Path, tasks: str, words: str, keys: set[str]
) -> None:
    assert run("image", pictures / "a.png", "--tasks", tasks).out == f"{pictures}/a.png: {words}\n"
    common = {"box", "score", "track", "landmarks"}
    for ran in (
        run("image", pictures / "a.png", "--tasks", tasks, "--json"),
        run("run", "--source", clip, "--tasks", tasks, "--frames", "3", "--sink", "jsonl:-"),
        run("run", "--source", pictures / "a.png", "--tasks", tasks, "--sink", "jsonl:-"),
    ):
        assert ran.code == 0
        for line in ran.lines:
            assert line["faces"][0].keys() == common | keys
            assert ("attributes" in line["timing_ms"]) == bool(keys)
        if "gender" not in keys:
            assert "gender" not in ran.out
            assert "female" not in ran.out


def test_several_faces_are_numbered_from_left_to_right(
    run: Run, pictures: Path, models: Path, tmp_path: Path
) -> None:
    cells = 12 * 12 + 6 * 6 + 3 * 3
    scores = np.full((1, cells, 1), -9, np.float32)
    scores[0, [4 * 12 + 8, 4 * 12 + 3], 0] = 4, 3
    boxes = np.tile(np.float32([0, 0, 1, 1]), (1, cells, 1))
    outputs = {"scores": scores, "boxes": boxes, "landmarks": np.zeros((1, cells, 10), np.float32)}
    data = constant_model((1, 96, 96, 3), outputs)
    manifest = json.loads((models / "manifest.json").read_text())
    manifest["models"]["face"]["files"]["int8"] |= {
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
    }
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "face.int8.tflite").write_bytes(data)
    ran = run("image", pictures / "a.png", "--models", tmp_path, "--tasks", "face", "--out", tmp_path / "o")
    assert ran.out.splitlines() == [
        f"{pictures}/a.png: face 1: a face of 43x43 px at 34,50 (95 %)",
        f"{pictures}/a.png: face 2: a face of 43x43 px at 114,50 (98 %) -> {tmp_path}/o/a.jpg",
    ]


def test_without_the_attributes_model_faces_can_still_be_found(
    run: Run, pictures: Path, clip: Path, models: Path, tmp_path: Path
) -> None:
    manifest = json.loads((models / "manifest.json").read_text())
    del manifest["models"]["attributes"]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "face.int8.tflite").write_bytes((models / "face.int8.tflite").read_bytes())
    for command in (("image", pictures / "a.png"), ("run", "--source", clip)):
        ran = run(*command, "--models", tmp_path)
        assert ran.code == 3
        assert ran.err.splitlines()[-1] == (
            f"maskedge: error: no model 'attributes' in {tmp_path}: "
            "get the models again, or use --tasks face to find faces only"
        )
        assert run(*command, "--models", tmp_path, "--tasks", "face").code == 0


def test_a_damaged_attributes_model_is_no_matter_where_it_is_not_used(
    run: Run, pictures: Path, models: Path, tmp_path: Path
) -> None:
    for path in models.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "attributes.int8.tflite").write_bytes(b"")
    ran = run("image", pictures / "a.png", "--models", tmp_path)
    assert (ran.code, ran.out) == (3, "")
    assert "attributes" in ran.err
    assert run("image", pictures / "a.png", "--models", tmp_path, "--tasks", "face").code == 0


def test_image_writes_annotated_copies_and_no_input(run: Run, pictures: Path, use_models: Path) -> None:
    before = {path: path.read_bytes() for path in pictures.rglob("*.*")}
    ran = run("image", pictures, "--out", pictures)
    assert ran.code == 1  # the broken one
    assert {path: path.read_bytes() for path in before} == before
    new = {str(path.relative_to(pictures)) for path in pictures.rglob("*.*")} - {
        str(path.relative_to(pictures)) for path in before
    }
    assert new == {"a.jpg", "b-2.jpg", "b-3.jpg"}
    drawn = cv2.imread(str(pictures / "a.jpg"))
    assert drawn.shape == (96, 192, 3)
    assert np.ptp(drawn) > 100
    assert f"a.png: a woman, mask under her nose (95 %) -> {pictures}/a.jpg" in ran.out


def test_image_cannot_write(run: Run, pictures: Path, use_models: Path) -> None:
    ran = run("image", pictures / "a.png", "--out", "/proc/no")
    assert ran.code == 1
    assert ran.err.startswith("maskedge: error: cannot write into /proc/no")


def test_image_of_an_address(run: Run, pictures: Path, use_models: Path) -> None:
    data = (pictures / "a.png").read_bytes()
    with http_server({"/a.png?key=secret": (200, data)}) as address:
        ran = run("image", "--json", f"{address}/a.png?key=secret", f"{address}/none.png")
    assert ran.code == 1
    assert [one["image"] for one in ran.lines] == [f"{address}/a.png", f"{address}/none.png"]
    assert len(ran.lines[0]["faces"]) == 1
    assert "error" in ran.lines[1]


def test_image_show_without_a_display_is_a_warning(run: Run, pictures: Path, use_models: Path) -> None:
    ran = run("image", pictures / "a.png", "--show")
    assert ran.code == 0
    assert "warning: cannot show pictures: no display" in ran.err


def test_a_reader_that_goes_away_is_no_error(pictures: Path, use_models: Path) -> None:
    process = start("image", "--json", *[pictures / "a.png"] * 3000)
    assert process.stdout is not None
    assert process.stderr is not None
    assert json.loads(process.stdout.readline())["faces"]
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(20) == 0
    process.stderr.close()


def test_a_full_disk_behind_standard_output(pictures: Path, use_models: Path) -> None:
    with open("/dev/full", "w") as full:
        process = start("image", pictures / "a.png", stdout=full)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    assert errors.startswith("maskedge: error: ")
    assert errors.count("\n") == 1


# -------------------------------------------------------------------------------------------- run


def test_run_shows_the_summary_and_says_how_fast_it_started(run: Run, clip: Path, use_models: Path) -> None:
    ran = run("run", "--source", clip)
    assert ran.code == 0
    assert "30 frames" in ran.out
    assert "30 faces in 30 frames, 1 track" in ran.out
    for stage in ("capture", "face", "attributes", "attributes_invoke", "total", "frame_age"):
        assert f"\n{stage} " in ran.out
    assert "no window: no display" in ran.err
    assert "first result" in ran.err
    assert "face (int8)" in ran.err
    assert "attributes (int8)" in ran.err


def test_run_writes_everything_at_once(run: Run, clip: Path, use_models: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = run(
        "run", "--source", clip, "--sink", f"video:{out}/a.mp4", "--sink", f"jsonl:{out}/a.jsonl",
        "--sink", "window", "--out", out / "frames", "--log-level", "warning",
    )  # fmt: skip
    assert ran.code == 0
    assert ran.out == ""
    assert ran.err == (
        "maskedge: warning: no window: no display (DISPLAY and WAYLAND_DISPLAY are not set): "
        "use --out FILE.mp4 to get a clip\n"
    )
    lines = [json.loads(line) for line in (out / "a.jsonl").open()]
    assert [one["frame"] for one in lines] == list(range(30))
    assert {face["track"] for one in lines for face in one["faces"]} == {1}
    assert int(cv2.VideoCapture(str(out / "a.mp4")).get(cv2.CAP_PROP_FRAME_COUNT)) == 30
    assert len(list((out / "frames").iterdir())) == 30


def test_run_with_lines_on_standard_output_prints_nothing_else_there(
    run: Run, clip: Path, use_models: Path
) -> None:
    ran = run("run", "--source", clip, "--sink", "jsonl:-", "--sink", "summary", "--frames", "4")
    assert [one["frame"] for one in ran.lines] == [0, 1, 2, 3]
    assert "4 frames" in ran.err


def test_run_over_a_folder_of_pictures(run: Run, pictures: Path, use_models: Path) -> None:
    ran = run("run", "--source", pictures, "--sink", "jsonl:-", "--out", pictures)
    assert ran.code == 1  # one could not be read
    names = ["a.png", "b.jpg", "below/b.jpg"]
    assert [one["image"] for one in ran.lines] == [f"{pictures}/{name}" for name in names]
    assert (pictures / "broken.jpg").read_bytes() == b"no picture"
    assert {path.name for path in pictures.glob("*.jpg")} == {
        "a.jpg",
        "b.jpg",
        "b-2.jpg",
        "b-3.jpg",
        "broken.jpg",
    }


def test_options_of_the_file_and_of_the_command_line(
    run: Run, tmp_path: Path, clip: Path, use_models: Path
) -> None:
    path = tmp_path / "a.toml"
    path.write_text(f'source = "{clip}"\nframes = 3\nsink = ["jsonl:-"]\nlog_level = "error"\nscore = 0.99')
    ran = run("run", "--config", path)
    assert [len(one["faces"]) for one in ran.lines] == [0, 0, 0]
    ran = run("run", "--config", path, "--score", "0.5", "--frames", "2")
    assert [len(one["faces"]) for one in ran.lines] == [1, 1]
    assert ran.err == ""


def test_weak_faces_are_kept_only_while_they_continue_a_track(run: Run, clip: Path, use_models: Path) -> None:
    options = ["run", "--source", clip, "--sink", "jsonl:-", "--frames", "2", "--log-level", "error"]
    path = clip.with_name("a.toml")
    path.write_text("keep_score = 0.5")  # the model's only face has 0.95
    assert [len(one["faces"]) for one in run(*options, "--config", path, "--score", "0.97").lines] == [0, 0]
    assert [len(one["faces"]) for one in run(*options, "--config", path, "--score", "0.9").lines] == [1, 1]


@pytest.mark.parametrize(
    ("path", "message"), [("/dev/full", "No space left"), ("/proc/no/a", "cannot write")]
)
def test_run_cannot_write(run: Run, clip: Path, use_models: Path, path: str, message: str) -> None:
    ran = run("run", "--source", clip, "--sink", f"jsonl:{path}", "--sink", "summary")
    assert ran.code == 1
    assert ran.err.splitlines()[-1].startswith(f"maskedge: error: cannot write {path} (")
    assert message in ran.err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_run_ended_by_a_signal(
    clip: Path, use_models: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    out = tmp_path / "a.mp4"
    process = start("run", "--source", clip, "--loop", "--fps", "60", "--out", out)
    assert process.stderr is not None
    for line in process.stderr:
        if "first result" in line:
            break
    time.sleep(0.3)
    process.send_signal(number)
    text, errors = process.communicate(timeout=20)
    assert process.returncode == code
    assert "fps" in text
    assert "Traceback" not in errors
    assert cv2.VideoCapture(str(out)).read()[0]


def test_run_on_a_terminal_shows_a_status_line(clip: Path, use_models: Path) -> None:
    leader, follower = pty.openpty()
    process = start("run", "--source", clip, "--fps", "60", stderr=follower)
    os.close(follower)
    shown = b""
    with contextlib.suppress(OSError):  # Linux: the terminal is gone
        while part := os.read(leader, 4096):
            shown += part
    os.close(leader)
    assert process.wait(20) == 0
    assert process.stdout is not None
    process.stdout.close()
    assert b"frames  1 face" in shown
    assert shown.endswith(b"\r\x1b[K")


# ------------------------------------------------------------------------------- models and others


def test_models_lists_what_is_there(run: Run, use_models: Path) -> None:
    ran = run("models", "--check")
    assert ran.code == 0
    assert "face 1.2.3 (task face)\n  licence: Apache-2.0" in ran.out
    assert "AP 0.9312 (n = 100, scenes, int8)" in ran.out
    assert "face.int8.tflite: loads" in ran.out
    ran = run("models", "--json")
    for model, name in zip(ran.lines[0]["models"], ("face", "attributes"), strict=True):
        assert (model["name"], model["files"][0]["default"], model["files"][0]["error"]) == (name, True, None)


DAMAGE: list[tuple[str, Callable[[Path], object], str]] = [
    ("changed", lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x"), "SHA-256 differs"),
    ("cut", lambda path: path.write_bytes(path.read_bytes()[:100]), "100 bytes instead of"),
    ("missing", lambda path: path.unlink(), "no file"),
]


@pytest.mark.parametrize(("damage", "message"), [one[1:] for one in DAMAGE], ids=[one[0] for one in DAMAGE])
def test_a_damaged_model_is_refused(
    run: Run, models: Path, tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    for path in models.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    damage(tmp_path / "face.int8.tflite")
    ran = run("models", "--models", tmp_path)
    assert ran.code == 3
    assert message in ran.out
    assert run("models", "--models", tmp_path, "--json").lines[0]["models"][0]["files"][0]["error"]
    ran = run("run", "--source", "demo", "--models", tmp_path)
    assert ran.code == 3
    assert message in ran.err


def test_doctor(run: Run, use_models: Path) -> None:
    ran = run("doctor", "--json")
    assert ran.code == 0
    assert ran.lines[0]["ok"] is True


def test_bench(run: Run, use_models: Path, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    ran = run("bench", "face", "--runs", "3", "--seconds", "0.01", "--warmup", "1", "--json", path)
    assert ran.code == 0
    assert json.loads(path.read_text())["rows"][0]["model"] == "face"
    ran = run("bench", "--runs", "3", "--seconds", "0.01", "--warmup", "1", "--json", path)
    assert ran.code == 0
    models = [row["model"] for row in json.loads(path.read_text())["rows"]]
    assert list(dict.fromkeys(models)) == ["face", "attributes"]
