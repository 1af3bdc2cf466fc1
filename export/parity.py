"""How far a converted model is from the Keras model it came from, and whether that is too far."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from edge.errors import MaskedgeError


@dataclass(slots=True, frozen=True)
class Limits:
    """What a precision may lose before the manifest refuses it.

    Attributes:
        cosine: smallest cosine between all values of an output and Keras's.
        metric_drop: largest fall of the model's main metric, in its own unit (AP: 0..1).
    """

    cosine: float
    metric_drop: float


LIMITS = {
    "float32": Limits(0.99999, 0.001),
    "float16": Limits(0.9999, 0.003),
    "dynamic": Limits(0.99, 0.01),
    "int8": Limits(0.98, 0.01),
    "int16x8": Limits(0.99, 0.01),
}


class ParityError(MaskedgeError):
    """A converted file differs from Keras by more than its limits."""


def compare(
    pairs: Iterable[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]],
) -> dict[str, dict[str, float]]:
    """Error of each output over some pictures.

    Args:
        pairs: per picture (of Keras, of the converted file): output name to array, same shapes.

    Returns:
        Output name to `max_error`, `mean_error` (absolute) and `cosine` over all values.
    """
    sums: dict[str, np.ndarray] = {}
    for reference, other in pairs:
        for name, a in reference.items():
            b = other[name].astype(np.float64).ravel()
            a = a.astype(np.float64).ravel()
            error = np.abs(a - b)
            now = sums.setdefault(name, np.zeros(6))
            now[0] = max(now[0], error.max())
            now[1:] += [error.sum(), error.size, a @ b, a @ a, b @ b]
    return {
        name: {
            "max_error": round(float(s[0]), 6),
            "mean_error": round(float(s[1] / s[2]), 7),
            "cosine": round(float(s[3] / max(np.sqrt(s[4] * s[5]), 1e-12)), 7),
        }
        for name, s in sums.items()
    }


def check(precision: str, outputs: dict[str, dict[str, float]], metric_drop: float) -> None:
    """Holds the figures of one file against `LIMITS`.

    Raises:
        ParityError: with the figure that is past its limit.
    """
    limits = LIMITS[precision]
    for name, figures in outputs.items():
        if figures["cosine"] < limits.cosine:
            raise ParityError(
                f"{precision}: cosine of {name} is {figures['cosine']}, the limit {limits.cosine}"
            )
    if metric_drop > limits.metric_drop:
        raise ParityError(
            f"{precision}: the metric falls by {metric_drop:.4f}, the limit is {limits.metric_drop}"
        )
