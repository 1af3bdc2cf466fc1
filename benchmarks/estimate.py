"""Estimates for boards that are not here: `maskedge bench estimate MODEL...`.

What a model has to do is read from its file; how fast a board does such work is fitted to measurements that
others published. The result is an estimate with a range and is never mixed with measurements.

The model of a board has four numbers: multiply-accumulates a second in float32 and in int8, bytes a second,
and a fixed cost for each operator (starting and joining the threads). Their times are added up, the
pessimistic form of a roofline: small cores do not overlap much of them. A depthwise multiply-accumulate
counts `DEPTHWISE_COST` times, since it uses what it loads only once.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.latency import check_output, write_result
from edge.errors import ModelError
from edge.tflite import is_path, load_manifest

BOARDS = {"pi3": "Raspberry Pi 3 Model B+", "pi4": "Raspberry Pi 4 Model B", "pi5": "Raspberry Pi 5"}
DEPTHWISE_COST = 4.0
"""Fits the MobileNets on the Pi 3 best; between 3 and 6 the estimates hardly differ."""
LEAST_FACTOR = 1.25
"""No range is narrower: a 32-bit system, another release of the runtime or worse cooling make as much."""

# ------------------------------------------------------------------------------------- what a model does


@dataclass(slots=True, frozen=True)
class Work:
    """What one invoke of a model has to do.

    Attributes:
        macs: multiply-accumulates of convolutions and fully connected layers, by arithmetic: `float32`,
            `int8`, `dynamic` (int8 weights, activations quantised on the way) or `other`.
        depthwise: those of depthwise convolutions, likewise.
        bytes: that the operators read and write: weights and activations.
        ops: number of operators by name, those left out that the runtime does ahead or for nothing.
    """

    macs: Mapping[str, int]
    depthwise: Mapping[str, int]
    bytes: int
    ops: Mapping[str, int]

    @property
    def all_macs(self) -> int:
        """All multiply-accumulates, depthwise ones counted once, as in the manifest."""
        return sum(self.macs.values()) + sum(self.depthwise.values())


_FREE = {"RESHAPE", "SQUEEZE", "EXPAND_DIMS"}
"""Views of the same memory."""


def count(data: bytes, name: str = "the model") -> Work:
    """Read off a `.tflite` file what one invoke has to do.

    Multiply-accumulates: convolution and fully connected, size of the weights times positions of the output;
    transposed convolution, times positions of the input; matrix product, the product of its three sides.

    Args:
        data: the file.
        name: what to call it in messages.

    Raises:
        ModelError: it is no TFLite file, is damaged, has dynamic shapes, or ai-edge-litert is not installed.
    """
    try:
        from ai_edge_litert import schema_py_generated as schema
    except ImportError as error:
        raise ModelError(
            "reading a model file needs ai-edge-litert", remedy="pip install ai-edge-litert"
        ) from error
    if len(data) < 16 or data[4:8] != b"TFL3":
        raise ModelError(f"{name} is no TFLite file", remedy="give a .tflite file")
    try:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(data, 0))
        return _count(model, schema)
    except ModelError:
        raise
    except Exception as error:  # whatever the generated reader does when an offset points astray
        raise ModelError(f"{name} is damaged", remedy="convert or download it again") from error


def _count(model: Any, schema: Any) -> Work:
    graph = model.subgraphs[0]
    names = {value: key for key, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    types = {value: key for key, value in vars(schema.TensorType).items() if isinstance(value, int)}
    sizes = {"FLOAT32": 4, "INT32": 4, "FLOAT16": 2, "INT16": 2, "INT64": 8, "FLOAT64": 8}
    macs: Counter[str] = Counter()
    depthwise: Counter[str] = Counter()
    ops: Counter[str] = Counter()
    moved = 0

    def shape(index: int) -> list[int]:
        dims = graph.tensors[index].shape
        return [] if dims is None else [int(n) for n in dims]

    def constant(index: int) -> bool:
        return model.buffers[graph.tensors[index].buffer].data is not None

    for op in graph.operators:
        code = model.operatorCodes[op.opcodeIndex]
        kind = names.get(max(code.builtinCode, code.deprecatedBuiltinCode), "unknown")
        inputs, outputs = [i for i in op.inputs if i >= 0], list(op.outputs)
        # float16 weights are expanded when the model is loaded.
        if kind in _FREE or (kind == "DEQUANTIZE" and constant(inputs[0])):
            continue
        ops[kind] += 1
        for index in [*inputs, *outputs]:
            moved += math.prod(shape(index)) * sizes.get(types[graph.tensors[index].type], 1)
        if kind in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"):
            places = shape(inputs[2])[1:-1] if kind == "TRANSPOSE_CONV" else shape(outputs[0])[1:-1]
            number = math.prod(shape(inputs[1])) * math.prod(places)
            source = inputs[2] if kind == "TRANSPOSE_CONV" else inputs[0]
        elif kind == "BATCH_MATMUL":
            number, source = math.prod(shape(outputs[0])) * shape(inputs[0])[-1], inputs[0]
        else:
            continue
        arithmetic = _arithmetic(*(types[graph.tensors[i].type] for i in (source, inputs[1])))
        (depthwise if kind == "DEPTHWISE_CONV_2D" else macs)[arithmetic] += number
    return Work(dict(macs), dict(depthwise), moved, dict(ops.most_common()))


def _arithmetic(activation: str, weights: str) -> str:
    if activation == "FLOAT32":
        return "dynamic" if weights in ("INT8", "INT4", "UINT8") else "float32"
    return "int8" if activation in ("INT8", "UINT8") else "other"


# ------------------------------------------------------------------------------- what others have measured


@dataclass(slots=True, frozen=True)
class Published:
    """One published latency.

    Attributes:
        board: of `BOARDS`; model: of `CALIBRATION_MODELS`; arithmetic: `float32` or `int8`.
        threads: 4, or 1.
        ms: the latency.
        source: key of `SOURCES`.
    """

    board: str
    model: str
    arithmetic: str
    ms: float
    source: str
    threads: int = 4


SOURCES = {
    "xnnpack": "XNNPACK, README, section Raspberry Pi, 8 February 2022 (github.com/google/XNNPACK)",
    "arm-course": "Arm, course ExecuTorch on Arm, MobileNetV2 on a Raspberry Pi 5, medians (learn.arm.com)",
    "arm-cards": "Arm, model cards *-int8-xnnpack-executorch, Raspberry Pi 5, p50 (huggingface.co/Arm)",
    "tsukamoto": "N. Tsukamoto, benchmarks, TensorFlow Lite 2.5 on Raspberry Pi 3 B+ and 4, 64 bits "
    "(github.com/NobuoTsukamoto/benchmarks)",
}

PUBLISHED = (
    # Pi 3 B+ under a 32-bit system; four threads.
    Published("pi3", "mobilenet_v1", "float32", 114, "xnnpack"),
    Published("pi3", "mobilenet_v2", "float32", 79, "xnnpack"),
    Published("pi3", "mobilenet_v3_large", "float32", 67, "xnnpack"),
    Published("pi3", "mobilenet_v3_small", "float32", 22, "xnnpack"),
    Published("pi3", "mobilenet_v1", "int8", 46, "xnnpack"),
    Published("pi3", "mobilenet_v2", "int8", 30, "xnnpack"),
    # Pi 4 under a 64-bit system; four threads.
    Published("pi4", "mobilenet_v1", "float32", 77, "xnnpack"),
    Published("pi4", "mobilenet_v2", "float32", 46, "xnnpack"),
    Published("pi4", "mobilenet_v3_large", "float32", 40, "xnnpack"),
    Published("pi4", "mobilenet_v3_small", "float32", 15, "xnnpack"),
    Published("pi4", "mobilenet_v1", "int8", 24, "xnnpack"),
    Published("pi4", "mobilenet_v2", "int8", 17, "xnnpack"),
    # Pi 5, 64 bits, XNNPACK through ExecuTorch. The cards do not say how many threads: most of the figures
    # are beyond what one core can compute (2.4 GHz x 8 float32 or 32 int8 multiply-accumulates a cycle), so
    # those are taken as four. GoogLeNet alone fits one core, in both precisions, and is taken as one.
    Published("pi5", "mobilenet_v2", "float32", 10.88, "arm-course"),
    Published("pi5", "mobilenet_v2", "int8", 3.98, "arm-course"),
    Published("pi5", "resnet_18", "float32", 31.6, "arm-cards"),
    Published("pi5", "resnet_18", "int8", 8.751, "arm-cards"),
    Published("pi5", "resnet_50", "int8", 20.64, "arm-cards"),
    Published("pi5", "wide_resnet_50", "float32", 292.05, "arm-cards"),
    Published("pi5", "wide_resnet_50", "int8", 49.43, "arm-cards"),
    Published("pi5", "squeezenet_1_1", "int8", 2.307, "arm-cards"),
    Published("pi5", "shufflenet_v2", "int8", 3.63, "arm-cards"),
    Published("pi5", "googlenet", "float32", 90.77, "arm-cards", threads=1),
    Published("pi5", "googlenet", "int8", 25.33, "arm-cards", threads=1),
)

CALIBRATION_MODELS = {
    # Multiply-accumulates, depthwise ones, elements read and written, operators: `count` of a float32 file
    # converted from Keras, 224 x 224 pixels, 1000 classes. The multiply-accumulates agree with the papers.
    "mobilenet_v1": (551_354_368, 17_385_984, 14_461_986, 30),
    "mobilenet_v2": (280_057_856, 20_716_416, 17_648_282, 65),
    "mobilenet_v3_large": (198_197_120, 18_392_640, 20_539_698, 121),
    "mobilenet_v3_small": (49_049_856, 7_460_544, 8_148_389, 108),
    "resnet_18": (1_814_073_344, 0, 20_748_130, 35),
    "resnet_50": (4_089_184_256, 0, 66_874_466, 76),
    "wide_resnet_50": (11_398_021_120, 0, 118_350_306, 76),
    "squeezenet_1_1": (349_151_936, 0, 10_308_386, 38),
    "googlenet": (1_498_376_192, 0, 21_640_218, 82),
    "shufflenet_v2": (140_748_480, 4_159_512, 12_244_572, 118),
}

# One thread against four, by detectors that Tsukamoto measured with both (SSDLite MobileNetV2, MobileDet-CPU,
# MnasFPN, MobileNetV3 large and small, EfficientDet-lite0 in float32; SSDLite MobileNetV2, MobileDet-EdgeTPU,
# MobileNetEdgeTPU, EfficientDet-lite0 in int8). The Pi 5's comes from GoogLeNet, see `PUBLISHED`.
ONE_AND_FOUR_THREADS: Mapping[tuple[str, str], Sequence[tuple[float, float]]] = {
    ("pi3", "float32"): (
        (349.29, 198.68), (337.91, 206.21), (519.17, 286.28),
        (366.79, 214.87), (150.08, 92.66), (720.83, 342.94),
    ),
    ("pi3", "int8"): ((341.93, 121.79), (571.67, 179.08), (650.97, 207.27), (624.07, 277.76)),
    ("pi4", "float32"): (
        (210.46, 109.60), (193.13, 126.46), (306.79, 163.48),
        (177.60, 104.32), (70.51, 43.34), (354.84, 193.39),
    ),
    ("pi4", "int8"): ((168.15, 57.36), (276.50, 95.02), (337.53, 112.04), (344.03, 122.06)),
}  # fmt: skip


# --------------------------------------------------------------------------------------------- the fit


@dataclass(slots=True, frozen=True)
class Board:
    """How fast a board works, four threads together.

    Attributes:
        costs: milliseconds per 10^9 float32 multiply-accumulates, per 10^9 int8 ones, per 10^9 bytes and per
            1000 operators.
        errors: by (model, arithmetic): estimate over measurement, each from a fit without that measurement.
        one_thread: by arithmetic: least, median and greatest time of one thread over that of four.
    """

    name: str
    costs: np.ndarray
    errors: Mapping[tuple[str, str], float]
    one_thread: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)

    @property
    def factor(self) -> float:
        """A range from estimate / factor to estimate x factor held every measurement left out of the fit."""
        return max(LEAST_FACTOR, *(max(error, 1 / error) for error in self.errors.values()))


def _features(model: str, arithmetic: str) -> list[float]:
    macs, depthwise, elements, ops = CALIBRATION_MODELS[model]
    compute = (macs + DEPTHWISE_COST * depthwise) / 1e9
    whole = arithmetic == "float32"
    return [
        compute if whole else 0.0,
        0.0 if whole else compute,
        elements * (4 if whole else 1) / 1e9,
        ops / 1e3,
    ]


def _non_negative(rows: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Least squares without negative numbers, by trying every set of columns; there are only four."""
    best, least = np.zeros(rows.shape[1]), math.inf
    for size in range(1, rows.shape[1] + 1):
        for columns in itertools.combinations(range(rows.shape[1]), size):
            part = np.linalg.lstsq(rows[:, columns], target, rcond=None)[0]
            if (part < 0).any():
                continue
            error = float(((rows[:, columns] @ part - target) ** 2).sum())
            if error < least - 1e-12:
                best, least = np.zeros(rows.shape[1]), error
                best[list(columns)] = part
    return best


