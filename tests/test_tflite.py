"""The interpreter: files and manifests good and bad, runtimes, threads, quantisation, native messages."""

from __future__ import annotations

import hashlib
import importlib
import json
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge import tflite
from edge.errors import ModelError, RuntimeMissingError, UsageError
from tests import tiny_models

ROOT = Path(__file__).parents[1]
X = np.float32([[0, 1, 2, 3]])


def working_runtimes() -> list[str]:
    found = []
    for key in tflite.RUNTIMES:
        try:
            tflite.probe_runtime(key)
        except RuntimeMissingError:
            continue
        found.append(key)
    return found


WORKING = working_runtimes()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting and no tuning of the machine's user takes part."""
    monkeypatch.delenv("MASKEDGE_RUNTIME", raising=False)
    monkeypatch.delenv("MASKEDGE_MODELS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(params=list(tflite.RUNTIMES))
def runtime(request: pytest.FixtureRequest) -> str:
    if request.param not in WORKING:
        pytest.skip(f"{tflite.RUNTIMES[request.param][0]} does not work in this environment")
    return request.param


def write_models(folder: Path, **changes: Any) -> Path:
    """A models folder with one model `face` of two precisions; `changes` go into its int8 file's entry."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for precision, content in (("int8", tiny_models.quantised_model()), ("float32", tiny_models.add_model())):
        (folder / f"face.{precision}.tflite").write_bytes(content)
        files[precision] = {
            "file": f"face.{precision}.tflite",
            "sha256": hashlib.sha256(content).hexdigest(),
            "bytes": len(content),
            "min_runtime": "1.14.0",
        }
    files["int8"] |= changes
    entry = {
        "task": "face",
        "version": "1.0.0",
        "default": "int8",
        "input": {"width": 4, "height": 1},
        "labels": ["face"],
        "thresholds": {"score": {"value": 0.5, "figure": "one false alarm in fifty pictures"}},
        "files": files,
    }
    (folder / "manifest.json").write_text(json.dumps({"version": 1, "models": {"face": entry}}))
    return folder


# ------------------------------------------------------------------------------------------- running


def test_a_float_model_runs(runtime: str) -> None:
    model = tflite.Model(tiny_models.add_model(constant=2.5), runtime=runtime, threads=1)
    (answer,) = model.run(X)
    assert answer.dtype == np.float32
    np.testing.assert_array_equal(answer, X + 2.5)
    assert model.runtime.startswith(tflite.RUNTIMES[runtime][0])
    assert [(spec.name, spec.shape, spec.dtype) for spec in model.inputs] == [("x", (1, 4), np.float32)]
    assert model.outputs[0].scale == 0


def test_a_file_runs_by_path(tmp_path: Path) -> None:
    path = tmp_path / "any.tflite"
    path.write_bytes(tiny_models.add_model())
    for model in (tflite.Model(path), tflite.Model(str(path)), tflite.load_model(str(path))):
        assert model.name == "any.tflite"
        np.testing.assert_array_equal(model.run(X)[0], X + 1)


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        pytest.param(np.float32([[0, 0.5, 1.0, -1.5]]), [[3, 4, 5, 0]], id="floats are quantised"),
        pytest.param(np.float64([[0, 0.24, 0.26, 0]]), [[3, 3, 4, 3]], id="to the nearest"),
        pytest.param(
            np.float32([[1e9, -1e9, 62, -65.5]]), [[127, -128, 127, -128]], id="clipped to the range"
        ),
        pytest.param(np.uint8([[0, 1, 2, 255]]), [[3, 5, 7, 127]], id="pixels are real values"),
        pytest.param(
            np.int8([[3, 4, 5, -128]]), [[3, 4, 5, -128]], id="the tensor's own type goes unchanged"
        ),
        pytest.param(np.float32([0, 0.5, 1.0, -1.5]), [[3, 4, 5, 0]], id="without the batch"),
    ],
)
def test_inputs_of_an_int8_tensor(runtime: str, given: np.ndarray, stored: list[list[int]]) -> None:
    same = {"out_scale": 0.5, "out_zero_point": 3}
    model = tflite.Model(tiny_models.quantised_model(**same), runtime=runtime)
    np.testing.assert_array_equal(model.run_raw(given)[0], np.int8(stored))
    real = (np.float32(stored) - 3) * 0.5
    (answer,) = model.run(given)
    assert answer.dtype == np.float32
    np.testing.assert_array_equal(answer, real)


@pytest.mark.parametrize(("out_dtype", "out_zero_point"), [("uint8", 0), ("int8", -128)])
def test_every_pixel_value_passes_a_uint8_tensor_unchanged(
    runtime: str, out_dtype: str, out_zero_point: int
) -> None:
    content = tiny_models.quantised_model(
        (1, 256),
        dtype="uint8",
        scale=1,
        zero_point=0,
        out_dtype=out_dtype,
        out_scale=1,
        out_zero_point=out_zero_point,
    )
    pixels = np.arange(256, dtype=np.uint8)[None]
    (answer,) = tflite.Model(content, runtime=runtime).run(pixels)
    np.testing.assert_array_equal(answer, pixels.astype(np.float32))


def test_pixels_enter_a_float_model_with_a_uint8_input(runtime: str) -> None:
    model = tflite.Model(tiny_models.cast_model(), runtime=runtime)
    pixels = np.random.default_rng(1).integers(0, 256, (1, 4, 4, 3), dtype=np.uint8)
    np.testing.assert_array_equal(model.run(pixels)[0], pixels.astype(np.float32))
    # A view that is not contiguous, as BGR turned to RGB is.
    np.testing.assert_array_equal(model.run(pixels[0, :, :, ::-1])[0][0], pixels[0, :, :, ::-1])


def test_pixels_enter_a_float_tensor_as_0_to_255(runtime: str) -> None:
    model = tflite.Model(tiny_models.add_model(constant=0), runtime=runtime)
    np.testing.assert_array_equal(model.run(np.uint8([[0, 1, 128, 255]]))[0], [[0, 1, 128, 255]])


@pytest.mark.parametrize(
    ("content", "arrays", "message"),
    [
        (tiny_models.add_model(), (), "takes 1 input(s), not 0"),
        (tiny_models.add_model(), (X, X), "takes 1 input(s), not 2"),
        (tiny_models.add_model(), (X[:, :3],), "shape (1, 4), not (1, 3)"),
        (tiny_models.add_model(), (np.zeros((0,), np.float32),), "shape (1, 4), not (0,)"),
        (tiny_models.add_model(), (np.int64([[0, 1, 2, 3]]),), "takes float32, not int64"),
        (tiny_models.quantised_model(), (np.int32([[0, 1, 2, 3]]),), "takes int8, not int32"),
        (tiny_models.cast_model(), (np.zeros((4, 4, 3), np.float32),), "takes uint8, not float32"),
        (tiny_models.cast_model(), (np.zeros((4, 5, 3), np.uint8),), "shape (1, 4, 4, 3), not (4, 5, 3)"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(
    content: bytes, arrays: tuple[np.ndarray, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=r"^tiny") as caught:
        tflite.Model(content, name="tiny").run(*arrays)
    assert message in str(caught.value)


def test_outputs_keep_the_order_of_the_file_and_have_names(runtime: str) -> None:
    model = tflite.Model(tiny_models.two_in_two_out_model(), runtime=runtime)
    late, early = model.run(X, 10 * X)
    assert [spec.name for spec in model.outputs] == ["late", "early"]
    np.testing.assert_array_equal(late, 11 * X)
    np.testing.assert_array_equal(early, 2 * X)
    assert (model.output("early"), model.output("lat")) == (1, 0)
    for wrong in ("a", "nothing"):  # in both names, in none
        with pytest.raises(ModelError, match="late, early"):
            model.output(wrong)


def test_results_survive_the_next_run(runtime: str) -> None:
    model = tflite.Model(tiny_models.add_model(), runtime=runtime)
    (first,) = model.run(X)
    kept = first.copy()
    model.run(X + 100)
    np.testing.assert_array_equal(first, kept)


def test_invoke_works_on_what_lies_in_the_inputs(runtime: str) -> None:
    model = tflite.Model(tiny_models.add_model(), runtime=runtime)
    model.set_inputs(X)
    model.invoke()
    np.testing.assert_array_equal(model._get(model._output_ids[0]), X + 1)


def test_the_constant_model_of_the_golden_tests_says_what_it_was_told(runtime: str) -> None:
    boxes = np.arange(8, dtype=np.float32).reshape(1, 2, 4)
    model = tflite.Model(tiny_models.constant_model((1, 2, 2, 3), {"boxes": boxes}), runtime=runtime)
    np.testing.assert_array_equal(model.run(np.zeros((2, 2, 3), np.uint8))[0], boxes)


# ----------------------------------------------------------------------------------------- bad files


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "identifier", id="empty"),
        pytest.param(b"TFL3", "identifier", id="four bytes"),
        pytest.param(b"<html><body>404 Not Found</body></html>", "identifier", id="a web page"),
        pytest.param(b"\x89PNG\r\n\x1a\n" + bytes(500), "identifier", id="a picture"),
        pytest.param(b"\x00\x00\x00\x00TFL3" + bytes(100), "damaged", id="zeros"),
        pytest.param(b"\xff\xff\xff\x7fTFL3" + bytes(100), "damaged", id="root outside"),
        pytest.param(b"\x10\x00\x00\x00TFL3" + b"\xff" * 500, "damaged", id="ones"),
    ],
)
def test_what_is_no_model_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.tflite"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=message) as caught:
        tflite.Model(path)
    assert caught.value.exit_code == 3
    assert caught.value.remedy
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [tiny_models.add_model(), tiny_models.quantised_model()])
def test_a_model_cut_anywhere_is_refused(content: bytes) -> None:
    whole = len(content.rstrip(b"\0"))  # what follows is padding
    for length in range(0, whole - 1, 3):
        with pytest.raises(ModelError, match="not a usable"):
            tflite.Model(content[:length])


def test_good_models_pass_the_structure_check() -> None:
    probe = (ROOT / "edge" / "assets" / "probe.tflite").read_bytes()
    assert probe == tiny_models.add_model()
    for content in (
        probe,
        tiny_models.custom_op_model(),
        tiny_models.two_in_two_out_model(),
        tiny_models.cast_model(),
    ):
        tflite._check_structure(content)


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no file .*nowhere\.tflite"):
        tflite.Model(tmp_path / "nowhere.tflite")
    with pytest.raises(ModelError, match="cannot read"):
        tflite.Model(tmp_path)


def test_ops_newer_than_the_runtime_come_with_a_remedy(runtime: str) -> None:
    with pytest.raises(ModelError, match="'ADD' version '99'") as caught:
        tflite.Model(tiny_models.add_model(version=99), runtime=runtime)
    assert "ai-edge-litert" in caught.value.remedy
    assert "\n" not in str(caught.value)


def test_custom_ops_come_with_a_remedy(runtime: str) -> None:
    with pytest.raises(ModelError, match="NoSuchOp") as caught:
        tflite.Model(tiny_models.custom_op_model(), runtime=runtime)
    assert "built-in" in caught.value.remedy


# ------------------------------------------------------------------------------------------ manifest


def test_a_model_is_loaded_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_models(tmp_path / "models")
    entry = tflite.load_manifest(folder).entry("face")
    assert (entry.default, entry.labels, entry.threshold("score")) == ("int8", ["face"], 0.5)
    assert entry.files["float32"].min_runtime == "1.14.0"
    assert tflite.load_model("face", models_dir=folder).inputs[0].dtype == np.int8
    assert tflite.load_model("face", models_dir=folder, precision="float32").inputs[0].dtype == np.float32
    monkeypatch.setenv("MASKEDGE_MODELS", str(folder))
    assert tflite.load_model("face").name == "face (int8)"
    with pytest.raises(ModelError, match="nms_iou"):
        entry.threshold("nms_iou")


def test_without_a_setting_the_models_lie_beside_the_package() -> None:
    assert tflite.models_dir() in (ROOT / "converted_models", ROOT / "edge" / "converted_models")


@pytest.mark.parametrize(
    ("name", "precision", "message"),
    [
        ("nobody", None, "known models: face"),
        ("face", "int4", "it has int8, float32"),
        ("", None, "known models: face"),
    ],
)
def test_unknown_names_list_the_known_ones(
    tmp_path: Path, name: str, precision: str | None, message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        tflite.load_model(name, precision=precision, models_dir=write_models(tmp_path / "models"))


def test_damaged_files_never_reach_the_runtime(tmp_path: Path) -> None:
    folder = write_models(tmp_path / "models")
    path = folder / "face.int8.tflite"
    good = path.read_bytes()
    flipped = bytearray(good)
    flipped[-40] ^= 1
    for content, message in (
        (good[:100], "100 bytes instead of"),
        (bytes(flipped), "SHA-256 differs"),
        (b"", "0 bytes"),
    ):
        path.write_bytes(content)
        with pytest.raises(ModelError, match=message) as caught:
            tflite.load_model("face", models_dir=folder)
        assert "again" in caught.value.remedy
    path.unlink()
    with pytest.raises(ModelError, match="no file"):
        tflite.load_model("face", models_dir=folder)
    assert tflite.load_model("face", precision="float32", models_dir=folder)


def test_a_model_too_new_for_the_runtime_is_refused_by_its_entry(tmp_path: Path, runtime: str) -> None:
    folder = write_models(tmp_path / "models", min_runtime="9.1.0")
    with pytest.raises(ModelError, match=r"needs TFLite 9\.1\.0") as caught:
        tflite.load_model("face", models_dir=folder, runtime=runtime)
    assert "precision float32" in caught.value.remedy
    assert "ai-edge-litert" in caught.value.remedy


@pytest.mark.parametrize(
    ("min_runtime", "fits"),
    [("", True), ("1.14.0", True), ("2.9.0", True), ("2.14.0", True), ("2.14.9", True), ("2.17.0", False)],
)
def test_runtime_versions_compare_as_numbers(tmp_path: Path, min_runtime: str, fits: bool) -> None:
    manifest = tflite.load_manifest(write_models(tmp_path / "models", min_runtime=min_runtime))
    old = tflite.Runtime("tflite", "tflite-runtime 2.14.0", (2, 14), None)
    if fits:
        assert manifest.read("face", "int8", runtime=old)
    else:
        with pytest.raises(ModelError, match=r"here is tflite-runtime 2\.14\.0"):
            manifest.read("face", "int8", runtime=old)


GOOD_FILE = {"file": "a.tflite", "sha256": "0" * 64, "bytes": 1}


def entry_with(**changes: Any) -> str:
    entry = {"task": "face", "version": "1", "default": "int8", "files": {"int8": GOOD_FILE}} | changes
    return json.dumps({"version": 1, "models": {"face": entry}})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "malformed"),
        ("{", "malformed"),
        ("[]", "malformed"),
        ("null", "malformed"),
        ("[" * 100_000, "malformed"),
        ("\ud800".encode("utf-8", "surrogatepass").decode("latin-1"), "malformed"),
        ('{"models": {}}', "no 'version'"),
        ('{"version": 1}', "no 'models'"),
        ('{"version": 1, "models": []}', "malformed"),
        ('{"version": 1, "models": {"face": 3}}', "malformed"),
        ('{"version": 2, "models": {}}', "version 2, this program reads 1"),
        (entry_with(files={}), "no file of its default precision"),
        (entry_with(files={"int8": {}}), "malformed"),
        (entry_with(files={"int8": GOOD_FILE | {"file": "../../etc/passwd"}}), "not a plain file name"),
        (entry_with(files={"int8": GOOD_FILE | {"file": 3}}), "not a plain file name"),
        (entry_with(files={"int8": GOOD_FILE | {"sha256": "abc"}}), "bad sha256"),
        (entry_with(files={"int8": GOOD_FILE | {"bytes": "many"}}), "bad bytes"),
        (entry_with(labels="face"), "labels is not a list"),
        (entry_with(task=None), "malformed"),
    ],
)
def test_a_malformed_manifest_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "manifest.json").write_text(text, encoding="utf-8")
    with pytest.raises(ModelError, match=message) as caught:
        tflite.load_manifest(tmp_path)
    assert caught.value.remedy
    assert "\n" not in str(caught.value)


def test_a_missing_folder_and_a_missing_manifest_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no models folder"):
        tflite.load_manifest(tmp_path / "nowhere")
    with pytest.raises(ModelError, match=r"no manifest\.json"):
        tflite.load_manifest(tmp_path)


def test_a_precision_of_a_path_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="one precision"):
        tflite.load_model(tmp_path / "any.tflite", precision="int8")


# ------------------------------------------------------------------------------------------ runtimes


def test_some_runtime_works_here() -> None:
    assert WORKING, "install ai-edge-litert, or tflite-runtime with numpy below 2"
    assert tflite.find_runtime().key == WORKING[0]


def test_a_runtime_can_be_forced(runtime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKEDGE_RUNTIME", runtime)
    assert tflite.find_runtime().key == runtime
    assert tflite.Model(tiny_models.add_model()).runtime.startswith(tflite.RUNTIMES[runtime][0])


@pytest.mark.parametrize("wrong", ["tensorflow", "LITERT"])
def test_an_unknown_runtime_is_a_mistake(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="litert, tflite"):
        tflite.find_runtime(wrong)
    monkeypatch.setenv("MASKEDGE_RUNTIME", wrong)
    with pytest.raises(UsageError, match="litert, tflite"):
        tflite.Model(tiny_models.add_model())


def test_a_runtime_that_is_not_there_is_named_with_the_command_that_brings_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        tflite,
        "RUNTIMES",
        {"litert": ("ai-edge-litert", "no_such_a"), "tflite": ("tflite-runtime", "no_such_b")},
    )
    tflite.probe_runtime.cache_clear()
    with pytest.raises(
        RuntimeMissingError, match="ai-edge-litert is not installed; tflite-runtime is not"
    ) as caught:
        tflite.find_runtime()
    tflite.probe_runtime.cache_clear()
    assert caught.value.exit_code == 3
    assert caught.value.remedy.startswith("pip install")


def test_a_runtime_that_imports_but_builds_no_interpreter_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What tflite-runtime does beside numpy 2."""
    package = tmp_path / "broken_runtime"
    package.mkdir()
    (package / "__init__.py").write_text("__version__ = '2.14.0'\n")
    (package / "interpreter.py").write_text(
        "class Interpreter:\n"
        "    def __init__(self, **options):\n"
        "        raise SystemError('CreateWrapperFromBuffer returned a result with an exception set')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    working = WORKING[0]
    runtimes = {"broken": ("broken-runtime", "broken_runtime"), working: tflite.RUNTIMES[working]}
    monkeypatch.setattr(tflite, "RUNTIMES", runtimes)
    importlib.invalidate_caches()
    assert tflite.find_runtime().key == working
    with pytest.raises(RuntimeMissingError, match="installed but does not work") as caught:
        tflite.find_runtime("broken")
    numpy_2 = int(np.__version__.split(".")[0]) >= 2
    assert ("numpy<2" in caught.value.remedy) == numpy_2


@pytest.mark.parametrize(
    ("version", "stands_for"),
    [
        ("1.0.1", (2, 18)),
        ("1.2.0", (2, 19)),
        ("1.4.0", (2, 20)),
        ("2.1.6", (2, 20)),
        ("2.3.0", (2, 23)),
        ("3.0", (2, 23)),
    ],
)
def test_releases_of_litert_stand_for_tflite_versions(
    version: str, stands_for: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    if "litert" not in WORKING:
        pytest.skip("ai-edge-litert does not work in this environment")
    monkeypatch.setattr(tflite, "_package_version", lambda name, package: version)
    tflite.probe_runtime.cache_clear()
    try:
        assert tflite.probe_runtime("litert").tflite_version == stands_for
    finally:
        tflite.probe_runtime.cache_clear()


def test_importing_loads_no_runtime() -> None:
    code = "import sys, edge.tflite; print({'ai_edge_litert', 'tflite_runtime', 'cv2'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# ------------------------------------------------------------------------------------------- threads


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 1), (3, 2), (4, 2), (64, 2)])
def test_the_default_leaves_cores_to_the_rest_of_the_loop(
    cores: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tflite, "available_cores", lambda: cores)
    assert tflite.default_threads("0" * 64, "ai-edge-litert 2.3.0") == threads


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_affinity_counts() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert tflite.available_cores() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert tflite.available_cores() == len(before)


