"""Time of the whole camera loop against its bare models: `python -m benchmarks.loop`.

The floor is `invoke()` alone on the pixels of the clip's own frames: once a frame for the face model, and for
the attributes model as often as the loop looked at a face. Loop and floor take turns, so that a busy machine
or a changing clock hits both.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

import cv2
import numpy as np

from benchmarks.latency import machine
from edge.camera import open_source
from edge.config import Config, load_config
from edge.pipeline import Pipeline
from edge.tasks.attributes import AttributesEstimator, AttributesVoter
from edge.tasks.face import FaceDetector
from edge.tflite import Model, load_manifest, load_model

BURST = 100  # bare invokes between two passes over the clip


def measure(
    source: str, *, passes: int, threads: int, precision: str | None = None, config: Config | None = None
) -> dict[str, Any]:
    """Runs the loop over a clip several times, with bare invokes in between.

    Args:
        source: as `--source` of `maskedge run`; a file.
        passes: over the clip.
        threads: of the model.
        precision: of the models; None = their default.
        config: its tasks, and how often they look; by default the defaults.

    Returns:
        Milliseconds a frame: `loop_mean` (wall time of the loop over frames), `loop_p50`, `invoke_mean` and
        `invoke_p50` (bare face model), `attributes_invoke_mean` and `attributes_invoke_p50` (one face),
        `attributes_invokes` (a frame), `bare_mean` (all of a frame), `overhead` (loop over `bare_mean`),
        `overhead_p50` (the same of p50), `frames`, `n_invoke`.
    """
    config = config or Config()
    manifest = load_manifest()
    model = load_model("face", threads=threads, precision=precision)
    detector = FaceDetector(model, manifest.entry("face"))
    estimator = None
    if set(config.tasks) != {"face"}:
        second = load_model("attributes", threads=threads, precision=precision)
        estimator = AttributesEstimator(second, manifest.entry("attributes"), tasks=config.tasks)
    bare: list[float] = []
    bare_attributes: list[float] = []
    invokes = 0
    means: list[float] = []
    medians: list[float] = []
    frames = 0
    stages: dict[str, list[float]] = {}
    for turn in range(passes + 1):
        voter = None
        if estimator is not None:
            voter = AttributesVoter(estimator, every_s=config.attributes_seconds, reject=config.reject)
            estimator.invokes = 0
        report = Pipeline(open_source(source), detector, labeller=voter).run()
        if turn == 0:
            continue  # warm-up: caches, first touch of memory
        invokes += estimator.invokes if estimator else 0
        means.append(report.seconds / report.frames * 1e3)
        medians.append(report.stages["loop"].percentile(50))
        frames += report.frames
        for name, histogram in report.stages.items():
            stages.setdefault(name, []).append(histogram.percentile(50))
        _time(model, bare)
        if estimator is not None:
            _time(estimator.model, bare_attributes)
    per_frame = invokes / frames
    attributes_mean = float(np.mean(bare_attributes)) if estimator else 0.0
    attributes_p50 = float(np.median(bare_attributes)) if estimator else 0.0
    result = {
        "machine": machine(),
        "model": model.name if estimator is None else f"{model.name} + {estimator.model.name}",
        "tasks": list(config.tasks),
        "runtime": model.runtime,
        "threads": model.threads,
        "source": source,
        "frames": frames,
        "n_invoke": len(bare),
        "loop_mean": float(np.mean(means)),
        "loop_p50": float(np.median(medians)),
        "invoke_mean": float(np.mean(bare)),
        "invoke_p50": float(np.median(bare)),
        "attributes_invoke_mean": attributes_mean,
        "attributes_invoke_p50": attributes_p50,
        "attributes_invokes": per_frame,
        "bare_mean": float(np.mean(bare)) + per_frame * attributes_mean,
        "stages_p50": {name: float(np.median(values)) for name, values in stages.items()},
    }
    result["overhead"] = result["loop_mean"] / result["bare_mean"]
    result["overhead_p50"] = result["loop_p50"] / (result["invoke_p50"] + per_frame * attributes_p50)
    return result


def _time(model: Model, times_ms: list[float]) -> None:
    for _ in range(BURST):
        start = time.perf_counter()
        model.invoke()
        times_ms.append((time.perf_counter() - start) * 1e3)


def main(argv: list[str] | None = None) -> int:
    """Entry point: prints a few lines, or JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loop", description=__doc__)
    parser.add_argument("--source", default="demo", help="a clip (default: %(default)s)")
    parser.add_argument("--passes", type=int, default=5, help="over the clip (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of the model (default: %(default)s)")
    parser.add_argument("--precision", help="of the model (default: the manifest's)")
    parser.add_argument("--tasks", help="as of maskedge run (default: its default)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args(argv)
    cv2.setNumThreads(args.threads)
    try:
        result = measure(
            args.source,
            passes=args.passes,
            threads=args.threads,
            precision=args.precision,
            config=load_config(overrides={"tasks": args.tasks}),
        )
    except KeyboardInterrupt:
        return 130
    if args.json:
        print(json.dumps(result, indent=1))
        return 0
    print(f"{result['model']}, {result['runtime']}, {result['threads']} thread(s), {result['frames']} frames")
    print(f"face, bare   mean {result['invoke_mean']:.3f} ms  p50 {result['invoke_p50']:.3f} ms")
    if result["attributes_invokes"]:
        times = (
            f"mean {result['attributes_invoke_mean']:.3f} ms  p50 {result['attributes_invoke_p50']:.3f} ms"
        )
        print(f"attributes   {times}, {result['attributes_invokes']:.2f} times a frame")
    print(f"whole loop   mean {result['loop_mean']:.3f} ms  p50 {result['loop_p50']:.3f} ms a frame")
    print(f"overhead     {result['overhead']:.2f} x (means)  {result['overhead_p50']:.2f} x (p50)")
    print("stages, p50  " + "  ".join(f"{k} {v:.3f}" for k, v in result["stages_p50"].items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
