"""Writes `converted_models/manifest.json`: what the device needs to know about each model."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from benchmarks import estimate
from edge.files import write_atomically

MANIFEST_VERSION = 1


def read(folder: Path) -> dict[str, Any]:
    """The manifest of a folder, or an empty one."""
    path = folder / "manifest.json"
    return json.loads(path.read_text()) if path.exists() else {"version": MANIFEST_VERSION, "models": {}}


def write(folder: Path, name: str, entry: dict[str, Any]) -> Path:
    """Puts one model's entry into the manifest, atomically; other entries stay as they are."""
    manifest = read(folder)
    manifest["models"][name] = entry
    path = folder / "manifest.json"
    write_atomically(path, json.dumps(manifest, indent=1) + "\n")
    return path


def file_facts(path: Path) -> dict[str, Any]:
    """Name, hash, bytes, parameters, multiply-accumulates and oldest runtime of one `.tflite` file.

    Parameters and MACs are counted in the file itself. `min_runtime` is the TFLite version that knows
    every operator version in it, as the converter recorded it in the file's metadata.
    """
    from ai_edge_litert import schema_py_generated as schema

    data = path.read_bytes()
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(data, 0))
    graph = model.subgraphs[0]
    kinds = schema.BuiltinOperator
    parameters = 0
    counted: set[int] = set()
    for op in graph.operators:
        code = model.operatorCodes[op.opcodeIndex]
        kind = max(code.builtinCode, code.deprecatedBuiltinCode)
        if kind not in (kinds.CONV_2D, kinds.DEPTHWISE_CONV_2D, kinds.FULLY_CONNECTED):
            continue
        for index in op.inputs[1:]:
            if index >= 0 and index not in counted:
                counted.add(index)
                count = 1
                for n in graph.tensors[index].shape:
                    count *= int(n)
                parameters += count
    oldest = ""
    for entry in model.metadata or []:
        if entry.name == b"min_runtime_version":
            oldest = bytes(model.buffers[entry.buffer].data).rstrip(b"\0").decode()
    return {
        "file": path.name,
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
        "parameters": parameters,
        "macs": estimate.count(data).all_macs,
        "min_runtime": oldest,
    }
