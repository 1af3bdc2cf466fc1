"""Which size of the attributes model is worth its milliseconds: several, trained alike, measured alike.

Each candidate gets the same short training from scratch, far less than the model that ships, and is then
scored on the same held-out faces and timed on one thread as int8, in turns, so that drift of the machine hits
all of them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from edge.tflite import Model
from export import convert
from export import evaluate_attributes as scores
from export.attributes_model import MAIN, calibration_crops
from export.models.attributes import AttributesConfig
from export.train.attributes import AttributesStage, load_network, train

ROUNDS, RUNS = 40, 25


@dataclass(slots=True, frozen=True)
class Candidate:
    """An input size in pixels and a width of the network."""

    size: int
    width: float

    @property
    def name(self) -> str:
        """Short name, say `96 px x 1.0`."""
        return f"{self.size} px x {self.width:g}"


CANDIDATES = (Candidate(80, 0.5), Candidate(96, 1.0), Candidate(112, 1.0))


def schedule(size: int, steps: int) -> tuple[AttributesStage, ...]:
    """The short training: `steps` batches of 128 at 64 px, three quarters as many of 64 at full size."""
    return (
        AttributesStage(
            size=64, placed=False, batch=128, steps=steps, epochs=1, rate=3e-3, warmup=100, ema=0.99
        ),
        AttributesStage(size=size, steps=steps * 3 // 4, epochs=1, warmup=50, ema=0.99, seed=2),
    )


def latencies(models: Sequence[Model], sizes: Sequence[int]) -> list[dict[str, float]]:
    """p50 and p90 of one invoke on one thread, milliseconds; the models take turns."""
    rng = np.random.default_rng(0)
    pixels = [rng.integers(0, 256, (1, s, s, 3), dtype=np.uint8) for s in sizes]
    times: list[list[float]] = [[] for _ in models]
    for round_ in range(ROUNDS + 3):
        for i, model in enumerate(models):
            model.set_inputs(pixels[i])
            for _ in range(RUNS):
                start = time.perf_counter()
                model.invoke()
                if round_ >= 3:
                    times[i].append((time.perf_counter() - start) * 1e3)
    return [{"p50": float(np.percentile(t, 50)), "p90": float(np.percentile(t, 90))} for t in times]


def compare(
    data: Path,
    packs: Path,
    run: Path,
    report: Path,
    *,
    shipped: Path | None = None,
    masks: Path | None = None,
    candidates: Sequence[Candidate] = CANDIDATES,
    steps: int = 400,
) -> list[dict[str, Any]]:
    """Trains, scores and times the candidates; writes JSON and a plot.

    Args:
        data: folder with `scenes/` and `faces/`.
        packs: packed training faces.
        run: folder for the short trainings; finished ones are not repeated.
        report: JSON file to write; the plot goes beside it.
        shipped: `.tflite` of the model that ships, for the plot.
        masks: see `evaluate_attributes.painter`.
        candidates: to compare.
        steps: see `schedule`.
    """
    models: list[Model] = []
    rows: list[dict[str, Any]] = []
    for candidate in tqdm(candidates, desc="candidates", unit="model"):
        folder = run / f"{candidate.size}_{candidate.width:g}"
        if not (folder / "averaged.npz").exists():
            train(packs, folder, schedule(candidate.size, steps), AttributesConfig(width=candidate.width))
        network = load_network(folder, candidate.size, batch=1, folded=True)
        crops = calibration_crops(packs, candidate.size)
        models.append(Model(convert.to_tflite(network, "int8", crops.copy), threads=1))
        rows.append(asdict(candidate) | {"name": candidate.name, "trained": "short"})
    if shipped:
        model = Model(shipped, threads=1)
        models.append(model)
        rows.append({"size": int(model.inputs[0].shape[1]), "name": "shipped", "trained": "in full"})
    times = latencies(models, [row["size"] for row in rows])
    samples: dict[int, dict[str, scores.Sample]] = {}
    for model, row, timing in zip(models, rows, times, strict=True):
        size = row["size"]
        if size not in samples:
            samples[size] = scores.load_samples(data, size, masks, lfw=False)
        logits = {k: scores.logits_of(model, s.crops) for k, s in samples[size].items()}
        figures = scores.figures(samples[size], logits)
        row["int8_ms"] = {k: round(v, 3) for k, v in timing.items()}
        row["figures"] = {k: figures[k] for k in MAIN}
        row["main"] = round(float(np.mean([figures[k]["value"] for k in MAIN])), 4)
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(
        json.dumps({"date": time.strftime("%Y-%m-%d"), "steps": steps, "rows": rows}, indent=1) + "\n"
    )
    plot(rows, report.with_suffix(".png"))
    return rows


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Accuracy over latency."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(12, 5), layout="constrained", sharex=True)
    for ax, names, title in (
        (axes[0], MAIN[:2], "mask state"),
        (axes[1], MAIN[2:], "gender"),
    ):
        for name, color in zip(names, ("#0072B2", "#E69F00"), strict=True):
            n = rows[0]["figures"][name]["n"]
            short = [r for r in rows if r["trained"] == "short"]
            ax.plot(
                [r["int8_ms"]["p50"] for r in short],
                [r["figures"][name]["value"] for r in short],
                marker="o",
                linestyle="",
                color=color,
                label=f"{name}, n {n}",
            )
            for r in rows:
                x, y = r["int8_ms"]["p50"], r["figures"][name]["value"]
                if r["trained"] != "short":
                    ax.plot([x], [y], marker="*", markersize=14, color=color)
                ax.annotate(r["name"], (x, y), xytext=(4, 4), textcoords="offset points", fontsize=8)
        ax.set(xlabel="int8, one invoke, one thread, p50 (ms)", ylabel="right", title=title)
        ax.grid(alpha=0.3)
        ax.legend(loc="lower right")
    figure.suptitle("circles: the same short training for each; star: the shipped model, trained in full")
    figure.savefig(path, dpi=90)
    plt.close(figure)
