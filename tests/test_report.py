"""The report: one page that loads nothing, tables that mix nothing, plots of what counts."""

from __future__ import annotations

import argparse
import base64
import importlib.util
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from benchmarks import report
from benchmarks.plots import draw
from benchmarks.resultfile import Result, read_result
from edge.errors import SinkError, UsageError
from tests.test_compare import result

pytestmark = pytest.mark.once

VOID = {"meta", "img", "source", "link", "br", "hr", "input"}


class Page(HTMLParser):
    """Collects what a page consists of and complains about tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[tuple[tuple[str, ...], str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append((tuple(self.open), data))


def write(path: Path, data: dict[str, Any]) -> Path:
    path.write_text(json.dumps(data))
    return path


@pytest.fixture
def results(tmp_path: Path) -> list[Path]:
    """Two machines, a row that does not count, a comparison, a loop and estimates."""
    pytest.importorskip("ai_edge_litert", reason="estimates read model files with ai-edge-litert")
    accuracy = {"figure": "AP", "value": 0.93, "n": 315, "data": "held-out"}
    here = result(2.0, 1, accuracy=accuracy)
    for changes in ({"threads": 2}, {"precision": "float32"}):
        here["rows"] += [row | changes for row in result(1.5, 2, accuracy=accuracy)["rows"]]
    here["rows"] += result(77.7, 3, precision="float16", valid=False, notes=["it was throttled"])["rows"]
    there = result(6.0, 4)
    there["machine"]["board"] = "Raspberry Pi 3"
    peer = result(5.0, 5, unit="picture", p50_ci=[4.9, 5.1], p90_ci=[5.3, 5.6], worn_or_not=None)
    peer["rows"][0] |= {"accuracy": accuracy | {"ci": [0.9, 0.96]}, "model": "YuNet 320 px"}
    peer["rows"] += [row | {"model": "AIZOO 260 px", "p50": 9.0} for row in peer["rows"]]
    peer |= {"kind": "peers", "pictures": {"count": 40, "from": "held-out ilc"}, "comparisons": []}
    loop = {
        "faces_found": 1.0,
        "mode": "sustained",
        "threads": 1,
        "stages": {"loop": {"p50": 5.0, "p90": 6.0, "p99": 7.0}},
        "series": [{"at_s": s, "p90": 6.0 + s / 60, "temperature_c": 50 + s / 60} for s in (0, 60, 120)],
        "valid": True,
        "notes": [],
    }
    data = {"here": here, "there": there, "peers": peer}
    data["loop"] = here | {"kind": "loop", "rows": [loop]}
    # Written out, since reading a model file needs ai-edge-litert.
    guess = {"model": "face", "precision": "int8", "board": "Raspberry Pi 5", "threads": 1, "note": ""}
    guess |= {"ms": 8.787, "low_ms": 4.553, "high_ms": 16.96}
    data["estimate"] = {"version": 1, "kind": "estimate", "machine": None, "rows": [guess], "notes": []}
    return [write(tmp_path / f"{name}.json", content) for name, content in data.items()]


def run(*options: object) -> int:
    parser = argparse.ArgumentParser()
    report.add_arguments(parser)
    return report.main(parser.parse_args([*map(str, options)]))


def test_the_page_is_whole_and_loads_nothing(tmp_path: Path, results: list[Path]) -> None:
    assert run(*results, "--out", tmp_path / "out") == 0
    text = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "://" not in text
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "iframe", "object", "embed"}
    for tag, attributes in page.tags:
        for key in ("src", "srcset", "href", "data", "action"):
            if key in attributes:
                assert str(attributes[key]).startswith("data:image/png;base64,"), (tag, key)
    policy = next(a["content"] for t, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in str(policy)
    assert any(a.get("name") == "viewport" for t, a in page.tags)
    assert "prefers-color-scheme: dark" in text


def test_what_does_not_count_and_what_is_estimated_stand_apart(tmp_path: Path, results: list[Path]) -> None:
    tables = {table.title: table for table in report.tables([read_result(path) for path in results])}
    invalid = tables.pop("Measured, but does not count")
    assert [row[-1] for row in invalid.rows] == ["it was throttled"]
    estimates = tables.pop("Estimates, not measurements")
    assert {row[2] for row in estimates.rows} == {"Raspberry Pi 5"}
    for table in tables.values():
        cells = [cell for row in table.rows for cell in row]
        assert "float16" not in cells
        assert "77.7" not in " ".join(cells)
        assert "Raspberry Pi 5" not in cells
    assert next(iter(tables)) == "Machines"
    # On the page they also look different.
    page = Page(report.page([read_result(path) for path in results], {}))
    inside = {data for tags, data in page.text if "section" in tags}
    assert "Raspberry Pi 5" in inside
    assert not any("Raspberry Pi 5" in data for tags, data in page.text if "section" not in tags)


def test_names_from_files_cannot_change_the_page() -> None:
    nasty = "<script>alert(1)</script>|`x`"
    data = result(2.0, 1, model=nasty)
    page = Page(report.page([Result(Path("a.json"), "latency", data)], {}))
    assert "script" not in {tag for tag, _ in page.tags}
    assert nasty in {data for _, data in page.text}
    assert "\\|" in report.markdown([Result(Path("a.json"), "latency", data)])


def test_markdown_tables_have_as_many_cells_as_columns(results: list[Path]) -> None:
    text = report.markdown([read_result(path) for path in results])
    assert text.count("### ") >= 6
    for block in text.split("### ")[1:]:
        widths = {line.count(" | ") for line in block.splitlines() if line.startswith("|")}
        assert len(widths) == 1


def test_without_matplotlib_there_is_a_page_without_plots(
    tmp_path: Path, results: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert run(*results, "--out", tmp_path / "out") == 0
    assert "maskedge[bench]" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["report.html", "report.md"]
    assert "<img" not in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_plots(tmp_path: Path, results: list[Path]) -> None:
    pytest.importorskip("matplotlib")
    assert run(*results, "--out", tmp_path / "out") == 0
    names = {path.stem for path in (tmp_path / "out").glob("*.png")}
    assert names == {
        "accuracy",
        "precision",
        "threads",
        "histogram",
        "over_time",
        "machines",
        "sustained",
    }
    for path in (tmp_path / "out").glob("*.png"):
        image = cv2.imread(str(path))
        assert image is not None
        assert image.mean() > 128  # the light one
        assert len(np.unique(image.reshape(-1, 3), axis=0)) > 50
    page = Page((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    shown = [str(a["src"]) for tag, a in page.tags if tag == "img"]
    dark = [str(a["srcset"]) for tag, a in page.tags if tag == "source"]
    assert len(shown) == len(dark) == len(names)
    for url in dark:
        data = np.frombuffer(base64.b64decode(url.split(",", 1)[1]), np.uint8)
        assert cv2.imdecode(data, cv2.IMREAD_COLOR).mean() < 128
    assert all(a.get("alt") for tag, a in page.tags if tag == "img")


def test_rows_that_do_not_count_are_in_no_plot() -> None:
    pytest.importorskip("matplotlib")
    good = result(2.0, 1)
    bad = result(2.0, 1)
    bad["rows"] += result(99.0, 2, precision="float16", threads=2, valid=False, notes=["x"])["rows"]
    with_bad, without = (draw([Result(Path("a"), "latency", data)]) for data in (bad, good))
    assert with_bad == without  # to the byte


def test_two_figures_never_share_an_axis(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    data = result(2.0, 1)
    data["rows"] = []
    for figure in ("AP", "share right"):
        for threads in (1, 2):
            accuracy = {"figure": figure, "value": 0.9, "n": 10, "data": "x"}
            data["rows"] += result(2.0, threads, accuracy=accuracy, threads=threads, model=figure)["rows"]
    titles = [plot.title for plot in draw([Result(Path("a"), "latency", data)]).values()]
    assert "Latency against accuracy: AP" in titles
    assert "Latency against accuracy: share right" in titles


def test_files_that_are_no_results_are_left_out_and_said(
    tmp_path: Path, results: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = tmp_path / "wrong.json"
    wrong.write_text("{}")
    assert run(results[0], wrong, "--out", tmp_path / "out") == 1
    assert "wrong.json is no benchmark result" in capsys.readouterr().err
    assert (tmp_path / "out" / "report.html").exists()
    with pytest.raises(UsageError, match="no result"):
        run(wrong, "--out", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_where_it_cannot_be_written(tmp_path: Path, results: list[Path]) -> None:
    with pytest.raises(UsageError, match="is a file"):
        run(results[0], "--out", results[0])
    with pytest.raises(SinkError, match="cannot write"):
        run(results[0], "--out", results[0] / "below")


def test_it_reads_what_estimate_writes(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason="model files are read with ai-edge-litert")
    from benchmarks import estimate

    data = estimate.run(["face"], boards=["pi5"])
    (table,) = report.tables([read_result(write(tmp_path / "estimate.json", data))])
    assert {row[2] for row in table.rows} == {"Raspberry Pi 5"}
    assert all(row[4].startswith("about ") for row in table.rows)
