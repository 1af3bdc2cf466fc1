"""The attributes evaluation as something to read: Markdown, figures as JSON, pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from edge.types import GENDERS, MASK_STATES

THREE_NAMES = ("without", "worn wrongly", "worn correctly")


def percent(figure: dict[str, Any]) -> str:
    """A share with its n: `93.4 % (n 412)`."""
    return f"{figure['value'] * 100:.1f} % (n {figure['n']})"


def table(result: dict[str, Any]) -> str:
    """Figure by figure, every precision side by side, as Markdown."""
    precisions = list(result["precisions"])
    first = result["precisions"][precisions[0]]
    lines = [f"| figure | {' | '.join(precisions)} | n | +- |", "|---" * (len(precisions) + 3) + "|"]
    for name, row in first.items():
        values = " | ".join(f"{result['precisions'][p][name]['value'] * 100:.1f}" for p in precisions)
        interval = f"{row['ci95'] * 100:.1f}" if "ci95" in row else ""
        lines.append(f"| {name} | {values} | {row['n']} | {interval} |")
    return "\n".join(lines)


def yardsticks(result: dict[str, Any]) -> str:
    """What else there is to compare with, as Markdown."""
    ours = result["precisions"][result["default"]]
    lines = ["| | figure | value | ours |", "|---|---|---|---|"]
    for name, row in result["yardsticks"].items():
        lines += [f"| {name} | {k} | {percent(v)} | {percent(ours[k])} |" for k, v in row.items()]
    return "\n".join(lines)


def groups(rows: list[dict[str, Any]]) -> str:
    """Gender accuracy by race, gender and age band, as Markdown."""
    bands = [k for k in rows[0] if k not in ("race", "gender")]
    lines = [f"| race | gender | {' | '.join(bands)} |", "|---" * (len(bands) + 2) + "|"]
    for row in rows:
        cells = " | ".join(
            f"{row[b]['value'] * 100:.0f} % ({row[b]['n']})" if row[b]["n"] else "" for b in bands
        )
        lines.append(f"| {row['race']} | {row['gender']} | {cells} |")
    return "\n".join(lines)


def matrix(counts: list[list[int]], names: tuple[str, ...]) -> str:
    """A confusion matrix as Markdown: rows what it is, columns what was said."""
    lines = [f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    lines += [
        f"| **{name}** | {' | '.join(map(str, row))} |" for name, row in zip(names, counts, strict=True)
    ]
    return "\n".join(lines)


def rejection(result: dict[str, Any]) -> str:
    """What rejecting finds that are no faces does, as Markdown."""
    lines = [
        "| detector's threshold | false alarms in empty rooms | in scenes | true faces lost |",
        "|---|---|---|---|",
    ]
    for row in result["not_a_face"]:
        lines.append(
            f"| {row['detector_threshold']} | {row['alarms_rooms']} -> {row['alarms_left_rooms']} "
            f"(in {row['n_rooms']} rooms) | {row['alarms_scenes']} -> {row['alarms_left_scenes']} "
            f"(in {row['n_scenes']} pictures) | {row['faces_lost']} of {row['faces']} |"
        )
    return "\n".join(lines)


def answers(result: dict[str, Any]) -> str:
    """How many faces get an answer, and how often it is right, as Markdown."""
    lines = ["| faces, question | get an answer | right then |", "|---|---|---|"]
    lines += [
        f"| {name} | {percent(row['coverage'])} | {percent(row['right_when_answered'])} |"
        for name, row in result["answered"].items()
    ]
    return "\n".join(lines)


TEXT = """# How good is the attributes model?

Measured {date} by `python -m export evaluate attributes` on faces that training never saw: the held-out
seventh of ilc (boxes drawn by people) and of maskon, fairface_dev, and lfw.
Masks on fairface_dev and lfw are painted: {painted_with}.
In per cent; n faces; +- is half the 95 % interval. "Worn wrongly" is nose bare or mask on the chin, which ilc
does not tell apart. The tables below the first are of the default, {default}.

{table}

## Compared with

{yardsticks}

![Confusion matrices]({stem}_confusion.png)

## Gender by race, gender and age, bare faces (fairface_dev)

{groups}

With painted masks:

{groups_painted}

![Gender by group]({stem}_groups.png)

## Does a score of 80 % mean right four times in five?

Expected calibration error over {bins} bins: {ece}.

![Reliability]({stem}_reliability.png)

Below its threshold an answer is "unknown":