def test_stored_tuning_wins_and_an_argument_wins_over_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tflite, "available_cores", lambda: 4)
    content = tiny_models.add_model()
    model = tflite.Model(content)
    assert model.threads == 2
    path = tflite.save_tuning(model.sha256, model.runtime, 3)
    tflite.save_tuning("another", model.runtime, 1)
    assert json.loads(path.read_text())["version"] == 1
    assert tflite.Model(content).threads == 3
    assert tflite.Model(content, threads=1).threads == 1
    assert tflite.default_threads(model.sha256, "another runtime 1.0") == 2
    monkeypatch.setattr(tflite, "available_cores", lambda: 3)  # tuned on more cores than there are now
    assert tflite.Model(content).threads == 2


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"results": 3}', '{"results": {"a b": {"threads": "x"}}}']
)
def test_a_damaged_tuning_file_is_no_reason_to_stop(text: str) -> None:
    path = tflite.tuning_file()
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert tflite.default_threads("a", "b") in (1, 2)
    tflite.save_tuning("a", "b", 1)
    assert tflite.default_threads("a", "b") == 1


@pytest.mark.parametrize("threads", [0, -1, 1.5, "2"])
def test_bad_thread_counts_are_a_mistake(threads: Any) -> None:
    with pytest.raises(UsageError, match="threads"):
        tflite.Model(tiny_models.add_model(), threads=threads)


