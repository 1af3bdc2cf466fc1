"""From face crops to a converted identity model: packs, batches, losses, figures."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from edge.errors import ModelError
from edge.geometry import align
from edge.masks import Design, paint_mask
from edge.tasks.identity import TEMPLATE, Embedder, side_of_crop, views
from edge.tflite import load_manifest, load_model
from export import evaluate_identity as scores
from export import identity_model, parity
from export.data import identity_faces as faces
from export.data.crop_sets import found_landmarks, unit_rows
from export.data.teacher import Helper, Teacher, blend, reshape, share_of, warp
from export.models import identity as net
from export.train import identity as training
from export.train.averaging import Averaged, read_averaged, unit
from export.train.stages import TrainConfig, precision

TINY = net.IdentityConfig(0.25, 8, (8, 8, 8), (1, 1, 1), (1, 1, 1), top=16)
SIZE = 48
NEW = 100


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that tells light from dark parts of a face, two faces at a time."""
    keras.utils.set_random_seed(5)
    image = keras.Input((112, 112, 3), batch_size=2)
    x = keras.layers.Flatten()(keras.layers.AveragePooling2D(28)(image))
    converter = tf.lite.TFLiteConverter.from_keras_model(
        keras.Model(image, keras.layers.Dense(faces.teacher.DIMENSIONS)(x))
    )
    path = tmp_path_factory.mktemp("teacher") / "teacher.tflite"
    path.write_bytes(converter.convert())
    return path