def _fit(published: Sequence[Published]) -> np.ndarray:
    # Divided by the measurement, so that relative errors count and slow models do not outweigh the rest.
    rows = np.array([np.array(_features(one.model, one.arithmetic)) / one.ms for one in published])
    return _non_negative(rows, np.ones(len(rows)))


def fit_board(key: str) -> Board:
    """Fit one board of `BOARDS` to what was published of it."""
    four = [one for one in PUBLISHED if one.board == key and one.threads == 4]
    costs = _fit(four)
    errors = {}
    for one in four:
        without = _fit([other for other in four if other is not one])
        errors[one.model, one.arithmetic] = float(_features(one.model, one.arithmetic) @ without) / one.ms
    one_thread = {}
    for arithmetic in ("float32", "int8"):
        ratios = [a / b for a, b in ONE_AND_FOUR_THREADS.get((key, arithmetic), ())]
        ratios += [
            one.ms / float(_features(one.model, one.arithmetic) @ costs)
            for one in PUBLISHED
            if one.board == key and one.threads == 1 and one.arithmetic == arithmetic
        ]
        one_thread[arithmetic] = (min(ratios), float(np.median(ratios)), max(ratios))
    return Board(BOARDS[key], costs, errors, one_thread)


@dataclass(slots=True, frozen=True)
class Estimate:
    """Milliseconds of one invoke, with the range it should lie in; None where nothing was published on it."""

    ms: float | None
    low: float | None
    high: float | None
    note: str = ""