def test_one_model_per_thread_of_one_process() -> None:
    answers: dict[int, np.ndarray] = {}

    def work(number: int) -> None:
        model = tflite.Model(tiny_models.add_model(constant=number), threads=1)
        for _ in range(50):
            answers[number] = model.run(X)[0]

    workers = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert all(np.array_equal(answers[number], X + number) for number in range(8))


# ----------------------------------------------------------------------------------- native messages


def test_native_info_goes_to_the_log_and_not_to_the_terminal(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, runtime: str
) -> None:
    with caplog.at_level(logging.DEBUG, "edge.tflite"):
        tflite.Model(tiny_models.add_model(), runtime=runtime).run(X)
    assert capfd.readouterr().err == ""
    native = [record for record in caplog.records if "XNNPACK delegate" in record.getMessage()]
    assert all(record.levelno == logging.DEBUG for record in native)


def test_native_lines_are_sorted_by_level(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    problems: list[str] = []
    with caplog.at_level(logging.DEBUG, "edge.tflite"), tflite._native_stderr(problems):
        os.write(2, b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\nERROR: bad tensor\n")
        os.write(
            2, b"W0000 00:00:1 1 file.cc:1] odd\nI0000 00:00:1 1 file.cc:1] fine\nanother thread says hello\n"
        )
    levels = [(record.levelname, record.getMessage().split(": ", 1)[1]) for record in caplog.records]
    assert levels == [
        ("DEBUG", "INFO: Created TensorFlow Lite XNNPACK delegate for CPU."),
        ("ERROR", "ERROR: bad tensor"),
        ("WARNING", "W0000 00:00:1 1 file.cc:1] odd"),
        ("DEBUG", "I0000 00:00:1 1 file.cc:1] fine"),
    ]
    assert problems == ["ERROR: bad tensor", "W0000 00:00:1 1 file.cc:1] odd"]
    assert capfd.readouterr().err == "another thread says hello\n"


def test_native_lines_are_not_lost_when_the_interpreter_raises(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    def interpreter(**options: Any) -> None:
        os.write(2, b"ERROR: the delegate is on fire\nunmarked line\n")
        raise ValueError("cannot build")

    fake = tflite.Runtime("litert", "ai-edge-litert 2.3.0", (2, 23), interpreter)
    monkeypatch.setattr(tflite, "find_runtime", lambda runtime=None: fake)
    with pytest.raises(ModelError, match=r"cannot build \[ERROR: the delegate is on fire\]"):
        tflite.Model(tiny_models.add_model())
    assert "the delegate is on fire" in caplog.text
    assert capfd.readouterr().err == "unmarked line\n"


def test_stderr_may_be_closed() -> None:
    code = (
        "import os, sys; os.close(2); import numpy as np; from edge import tflite\n"
        "model = tflite.Model('edge/assets/probe.tflite')\n"
        "print(model.run(np.zeros((1, 4), np.float32))[0].sum())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    assert done.stdout.strip() == "4.0"


def test_stderr_is_given_back_when_many_threads_load() -> None:
    before = os.fstat(2)
    handles = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    workers = [
        threading.Thread(target=lambda: tflite.Model(tiny_models.add_model(), threads=1)) for _ in range(16)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    after = os.fstat(2)
    assert (before.st_dev, before.st_ino) == (after.st_dev, after.st_ino)
    if handles:
        assert len(os.listdir("/proc/self/fd")) <= handles
