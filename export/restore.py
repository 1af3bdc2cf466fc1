"""A run folder out of a shipped file: training goes on from its weights, without the checkpoints behind it.

Converting folds each batch normalisation into the convolution before it. Here it is put back: with the
moments of what the convolution gives for real crops as its statistics, and scale and offset so that together
they compute what the file computes. In a file nothing is left of the heads that only teach: they begin anew.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from edge.errors import ModelError
from edge.tflite import Model, load_manifest
from export.models.blocks import PIXEL_SCALE, Normalisation
from export.train.averaging import write_averaged
from export.train.stages import write_facts

TOLERANCE = 2e-3
"""How far outputs of the restored network may be from those of the file, as a share of their range."""
_REMEDY = "restore from the float32 file of the shape that export/models builds"
_LEAST = 1e-3  # length of a kernel below which a channel is taken for dead, and left as it is

_LINEAR = {"paint": (64.0, PIXEL_SCALE)}
"""Factor and offset that the graph applies to a layer's output; the converter puts them into its weights."""


@dataclass(slots=True, frozen=True)
class _Kernel:
    """Weights of one operator: the kernel in Keras's layout, float32, and its bias."""

    kernel: np.ndarray
    bias: np.ndarray


def _kernels(data: bytes) -> dict[tuple[str, int | str], _Kernel]:
    """Weights of a float32 file, by ("normalisation" | "conv2d", number as in Keras), ("", layer's name)."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(data, 0))
    graph, kinds = model.subgraphs[0], schema.BuiltinOperator

    def values(index: int) -> np.ndarray | None:
        tensor = graph.tensors[index]
        raw = model.buffers[tensor.buffer].data
        if tensor.type != schema.TensorType.FLOAT32 or raw is None or not len(raw):
            return None
        return np.frombuffer(bytes(raw), np.float32).reshape(tensor.shape)

    found: dict[tuple[str, int | str], _Kernel] = {}
    for op in graph.operators:
        code = model.operatorCodes[op.opcodeIndex]
        kind = max(code.builtinCode, code.deprecatedBuiltinCode)
        if kind not in (kinds.CONV_2D, kinds.DEPTHWISE_CONV_2D, kinds.FULLY_CONNECTED):
            continue
        kernel = values(op.inputs[1])
        if kernel is None:
            raise ModelError("weights that are not float32", remedy="restore from the float32 file")
        last = kernel.shape[-1] if kind == kinds.DEPTHWISE_CONV_2D else kernel.shape[0]
        bias = values(op.inputs[2]) if len(op.inputs) > 2 and op.inputs[2] >= 0 else None
        if kind == kinds.CONV_2D:
            kernel = kernel.transpose(1, 2, 3, 0)
        elif kind == kinds.DEPTHWISE_CONV_2D:
            kernel = kernel[0, ..., None]
        else:
            kernel = kernel.T
        weights = _Kernel(kernel.copy(), np.zeros(last, np.float32) if bias is None else bias.ravel().copy())
        of_kernel, of_output = (graph.tensors[i].name.decode() for i in (op.inputs[1], op.outputs[0]))
        for name in _layers(f"{of_kernel};{of_output}"):
            base, _, number = name.rpartition("_")
            if name in ("conv2d", "normalisation"):
                found[name, 0] = weights
            elif base in ("conv2d", "normalisation") and number.isdigit():
                found[base, int(number)] = weights
            else:
                found["", name] = weights
    return found


def _layers(text: str) -> Iterator[str]:
    """Names of Keras layers in a tensor's name, such as functional_1/unmask_1/conv2d_93_1/convolution."""
    for part in text.split(";"):
        for name in part.split("/")[:-1]:
            if match := re.fullmatch(r"(.+)_\d+", name):
                yield match[1]


def _numbered(network: keras.Model, base: str) -> list[layers.Layer]:
    """Layers that Keras named itself, in the order in which they were made."""
    found = [
        (int(m[1] or 0), layer)
        for layer in network.layers
        if (m := re.fullmatch(rf"{base}(?:_(\d+))?", layer.name))
    ]
    return [layer for _, layer in sorted(found, key=lambda pair: pair[0])]


