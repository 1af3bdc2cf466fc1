"""Keras to TFLite: one file per precision, taking RGB pixels as bytes, each held against Keras."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from edge.files import write_atomically
from edge.tflite import Model
from export import manifest, parity

PRECISIONS = ("float32", "float16", "dynamic", "int8", "int16x8")


class Saved:
    """A network as TensorFlow saves it, once for all precisions: saving takes most of a conversion's time.

    Args:
        network: Keras model from float RGB pixels 0..255, batch fixed to 1, to a dictionary of outputs.
        folder: for the files, to be removed by the caller.
    """

    def __init__(self, network: Any, folder: str | Path) -> None:
        self.network, self.folder = network, Path(folder)
        self.shape = tuple(network.inputs[0].shape[1:])

    def path(self, *, cast: bool) -> str:
        """Where it lies; with `cast` it takes uint8 pixels and casts them itself."""
        import keras
        import tensorflow as tf

        path = self.folder / ("bytes" if cast else "floats")
        if path.exists():
            return str(path)
        source = self.network
        if cast:
            pixels = keras.Input(self.shape, batch_size=1, dtype="uint8", name="image")
            source = keras.Model(pixels, source(keras.ops.cast(pixels, "float32")))
        (given,) = source.inputs
        archive = keras.export.ExportArchive()
        archive.track(source)
        archive.add_endpoint(
            "serve",
            functools.partial(source.__call__, training=False),
            [tf.TensorSpec(given.shape, given.dtype, given.name)],
        )
        archive.write_out(str(path), verbose=False)
        return str(path)


def to_tflite(network: Any, precision: str, pictures: Callable[[], Iterable[np.ndarray]]) -> bytes:
    """Converts one network.

    Args:
        network: Keras model from float RGB pixels 0..255, batch fixed to 1, to a dictionary of outputs; or
            `Saved`, where it is converted more than once.
        precision: one of `PRECISIONS`.
        pictures: gives calibration pictures, 1 x H x W x 3 uint8 RGB; 200 or more.

    Returns:
        The file. Its input is uint8 pixels: the float precisions cast inside the graph, int8 has scale 1
        and zero point 0, so that a pixel is its own quantised value. Only int16x8, for which the converter
        knows neither, takes float32 pixels 0..255.

    Raises:
        ValueError: for an unknown precision.
    """
    import tensorflow as tf

    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}: use one of {', '.join(PRECISIONS)}")
    if not isinstance(network, Saved):
        with tempfile.TemporaryDirectory() as folder:
            return to_tflite(Saved(network, folder), precision, pictures)
    integer = precision in ("int8", "int16x8")
    with _quiet():
        converter = tf.lite.TFLiteConverter.from_saved_model(network.path(cast=not integer))
    if precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "dynamic":
        # Per channel, fully connected layers would need a runtime of TFLite 2.17 and later.
        converter._experimental_disable_per_channel_quantization_for_dense_layers = True
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if integer:

        def calibration():
            # The full range in one picture: the input's scale becomes exactly 1.
            edges = np.zeros((1, *network.shape), np.float32)
            edges[:, ::2] = 255
            for picture in (edges, *pictures()):
                yield [picture.astype(np.float32)]

        converter.representative_dataset = calibration
    if precision == "int8":
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = tf.uint8
        converter.inference_output_type = tf.float32
    elif precision == "int16x8":
        ops = tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        converter.target_spec.supported_ops = [ops]
    with _quiet():
        return converter.convert()


Judge = Callable[[str, Model], tuple[dict[str, dict[str, float]], float]]
"""Of a precision and its model: how far its outputs are from Keras's (`parity.compare`), and the figure that
counts."""


@dataclass(slots=True, frozen=True)
class Converted:
    """Files that passed, in memory.

    Attributes:
        contents: of each precision.
        files: what the manifest says of each; under `parity` the figure is `value`, of Keras `keras`, and
            what was lost `drop`.
    """

    contents: dict[str, bytes]
    files: dict[str, dict[str, Any]]

    def value(self, precision: str) -> float:
        """The figure that counts."""
        return float(self.files[precision]["parity"]["value"])

    def model(self, precision: str) -> Model:
        """To run it, on one thread."""
        return Model(self.contents[precision], name=precision, threads=1)


def every_precision(
    name: str,
    network: Any,
    pictures: list[np.ndarray],
    judge: Judge,
    *,
    metric: str,
    keras: float,
    n: int,
    int16x8_from: float | None = None,
    limited: bool = True,
    threads: int = 1,
) -> Converted:
    """Converts to all precisions, and measures what each has lost.

    Args:
        name: of the model.
        network: as in `to_tflite`.
        pictures: for calibration, as in `to_tflite`.
        judge: see `Judge`.
        metric: what the figure is.
        keras: the figure of Keras.
        n: how many faces or pictures it is of.
        int16x8_from: int16x8 is left out unless int8 loses more than this against float32; None: it never is.
        limited: whether the fall of the figure has a limit here (`parity.LIMITS`); outputs always have.
        threads: of the model that is judged.

    Raises:
        export.parity.ParityError: if a file is further from Keras than its limit.
    """
    done = Converted({}, {})
    with tempfile.TemporaryDirectory() as folder:
        saved = Saved(network, Path(folder) / "saved")
        progress = tqdm(PRECISIONS, desc="precisions", unit="file")
        for precision in progress:
            progress.set_postfix_str(precision)
            if (
                precision == "int16x8"
                and int16x8_from is not None
                and done.value("float32") - done.value("int8") <= int16x8_from
            ):
                continue
            done.contents[precision] = to_tflite(saved, precision, lambda: pictures)
            path = Path(folder) / f"{name}.{precision}.tflite"
            path.write_bytes(done.contents[precision])
            outputs, value = judge(precision, Model(path, threads=threads))
            drop = round(keras - value, 4)
            parity.check(precision, outputs, drop if limited else 0.0)
            done.files[precision] = manifest.file_facts(path) | {
                "parity": {
                    "against": "Keras",
                    "n": n,
                    "metric": metric,
                    "value": round(value, 4),
                    "keras": round(keras, 4),
                    "drop": drop,
                    "outputs": outputs,
                }
            }
    return done


@contextlib.contextmanager
def _quiet():
    """TensorFlow's converter prints pages to stdout and stderr; they go to a file, shown on failure."""
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    with tempfile.TemporaryFile("w+b") as sink:
        saved = os.dup(1), os.dup(2)
        try:
            os.dup2(sink.fileno(), 1)
            os.dup2(sink.fileno(), 2)
            yield
        except BaseException:
            os.dup2(saved[1], 2)
            sink.seek(0)
            os.write(2, sink.read()[-4000:])
            raise
        finally:
            os.dup2(saved[0], 1)
            os.dup2(saved[1], 2)
            os.close(saved[0])
            os.close(saved[1])


def ship(contents: Mapping[str, bytes], out: Path, name: str) -> None:
    """Writes NAME.PRECISION.tflite for each precision, and removes those of precisions that ship no more."""
    for precision in PRECISIONS:
        path = out / f"{name}.{precision}.tflite"
        if precision in contents:
            write_atomically(path, contents[precision])
        else:
            path.unlink(missing_ok=True)
