"""The plots of the report, drawn with matplotlib, once for light and once for dark pages."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.resultfile import Result, label, machine_names

LEAST_SAMPLES = 30
HEIGHT = 4.2
LEAST_SPAN = 0.1
"""Of an axis of accuracies, so that a difference of a thousandth looks like one."""
# Okabe and Ito's, which colour-blind people can tell apart, without the yellow that white swallows.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7F7F7F")


@dataclass(slots=True, frozen=True)
class Plot:
    """One plot as PNG, for light and for dark pages, with what it shows in words."""

    title: str
    alt: str
    light: bytes
    dark: bytes


def draw(results: Sequence[Result]) -> dict[str, Plot]:
    """All plots that the results have rows for, by file name; needs matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    named = list(zip(machine_names(results), results, strict=True))
    latency, peers = (
        [(name, row) for name, result in named if result.kind == kind for row in result.valid_rows]
        for kind in ("latency", "peers")
    )
    # Figures of one kind share a plot: AP and a share of right answers are no common scale.
    scored = [pair for pair in [*peers, *latency] if pair[1].get("accuracy")]
    figures = list(dict.fromkeys(row["accuracy"]["figure"] for _, row in scored))
    wanted: list[tuple[str, str, Callable[..., str], tuple[Any, ...]]] = [
        (
            f"accuracy_{i}" if i else "accuracy",
            f"Latency against accuracy: {figure.split(',')[0]}",
            _plot_accuracy,
            ([pair for pair in scored if pair[1]["accuracy"]["figure"] == figure], figure),
        )
        for i, figure in enumerate(figures)
    ]
    wanted += [
        ("precision", "Precisions", _plot_precision, (latency,)),
        ("threads", "Threads", _plot_threads, (latency,)),
        ("histogram", "How the times are spread", _plot_histogram, (latency,)),
        ("over_time", "Latency over time", _plot_over_time, (latency,)),
        ("machines", "Machines side by side", _plot_machines, (latency,)),
        ("sustained", "The loop over time", _plot_sustained, (named,)),
    ]
    plots = {}
    for name, title, plot, arguments in wanted:
        images = []
        for dark in (False, True):
            figure, alt = _figure_of(plot, arguments, dark=dark)
            if figure is None:
                break
            images.append(figure)
        if len(images) == 2:
            plots[name] = Plot(title, alt, *images)
    return plots


def _figure_of(plot: Callable[..., str], arguments: Any, *, dark: bool) -> tuple[bytes | None, str]:
    import matplotlib.pyplot as plt

    paper, ink = ("#16191d", "#e6e6e6") if dark else ("#ffffff", "#1b1b1b")
    style = {
        "figure.facecolor": paper,
        "axes.facecolor": paper,
        "savefig.facecolor": paper,
        "text.color": ink,
        "axes.labelcolor": ink,
        "axes.edgecolor": ink,
        "xtick.color": ink,
        "ytick.color": ink,
        "legend.facecolor": paper,
        "legend.edgecolor": "#888888",
        "axes.prop_cycle": plt.cycler(color=COLOURS),
        "axes.grid": True,
        "grid.alpha": 0.25,
        "font.size": 9,
        "figure.figsize": (7, HEIGHT),
        "figure.constrained_layout.use": True,
    }
    with plt.rc_context(style):
        figure, axes = plt.subplots()
        alt = plot(axes, *arguments)
        data = io.BytesIO()
        if alt:
            # No date or version inside: the same results make the same bytes.
            figure.savefig(data, format="png", dpi=130, metadata={"Software": None})
        plt.close(figure)
    return (data.getvalue() or None), alt


Rows = Sequence[tuple[str, Mapping[str, Any]]]


