"""Which rows of two results differ by more than noise: `maskedge bench compare OLD NEW`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import intervals
from benchmarks.resultfile import Result, identity, label, read_result
from benchmarks.terminal import number_to
from edge.errors import UsageError

LEAST_DIFFERENCE = 0.05
"""A smaller one is none: two runs of one program differ that much by where their memory happens to lie."""
LEAST_SAMPLES = 30


@dataclass(slots=True, frozen=True)
class Difference:
    """One row of two results.

    Attributes:
        name: of the row.
        old, new: medians, milliseconds.
        ratio: new over old, with its interval.
        verdict: `slower`, `faster`, `same`, or `unknown` where a row does not count or lacks samples.
        why: of `unknown`.
    """

    name: str
    old: float
    new: float
    ratio: intervals.Interval | None
    verdict: str
    why: str = ""


def differences(old: Result, new: Result, *, least: float = LEAST_DIFFERENCE) -> list[Difference]:
    """Compare the rows that both results have.

    A row is slower or faster when the whole 95 % interval of the ratio of medians lies beyond 1 + `least`, or
    below 1 / (1 + `least`). The interval is a bootstrap over stretches of the samples in order of time.

    Args:
        old, new: of kind latency or peers.
        least: smallest difference that matters, as a share.
    """
    before = {identity(row): row for row in old.rows}
    out = []
    for row in new.rows:
        other = before.get(identity(row))
        if other is None:
            continue
        name = f"{label(row)}, {identity(row)[2]}, {row['threads']} thread(s)"
        medians = float(other["p50"]), float(row["p50"])
        why = _not_comparable(other, row)
        if why:
            out.append(Difference(name, *medians, None, "unknown", why))
            continue
        ratio = intervals.ratio(
            intervals.blocks(row["samples_ms"]), intervals.blocks(other["samples_ms"]), paired=False
        )
        verdict = "same"
        if ratio.low > 1 + least:
            verdict = "slower"
        elif ratio.high < 1 / (1 + least):
            verdict = "faster"
        out.append(Difference(name, *medians, ratio, verdict))
    return out


def _not_comparable(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    for which, row in (("old", old), ("new", new)):
        if not row["valid"]:
            return f"the {which} row does not count: {'; '.join(row['notes']) or 'no reason given'}"
        if len(row.get("samples_ms") or ()) < LEAST_SAMPLES:
            return f"the {which} row has fewer than {LEAST_SAMPLES} samples"
    return ""


def other_machine(old: Result, new: Result) -> list[str]:
    """What tells that two results come from different machines; empty if nothing does."""
    one, two = (result.data.get("machine") or {} for result in (old, new))
    keys = ("cpu", "board", "architecture", "cores", "usable_cores")
    return [f"{key} {one.get(key)} and {two.get(key)}" for key in keys if one.get(key) != two.get(key)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `maskedge bench compare`."""
    parser.epilog = """example:
  maskedge bench --json old.json      before the change
  maskedge bench --json new.json      after it
  maskedge bench compare old.json new.json

exit codes: 0 nothing is slower   1 something is   2 wrong use, different machines, nothing to compare"""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("old", metavar="OLD", help="result file")
    parser.add_argument("new", metavar="NEW", help="result file")
    parser.add_argument(
        "--min",
        type=_share,
        default=LEAST_DIFFERENCE,
        metavar="SHARE",
        help="smallest difference that matters (default %(default)s)",
    )
    parser.add_argument("--across", action="store_true", help="compare different machines all the same")


def main(args: argparse.Namespace) -> int:
    """Print which rows differ; 1 if one is slower.

    Raises:
        InputError: a file is no result.
        UsageError: they come from different machines, or have no row in common that can be compared.
    """
    old, new = (read_result(Path(path)) for path in (args.old, args.new))
    for result in (old, new):
        if result.kind not in ("latency", "peers"):
            raise UsageError(
                f"{result.path} is of kind {result.kind}", remedy="compare results of kind latency or peers"
            )
    apart = other_machine(old, new)
    if apart and not args.across:
        raise UsageError(
            f"the results come from different machines ({'; '.join(apart)})", remedy="compare with --across"
        )
    found = differences(old, new, least=args.min)
    if not found:
        raise UsageError("the results have no row in common", remedy="measure the same models and threads")
    for key in ("runtime", "python", "governor", "git_commit"):
        one, two = ((result.data.get("machine") or {}).get(key) for result in (old, new))
        if one != two:
            print(f"{key}: {one} -> {two}")
    print(table(found, args.min))
    only = {identity(row) for row in old.rows} ^ {identity(row) for row in new.rows}
    if only:
        print(f"\n{len(only)} row(s) are in one of the results only")
    if all(one.verdict == "unknown" for one in found):
        raise UsageError("no row can be compared", remedy="measure again on a quiet machine")
    return int(any(one.verdict == "slower" for one in found))


def table(found: Sequence[Difference], least: float) -> str:
    """The differences for a reader, in Markdown."""
    lines = ["| row | old p50, ms | new p50, ms | new / old | |", "|---|--:|--:|---|---|"]
    for one in found:
        ratio = (
            "-"
            if one.ratio is None
            else f"{one.ratio.value:.3f} ({one.ratio.low:.3f} to {one.ratio.high:.3f})"
        )
        verdict = {"slower": "**slower**", "unknown": f"unknown: {one.why}"}.get(one.verdict, one.verdict)
        lines.append(f"| {one.name} | {one.old:.3f} | {one.new:.3f} | {ratio} | {verdict} |")
    counts = {
        verdict: sum(one.verdict == verdict for one in found) for verdict in ("slower", "faster", "same")
    }
    lines.append(
        f"\n{counts['slower']} slower, {counts['faster']} faster, {counts['same']} the same within noise and "
        f"{100 * least:.0f} %, {sum(one.verdict == 'unknown' for one in found)} unknown"
    )
    return "\n".join(lines)


def _share(text: str) -> float:
    return number_to(text, 10, "share, as 0.05")