{answers}

## Not a face

What the detector takes for a face, at its default threshold and at a lower one, before and after the
attributes model had its say (threshold {face_threshold}):

{rejection}

## What is confused with what

ilc:

{confusion_ilc}

maskon:

{confusion_maskon}

fairface_dev with painted masks:

{confusion_painted}
"""


def write(result: dict[str, Any], path: Path) -> None:
    """Writes the report, its figures as JSON, and its pictures."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    plots(result, path.with_suffix(""))
    text = TEXT.format(
        date=result["date"],
        painted_with=result["painted_with"],
        default=result["default"],
        stem=path.stem,
        table=table(result),
        yardsticks=yardsticks(result),
        groups=groups(result["groups"]),
        groups_painted=groups(result["groups_painted"]),
        bins=15,
        ece=", ".join(f"{k} {v['ece'] * 100:.1f} % (n {v['n']})" for k, v in result["reliability"].items()),
        answers=answers(result),
        face_threshold=result["thresholds"]["face"],
        rejection=rejection(result),
        confusion_ilc=matrix(result["confusion"]["ilc"], THREE_NAMES),
        confusion_maskon=matrix(result["confusion"]["maskon"], MASK_STATES),
        confusion_painted=matrix(result["confusion"]["fairface_dev painted"], MASK_STATES),
    )
    path.write_text(text)


def plots(result: dict[str, Any], stem: Path) -> None:
    """Confusion matrices, reliability and groups, as PNG files beside the report."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = {
        "ilc": THREE_NAMES,
        "maskon": MASK_STATES,
        "fairface_dev painted": MASK_STATES,
        "fairface_dev bare gender": GENDERS,
        "fairface_dev painted gender": GENDERS,
        "lfw bare gender": GENDERS,
    }
    figure, axes = plt.subplots(2, 3, figsize=(13, 8), layout="constrained")
    for ax, (name, names) in zip(axes.flat, shown.items(), strict=True):
        counts = np.array(result["confusion"][name])
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for (row, column), count in np.ndenumerate(counts):
            ax.text(
                column,
                row,
                f"{shares[row, column]:.0%}\n{count}",
                ha="center",
                va="center",
                color="white" if shares[row, column] > 0.6 else "black",
            )
        ax.set(title=f"{name}, n {counts.sum()}", xlabel="said", ylabel="is")
        ax.set_xticks(range(len(names)), names, rotation=20)
        ax.set_yticks(range(len(names)), names)
    figure.savefig(f"{stem}_confusion.png", dpi=80)
    plt.close(figure)

    figure, ax = plt.subplots(figsize=(6, 6), layout="constrained")
    ax.plot([0, 1], [0, 1], color="0.7", linestyle="--")
    for marker, (name, row) in zip("osD^v", result["reliability"].items(), strict=False):
        points = np.array(row["points"])
        points = points[points[:, 2] >= 5]  # bins of fewer faces jump about
        ax.plot(
            points[:, 0], points[:, 1], marker=marker, label=f"{name}: ECE {row['ece']:.3f}, n {row['n']}"
        )
    ax.set(
        xlabel="score",
        ylabel="share that is right",
        title="bins of 5 faces and more",
        xlim=(0.3, 1),
        ylim=(0.3, 1),
    )
    ax.legend()
    ax.grid(alpha=0.3)
    figure.savefig(f"{stem}_reliability.png", dpi=80)
    plt.close(figure)

    figure, ax = plt.subplots(figsize=(11, 5), layout="constrained")
    labels = [f"{row['race']}\n{row['gender']}" for row in result["groups"]]
    place = np.arange(len(labels))
    for shift, (title, rows, color) in enumerate(
        (("bare", result["groups"], "#0072B2"), ("painted mask", result["groups_painted"], "#E69F00"))
    ):
        values = [row["all"]["value"] for row in rows]
        errors = [row["all"]["ci95"] for row in rows]
        ax.bar(place + 0.4 * shift - 0.2, values, 0.38, yerr=errors, label=title, color=color, ecolor="0.4")
    ax.axhline(0.5, color="0.6", linestyle=":")
    ax.set(
        ylabel="gender right", ylim=(0.4, 1), title="fairface_dev, by race and gender; bars: 95 % interval"
    )
    ax.set_xticks(place, labels, fontsize=8)
    ax.legend(loc="lower right")
    figure.savefig(f"{stem}_groups.png", dpi=80)
    plt.close(figure)