def _plot_accuracy(axes: Any, scored: Rows, figure: str) -> str:
    """Points: the accuracy of each row over its p50, with its interval where it has one."""
    from matplotlib.ticker import LogLocator, NullFormatter

    if len(scored) < 2:
        return ""
    several = len({machine for machine, _ in scored}) > 1
    for i, (machine, row) in enumerate(scored):
        value, ends = row["accuracy"]["value"], row["accuracy"].get("ci")
        axes.errorbar(
            row["p50"],
            value,
            [[max(0.0, value - ends[0])], [max(0.0, ends[1] - value)]] if ends else None,
            fmt="osD^vPX"[i // len(COLOURS) % 7],
            color=COLOURS[i % len(COLOURS)],
            label=f"{label(row)}, {row['threads']} thr." + (f", {machine}" if several else ""),
            capsize=2,
        )
    axes.set(xscale="log", xlabel="p50, ms", ylabel="\n".join(figure.split(", ")))
    axes.set_title("Up and to the left is better")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    low, high = axes.get_ylim()
    if high - low < LEAST_SPAN:  # else equal values would look like a range
        axes.set_ylim((low + high - LEAST_SPAN) / 2, (low + high + LEAST_SPAN) / 2)
    _legend_beside(axes)
    return f"{figure} over median latency of {len(scored)} rows"


def _legend_beside(axes: Any) -> None:
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _plot_precision(axes: Any, latency: Rows) -> str:
    """Bars: p50 with a line up to p90, by model and precision, at the fewest threads measured."""
    fewest: dict[tuple[str, str, str], tuple[str, Mapping[str, Any]]] = {}
    for machine, row in latency:
        key = machine, row["model"], row["precision"]
        if key not in fewest or row["threads"] < fewest[key][1]["threads"]:
            fewest[key] = machine, row
    if len({key[2] for key in fewest}) < 2:
        return ""
    several = len({machine for machine, _ in fewest.values()}) > 1
    names = [label(row) + (f"\n{machine}" if several else "") for machine, row in fewest.values()]
    p50 = [row["p50"] for _, row in fewest.values()]
    p90 = [row["p90"] for _, row in fewest.values()]
    places = np.arange(len(names))
    colours = {
        precision: COLOURS[i % len(COLOURS)]
        for i, precision in enumerate(dict.fromkeys(k[2] for k in fewest))
    }
    axes.barh(places, p50, color=[colours[key[2]] for key in fewest])
    axes.errorbar(
        p50, places, xerr=[np.zeros(len(p50)), np.subtract(p90, p50)], fmt="none", ecolor="#888888", capsize=3
    )
    axes.figure.set_figheight(max(HEIGHT, 0.4 * len(names) + 1))
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set(xlabel="ms: the bar is p50, the line reaches to p90", title="Fewest threads measured")
    return "Median latency by model and precision"


def _plot_threads(axes: Any, latency: Rows) -> str:
    """Lines: p50 over threads, one for each model and precision."""
    lines: dict[tuple[str, str, str], list[tuple[int, float]]] = {}
    for machine, row in latency:
        key = label(row), str(row["runtime"]), machine
        lines.setdefault(key, []).append((row["threads"], row["p50"]))
    lines = {key: sorted(points) for key, points in lines.items() if len({t for t, _ in points}) > 1}
    if not lines:
        return ""
    tell = [0, *(place for place in (1, 2) if len({key[place] for key in lines}) > 1)]
    for i, (key, points) in enumerate(lines.items()):
        axes.plot(
            *zip(*points, strict=True),
            "osD^v"[i // len(COLOURS) % 5] + "-",
            color=COLOURS[i % len(COLOURS)],
            label=", ".join(key[place] for place in tell),
        )
    counts = sorted({t for points in lines.values() for t, _ in points})
    axes.set_xticks(counts)
    axes.set(xlabel="threads", ylabel="p50, ms", title="Median over threads")
    axes.set_ylim(bottom=0)
    _legend_beside(axes)
    return f"Median latency over threads of {len(lines)} rows"


def _sampled(latency: Rows, most: int = 6) -> list[tuple[str, Mapping[str, Any]]]:
    """Rows with samples, one a model: at the fewest threads, int8 where it is there; at most so many."""
    chosen: dict[tuple[str, str], tuple[str, Mapping[str, Any]]] = {}
    preferred = sorted(latency, key=lambda pair: (pair[1]["threads"], pair[1]["precision"] != "int8"))
    for machine, row in preferred:
        if len(row.get("samples_ms") or ()) >= LEAST_SAMPLES:
            chosen.setdefault((machine, row["model"]), (machine, row))
    return list(chosen.values())[:most]


def _named(chosen: Rows, machine: str, row: Mapping[str, Any]) -> str:
    several = len({one for one, _ in chosen}) > 1
    return f"{label(row)}, {row['threads']} thr." + (f", {machine}" if several else "")


def _plot_histogram(axes: Any, latency: Rows) -> str:
    """Steps: how often each latency occurred."""
    chosen = _sampled(latency)
    if not chosen:
        return ""
    for machine, row in chosen:
        samples = np.asarray(row["samples_ms"])
        top = float(np.percentile(samples, 99.5))
        counts, edges = np.histogram(samples[samples <= top], 60)
        axes.stairs(counts / counts.max(), edges, label=_named(chosen, machine, row), linewidth=1.4)
    axes.set(
        xlabel="ms (the slowest 0.5 % are not shown)", ylabel="frequency, of the commonest", title="Samples"
    )
    axes.legend(fontsize=7)
    return f"Histograms of the latency of {len(chosen)} rows"


def _plot_over_time(axes: Any, latency: Rows) -> str:
    """Points: each sample over the time of the run; a drift or a disturbance shows."""
    chosen = [
        pair
        for pair in _sampled(latency)
        if len(pair[1].get("samples_at_s") or ()) == len(pair[1]["samples_ms"])
    ]
    if not chosen:
        return ""
    for machine, row in chosen:
        axes.plot(
            row["samples_at_s"], row["samples_ms"], ".", markersize=2, label=_named(chosen, machine, row)
        )
    axes.set(xlabel="seconds since the run began", ylabel="ms", yscale="log", title="Samples")
    axes.legend(fontsize=7, markerscale=4)
    return f"Every sample over time of {len(chosen)} rows"


def _plot_machines(axes: Any, latency: Rows) -> str:
    """Groups of bars: p50 of the rows that several machines have."""
    by_row: dict[tuple[str, int], dict[str, float]] = {}
    for machine, row in latency:
        by_row.setdefault((label(row), row["threads"]), {})[machine] = row["p50"]
    common = {key: times for key, times in by_row.items() if len(times) > 1}
    machines = list(dict.fromkeys(machine for times in common.values() for machine in times))
    if not common:
        return ""
    width = 0.8 / len(machines)
    for i, machine in enumerate(machines):
        places = np.arange(len(common)) + (i - (len(machines) - 1) / 2) * width
        axes.barh(places, [times.get(machine, 0) for times in common.values()], width, label=machine)
    axes.figure.set_figheight(max(HEIGHT, 0.4 * len(common) + 1))
    axes.set_yticks(np.arange(len(common)), [f"{name}, {threads} thr." for name, threads in common])
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set(xlabel="p50, ms", title="Rows that several machines have")
    axes.legend(fontsize=7)
    return f"Median latency of {len(common)} rows on {len(machines)} machines"


def _plot_sustained(axes: Any, named: Sequence[tuple[str, Result]]) -> str:
    """Lines: p90 of the loop over minutes, and the temperature where it is known."""
    drawn = 0
    for machine, result in named:
        for row in result.valid_rows if result.kind == "loop" else ():
            series = row.get("series") or []
            if len(series) > 1:
                minutes = [item["at_s"] / 60 for item in series]
                name = f"{machine}, {row.get('faces_found') or 0:.1f} faces"
                axes.plot(minutes, [item["p90"] for item in series], label=f"p90, ms: {name}")
                heat = [item.get("temperature_c") for item in series]
                if None not in heat:
                    axes.plot(minutes, heat, "--", label=f"°C: {name}")
                drawn += 1
    if not drawn:
        return ""
    axes.set(xlabel="minutes", ylabel="ms a frame, °C", title="The loop, sustained")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=7)
    return f"90th percentile of the loop over time, {drawn} runs"
