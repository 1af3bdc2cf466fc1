"""Builds tiny `.tflite` models for tests, with nothing but NumPy: no TensorFlow and no flatbuffers.

A model is a tree of tables; the writer lays it out front to back (a flatbuffer's offsets point forward),
which is all a test needs. `python -m tests.tiny_models edge/assets/probe.tflite` writes the probe model.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

# Numbers from the TFLite schema.
ADD, DEQUANTIZE, FULLY_CONNECTED, MUL, RESHAPE, CUSTOM, CAST, QUANTIZE = 0, 6, 9, 18, 22, 32, 53, 114
TYPES = {"float32": 0, "float16": 1, "int32": 2, "uint8": 3, "int64": 4, "bool": 6, "int16": 7, "int8": 9}
FULLY_CONNECTED_OPTIONS, ADD_OPTIONS, RESHAPE_OPTIONS, MUL_OPTIONS, CAST_OPTIONS = 8, 11, 17, 21, 37


@dataclass
class Tensor:
    """One tensor of the graph; `data` makes it a constant, `scale` makes it quantised."""

    name: str
    shape: Sequence[int]
    dtype: str = "float32"
    scale: float | None = None
    zero_point: int = 0
    data: np.ndarray | None = None


@dataclass
class Op:
    """One node: builtin code, tensor numbers in and out, op version, number of its empty option table."""

    code: int
    inputs: Sequence[int]
    outputs: Sequence[int]
    version: int = 1
    options: int = 0
    custom: str = ""


@dataclass
class _Table:
    """Fields by schema number: ("i", 3) is a scalar of that struct format, anything else a child."""

    fields: Mapping[int, Any] = field(default_factory=dict)


def _write(buffer: bytearray, node: Any) -> int:
    """Append a table, string, bytes, scalar array or list of tables; returns where it starts."""

    def pad(size: int, ahead: int = 0) -> None:
        buffer.extend(b"\0" * (-(len(buffer) + ahead) % size))

    def link(at: int, child: Any) -> None:
        struct.pack_into("<I", buffer, at, _write(buffer, child) - at)

    if isinstance(node, _Table):
        layout, size = {}, 4
        for key, value in node.fields.items():
            width = struct.calcsize(value[0]) if isinstance(value, tuple) else 4
            size += -size % width
            layout[key] = size
            size += width
        count = max(layout, default=-1) + 1
        pad(8, ahead=4 + 2 * count)
        buffer += struct.pack(
            f"<HH{count}H", 4 + 2 * count, size, *(layout.get(key, 0) for key in range(count))
        )
        start = len(buffer)
        buffer += struct.pack("<i", 4 + 2 * count) + b"\0" * (size - 4)
        for key, value in node.fields.items():
            if isinstance(value, tuple):
                struct.pack_into("<" + value[0], buffer, start + layout[key], value[1])
        for key, value in node.fields.items():
            if not isinstance(value, tuple):
                link(start + layout[key], value)
        return start
    if isinstance(node, list):
        pad(4)
        start = len(buffer)
        buffer += struct.pack("<I", len(node)) + b"\0" * (4 * len(node))
        for number, child in enumerate(node):
            link(start + 4 + 4 * number, child)
        return start
    data = node.encode() + b"\0" if isinstance(node, str) else np.ascontiguousarray(node).tobytes()
    pad(16, ahead=4)
    start = len(buffer)
    buffer += struct.pack("<I", len(node.encode()) if isinstance(node, str) else np.size(node)) + data
    return start


def _ints(values: Sequence[int]) -> np.ndarray:
    return np.asarray(values, np.int32)


def build(
    tensors: Sequence[Tensor],
    ops: Sequence[Op],
    inputs: Sequence[int],
    outputs: Sequence[int],
    name: str = "tiny",
) -> bytes:
    """The bytes of a `.tflite` file with one graph; `inputs` and `outputs` are tensor numbers."""
    buffers, tables = [_Table()], []
    for tensor in tensors:
        fields: dict[int, Any] = {
            0: _ints(tensor.shape),
            1: ("b", TYPES[tensor.dtype]),
            2: ("I", 0),
            3: tensor.name,
        }
        if tensor.scale is not None:
            fields[4] = _Table(
                {2: np.asarray([tensor.scale], np.float32), 3: np.asarray([tensor.zero_point], np.int64)}
            )
        if tensor.data is not None:
            fields[2] = ("I", len(buffers))
            data = np.ascontiguousarray(tensor.data, tensor.dtype).tobytes()
            buffers.append(_Table({0: np.frombuffer(data, np.uint8)}))
        tables.append(_Table(fields))
    codes, nodes = [], []
    for number, op in enumerate(ops):
        code: dict[int, Any] = {0: ("b", min(op.code, 127)), 2: ("i", op.version), 3: ("i", op.code)}
        if op.custom:
            code[1] = op.custom
        codes.append(_Table(code))
        node: dict[int, Any] = {0: ("I", number), 1: _ints(op.inputs), 2: _ints(op.outputs)}
        if op.options:
            node |= {3: ("B", op.options), 4: _Table()}
        nodes.append(_Table(node))
    graph = _Table({0: tables, 1: _ints(inputs), 2: _ints(outputs), 3: nodes, 4: "main"})
    model = _Table({0: ("I", 3), 1: codes, 2: [graph], 3: name, 4: buffers})
    buffer = bytearray(b"\0\0\0\0TFL3")
    struct.pack_into("<I", buffer, 0, _write(buffer, model))
    return bytes(buffer + b"\0" * (-len(buffer) % 16))


def add_model(shape: Sequence[int] = (1, 4), constant: float = 1.0, *, version: int = 1) -> bytes:
    """float32 `x` of that shape in, `y` = x + constant out; ADD claims to be of that version."""
    tensors = [
        Tensor("x", shape),
        Tensor("c", (1,), data=np.float32([constant])),
        Tensor("y", shape),
    ]
    return build(tensors, [Op(ADD, [0, 1], [2], version, ADD_OPTIONS)], [0], [2])


def quantised_model(
    shape: Sequence[int] = (1, 4),
    *,
    dtype: str = "int8",
    scale: float = 0.5,
    zero_point: int = 3,
    out_dtype: str = "int8",
    out_scale: float = 0.25,
    out_zero_point: int = -7,
) -> bytes:
    """One QUANTIZE op: quantised `x` in, the same real values as quantised `y` out."""
    tensors = [
        Tensor("x", shape, dtype, scale, zero_point),
        Tensor("y", shape, out_dtype, out_scale, out_zero_point),
    ]
    return build(tensors, [Op(QUANTIZE, [0], [1], 2)], [0], [1])


def cast_model(shape: Sequence[int] = (1, 4, 4, 3), *, dtype: str = "uint8") -> bytes:
    """`image` of that dtype, without quantisation, in; the same numbers as float32 `pixels` out."""
    tensors = [Tensor("image", shape, dtype), Tensor("pixels", shape)]
    return build(tensors, [Op(CAST, [0], [1], 1, CAST_OPTIONS)], [0], [1])


def two_in_two_out_model(shape: Sequence[int] = (1, 4)) -> bytes:
    """float32 `a` and `b` in; `late` = a + b and `early` = a + a out, in that order."""
    tensors = [Tensor(name, shape) for name in ("a", "b", "early", "late")]
    ops = [Op(ADD, [0, 0], [2], 1, ADD_OPTIONS), Op(ADD, [0, 1], [3], 1, ADD_OPTIONS)]
    return build(tensors, ops, [0, 1], [3, 2])


def constant_model(
    input_shape: Sequence[int], outputs: Mapping[str, np.ndarray], *, dtype: str = "uint8"
) -> bytes:
    """A model that answers every `image` with the same float32 outputs: for golden tests of what follows."""
    tensors, ops, numbers = [Tensor("image", input_shape, dtype)], [], []
    for name, value in outputs.items():
        first = len(tensors)
        tensors += [
            Tensor(f"{name}_value", value.shape, data=np.asarray(value, np.float32)),
            Tensor(f"{name}_zero", (1,), data=np.float32([0])),
            Tensor(name, value.shape),
        ]
        ops.append(Op(ADD, [first, first + 1], [first + 2], 1, ADD_OPTIONS))
        numbers.append(first + 2)
    return build(tensors, ops, [0], numbers)


RED_LEVELS = (50, 100, 150, 200)
"""Mean red of a crop that makes `attributes_model` certain of each mask state, in the order of its output."""


def attributes_model(size: int = 32) -> bytes:
    """An attributes model that goes by the mean colour of the crop: red is the mask state, green the gender
    (dark female, bright male), blue whether it is a face (dark none); half-way values make it unsure.
    """
    pixels = size * size * 3
    tensors = [Tensor("image", (1, size, size, 3), "uint8"), Tensor("pixels", (1, size, size, 3))]
    ops, outputs = [Op(CAST, [0], [1], 1, CAST_OPTIONS)], []

    def output(name: str, channel: int, weights: np.ndarray, bias: np.ndarray) -> None:
        first = len(tensors)
        rows = np.zeros((len(weights), size, size, 3), np.float32)
        rows[..., channel] = weights[:, None, None] / (size * size)
        tensors.extend(
            [
                Tensor(f"{name}_w", (len(weights), pixels), data=rows.reshape(len(weights), pixels)),
                Tensor(f"{name}_b", (len(weights),), data=np.asarray(bias, np.float32)),
                Tensor(name, (1, len(weights))),
            ]
        )
        inputs = [1, first, first + 1]
        ops.append(Op(FULLY_CONNECTED, inputs, [first + 2], 1, FULLY_CONNECTED_OPTIONS))
        outputs.append(first + 2)

    levels = np.float64(RED_LEVELS)
    sharp = 8 / 50**2  # nats between neighbours at a level of one of them: 4
    output("gender", 1, np.float64([-0.04, 0.04]), np.float64([5, -5]))
    output("face", 2, np.float64([0.06]), np.float64([-7.5]))
    output("mask", 0, sharp * levels, -sharp * levels**2 / 2)
    return build(tensors, ops, [0], outputs)


def identity_model(size: int = 112, cells: int = 4) -> bytes:
    """An identity model that goes by where a crop is light and dark: its embedding is the mean of each of
    cells x cells parts, less that of the whole; the quality is always high.
    """
    pixels, count = size * size * 3, cells * cells
    rows = np.zeros((cells, cells, cells, size // cells, cells, size // cells, 3), np.float32)
    for y in range(cells):
        for x in range(cells):
            rows[y, x, y, :, x] = count
    rows = (rows.reshape(count, pixels) - 1) / pixels
    tensors = [
        Tensor("image", (1, size, size, 3), "uint8"),
        Tensor("pixels", (1, size, size, 3)),
        Tensor("rows", (count, pixels), data=rows),
        Tensor("none", (count,), data=np.zeros(count, np.float32)),
        Tensor("embedding", (1, count)),
        Tensor("zeros", (1, pixels), data=np.zeros((1, pixels), np.float32)),
        Tensor("high", (1,), data=np.float32([3])),
        Tensor("quality", (1, 1)),
    ]
    ops = [
        Op(CAST, [0], [1], 1, CAST_OPTIONS),
        Op(FULLY_CONNECTED, [1, 2, 3], [4], 1, FULLY_CONNECTED_OPTIONS),
        Op(FULLY_CONNECTED, [1, 5, 6], [7], 1, FULLY_CONNECTED_OPTIONS),
    ]
    return build(tensors, ops, [0], [4, 7])


def unmask_model(
    region: np.ndarray,
    colour: tuple[float, float, float],
    *,
    cost: int = 0,
    gain: float = 1.0,
    dtype: str = "float32",
) -> bytes:
    """An unmask model that takes `region` for hidden, S x S float 0..1, and completes it with one RGB colour.

    Elsewhere it gives back the picture, times `gain`. Each step of `cost` adds 67 million multiplications at
    128 px that change nothing. With the dtype "uint8" the completed face has that type.
    """
    size = len(region)
    shape, share = (1, size, size, 3), np.float32(region)[None, :, :, None]
    tensors = [
        Tensor("image", shape, "uint8"),
        Tensor("pixels", shape),
        Tensor("keep", shape, data=np.broadcast_to(gain * (1 - share), shape)),
        Tensor("fill", shape, data=share * np.float32(colour)),
        Tensor("kept", shape),
        Tensor("filled", shape),
        Tensor("hidden_value", (1, size, size, 1), data=share),
        Tensor("zero", (1,), data=np.float32([0])),
        Tensor("hidden", (1, size, size, 1)),
    ]
    ops = [
        Op(CAST, [0], [1], 1, CAST_OPTIONS),
        Op(MUL, [1, 2], [4], 1, MUL_OPTIONS),
        Op(ADD, [4, 3], [5], 1, ADD_OPTIONS),
        Op(ADD, [6, 7], [8], 1, ADD_OPTIONS),
    ]

    def add(name: str, shape: Sequence[int], dtype: str = "float32", **more: Any) -> int:
        tensors.append(Tensor(name, shape, dtype, **more))
        return len(tensors) - 1

    completed, last, wide = 5, 1, 3
    for step in [64] * cost + [3] * bool(cost):
        weights = add(f"w{len(ops)}", (step, wide), data=np.full((step, wide), 1e-4, np.float32))
        bias = add(f"b{len(ops)}", (step,), data=np.zeros(step, np.float32))
        out = add(f"y{len(ops)}", (size * size, step))
        ops.append(Op(FULLY_CONNECTED, [last, weights, bias], [out], 1, FULLY_CONNECTED_OPTIONS))
        last, wide = out, step
    if cost:
        to = add("shape", (4,), "int32", data=np.int32(shape))
        square, none, summed = add("square", shape), add("none", shape), add("summed", shape)
        ops += [
            Op(RESHAPE, [last, to], [square], 1, RESHAPE_OPTIONS),
            Op(MUL, [square, 7], [none], 1, MUL_OPTIONS),
            Op(ADD, [completed, none], [summed], 1, ADD_OPTIONS),
        ]
        completed = summed
    if dtype != "float32":
        bytes_ = add("bytes", shape, dtype)
        ops.append(Op(CAST, [completed], [bytes_], 1, CAST_OPTIONS))
        completed = bytes_
    return build(tensors, ops, [0], [8, completed])


def custom_op_model() -> bytes:
    """A model whose only op no runtime knows."""
    return build(
        [Tensor("x", (1, 4)), Tensor("y", (1, 4))], [Op(CUSTOM, [0], [1], custom="NoSuchOp")], [0], [1]
    )


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(add_model())