def estimate(work: Work, board: Board, threads: int) -> Estimate:
    """What one invoke takes on a board.

    Args:
        work: of the model.
        board: fitted.
        threads: 1 or 4; others were not published.

    Raises:
        ValueError: another number of threads.
    """
    if threads not in (1, 4):
        raise ValueError(f"threads must be 1 or 4, not {threads}")
    if work.macs.get("other") or work.depthwise.get("other"):
        return Estimate(None, None, None, "nothing is published on its arithmetic (16-bit activations)")
    if not work.all_macs:
        return Estimate(None, None, None, "it has no multiply-accumulates to go by")
    note = ""
    ends = []
    for dynamic_as in ("int8", "float32"):
        compute = {"float32": 0.0, "int8": 0.0}
        for kinds, weight in ((work.macs, 1.0), (work.depthwise, DEPTHWISE_COST)):
            for arithmetic, number in kinds.items():
                compute[dynamic_as if arithmetic == "dynamic" else arithmetic] += weight * number / 1e9
        parts = np.array(
            [compute["float32"], compute["int8"], work.bytes / 1e9, sum(work.ops.values()) / 1e3]
        )
        most = max(compute, key=lambda kind: compute[kind])
        least, middle, greatest = board.one_thread[most] if threads == 1 else (1.0, 1.0, 1.0)
        ms, fixed = float(parts @ board.costs), float(parts[3] * board.costs[3])
        # Whether the fixed cost of an operator grows on one thread like the rest, or not at all, no one says.
        ends.append(
            (
                (least * (ms - fixed) + fixed) / board.factor,
                math.sqrt((middle * (ms - fixed) + fixed) * middle * ms),
                greatest * ms * board.factor,
            )
        )
    if "dynamic" in work.macs or "dynamic" in work.depthwise:
        note = "dynamic: between int8 and float32, nothing is published on it"
    (low, first, _), (_, second, high) = ends
    return Estimate(math.sqrt(first * second), low, high, note)


