"""Where the time goes inside a model: `maskedge bench MODEL --op-profile`.

The wheels of the runtimes come without their profiler. So the model is cut off behind each operator in
turn, and the pieces are timed: what a piece takes longer than the one before is the operator between them.
This works with any runtime, and with the kernels that really run: XNNPACK's where it takes the operator. It
is less exact than a profiler for what lasts a few microseconds, and what a runtime fuses (an activation
into its convolution) is counted where it happens.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edge.errors import ModelError
from edge.tflite import Model, find_runtime

ROUNDS = 3
PIECE_S = 0.02
LEAST_RUNS = 5

# Numbers of the fields in the TFLite schema.
_SUBGRAPHS, _SIGNATURES = 2, 7
_OUTPUTS, _OPERATORS = 2, 3


def cut(data: bytes, operators: int, outputs: Sequence[int]) -> bytes:
    """A model that ends behind its first operators.

    Args:
        data: a whole `.tflite` file.
        operators: how many of its main graph stay, 1 or more.
        outputs: numbers of the tensors that it then gives out.

    Raises:
        ModelError: it has fewer operators.
    """
    piece = bytearray(data)
    piece += b"\0" * (-len(piece) % 4)
    root = _follow(piece, 0)
    graph = _follow(piece, _vector(piece, root, _SUBGRAPHS) + 4)
    count = _vector(piece, graph, _OPERATORS)
    if not 1 <= operators <= struct.unpack_from("<I", piece, count)[0]:
        raise ModelError(f"a model cannot be cut off behind operator {operators}")
    struct.pack_into("<I", piece, count, operators)
    signatures = _field(piece, root, _SIGNATURES)
    if signatures:  # they name outputs that are gone
        struct.pack_into("<I", piece, _follow(piece, signatures), 0)
    # The list of outputs may have grown: a new one, behind everything else.
    field = _field(piece, graph, _OUTPUTS)
    struct.pack_into("<I", piece, field, len(piece) - field)
    piece += struct.pack(f"<I{len(outputs)}i", len(outputs), *outputs)
    return bytes(piece)


def operators(data: bytes, interpreter: Any) -> list[dict[str, Any]]:
    """The operators of the main graph, in the order of the file.

    Returns:
        One item each: `op` (name), `inputs` and `outputs` (numbers of tensors).
    """
    root = _follow(data, 0)
    graph = _follow(data, _vector(data, root, _SUBGRAPHS) + 4)
    count = struct.unpack_from("<I", data, _vector(data, graph, _OPERATORS))[0]
    # Behind them the runtime lists what its delegates made of them.
    return [
        {
            "op": str(item["op_name"]),
            "inputs": [int(i) for i in item["inputs"]],
            "outputs": [int(i) for i in item["outputs"]],
        }
        for item in interpreter._get_ops_details()[:count]
    ]


def profile(
    data: bytes, inputs: Sequence[np.ndarray], *, threads: int, runtime: Any = None, rounds: int = ROUNDS
) -> list[dict[str, Any]]:
    """Time of each operator.

    Args:
        data: a whole `.tflite` file.
        inputs: as `Model.set_inputs` takes them.
        threads, runtime: as `Model` takes them.
        rounds: over all pieces; the shortest time of each counts.

    Returns:
        One item each, in the order of the file: `op`, `ms`, `share` (0..1 of all), `output` (its shape).
    """
    found = find_runtime(runtime)
    whole = found.interpreter(model_content=data, num_threads=threads)
    graph = operators(data, whole)
    last = {int(item["index"]) for item in whole.get_output_details()}
    shapes = {int(item["index"]): [int(n) for n in item["shape"]] for item in whole.get_tensor_details()}
    needed_later: list[set[int]] = [last]
    for item in reversed(graph[1:]):
        needed_later.insert(0, needed_later[0] | set(item["inputs"]))
    best = [np.inf] * len(graph)
    for _ in range(rounds):
        made: set[int] = set()
        for place, item in enumerate(graph):
            made |= set(item["outputs"])
            live = sorted(made & needed_later[place]) or item["outputs"][:1]
            model = Model(cut(data, place + 1, live), threads=threads, runtime=runtime)
            model.set_inputs(*inputs)
            best[place] = min(best[place], _shortest(model))
    grown = np.maximum.accumulate(best)  # a longer piece is never really faster
    times = np.diff(grown, prepend=0.0)
    return [
        {
            "op": item["op"],
            "ms": round(float(ms), 5),
            "share": round(float(ms / grown[-1]), 4),
            "output": shapes.get(item["outputs"][0]) if item["outputs"] else None,
        }
        for item, ms in zip(graph, times, strict=True)
    ]


def text(ops: Sequence[Mapping[str, Any]], most: int = 12) -> str:
    """The kinds of operators by time, then the slowest single ones, for a reader."""
    kinds: dict[str, list[float]] = {}
    for item in ops:
        kinds.setdefault(item["op"], []).append(item["ms"])
    total = sum(item["ms"] for item in ops) or 1.0
    lines = ["| operator | times | ms | share |", "|---|--:|--:|--:|"]
    for op, times in sorted(kinds.items(), key=lambda pair: -sum(pair[1])):
        lines.append(f"| {op} | {len(times)} | {sum(times):.3f} | {100 * sum(times) / total:.1f} % |")
    lines += ["", "| number | operator | output | ms | share |", "|--:|---|---|--:|--:|"]
    for place, item in sorted(enumerate(ops), key=lambda pair: -pair[1]["ms"])[:most]:
        shape = "x".join(map(str, item["output"] or ()))
        lines.append(f"| {place} | {item['op']} | {shape} | {item['ms']:.3f} | {100 * item['share']:.1f} % |")
    return "\n".join(lines)


def _shortest(model: Model) -> float:
    """Milliseconds of the fastest of some invokes."""
    model.invoke()
    clock, best, runs = time.perf_counter, np.inf, 0
    end = clock() + PIECE_S
    while runs < LEAST_RUNS or clock() < end:
        start = clock()
        model.invoke()
        best = min(best, clock() - start)
        runs += 1
    return float(best) * 1e3


def _follow(data: bytes | bytearray, position: int) -> int:
    return position + int(struct.unpack_from("<I", data, position)[0])


def _field(data: bytes | bytearray, table: int, number: int) -> int:
    """Where a field of a table lies, 0 where it has none."""
    layout = table - struct.unpack_from("<i", data, table)[0]
    size = struct.unpack_from("<H", data, layout)[0]
    entry = 4 + 2 * number
    offset = struct.unpack_from("<H", data, layout + entry)[0] if entry + 2 <= size else 0
    return table + offset if offset else 0


def _vector(data: bytes | bytearray, table: int, number: int) -> int:
    """Where the length of a field's vector lies."""
    field = _field(data, table, number)
    if not field:
        raise ModelError("the model has no operators")
    return _follow(data, field)
