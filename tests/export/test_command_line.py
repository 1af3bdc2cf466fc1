"""`python -m export` with wrong input: one line and an exit code, never a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.tflite import load_manifest
from export import manifest
from export.__main__ import main, say_files


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "scenes").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("compare", "nosuch.tflite", "other.tflite"), 3, "no file nosuch.tflite"),
        (("evaluate", "face", "--models", "nowhere"), 3, "nowhere"),
        (("prepare", "face"), 2, "needs --teachers"),
        (("prepare", "face", "--teachers", "nowhere"), 1, "does not exist"),
        (("convert", "face", "--size", "100x100"), 2, "multiples of 32"),
        (("convert", "face", "--run", "nowhere"), 2, "run `python -m export train face` first"),
        (("train", "face", "--run", "nowhere/face"), 2, "run `python -m export prepare face"),
        (("train", "unmask", "--run", "nowhere"), 2, "run `python -m export prepare unmask"),
        (("train", "unmask", "--features", "nowhere"), 2, "run `python -m export train attributes"),
        (("convert", "unmask", "--run", "nowhere"), 2, "run `python -m export train unmask"),
    ],
)
def test_wrong_input_is_one_line(arguments, code, says, data, capsys):
    assert main([*arguments, "--data", str(data)]) == code
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("export: error: ")
    assert says in lines[0]


def test_missing_data_names_the_option(tmp_path: Path, capsys):
    assert main(["train", "face", "--data", str(tmp_path / "nowhere")]) == 2
    assert "give --data" in capsys.readouterr().err


def test_epochs_for_every_stage_or_none(capsys, tmp_path):
    (tmp_path / "packs" / "bare").mkdir(parents=True)
    (tmp_path / "packs" / "bare" / "ready").touch()
    assert main(["train", "attributes", "--run", str(tmp_path), "--epochs", "1", "2"]) == 2
    assert "--epochs takes 7 numbers for this model" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["face", "attributes", "identity"])
def test_a_line_for_each_converted_file(name: str, capsys):
    entry = manifest.read(load_manifest().folder)["models"][name]
    say_files(entry, "figure")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(entry["files"])
    assert lines[0].split()[:2] == [f"{name}.float32.tflite", f"{entry['files']['float32']['bytes']:,}"]
