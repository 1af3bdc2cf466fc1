"""Results of benchmarks for people: `maskedge bench report RESULT...`.

It makes one HTML page, a PNG for each plot and a Markdown table. The page is one file that loads nothing.
Rows that do not count are listed with the reason and are in no plot; estimates have a table of their own.
"""

from __future__ import annotations

import argparse
import base64
import html
import importlib.util
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.plots import Plot, draw
from benchmarks.resultfile import BEHIND_CAMERA, PARTS, PERCENTILES, Result, label, machine_names, read_result
from edge.errors import InputError, SinkError, UsageError
from edge.files import write_atomically


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `maskedge bench report`."""
    parser.epilog = """examples:
  maskedge bench report benchmarks/results/*.json
  maskedge bench report here.json pi4.json --out report     two machines side by side

writes report.html (one file, with everything in it), a PNG for each plot, and report.md to paste.
Plots need matplotlib (pip install 'maskedge[bench]'); without it the page has tables only."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "results", nargs="+", metavar="RESULT", help="result files (--json of the benchmarks)"
    )
    parser.add_argument(
        "--out", default="report", metavar="DIR", help="folder for what is made (default %(default)s)"
    )


def main(args: argparse.Namespace) -> int:
    """Write the page, the plots and the table; 1 if a file was no result, which is then left out.

    Raises:
        UsageError: `--out` is a file, or none of the files is a result.
        SinkError: the folder cannot be written.
    """
    out = Path(args.out)
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file", remedy="give a folder")
    results, failed = [], 0
    for path in dict.fromkeys(args.results):
        try:
            results.append(read_result(Path(path)))
        except InputError as error:
            failed += 1
            print(f"left out: {error}", file=sys.stderr)
    if not results:
        raise UsageError(
            "there is no result to report on", remedy="give files that --json of maskedge bench wrote"
        )
    plots: dict[str, Plot] = {}
    if importlib.util.find_spec("matplotlib") is None:
        print("no plots: matplotlib is not installed (pip install 'maskedge[bench]')", file=sys.stderr)
    else:
        plots = draw(results)
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(out / "report.html", page(results, plots))
        write_atomically(out / "report.md", markdown(results))
        for name, plot in plots.items():
            (out / f"{name}.png").write_bytes(plot.light)
    except OSError as error:
        raise SinkError(f"cannot write to {out} ({error.strerror})", remedy="give another --out") from error
    print(out / "report.html")
    return 1 if failed else 0


# ------------------------------------------------------------------------------------------------- tables


@dataclass(slots=True, frozen=True)
class Table:
    """Cells as text; `numbers` says from which column on they are aligned to the right."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: int
    intro: str = ""


def tables(results: Sequence[Result]) -> list[Table]:
    """All tables of the report; those of measurements before those of estimates."""
    makers: tuple[Callable[[Sequence[Result]], Iterable[Table]], ...] = (
        _machines_table,
        _latency_table,
        _peers_tables,
        _loop_tables,
        _validate_tables,
        _invalid_table,
        _estimate_table,
    )
    return [table for make in makers for table in make(results)]


def _machines_table(results: Sequence[Result]) -> Iterable[Table]:
    rows = []
    for result in results:
        facts = result.data.get("machine")
        if not facts:
            continue
        heat = " to ".join(
            "?" if facts.get(key) is None else f"{facts[key]:.0f}"
            for key in ("temperature_c", "temperature_c_after")
        )
        rows.append(
            [
                result.path.name,
                result.kind,
                str(facts.get("board") or facts.get("cpu")),
                f"{facts.get('usable_cores')} of {facts.get('cores')}",
                str(facts.get("os")),
                str(facts.get("runtime")),
                str(facts.get("governor") or "-"),
                "-" if "?" in heat else f"{heat} °C",
                (str(facts.get("git_commit") or "-")[:10]) + (" +" if facts.get("git_dirty") else ""),
                str(result.data.get("time", "-")),
            ]
        )
    if rows:
        head = ["file", "kind", "machine", "cores", "system", "runtime", "governor", "heat", "commit", "time"]
        yield Table(
            "Machines", head, rows, len(head), "A plus after the commit: with changes that are in none."
        )


def _latency_table(results: Sequence[Result]) -> Iterable[Table]:
    for machine, result in zip(machine_names(results), results, strict=True):
        rows = [
            [
                row["model"],
                row["precision"],
                str(row["runtime"]),
                str(row["threads"]),
                *(_number(row.get(key)) for key in ("p90", "p50", "p99", "min")),
                _number(row.get("first_ms"), 1),
                _number(row.get("cold_start_ms"), 0),
                _number(row.get("peak_rss_mb"), 0),
                _number(None if row.get("bytes") is None else row["bytes"] / 1000, 0),
                _figure(row.get("accuracy")),
            ]
            for row in (result.valid_rows if result.kind == "latency" else ())
        ]
        if rows:
            head = ["model", "precision", "runtime", "threads", "p90", "p50", "p99", "min", "first"]
            head += ["cold start", "peak MB", "KB", "accuracy"]
            intro = "Milliseconds of one invoke; p90 is the headline."
            yield Table(f"Models: {machine}", head, rows, 3, intro)


def _peers_tables(results: Sequence[Result]) -> Iterable[Table]:
    for machine, result in zip(machine_names(results), results, strict=True):
        if result.kind != "peers":
            continue
        shown = result.data.get("pictures") or {}
        for unit, title in (("picture", "a picture"), ("face", "one face")):
            chosen = [row for row in result.valid_rows if row.get("unit", "picture") == unit]
            chosen.sort(key=lambda row: (row["threads"], row["p50"]))
            counts = {
                key: next((row[key]["n"] for row in chosen if row.get(key)), None)
                for key in ("accuracy", "worn_or_not")
            }
            rows = [
                [
                    row["model"],
                    str(row["threads"]),
                    _interval(row["p50"], row.get("p50_ci")),
                    _interval(row["p90"], row.get("p90_ci")),
                    *(_scored(row.get(key)) for key, n in counts.items() if n is not None),
                ]
                for row in chosen
            ]
            head = ["model", "threads", "p50, ms", "p90, ms"]
            names = {"accuracy": "AP", "worn_or_not": "mask worn or not"}
            head += [f"{names[key]} (n {n})" for key, n in counts.items() if n is not None]
            if rows:
                yield Table(
                    f"Against other models, {title}: {machine}",
                    head,
                    rows,
                    1,
                    f"With pre- and postprocessing, on {shown.get('count', '?')} pictures of "
                    f"{shown.get('from', '?')}, {chosen[0].get('runs', '?')} runs each; 95 % intervals.",
                )
        invalid = {(row["model"], row["threads"]) for row in result.rows if not row["valid"]}
        verdicts = [
            [
                one["ours"],
                one["peer"],
                str(one["threads"]),
                f"{_interval(one['times_as_fast'], one['times_as_fast_ci'])}: {one['faster']}",
                "; ".join(map(_ahead, one["accuracy"])) or "not compared",
            ]
            for one in result.data.get("comparisons", ())
            if not {(one["peer"], one["threads"]), (one["ours"], one["threads"])} & invalid
        ]
        if verdicts:
            head = ["ours", "against", "threads", "times as fast", "accuracy ahead by"]
            yield Table(f"Ahead or behind: {machine}", head, verdicts, len(head))


def _loop_tables(results: Sequence[Result]) -> Iterable[Table]:
    fast, camera, unmask, parts = [], [], [], []
    for machine, result in zip(machine_names(results), results, strict=True):
        for row in result.valid_rows if result.kind == "loop" else ():
            stages = row.get("stages") or {}
            age = row.get("frame_age") or {}
            who = [machine, _short(row), _number(row.get("faces_found"), 1), str(row.get("threads", "-"))]
            if row.get("unmask"):
                unmask.append([*who, *_unmask_cells(row["unmask"])])
            if row.get("mode") in BEHIND_CAMERA:
                camera.append(
                    [
                        *who,
                        _number(result.data.get("fps"), 0),
                        _number(row.get("fps"), 1),
                        str(row.get("dropped", "-")),
                        *(_number(age.get(key), 1) for key in PERCENTILES),
                        _number((stages.get("busy") or {}).get("p50")),
                        _number(row.get("cpu_percent"), 0),
                        _number(row.get("watts"), 2),
                    ]
                )
                continue
            fast.append(
                [
                    *who,
                    *(_number((stages.get("loop") or {}).get(key)) for key in PERCENTILES),
                    _number(row.get("fps"), 1),
                    "-"
                    if row.get("overhead") is None
                    else _interval(row["overhead"], row.get("overhead_ci")),
                    _number(row.get("cpu_percent"), 0),
                    _number(row.get("peak_rss_mb"), 0),
                    _number(row.get("watts"), 2),
                ]
            )
            if row.get("faces_wanted") == 1 and row.get("mode") == "burst" and row.get("parts"):
                parts.append((machine, row["parts"]))
    head = ["machine", "scene", "faces", "threads"]
    if fast:
        yield Table(
            "The camera loop",
            [*head, *PERCENTILES, "fps", "loop / invokes", "CPU %", "peak MB", "W"],
            fast,
            2,
            "Milliseconds a frame, as fast as it can; faces are those found, on average; 95 % intervals.",
        )
    if camera:
        yield Table(
            "The camera loop behind a camera",
            [
                *head,
                "asked fps",
                "fps",
                "dropped",
                *(f"age {key}" for key in PERCENTILES),
                "busy",
                "CPU %",
                "W",
            ],
            camera,
            2,
            "A clip at the pace of a camera. Age: milliseconds from the frame to its result.",
        )
    if unmask:
        yield Table(
            "Unmasking beside the loop",
            [
                *head,
                "with / without",
                "p50 with",
                "p50 without",
                "p90 with",
                "p90 without",
                "invoke",
                "pairs",
            ],
            unmask,
            2,
            "A clip at the pace of a camera, masked faces completed in every other block of frames. "
            "Milliseconds a frame, all but the wait for it; 95 % interval.",
        )
    for machine, one in parts:
        rows = [
            [PARTS[key], f"{1e3 * ms:.0f}", f"{100 * ms / one['loop']:.1f} %"]
            for key, ms in one.items()
            if key in PARTS and ms
        ]
        rows.append(["the whole loop", f"{1e3 * one['loop']:.0f}", "100 %"])
        yield Table(f"Where the loop's time goes, one face: {machine}", ["stage", "µs", "share"], rows, 1)


def _validate_tables(results: Sequence[Result]) -> Iterable[Table]:
    for machine, result in zip(machine_names(results), results, strict=True):
        rows = [
            [
                row["model"],
                row["precision"],
                str(row.get("threads")),
                _number(row.get("ours_ms")),
                _number(row.get("litert_benchmark_ms")),
                _interval(row["ratio"], row.get("ratio_ci")),
                "yes" if row.get("agrees") else "no",
            ]
            for row in (result.valid_rows if result.kind == "validate" else ())
        ]
        if rows:
            head = [
                "model",
                "precision",
                "threads",
                "ours",
                "litert-benchmark",
                "ours / theirs",
                "within 5 %",
            ]
            intro = "Medians in milliseconds, both programs in turns; 95 % intervals."
            yield Table(f"The benchmark against another: {machine}", head, rows, 2, intro)


def _invalid_table(results: Sequence[Result]) -> Iterable[Table]:
    rows = [
        [
            result.path.name,
            _short(row),
            str(row.get("threads", "-")),
            "; ".join(row["notes"]) or "no reason given",
        ]
        for result in results
        if result.kind != "estimate"
        for row in result.rows
        if not row["valid"]
    ]
    if rows:
        intro = "Something disturbed these; they are in no other table and in no plot."
        yield Table("Measured, but does not count", ["file", "row", "threads", "why"], rows, 4, intro)


def _unmask_cells(figures: Mapping[str, Any]) -> list[str]:
    both = figures["busy_with"], figures["busy_without"]
    return [
        _interval(figures["overhead"], figures["overhead_ci"]),
        *(_number(one[key]) for key in ("p50", "p90") for one in both),
        _number(figures["invoke"]["p50"]),
        str(figures["pairs"]),
    ]


def _short(row: Mapping[str, Any]) -> str:
    if "model" in row:
        return label(row)
    faces = row.get("faces_wanted")
    return ("the clip" if faces is None else f"{faces} face(s)") + f", {row.get('mode', '-')}"


def _estimate_table(results: Sequence[Result]) -> Iterable[Table]:
    rows = []
    for result in (result for result in results if result.kind == "estimate"):
        for row in result.rows:
            rows.append(
                [
                    row["model"],
                    row["precision"],
                    str(row.get("board")),
                    str(row["threads"]),
                    "-" if row.get("ms") is None else f"about {_ms(row['ms'])}",
                    "-" if row.get("ms") is None else f"{_ms(row['low_ms'])} to {_ms(row['high_ms'])}",
                ]
            )
    if rows:
        intro = (
            "Nobody measured these: they are computed from what the models do and from published latencies "
            "of other models. docs/benchmarks.md says how and names the sources."
        )
        yield Table(
            "Estimates, not measurements",
            ["model", "precision", "board", "threads", "ms", "range"],
            rows,
            3,
            intro,
        )


def _number(value: Any, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _ms(value: float) -> str:
    """Two digits are more than an estimate is worth."""
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def _figure(accuracy: Mapping[str, Any] | None) -> str:
    return "-" if not accuracy else f"{accuracy['figure']} {accuracy['value']:.3f} (n {accuracy['n']})"


def _interval(value: float, ends: Sequence[float] | None) -> str:
    return f"{value:.2f}" if not ends else f"{value:.2f} ({ends[0]:.2f} to {ends[1]:.2f})"


def _scored(one: Mapping[str, Any] | None) -> str:
    return "-" if not one else f"{one['value']:.3f} ({one['ci'][0]:.3f} to {one['ci'][1]:.3f})"


def _ahead(figure: Mapping[str, Any]) -> str:
    low, high = figure["ci"]
    return f"{figure['figure']} {figure['ahead']:+.3f} ({low:+.3f} to {high:+.3f}): {figure['verdict']}"


def markdown(results: Sequence[Result]) -> str:
    """All tables to paste into an issue or a README."""
    parts = []
    for table in tables(results):
        columns = ["---" if i < table.numbers else "--:" for i in range(len(table.head))]
        lines = [f"### {table.title}", ""]
        lines += [table.intro, ""] if table.intro else []
        for cells in (table.head, columns, *table.rows):
            lines.append(
                "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
            )
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


# --------------------------------------------------------------------------------------------------- page

_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1b1b1b; --soft: #5b6168; --line: #d5d9dd;
  --head: #f3f5f7; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #16191d; --ink: #e6e6e6; --soft: #a4abb3; --line: #3a4047; --head: #20252b; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 82rem; padding: 1rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: .5rem 0; }
h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; }
p { margin: .25rem 0 .75rem; color: var(--soft); max-width: 45rem; }
.wide { overflow-x: auto; border: 1px solid var(--line); border-radius: .4rem; }
table { border-collapse: collapse; width: 100%; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .6rem; text-align: left; white-space: nowrap; border-bottom: 1px solid var(--line); }
td.long { white-space: normal; min-width: 16rem; }
th { background: var(--head); font-weight: 600; }
tr:last-child td { border-bottom: 0; }
.number { text-align: right; }
.estimate { border: 2px dashed #b26a00; border-radius: .4rem; padding: 0 1rem 1rem; margin-top: 2rem; }
.estimate h2 { color: #b26a00; margin-top: 1rem; }
@media (prefers-color-scheme: dark) { .estimate { border-color: #f0a94a; } .estimate h2 { color: #f0a94a; } }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(28rem, 100%), 1fr)); gap: 1rem; }
figure { margin: 0; } figcaption { font-weight: 600; }
img { width: 100%; height: auto; display: block; border: 1px solid var(--line); border-radius: .4rem; }
@media print { .wide { overflow: visible; } }
"""


_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""The browser loads nothing but what is in the page, whatever a result file has in its names."""


def page(results: Sequence[Result], plots: Mapping[str, Plot]) -> str:
    """The report as one HTML page without scripts, which loads nothing.

    Args:
        results: of any kinds.
        plots: of `draw`; may be empty.
    """
    text = html.escape
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        f"<title>maskedge benchmarks</title><style>{_STYLE}</style></head><body>",
        "<h1>maskedge benchmarks</h1>",
        f"<p>{text(_summary(results))}</p>",
    ]
    made = tables(results)
    first = [table for table in made if table.title == "Machines"]
    for table in first:
        parts.append(_html_table(table))
    if plots:
        parts.append('<h2>Plots</h2><div class="plots">')
        for plot in plots.values():
            light, dark = (base64.b64encode(image).decode() for image in (plot.light, plot.dark))
            parts.append(
                f"<figure><figcaption>{text(plot.title)}</figcaption><picture>"
                f'<source media="(prefers-color-scheme: dark)" srcset="data:image/png;base64,{dark}">'
                f'<img alt="{text(plot.alt)}" src="data:image/png;base64,{light}"></picture></figure>'
            )
        parts.append("</div>")
    parts += [_html_table(table) for table in made if table not in first]
    return "\n".join([*parts, "</body></html>", ""])


def _summary(results: Sequence[Result]) -> str:
    measured = [result for result in results if result.kind != "estimate"]
    count = sum(len(result.valid_rows) for result in measured)
    invalid = sum(len(result.rows) for result in measured) - count
    estimates = sum(len(result.rows) for result in results if result.kind == "estimate")
    parts = [f"{count} measured rows from {len(measured)} file(s)"]
    parts += [f"{invalid} more were disturbed and do not count"] if invalid else []
    parts += [f"{estimates} estimates stand apart at the end"] if estimates else []
    return "; ".join(parts) + "."


def _html_table(table: Table) -> str:
    text = html.escape

    def cells(row: Sequence[str], tag: str) -> str:
        out = []
        for i, cell in enumerate(row):
            kinds = ["number"] if i >= table.numbers else []
            kinds += ["long"] if len(cell) > 60 else []
            names = f' class="{" ".join(kinds)}"' if kinds else ""
            out.append(f"<{tag}{names}>{text(cell)}</{tag}>")
        return "".join(out)

    head = f"<thead><tr>{cells(table.head, 'th')}</tr></thead>"
    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in table.rows)
    intro = f"<p>{text(table.intro)}</p>" if table.intro else ""
    inner = f"<h2>{text(table.title)}</h2>{intro}"
    inner += f'<div class="wide"><table>{head}<tbody>{body}</tbody></table></div>'
    return f'<section class="estimate">{inner}</section>' if table.title.startswith("Estimates") else inner
