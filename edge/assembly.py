"""From options to the parts of the loop: source, detector and the models of its tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge.config import Config
from edge.errors import ModelError

if TYPE_CHECKING:
    from edge.camera import Source
    from edge.tasks.attributes import AttributesEstimator
    from edge.tasks.face import FaceDetector
    from edge.tasks.identity import Embedder
    from edge.tasks.unmask import Unmasker
    from edge.tflite import ModelEntry


def source(config: Config) -> Source:
    """The source of frames, not opened yet."""
    from edge.camera import open_source

    return open_source(
        config.source,
        size=config.size,
        fps=config.fps,
        timeout=config.camera_timeout,
        loop=config.loop,
        rotation=config.rotation,
        flip=config.flip,
        controls={name: getattr(config, name) for name in ("exposure", "gain", "focus", "white_balance")},
        small=_model_side(config),
    )


def detector(config: Config, *, score: float | None = None) -> FaceDetector:
    """The face detector that the options ask for; `score` overrides their threshold."""
    from edge.tasks.face import FaceDetector
    from edge.tflite import load_manifest, load_model

    entry = load_manifest(config.models).entry("face")
    model = load_model("face", precision=config.precision, threads=config.threads, models_dir=config.models)
    wanted = config.score if score is None else score
    return FaceDetector(model, entry, score_threshold=wanted)


def estimator(config: Config) -> AttributesEstimator | None:
    """What tells mask state and gender; None, with the model not even loaded, where neither is asked for."""
    if not {"mask", "gender"} & set(config.tasks):
        return None
    from edge.tasks.attributes import AttributesEstimator
    from edge.tflite import load_manifest, load_model

    manifest = load_manifest(config.models)
    if "attributes" not in manifest.models:
        remedy = "get the models again, or use --tasks face to find faces only"
        raise ModelError(f"no model 'attributes' in {manifest.folder}", remedy=remedy)
    model = load_model(
        "attributes", precision=config.precision, threads=config.threads, models_dir=config.models
    )
    return AttributesEstimator(model, manifest.entry("attributes"), tasks=config.tasks)


def identity_entry(config: Config) -> ModelEntry:
    """What the manifest says of the identity model.

    Raises:
        ModelError: there is no such model.
    """
    from edge.tflite import load_manifest

    manifest = load_manifest(config.models)
    entry = manifest.models.get("identity")
    if entry is None:
        remedy = "take the folder of the shipped models, or train one: docs/training.md"
        raise ModelError(f"no model 'identity' in {manifest.folder}", remedy=remedy)
    return entry


def embedder(config: Config) -> Embedder:
    """What tells who somebody is.

    Raises:
        ModelError: there is no such model.
    """
    from edge.tasks.identity import Embedder
    from edge.tflite import load_model

    entry = identity_entry(config)
    return Embedder(
        load_model("identity", precision=config.precision, threads=config.threads, models_dir=config.models),
        entry,
    )


def unmasker(config: Config, *, threads: int | None = None) -> Unmasker:
    """What completes masked faces; on `threads` where the options do not say.

    Raises:
        ModelError: there is no such model.
    """
    from edge.tasks.unmask import Unmasker
    from edge.tflite import load_manifest, load_model

    entry = load_manifest(config.models).entry("unmask")
    model = load_model(
        "unmask",
        precision=config.precision,
        threads=config.threads or threads,
        models_dir=config.models,
    )
    return Unmasker(model, entry)


def score(config: Config) -> float:
    """The threshold in force: that of the options, else the manifest's."""
    if config.score is not None:
        return config.score
    from edge.tflite import load_manifest

    return load_manifest(config.models).entry("face").threshold("score")


def _model_side(config: Config) -> int | None:
    """Longest side of the face model's input, pixels; None where the manifest does not say."""
    from edge.tflite import load_manifest

    given = load_manifest(config.models).entry("face").input
    sides = [given.get(side) for side in ("width", "height")]
    return max((side for side in sides if isinstance(side, int)), default=None)
