"""Result files of the benchmarks, of this version and older ones; docs/benchmarks.md names their fields."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.errors import InputError

PERCENTILES = ("p50", "p90", "p99")
KINDS = ("latency", "loop", "peers", "validate", "estimate")
BEHIND_CAMERA = ("camera", "unmask")
"""Modes of the loop that take their frames at the pace of a camera."""

PARTS = {
    "face_bare": "face model, bare invoke",
    "attributes_bare": "attributes model, bare invokes",
    "face_call": "face model: pixels in, results out, caches that others used",
    "attributes_call": "attributes model: the same",
    "decode": "boxes, landmarks, NMS",
    "track": "tracker",
    "attributes_rest": "align, sharpness, vote",
    "hand_over": "frame from the reader thread, counters of the loop",
    "other": "result object, hand-over to the sinks",
}
"""What a frame's time is made of; see `benchmarks.loop.Probe.parts`."""
_REMEDY = "give files that --json of maskedge bench wrote"


@dataclass(slots=True, frozen=True)
class Result:
    """One result file.

    Attributes:
        path: of it.
        kind: of `KINDS`.
        data: its content; rows of older files have been given the fields they lack, see `read_result`.
    """

    path: Path
    kind: str
    data: Mapping[str, Any]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """All rows."""
        rows: list[dict[str, Any]] = self.data["rows"]
        return rows

    @property
    def valid_rows(self) -> list[dict[str, Any]]:
        """Those that count."""
        return [row for row in self.rows if row["valid"]]

    @property
    def machine(self) -> str:
        """Name of the machine: the board or the processor, with the cores that were used."""
        facts = self.data.get("machine") or {}
        name = facts.get("board") or facts.get("cpu") or "unknown machine"
        return f"{name}, {facts.get('usable_cores', '?')} cores"


def read_result(path: Path) -> Result:
    """Read a result file of this or an older version.

    Rows get `valid` and `notes` where they lack them: files from before rows were judged one by one say in
    their `notes` what disturbed the whole run, and that counts against all their rows.

    Raises:
        InputError: it is missing, no JSON, or no result of a benchmark.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror})", remedy=_REMEDY) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no JSON", remedy=_REMEDY) from error
    wrong = InputError(f"{path} is no benchmark result of version 1", remedy=_REMEDY)
    if not isinstance(data, dict) or data.get("version") != 1 or not isinstance(data.get("rows"), list):
        raise wrong
    kind = data.get("kind", "latency")
    if kind not in KINDS or not all(isinstance(row, dict) for row in data["rows"]):
        raise wrong
    runtime = (data.get("machine") or {}).get("runtime", "?")
    needed = {"latency": ("model", "threads", *PERCENTILES), "peers": ("model", "threads", *PERCENTILES)}
    rows = []
    for row in data["rows"]:
        for key in PERCENTILES:  # once written with the unit in the name
            if f"{key}_ms" in row:
                row = row | {key: row[f"{key}_ms"]}
        if any(row.get(key) is None for key in needed.get(kind, ())):
            raise wrong
        notes = row.get("notes", list(data.get("notes", ())) if "valid" not in row else [])
        judged = {
            "valid": row.get("valid", not notes),
            "notes": notes,
            "runtime": row.get("runtime", runtime),
        }
        rows.append({"precision": "-"} | row | judged)
    return Result(path, kind, data | {"rows": rows})


def machine_names(results: Sequence[Result]) -> list[str]:
    """A name for the machine of each result; with the file's, where several of a kind come from one machine.

    Two runs on one machine are two measurements, which no plot may join.
    """
    known = [(result.kind, result.machine) for result in results]
    return [
        result.machine if known.count(key) == 1 else f"{result.machine} ({result.path.stem})"
        for result, key in zip(results, known, strict=True)
    ]


def identity(row: Mapping[str, Any]) -> tuple[str, str, str, int]:
    """What makes two rows the same measurement: model, precision, runtime (without its version), threads."""
    return row["model"], row["precision"], str(row["runtime"]).split(" ")[0], row["threads"]


def label(row: Mapping[str, Any]) -> str:
    """Model and precision in few words."""
    return row["model"] if row["precision"] == "-" else f"{row['model']} {row['precision']}"