def set_weights(data: bytes, network: keras.Model) -> None:
    """Gives a network the weights of a file; its normalisations then do nothing but add the file's biases.

    Args:
        data: a float32 `.tflite` file.
        network: of the same shape, as it is trained: with the layer that scales pixels.

    Raises:
        ModelError: the file is of another network.
    """
    kernels = _kernels(data)

    def numbered(base: str) -> dict[str, _Kernel]:
        own = _numbered(network, base)
        numbers = sorted(number for kind, number in kernels if kind == base)
        if len(own) != len(numbers):
            raise ModelError(
                f"a file with {len(numbers)} layers {base} where the network has {len(own)}",
                remedy=_REMEDY,
            )
        return {layer.name: kernels[base, n] for layer, n in zip(own, numbers, strict=True)}

    normalised = {}
    for name, weights in numbered("normalisation").items():
        layer = network.get_layer(name)
        before = layer.input._keras_history.operation
        normalised[before.name] = (before, weights, layer)
    plain = {name: w for name, w in numbered("conv2d").items() if name not in normalised}
    plain |= {str(name): w for (kind, name), w in kernels.items() if not kind and name not in normalised}
    for before, weights, layer in normalised.values():
        kernel = weights.kernel
        if isinstance(before.input._keras_history.operation, layers.Rescaling):
            kernel = kernel * np.float32(PIXEL_SCALE)
        _assign(before, [kernel])
        count = len(weights.bias)
        one = np.full(count, np.sqrt(1 + layer.epsilon), np.float32)
        layer.set_weights([one, weights.bias, np.zeros(count, np.float32), np.ones(count, np.float32)])
    own = {layer.name: layer for layer in network.layers}
    for name, weights in plain.items():
        if name not in own or not own[name].weights:
            continue
        factor, offset = _LINEAR.get(name, (1.0, 0.0))
        kernel, bias = weights.kernel / np.float32(factor), (weights.bias - offset) / np.float32(factor)
        _assign(own[name], [kernel, bias] if own[name].bias is not None else [kernel])


def _assign(layer: layers.Layer, weights: list[np.ndarray]) -> None:
    try:
        layer.set_weights(weights)
    except ValueError:
        shapes = [tuple(w.shape) for w in layer.weights], [w.shape for w in weights]
        raise ModelError(
            f"weights of layer {layer.name} have the shape {shapes[1]}, not {shapes[0]}",
            remedy=_REMEDY,
        ) from None


def refresh(network: keras.Model, crops: np.ndarray, batch: int = 64) -> None:
    """Gives normalisations that do nothing the moments of real crops, and kernels a length of 1 a channel.

    What the network computes stays the same. In training a normalisation goes by its batch: without this it
    would compute something else at the first step.

    Args:
        network: from `set_weights`.
        crops: n x S x S x 3, 0..255.
        batch: crops at a time.
    """
    normalisations = [layer for layer in network.layers if isinstance(layer, Normalisation)]
    moments = keras.Model(
        network.input,
        [
            ops.stack([ops.mean(x, axis=(0, 1, 2)), ops.mean(ops.square(x), axis=(0, 1, 2))])
            for x in (ops.cast(layer.input, "float32") for layer in normalisations)
        ],
    )
    starts = range(0, len(crops), batch)
    rows = [moments(crops[i : i + batch].astype(np.float32), training=False) for i in starts]
    shares = np.array([len(crops[i : i + batch]) for i in starts]) / len(crops)
    for place, layer in enumerate(normalisations):
        seen = [ops.convert_to_numpy(row[place]) for row in rows]
        mean, square = np.einsum("b,bmc->mc", shares, np.array(seen, np.float64))
        variance = np.maximum(square - mean**2, 0)
        _, beta, moving_mean, _ = layer.get_weights()
        before = layer.input._keras_history.operation
        (kernel,) = before.get_weights()
        depthwise = isinstance(before, layers.DepthwiseConv2D)
        length = np.linalg.norm(kernel.reshape(-1, len(mean)), axis=0)
        length = np.where(length < _LEAST, 1, length)
        before.set_weights([kernel / (length[:, None] if depthwise else length)])
        layer.set_weights(
            [
                length * np.sqrt(variance / length**2 + layer.epsilon),
                beta - moving_mean + mean,
                mean / length,
                variance / length**2,
            ]
        )