# ------------------------------------------------------------------------------------------- the command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `maskedge bench estimate`."""
    parser.add_argument(
        "models",
        nargs="*",
        metavar="MODEL",
        help="name in the manifest, or path of a .tflite file (default: all models of the manifest)",
    )
    parser.add_argument(
        "--board", default="all", choices=[*BOARDS, "all"], help="which board (default %(default)s)"
    )
    parser.add_argument(
        "--precision",
        help="of models by name: one or several, as int8,float32; or all (default: the model's)",
    )
    parser.add_argument("--json", metavar="FILE", help="write the estimates there; - for standard output")


def main(args: argparse.Namespace) -> int:
    """Estimate, print, write the JSON; returns the exit code.

    Raises:
        ModelError: a model is missing, damaged, or cannot be read.
        SinkError: the JSON cannot be written.
    """
    check_output(args.json)
    boards = list(BOARDS) if args.board == "all" else [args.board]
    result = run(args.models, boards=boards, precision=args.precision)
    print(table(result), file=sys.stderr if args.json == "-" else sys.stdout)
    write_result(result, args.json)
    return 0


def run(
    models: Sequence[str], *, boards: Sequence[str] = tuple(BOARDS), precision: str | None = None
) -> dict[str, Any]:
    """Estimates of some models on some boards.

    Args:
        models: names in the manifest or paths; none means all of the manifest.
        boards: keys of `BOARDS`.
        precision: as `--precision`.

    Returns:
        `{"version": 1, "kind": "estimate", "time", "machine": null, "boards", "models", "rows", "notes"}`; a
        row has `model`, `precision`, `board`, `threads`, `ms`, `low_ms`, `high_ms` and `note`.
    """
    fitted = [fit_board(key) for key in boards]
    rows, counted = [], []
    for name, kind, data in _read(models, precision):
        work = count(data, f"{name} ({kind})" if kind != "-" else name)
        _check_macs(name, kind, work)
        counted.append(
            {
                "model": name,
                "precision": kind,
                "bytes": len(data),
                "macs": work.all_macs,
                "depthwise_macs": sum(work.depthwise.values()),
                "moved_bytes": work.bytes,
                "ops": dict(work.ops),
            }
        )
        for board, threads in itertools.product(fitted, (1, 4)):
            one = estimate(work, board, threads)
            ends = {"ms": one.ms, "low_ms": one.low, "high_ms": one.high}
            rows.append(
                {"model": name, "precision": kind, "board": board.name, "threads": threads}
                | {key: None if value is None else round(value, 3) for key, value in ends.items()}
                | {"note": one.note}
            )
    return {
        "version": 1,
        "kind": "estimate",
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": None,
        "boards": [_board_facts(board) for board in fitted],
        "models": counted,
        "rows": rows,
        "notes": ["estimates, not measurements: fitted to published latencies of other models"],
    }