def message(*fields: tuple[int, int | str | bytes]) -> bytes:
    """A protocol buffer of fields, by their numbers."""
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += bytes([number << 3, value])
        else:
            value = value.encode() if isinstance(value, str) else value
            assert len(value) < 128 * 128
            out += bytes([number << 3 | 2, len(value) % 128 | 128, len(value) // 128]) + value
    return out


@pytest.fixture(scope="module")
def helper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX network that gives the mean of each channel, written by hand (onnx.proto)."""

    def value(name: str, *shape: int) -> bytes:
        sides = [(1, message((1, side))) for side in shape]
        return message((1, name), (2, message((1, message((1, 1), (2, message(*sides)))))))

    node = message((1, "face"), (2, "means"), (4, "GlobalAveragePool"))
    graph = message(
        (1, node), (2, "graph"), (11, value("face", 1, 3, 112, 112)), (12, value("means", 1, 3, 1, 1))
    )
    path = tmp_path_factory.mktemp("helper") / "helper.onnx"
    path.write_bytes(message((1, 8), (7, graph), (8, message((2, 13)))))
    return path


@pytest.fixture(scope="module")
def packs(data: Path, teacher: Path, helper: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("identity") / "packs"
    return faces.prepare(data, out, teacher, helper, variants=(1,), imagined=NEW)


@pytest.fixture(scope="module")
def run(packs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    small = training.IdentityStage(
        size=32, placed=False, batch=8, steps=4, epochs=1, warmup=2, bfloat16=False
    )
    large = replace(small, size=SIZE, placed=True, bfloat16=True)
    stages = [small, replace(large, hardness=faces.HARD), replace(large, hardness=faces.IMAGINED)]
    training.train(packs, out, stages, TINY)
    return out


def test_a_run_goes_on_with_more_blocks(packs: Path, run: Path, tmp_path: Path):
    deeper = replace(TINY, depths=(1, 3, 2))
    stage = training.IdentityStage(size=SIZE, batch=8, steps=4, epochs=1, warmup=1, bfloat16=False)
    training.train(packs, tmp_path, [stage], deeper, begin=run)
    crops = faces.dev_batches(faces.load(packs / "dev_bare"), SIZE)[0]
    before, begun = training.load_network(run), net.build(SIZE, deeper)
    begun.set_weights(read_averaged(tmp_path / "deepened.npz")[0])
    assert len(begun.weights) == len(before.weights) + 3 * 15
    assert np.allclose(training.embed(begun, crops), training.embed(before, crops), atol=1e-6)
    after = training.load_network(tmp_path)
    assert not np.allclose(training.embed(after, crops), training.embed(before, crops), atol=1e-6)


def test_the_first_teacher_is_told_anew_once_others_were_asked(packs: Path, tmp_path: Path):
    stage = training.IdentityStage(
        size=32, batch=8, steps=1, epochs=1, warmup=0, bfloat16=False, placed=False, hardness=faces.IMAGINED
    )
    kept = tmp_path / "translated.npy"
    stands_for = np.zeros((NEW, 128), np.float16)
    np.save(kept, stands_for)
    training.train(packs, tmp_path, [stage], TINY)
    assert (np.load(kept) == stands_for).all()
    os.utime(kept, (0, 0))
    training.train(packs, tmp_path, [stage], TINY)
    assert np.load(kept).any()


def test_packs_hold_nobody_twice(packs: Path):
    bare, held = faces.load(packs / "bare"), faces.load(packs / "dev_bare")
    assert len(bare) == 4 + 4 + 2 + 3 + 1  # three of celeba are held out, lfw and fairface_dev not there
    assert len(held) == 3
    assert sorted(set(bare.person)) == [-1, 0, 1, 2]  # two of celeba, one of pins
    assert sorted(held.person) == [0, 1, 1] or sorted(held.person) == [0, 0, 1]
    for part in (faces.FIRST, faces.SECOND):
        assert np.allclose(np.linalg.norm(bare.embedding[:, part].astype(float), axis=1), 1, atol=2e-3)
    painted = faces.load(packs / "painted1")
    assert painted.row.tolist() == bare.row.tolist() == list(range(len(bare)))
    assert (painted.images != bare.images).any(axis=(1, 2, 3)).all()
    covered = faces.load(packs / "occluded")
    assert covered.row.tolist() == list(range(0, len(bare), 3))
    assert (covered.embedding[:, faces.SECOND] == bare.embedding[::3, faces.SECOND]).all()
    assert len(faces.load(packs / "dev_painted").embedding) == len(held)


def test_a_teacher_says_the_same_of_a_face_in_any_company(packs: Path, teacher: Path):
    asked = Teacher(teacher)
    crops = [faces.taught(image) for image in faces.load(packs / "bare").images[:3]]
    together = asked.embed(crops)
    assert together.shape == (3, faces.teacher.DIMENSIONS)
    assert faces.DIMENSIONS == net.DIMENSIONS
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    for crop, vector in zip(crops, together, strict=True):
        assert np.allclose(asked.embed([crop])[0], vector, atol=1e-6)
    assert not np.allclose(together[0], together[1], atol=1e-3)
    assert np.allclose(together, faces.load(packs / "bare").embedding[:3, faces.SECOND], atol=1e-3)


def test_packs_that_no_teacher_was_asked_about(packs: Path, tmp_path: Path):
    shutil.copytree(packs / "bare", tmp_path / "bare")
    (tmp_path / "bare" / faces.ANSWERS).unlink()
    with pytest.raises(FileNotFoundError, match="with --teacher"):
        faces.load(tmp_path / "bare")


def test_what_cannot_teach_is_refused(tmp_path: Path, data: Path):
    shipped = Path(__file__).parents[2] / "converted_models"
    with pytest.raises(ValueError, match="it has to take float32 112x112x3"):
        faces.prepare(data, tmp_path, shipped / "attributes.float32.tflite")
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(b"no network")
    with pytest.raises(ModelError, match="not a usable"):
        Teacher(broken)
    with pytest.raises(ModelError, match=r"missing\.tflite"):
        Teacher(tmp_path / "missing.tflite")


def test_who_was_not_asked_yet_is_asked_later(data: Path, teacher: Path, helper: Path, tmp_path: Path):
    files = [Path("bare") / faces.ANSWERS, Path("dev_bare") / faces.ANSWERS, Path(faces.NEW_ANSWERS)]
    out = faces.prepare(data, tmp_path / "packs", teacher, variants=(), imagined=7)
    before = [faces.answers(out / file) for file in files]
    faces.prepare(data, out, teacher, helper, variants=(), imagined=7)
    for file, had in zip(files, before, strict=True):
        has = faces.answers(out / file)
        assert (has[:, : had.shape[1]] == had).all()
        assert has.shape[1] == had.shape[1] + 3


def test_a_helper_sees_colours_as_it_is_used_to(helper: Path, packs: Path, tmp_path: Path):
    asked = Helper(helper)
    colours = np.zeros((2, 112, 112, 3), np.uint8)
    colours[0], colours[1] = (255, 0, 0), (0, 0, 255)
    said = asked.embed(list(colours))
    assert said.shape == (2, asked.dimensions) == (2, 3)
    assert np.allclose(said, np.array([[-1, -1, 1], [1, -1, -1]]) / 3**0.5, atol=1e-5)
    bare = packs / "bare"
    crops = [faces.taught(image) for image in faces.load(bare).images]
    assert np.allclose(faces.answers(bare / faces.ANSWERS)[:, -3:], asked.embed(crops), atol=1e-3)
    for bad in (tmp_path / "missing.onnx", tmp_path / "broken.onnx", packs / faces.TEACHER):
        if bad.name == "broken.onnx":
            bad.write_bytes(b"no network")
        with pytest.raises(ModelError, match=bad.name):
            Helper(bad)


def test_the_teachers_are_asked_about_faces_that_nobody_has(packs: Path, teacher: Path):
    still = faces.Hardness(moved=0, spoilt=0, imagined=0.5)
    drawing = {"size": 112, "batch": 128, "steps": 1, "seed": 3}
    with pytest.raises(ValueError, match="need what the teacher"):
        faces.IdentityBatches(packs, still, **drawing)
    said = faces.answers(packs / faces.NEW_ANSWERS)
    assert said.shape == (NEW, faces.teacher.DIMENSIONS + 3)
    drawing["told"] = -said[:, faces.FIRST]
    x, y = faces.IdentityBatches(packs, still, **drawing)[0]
    again, told = faces.IdentityBatches(packs, still, **drawing)[0]
    assert (x == again).all()
    assert (y == told).all()
    new = y[:, faces.ROW] < 0
    assert 40 < new.sum() < 88
    assert (y[new, faces.PERSON] == -1).all()
    assert (y[new, faces.FIRST] == -y[new, faces.SECOND][:, faces.FIRST]).all()
    bare = faces.load(packs / "bare").embedding.astype(np.float32)
    assert np.allclose(y[~new, faces.TARGET], bare[y[~new, faces.ROW].astype(int)])
    # What it says is of the face as it was before a mask, or anything else, was put over it; some are bare.
    seen = Teacher(teacher).embed([image.astype(np.uint8) for image in x[new]])
    cosines = (seen * y[new, faces.SECOND]).sum(axis=1)
    assert np.allclose(np.linalg.norm(y[:, faces.SECOND], axis=1), 1, atol=2e-3)
    assert (cosines > 0.99).sum() >= 5
    # Those that are shown covered are never composed.
    assert faces.may_be_composed(np.arange(10)).sum() == 4
    images = np.array([np.full((faces.SIDE, faces.SIDE, 3), value, np.uint8) for value in (20, 200)])
    points = np.tile(faces.template() * faces.SIDE, (2, 1, 1))
    pack = faces.People(images, points, bare[:2], np.arange(2), np.full(2, -1))
    flat = [np.ptp(faces.imagined_face(pack, np.arange(2), number)) < 2 for number in range(60)]
    assert all(flat[number] for number in range(60) if not faces.may_be_composed(number))
    assert not all(flat)
    # Of each is known what it is made of.
    (one, share), (other, rest) = faces.made_of(pack, range(60))
    assert np.allclose(share + rest, 1)
    light = [faces.imagined_face(pack, np.arange(2), number).mean() for number in range(60)]
    assert np.allclose(light, share * (20 + 180 * one) + rest * (20 + 180 * other), atol=8)


def test_one_teacher_is_understood_by_what_the_others_say(tmp_path: Path):
    rng = np.random.default_rng(1)
    cause = rng.normal(0, 1, (600, 6)).astype(np.float32)
    first, second = (
        np.asarray(unit(cause @ rng.normal(0, 1, (6, size)).astype(np.float32)))
        for size in (faces.FIRST.stop, faces.teacher.DIMENSIONS)
    )
    file = tmp_path / "run" / "translated.npy"
    told = training.translated(first[:500], second[:500], second[500:], file, features=400, ridge=0.01)
    told = told.astype(np.float32)
    assert np.allclose(np.linalg.norm(told, axis=1), 1, atol=1e-3)
    assert (told * first[500:]).sum(axis=1).mean() > 0.95
    assert (training.translated(first[:1], second[:1], second, file) == told).all()  # as it was kept


def test_what_is_untold_of_faces_is_carried_over_to_those_made_of_them(tmp_path: Path):
    rng = np.random.default_rng(1)
    cause = rng.normal(0, 1, (500, 12)).astype(np.float32)
    first = np.asarray(unit(cause @ rng.normal(0, 1, (12, 128)).astype(np.float32)))
    said = np.asarray(unit(cause[:, :6] @ rng.normal(0, 1, (6, 300)).astype(np.float32)))  # half of it
    one, other = rng.integers(0, 500, (2, 200))
    share = rng.uniform(0.6, 1, 200).astype(np.float32)

    def blended(what: np.ndarray) -> np.ndarray:
        return np.asarray(unit(what[one] * share[:, None] + what[other] * (1 - share[:, None])))

    def cosine(name: str, **known: Any) -> float:
        file = tmp_path / f"{name}.npy"
        told = training.translated(first, said, blended(said), file, features=300, ridge=0.01, **known)
        return float((told * blended(first)).sum(axis=1).mean())

    assert cosine("alone") < 0.8
    assert cosine("carried", made_of=[(one, share), (other, 1 - share)]) > cosine("alone") + 0.1


def test_imagined_faces_are_of_both():
    dark, light = (np.full((64, 64, 3), value, np.uint8) for value in (40, 200))
    kinds = set()
    for seed in range(40):
        rng = np.random.default_rng(seed)
        assert np.ptp(reshape(blend(dark, light, share_of(64, rng, composed=0)), rng)) < 2
        out = reshape(blend(dark, light, share_of(64, rng)), rng)
        assert out.shape == dark.shape
        assert out.dtype == np.uint8
        assert out.min() >= 39
        assert out.max() <= 200
        kinds.add("blended" if np.ptp(out) < 2 else "composed")
    assert kinds == {"blended", "composed"}
    face = np.tile(np.arange(64, dtype=np.uint8)[:, None, None] * 4, (1, 64, 3))
    assert (warp(face, np.random.default_rng(0), 0.0) == face).all()
    moved = np.abs(warp(face, np.random.default_rng(0), 0.05).astype(int) - face) / 4
    assert 0.3 < moved.mean() < 4  # pixels, of 64


def test_scored_and_calibrated_crops_are_cut_as_on_the_device(packs: Path):
    pack = faces.load(packs / "dev_bare")
    of_pack = faces.dev_batches(pack, 112).swapaxes(0, 1)
    for image, shown in zip(pack.images, of_pack, strict=True):
        cut = align(np.asarray(image), faces.template() * faces.SIDE, np.array(TEMPLATE), side_of_crop(112))
        assert np.abs(np.subtract(views(cut, 112), shown)).mean() < 1


def test_batches_repeat_and_point_at_the_bare_face(packs: Path):
    make = faces.IdentityBatches(packs, size=SIZE, batch=32, steps=2, seed=3)
    x, y = make[1]
    again, _ = faces.IdentityBatches(packs, size=SIZE, batch=32, steps=2, seed=3)[1]
    assert (x == again).all()
    assert x.shape == (32, SIZE, SIZE, 3)
    bare = faces.load(packs / "bare")
    rows = y[:, faces.ROW].astype(int)
    assert np.allclose(y[:, faces.TARGET], bare.embedding[rows].astype(np.float32))
    assert (y[:, faces.PERSON] == bare.person[rows]).all()


def test_packs_of_an_older_version_are_made_anew(
    data: Path, teacher: Path, helper: Path, packs: Path, tmp_path: Path
):
    old = shutil.copytree(packs, tmp_path / "packs")
    (old / "painted1" / "points.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"painted1.*`prepare` again"):
        faces.load(old / "painted1")
    faces.prepare(data, old, teacher, helper, variants=(1,), imagined=NEW)
    assert (faces.load(old / "painted1").points == faces.load(packs / "painted1").points).all()


def test_faces_are_painted_where_their_landmarks_are(packs: Path):
    bare = faces.load(packs / "bare")
    for image, points in zip(bare.images, bare.points, strict=True):
        assert np.abs(found_landmarks(image[..., ::-1], points) - points).mean() < 3  # pixels, of 128
    moved = bare.points + np.float32([0, 15])
    rows = np.arange(len(bare))
    blended = next(number for number in range(NEW) if not faces.may_be_composed(number))
    for mode in ("painted", "occluded"):
        seen = []
        for points in (bare.points, moved):
            cover = partial(faces.painted_over, mode=mode, rng=np.random.default_rng(4))
            at = replace(bare, points=points)
            plain = faces.imagined_face(at, rows, blended).astype(int)
            changed = np.abs(faces.imagined_face(at, rows, blended, cover) - plain).max(axis=2) > 8
            assert 0.03 < changed.mean() < 0.8
            seen.append(np.argwhere(changed)[:, 0].mean())
        assert seen[1] - seen[0] > 3
    # The painter draws in BGR; a blue mask is blue in RGB too.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(faces, "paint_mask", partial(paint_mask, design=Design(color=(0.9, 0.2, 0.1))))
        image = faces.painted_over(bare.images[0], bare.points[0], "painted", np.random.default_rng(1))
    red, _, blue = image[90:110, 50:80].reshape(-1, 3).mean(axis=0)
    assert blue > red + 20


def test_hard_faces_are_repainted_and_blended(packs: Path):
    drawing = {"size": faces.SIDE, "batch": 64, "steps": 1, "seed": 3}
    still = faces.Hardness(moved=0, spoilt=0)
    _, told = faces.IdentityBatches(packs, still, **drawing)[0]
    _, y = faces.IdentityBatches(packs, replace(still, repainted=1.0), **drawing)[0]
    bare = faces.load(packs / "bare").embedding.astype(np.float32)
    for targets in (told, y):
        assert np.allclose(targets[:, faces.TARGET], bare[targets[:, faces.ROW].astype(int)])

    pixels = np.stack([np.full((4, 4, 3), value, np.float32) for value in (0, 100, 200)])
    targets = np.zeros((3, faces.COLUMNS), np.float32)
    targets[:, :3], targets[:, faces.ROW], targets[:, faces.PERSON] = np.eye(3), (4, 5, 6), 1
    targets[:, faces.SECOND.start] = 1
    x, y = faces.mix(pixels.copy(), targets.copy(), np.random.default_rng(0), 0.0)
    assert (x == pixels).all()
    assert (y == targets).all()
    x, y = faces.mix(pixels.copy(), targets.copy(), np.random.default_rng(0), 1.0)
    assert (y[:, [faces.ROW, faces.PERSON]] == -1).all()
    assert np.allclose(np.linalg.norm(y[:, faces.FIRST], axis=1), 1)
    assert np.allclose(y[:, faces.SECOND.start], 1)
    # As much of the other's pixels as of its embedding.
    shares = y[:, :3] / y[:, :3].sum(axis=1, keepdims=True)
    assert np.allclose(shares @ [0, 100, 200], x[:, 0, 0, 0], atol=1e-3)
    assert (np.diag(shares) > 0.499).all()
    assert (np.diag(shares) < 1).all()


def test_averages_are_of_weights_that_the_backend_keeps_elsewhere(tmp_path: Path):
    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    averaged = Averaged(network, 0.9, tmp_path / "averaged.npz", tmp_path / "history.jsonl")
    late = np.full((2, 1), 5.0, np.float32)
    averaged.set_model(SimpleNamespace(jax_state_sync=lambda: network.set_weights([late])))
    for step in range(Averaged.EVERY):
        averaged.on_train_batch_end(step)
    averaged.on_epoch_end(0)
    (mean,), steps = read_averaged(tmp_path / "averaged.npz")
    assert steps == Averaged.EVERY
    assert (mean == late).all()


def test_losses_fall_towards_the_own_face_and_person():
    keras.utils.set_random_seed(1)
    known = np.linalg.qr(np.random.default_rng(0).normal(size=(faces.DIMENSIONS, 6)))[0].T.astype(np.float32)
    known[5] = known[0]  # two pictures of one person: never pushed apart
    trainer = training.IdentityTrainer(net.build(None, TINY), known, known[1:3])
    rows = np.array([0, 1, 2])
    right, wrong = known[rows], known[[1, 2, 3]]
    assert float(trainer._others(right, known[rows])) < 0.1
    assert float(trainer._others(wrong, known[rows])) > 10
    # An imagined face is told from those of training, but not from the two it is of.
    between = (known[1:2] + known[2:3]) / 2**0.5
    assert float(trainer._others(known[3:4], between)) > 10
    assert float(trainer._others(known[1:2], between)) < 0.1
    assert np.allclose(trainer.centres, known[1:3])
    trainer.centres.assign(known[:2])
    one, none = np.array([0]), np.array([-1])
    assert float(trainer._people(known[:1], one)) < 0.1
    assert float(trainer._people(known[1:2], one)) > 10
    assert float(trainer._people(known[1:2], none)) == 0  # who is not known teaches nothing


def test_faces_shown_in_turns_count_for_all(monkeypatch: pytest.MonkeyPatch):
    known = unit_rows(np.random.default_rng(0).normal(size=(8, faces.DIMENSIONS))).astype(np.float32)
    own, target = known.mean(axis=0, keepdims=True), unit_rows(known[:1] - known[2:3])

    def times_as_likely(shown: int) -> set[float]:
        """The others against the own one."""
        monkeypatch.setattr(training, "SHOWN", shown)
        trainer = training.IdentityTrainer(net.build(None, TINY), known, known[:1])
        return {float(f"{np.expm1(float(trainer._others(own, target))):.4g}") for _ in range(40)}

    (at_once,), turns = times_as_likely(8), times_as_likely(2)
    assert len(turns) == 4
    assert np.mean(list(turns)) == pytest.approx(at_once, rel=0.01)


def test_a_step_in_bfloat16_traces_as_a_graph(packs: Path, traced_step):
    known = np.asarray(training.balanced(faces.load(packs / "bare").embedding.astype(np.float32)))
    with precision(TrainConfig(bfloat16=True)):
        network = net.build(SIZE, TINY)
    pixels, targets = faces.IdentityBatches(packs, size=SIZE, batch=8, steps=1, seed=3)[0]
    traced_step(training.IdentityTrainer(network, known, known[:3]), pixels, targets)


def test_whitening_evens_out_how_pictures_of_one_person_differ():
    rng = np.random.default_rng(4)
    people = np.repeat(np.arange(2000), 2)
    within = rng.normal(0, 0.01, (4000, 8)) * np.array([5, 2, 1, 1, 1, 1, 1, 1])
    turned = (rng.normal(0, 1, (2000, 8))[people] + within) @ np.linalg.qr(rng.normal(0, 1, (8, 8)))[0]
    turned /= np.linalg.norm(turned, axis=1, keepdims=True)
    first, second = turned[:3000:2], turned[1:3000:2]
    people[3000:3900] = -1
    people[3900:] = np.arange(5000, 5100)  # nor do those who were seen once tell anything

    def spread(**how: float) -> float:
        values = np.linalg.eigvalsh(np.cov(((first - second) @ training.whitening(turned, people, **how)).T))
        return float(values[-1] / values[0])

    before = spread(share=0)
    assert before > 5
    assert spread(share=0.25, shrinkage=0) == pytest.approx(before**0.75, rel=0.02)
    assert spread(share=1, shrinkage=0) == pytest.approx(1, abs=0.02)
    assert 1.5 < spread(share=1) < before - 1


def test_whitening_makes_parts_count_alike():
    rng = np.random.default_rng(4)
    vectors = rng.normal(0, 1, (4000, 8)) * np.array([5, 2, 1, 1, 1, 1, 1, 1]) + np.arange(8)
    nobody = np.full(4000, -1)
    parts = slice(0, 4), slice(4, 8)
    white = vectors @ training.whitening(vectors, nobody, parts=parts)
    lengths = [np.linalg.norm(vectors[:, part], axis=1).mean() for part in parts]
    # Where nobody is known what is left is that both parts count alike.
    for part, length in zip(parts, lengths, strict=True):
        assert np.allclose(white[:, part] * length, vectors[:, part], rtol=1e-4, atol=1e-3)


def test_the_last_layer_whitens(packs: Path):
    network = net.build(SIZE, TINY)
    crops = faces.dev_batches(faces.load(packs / "bare"), SIZE)[0]
    before = network.predict(crops, verbose=0)
    rng = np.random.default_rng(1)
    matrix = rng.normal(0, 1, (net.DIMENSIONS, net.DIMENSIONS))
    training.whiten(network, matrix)
    after = network.predict(crops, verbose=0)
    assert np.allclose(after["embedding"], before["embedding"] @ matrix, atol=1e-3)
    assert (after["quality"] == before["quality"]).all()


def test_from_a_run_to_shipped_files(data: Path, packs: Path, run: Path, tmp_path: Path, monkeypatch):
    assert json.loads((run / "network.json").read_text())["size"] == SIZE
    limits = {k: parity.Limits(0.3, 0.6) for k in parity.LIMITS}  # barely trained and whitened, four pairs
    monkeypatch.setattr(parity, "LIMITS", limits)
    out, report = tmp_path / "models", tmp_path / "identity_report.md"
    entry = identity_model.convert_identity(data, run, packs, out, SIZE, report=report)
    assert {"float32", "float16", "dynamic", "int8"} <= set(entry["files"])
    assert "bare - masked" in report.read_text()
    assert (tmp_path / "identity_report_roc.png").stat().st_size > 1000
    assert "false accepts" in (out / "identity.md").read_text()
    assert all("false accepts" in t["figure"] for t in entry["thresholds"].values())
    wild = scores.load_wild(data, SIZE)
    assert {kind: len(crops) for kind, crops in wild.crops.items()} == dict.fromkeys(scores.KINDS, 4)
    assert wild.missing == 0
    assert wild.same.tolist() == [True, False, True, False]
    for chosen in entry["files"]:
        model = load_model("identity", precision=chosen, models_dir=out, threads=1)
        vectors, quality = scores.embedder(model)(wild.crops["bare"])
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
        assert ((quality > 0) & (quality < 1)).all()
    points = np.array([[50, 50], [80, 50], [65, 70], [52, 88], [78, 88]], np.float32)
    embedder = Embedder(load_model("identity", models_dir=out))
    seen = embedder.embed(wild.crops["bare"][0], points)
    assert seen.vector.shape == (net.DIMENSIONS,)
    entry = load_manifest(out).models["identity"]
    assert entry.template(()).shape == (5, 2)
    moved = replace(entry, alignment={"template": entry.template(()) + 0.1})
    elsewhere = Embedder(load_model("identity", models_dir=out), moved).embed(wild.crops["bare"][0], points)
    assert not np.allclose(elsewhere.vector, seen.vector)
    assert 0 < seen.quality < 1