def check(data: bytes, network: keras.Model, crops: np.ndarray, shipped: Collection[str]) -> None:
    """Holds a restored network against its file.

    Args:
        data: the file.
        network: what came of it.
        crops: n x S x S x 3 uint8 RGB.
        shipped: names of the outputs that the file has too, told apart by shape.

    Raises:
        ModelError: they disagree.
    """
    model = Model(data, name="the file", threads=1)
    found = network(crops.astype(np.float32), training=False)
    for name in shipped:
        values = ops.convert_to_numpy(found[name])
        # The converter keeps no names of outputs, and their order neither.
        place = next(i for i, spec in enumerate(model.outputs) if spec.shape[1:] == values.shape[1:])
        told = np.concatenate([model.run(crop[None])[place] for crop in crops])
        if name == "embedding":
            values = values / np.linalg.norm(values, axis=-1, keepdims=True)
        apart = np.abs(told - values).max() / max(float(np.ptp(told)), 0.1)
        if apart > TOLERANCE:
            raise ModelError(
                f"the restored network's {name} is {apart:.2%} of its range away from that of the file",
                remedy=_REMEDY,
            )


def restore(name: str, models: Path, packs: Path, run: Path) -> Path:
    """Writes a run folder with the weights of a shipped model.

    Args:
        name: attributes, identity or unmask.
        models: folder with the manifest and `NAME.float32.tflite`.
        packs: of the model's training faces.
        run: folder to write.

    Returns:
        The file of weights, for `read_run`.

    Raises:
        FileNotFoundError: there are no packed faces.
        ModelError: the file is of another network, is damaged, or the result disagrees with it.
    """
    if not any(packs.glob("*/ready")):
        raise FileNotFoundError(f"no packed faces at {packs}: run `python -m export prepare {name}` first")
    manifest = load_manifest(models)
    size, data = int(manifest.entry(name).input["width"]), manifest.read(name, "float32")
    network, shape, shipped, crops = _PARTS[name](size, packs)
    set_weights(data, network)
    refresh(network, crops)
    check(data, network, crops[:8], shipped)
    run.mkdir(parents=True, exist_ok=True)
    write_averaged(run / "averaged.npz", network.get_weights(), 0)
    write_facts(run, shape, size=size, placed=True)
    return run / "averaged.npz"


Parts = tuple[keras.Model, Any, Collection[str], np.ndarray]
"""A new network with its teaching outputs, its shape, the outputs that ship, and crops to feed it."""


def _attributes(size: int, packs: Path) -> Parts:
    from export.attributes_model import calibration_crops
    from export.models import attributes as net

    network = net.build(size, teaching=True)
    return network, net.AttributesConfig(), net.OUTPUTS, np.concatenate(calibration_crops(packs, size))


def _identity(size: int, packs: Path) -> Parts:
    from export.identity_model import CALIBRATION, sampled_crops
    from export.models import identity as net

    crops = sampled_crops(packs, size, CALIBRATION, seed=3)
    return net.build(size), net.IdentityConfig(), ("embedding", "quality"), crops


def _unmask(size: int, packs: Path) -> Parts:
    from export.models import unmask as net
    from export.unmask_model import calibration_crops

    network = net.build(size, teaching=True)
    return network, net.UnmaskConfig(), net.OUTPUTS, np.concatenate(calibration_crops(packs, size))


_PARTS: dict[str, Callable[[int, Path], Parts]] = {
    "attributes": _attributes,
    "identity": _identity,
    "unmask": _unmask,
}