def _read(models: Sequence[str], precision: str | None) -> list[tuple[str, str, bytes]]:
    """Name, precision and content of each model asked for."""
    manifest = None
    out = []
    if not models or "all" in models:
        manifest = load_manifest()
        models = [name for name in models if name != "all"] + list(manifest.models)
    for name in dict.fromkeys(models):
        if is_path(name):
            try:
                out.append((Path(name).name, "-", Path(name).read_bytes()))
            except OSError as error:
                raise ModelError(
                    f"cannot read {name} ({error.strerror})", remedy="check the path and its permissions"
                ) from error
            continue
        manifest = manifest or load_manifest()
        entry = manifest.entry(name)
        wanted = precision.split(",") if precision else [entry.default]
        for kind in entry.files if "all" in wanted else [entry.precision(one) for one in wanted]:
            out.append((name, kind, manifest.read(name, kind)))
    return out


def _check_macs(name: str, kind: str, work: Work) -> None:
    """The manifest says what the converter counted; a difference means that one of the two is wrong."""
    if kind == "-":
        return
    stated = load_manifest().entry(name).files[kind].macs
    if stated is not None and stated != work.all_macs:
        raise ModelError(
            f"model {name} ({kind}): the file has {work.all_macs} MACs, the manifest says {stated}",
            remedy="write the manifest again",
        )


