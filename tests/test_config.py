from __future__ import annotations

import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from edge.config import Config, default_file, load_config
from edge.errors import UsageError


def write(folder: Path, text: str) -> Path:
    path = folder / "maskedge.toml"
    path.write_text(text)
    return path


GOOD: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    # file, command line, what it comes to
    ("", {}, {}),
    ("", {"score": None, "loop": None}, {}),
    ("score = 0.6", {}, {"score": 0.6}),
    ("score = 0.6", {"score": None}, {"score": 0.6}),
    ("score = 0.6", {"score": "0.7"}, {"score": 0.7}),
    ("threads = 2\nloop = true", {"threads": "4"}, {"threads": 4, "loop": True}),
    ("fps = 15", {}, {"fps": 15.0}),
    ('size = "640x480"', {}, {"size": (640, 480)}),
    ("size = [640, 480]", {"size": "320 x 240"}, {"size": (320, 240)}),
    ('sink = "summary"', {}, {"sink": ("summary",)}),
    ('sink = ["summary"]', {"sink": ["none", "a.mp4"]}, {"sink": ("none", "a.mp4")}),
    ('tasks = ["face", "face"]', {"tasks": "face, face"}, {"tasks": ("face",)}),
    ('tasks = ["mask"]', {}, {"tasks": ("mask",)}),
    ('tasks = ["face"]', {"tasks": "gender,mask"}, {"tasks": ("gender", "mask")}),
    ("", {}, {"tasks": ("mask", "gender"), "reject": True}),
    ("attributes_seconds = 0\nreject = false", {}, {"attributes_seconds": 0.0, "reject": False}),
    ('source = "fü.mp4" # a comment', {}, {"source": "fü.mp4"}),
    ("keep_score = 0.4", {"score": "0.5"}, {"keep_score": 0.4, "score": 0.5}),
    ("track_seconds = 0", {}, {"track_seconds": 0.0}),
    ("", {}, {"view": "in-place", "unmask_seconds": 0.1, "unmask_wait": False}),
    ('view = "in-place"', {"view": "side-by-side"}, {"view": "side-by-side"}),
    ("unmask_wait = true", {"tasks": "mask,unmask"}, {"unmask_wait": True, "tasks": ("mask", "unmask")}),
]


@pytest.mark.parametrize(("text", "overrides", "values"), GOOD)
def test_file_and_command_line(
    tmp_path: Path, text: str, overrides: dict[str, Any], values: dict[str, Any]
) -> None:
    assert load_config(write(tmp_path, text), overrides) == Config(**values)


BAD_FILES = [
    ("scroe = 0.5", "line 1: unknown key 'scroe': did you mean 'score'"),
    ("# first\n\ncamera-timeout = 5", "line 3: unknown key 'camera-timeout': did you mean 'camera_timeout'"),
    ("[track]\niou = 1", "line 1: unknown key 'track': did you mean 'track_iou'"),
    ("zzz = 1", "`maskedge config` lists all keys"),
    ("loop = false\nscore = 1.5", "line 2: score = 1.5 must be between 0.01 and 0.999"),
    ("score = nan", "must be between"),
    ('view = "both"', 'line 1: view = "both" must be one of in-place, side-by-side'),
    ("unmask_seconds = -1", "unmask_seconds = -1 must be between 0 and 60"),
    ('tasks = ["unmask"]', "the task unmask needs the task mask"),
    ("fps = inf", "must be between"),
    ("fps = 0", "fps = 0 must be between"),
    ("threads = 1.5", "threads = 1.5 must be a whole number"),
    ("threads = true", "must be a whole number"),
    ('seconds = "soon"', "must be a number"),
    ('size = "640"', "must be WIDTHxHEIGHT"),
    ("size = [640]", "must be WIDTHxHEIGHT"),
    ("size = [true, true]", "must be WIDTHxHEIGHT"),
    ('size = "0x0"', "must be WIDTHxHEIGHT"),
    ("loop = 1", "must be true or false"),
    ("sink = 3", "must be a list of texts"),
    ('sink = [""]', "must be a list of texts"),
    ('source = " "', "must be a text"),
    ('tasks = ["face", "age"]', "no task 'age'"),
    ("tasks = []", "must name tasks of: face, mask, gender"),
    ("attributes_seconds = -1", "must be between 0 and 60"),
    ("reject = 0.5", "must be true or false"),
    ('precision = "int4"', "must be one of float32"),
    ('log_level = "loud"', "must be one of debug"),
    ("score = 0.4\nkeep_score = 0.5", "keep_score = 0.5 is above score = 0.4"),
    ("score =", "is not TOML"),
    ("score = 0.5\nscore = 0.6", "is not TOML"),
]


@pytest.mark.parametrize(("text", "message"), BAD_FILES)
def test_what_is_wrong_in_a_file_is_said_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_config(write(tmp_path, text))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"fps": "0"}, "--fps 0 must be between"),
        ({"camera_timeout": "x"}, "--camera-timeout x must be a number"),
        ({"tasks": "mask,age"}, "--tasks mask,age has no task 'age'"),
        ({"size": "big"}, "--size big must be WIDTHxHEIGHT"),
    ],
)
def test_what_is_wrong_on_the_command_line_is_called_by_its_option(
    overrides: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        load_config(overrides=overrides)
    assert message in str(caught.value)


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"\0"])
def test_a_file_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=r"a\.toml"):
        load_config(path)
    with pytest.raises(UsageError):
        load_config(tmp_path)


def test_the_printed_file_gives_the_defaults_and_explains_every_key() -> None:
    text = default_file()
    assert Config(**tomllib.loads(text)) == Config()
    for one in fields(Config):
        assert one.metadata["help"] in text
        assert one.metadata["range"] in text
        assert one.metadata["why"] in text


def test_the_examples_in_the_printed_file_are_valid() -> None:
    lines = [line.removeprefix("# ") for line in default_file().splitlines() if " = " in line]
    values = tomllib.loads("\n".join(lines))
    assert values.keys() == {one.name for one in fields(Config)}
    Config(**values)