def _board_facts(board: Board) -> dict[str, Any]:
    rates = [1e3 / cost if cost else None for cost in board.costs[:3]]
    return {
        "board": board.name,
        "float32_gmacs_per_s": _round(rates[0]),
        "int8_gmacs_per_s": _round(rates[1]),
        "gbytes_per_s": _round(rates[2]),
        "us_per_op": _round(float(board.costs[3])),
        "range_factor": _round(board.factor),
        "left_out": {f"{model} {kind}": _round(error) for (model, kind), error in board.errors.items()},
        "one_thread_over_four": {
            kind: [_round(ratio) for ratio in ratios] for kind, ratios in board.one_thread.items()
        },
    }


def _round(value: float | None) -> float | None:
    return None if value is None else round(float(value), 2)


def _ms(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def table(result: Mapping[str, Any]) -> str:
    """The estimates for a reader, in Markdown."""
    lines = ["| model | precision | MACs | KB | read and written | operators |", "|---|---|--:|--:|--:|---|"]
    for one in result["models"]:
        ops = ", ".join(f"{number} {name}" for name, number in list(one["ops"].items())[:5])
        lines.append(
            f"| {one['model']} | {one['precision']} | {one['macs'] / 1e6:.1f} M | {one['bytes'] / 1e3:.0f} "
            f"| {one['moved_bytes'] / 1e6:.1f} MB | {ops} |"
        )
    lines += [
        "",
        "**Estimates, not measurements** (milliseconds an invoke, with the range it should lie in):",
        "",
        "| model | precision | board | 1 thread | 4 threads |",
        "|---|---|---|---|---|",
    ]
    cells: dict[tuple[str, str, str], dict[int, str]] = {}
    for row in result["rows"]:
        key = row["model"], row["precision"], row["board"]
        cells.setdefault(key, {})[row["threads"]] = (
            row["note"]
            if row["ms"] is None
            else f"~{_ms(row['ms'])} ({_ms(row['low_ms'])} to {_ms(row['high_ms'])})"
        )
    for key, times in cells.items():
        lines.append(f"| {' | '.join(key)} | {times[1]} | {times[4]} |")
    lines += [
        "",
        "Fitted to published latencies (see docs/benchmarks.md). A fit without each in turn missed it by",
    ]
    for board in result["boards"]:
        errors = board["left_out"].values()
        lines.append(
            f"- {board['board']}: x{min(errors):.2f} to x{max(errors):.2f}, {len(errors)} measurements; "
            f"range: x/÷ {board['range_factor']}"
        )
    return "\n".join(lines)
