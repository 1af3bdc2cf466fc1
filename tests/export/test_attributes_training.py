"""From labelled pictures to a calibrated, converted attributes model: packs, batches, losses, report."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest

from edge.tflite import Model, load_manifest
from export import attributes_model, attributes_report, attributes_sizes, cards, convert, manifest
from export import evaluate_attributes as scores
from export.data import attribute_batches as batches
from export.data import attribute_faces as faces
from export.data import crop_sets
from export.models import attributes as net
from export.models.blocks import carry_over
from export.train import attributes as training
from export.train.averaging import read_averaged
from export.train.opinions import second_opinions

TINY = net.AttributesConfig(0.25, 8, (8, 8, 8), (1, 1, 1), (1, 1, 1), top=8)
SIZE = 48


@pytest.fixture(scope="module")
def packs(data: Path) -> Path:
    patch = pytest.MonkeyPatch()
    patch.setattr(faces, "yunet_sees", lambda *_: False)
    out = data / "run" / "packs"
    faces.prepare(data, data, out, variants=(1,))
    patch.undo()
    return out


def test_labels_of_every_set(data: Path):
    fair = crop_sets.entries(data / "faces" / "fairface")
    assert [e.gender for e in fair] == [1, 0, 1, 0]
    assert [crop_sets.AGES[e.age] for e in fair] == ["20-29", "0-2", "more than 70", "30-39"]
    assert [crop_sets.RACES[e.race] for e in fair] == ["Black", "Indian"] * 2
    utk = crop_sets.entries(data / "faces" / "utkface")
    assert [(e.gender, crop_sets.AGES[e.age]) for e in utk] == [(1, "20-29"), (0, "20-29")] * 2
    assert [e.gender for e in crop_sets.entries(data / "faces" / "genderface")] == [1, 0]
    assert [e.gender for e in crop_sets.entries(data / "faces" / "lfw")] == [0, 0, 1, 1]
    assert [e.gender for e in crop_sets.entries(data / "faces" / "celeba")] == [-1] * 6
    masks = crop_sets.entries(data / "faces" / "masks")
    assert [e.mask.tolist() for e in masks] == [[0, 0, 0, 1], [1, 0, 0, 0]]
    assert masks[0].embedding is None
    assert np.linalg.norm(fair[0].embedding) == pytest.approx(1)


@pytest.mark.parametrize(
    ("stem", "state"),
    [
        ("1_Mask", "correct"),
        ("1_Mask_Mouth_Chin", "nose_out"),
        ("1_Mask_Chin", "chin"),
        ("1_Mask_Nose_Mouth", None),
    ],
)
def test_maskon_names_tell_the_state(stem: str, state: str | None):
    assert faces.maskon_state(stem) == state


@pytest.mark.parametrize(
    ("states", "row"),
    [(("none",), [1, 0, 0, 0]), (("nose_out", "chin"), [0, 1, 1, 0]), ((), [1, 1, 1, 1])],
)
def test_allowed_states(states: tuple[str, ...], row: list[int]):
    assert crop_sets.allowed(*states).tolist() == row


def test_packs_hold_every_kind_and_no_held_out_picture(packs: Path, data: Path):
    bare, painted = faces.load(packs / "bare"), faces.load(packs / "painted1")
    assert len(bare) == 19
    assert len(painted) == 18  # all but the one who wears a real mask
    assert bare.images.shape[1:] == (faces.SIDE, faces.SIDE, 3)
    assert (painted.mask[:, 0] == 0).all()
    assert (painted.mask.sum(axis=1) == 1).all()
    assert (faces.load(packs / "occluded").mask == [1, 0, 0, 0]).all()
    scenes = faces.load(packs / "scenes")
    assert set(np.unique(scenes.face)) == {0, 1}
    names = [p.stem for p in sorted((data / "scenes" / "maskon" / "images").iterdir())]
    held = sum(int(hashlib.md5(s.encode()).hexdigest(), 16) % 7 == 0 for s in names)
    assert len(faces.load(packs / "dev_maskon")) == held
    # What is packed stays packed.
    before = (packs / "bare" / "images.npy").stat().st_mtime_ns
    faces.prepare(data, data, packs, variants=(1,))
    assert (packs / "bare" / "images.npy").stat().st_mtime_ns == before


def test_the_packed_face_lies_where_the_template_says(data: Path):
    entry = crop_sets.entries(data / "faces" / "celeba")[0]
    image = cv2.imread(str(entry.path))
    for point in entry.landmarks:  # a dot on each landmark must come to lie on the template's
        marked = np.zeros_like(image)
        cv2.circle(marked, tuple(int(v * 16) for v in point - 0.5), 32, (0, 0, 255), -1, cv2.LINE_AA, 4)
        crop = batches.plain(faces.cut(marked, entry.landmarks), 96)
        ys, xs = np.nonzero(crop[..., 0] > 100)
        nearest = np.abs(faces.template() * 96 - 0.5 - [xs.mean(), ys.mean()]).sum(axis=1).min()
        assert nearest < 9  # one face is not the mean face


def test_batches_are_reproducible_and_mixed(packs: Path):
    def make(epoch: int = 0) -> batches.AttributeBatches:
        return batches.AttributeBatches(packs, size=SIZE, batch=64, steps=2, seed=3, epoch=epoch)

    (x, y), (again, _), (other, _) = make()[1], make()[1], make(1)[1]
    assert (x == again).all()
    assert not (x == other).all()
    assert x.shape == (64, SIZE, SIZE, 3)
    assert y.shape == (64, batches.COLUMNS)
    assert 0 <= x.min() < x.max() <= 255
    assert 0 < y[:, batches.FACE].mean() < 1
    assert set(np.unique(y[:, batches.MASK])) == {0, 1}
    known = y[:, batches.GENDER].sum(axis=1)
    assert set(known) == {0, 1}
    assert (y[y[:, batches.FACE] == 0][:, batches.MASK] == 1).all()  # what is no face wears nothing


def test_the_lower_half_has_the_mask_and_not_the_eyes():
    points = faces.template(faces.MARGIN)
    halves = [batches.lower_half(points, faces.SIDE, np.random.default_rng(seed)) for seed in range(50)]
    eyes, mouth = (np.round(points[[0, 4]] * faces.SIDE).astype(int)).tolist()
    assert max(half[eyes[1], eyes[0], 0] for half in halves) < 0.5
    assert min(half[mouth[1], mouth[0], 0] for half in halves) == 1


def test_bare_faces_get_real_masks_and_their_states(packs: Path):
    def make(hardness: batches.Hardness) -> batches.AttributeBatches:
        made = batches.AttributeBatches(packs, hardness, size=SIZE, batch=64, steps=1, seed=3)
        made.groups = [g for g in made.groups if g.pack == made.bare][:1]  # gender known
        made.shares = np.ones(1)
        return made

    _, bare = make(batches.PLAIN)[0]
    assert (bare[:, batches.MASK] == [1, 0, 0, 0]).all()
    assert (bare[:, batches.GENDER].sum(axis=1) == 1).all()
    pixels, worn = make(batches.Hardness(worn=1.0))[0]
    assert pixels.shape == (64, SIZE, SIZE, 3)
    assert (worn[:, batches.MASK][:, 0] == 0).all()
    right = worn[:, batches.MASK][:, 3] == 1
    assert 10 < right.sum() < 54
    assert (worn[right][:, batches.GENDER].sum(axis=1) == 1).all()
    # With somebody else's nose in the picture nobody knows.
    assert (worn[~right][:, batches.GENDER] == 0).all()
    assert (worn[~right][:, batches.EMBEDDING] == 0).all()


def test_blended_faces_are_told_by_their_shares():
    pixels = np.stack([np.full((4, 4, 3), value, np.float32) for value in (0, 100)])
    targets = np.zeros((2, batches.COLUMNS), np.float32)
    targets[:, batches.GENDER] = np.eye(2)
    targets[:, batches.MASK] = np.eye(4)[:2]
    targets[:, [batches.FACE, batches.FACE_KNOWN]] = 1
    targets[:, batches.EMBEDDING][:, :2] = np.eye(2) * 3
    x, y = batches.mix(pixels.copy(), targets.copy(), np.random.default_rng(0), 0.0)
    assert (x == pixels).all()
    assert (y == targets).all()
    clear = []
    for seed in range(20):
        x, y = batches.mix(pixels.copy(), targets.copy(), np.random.default_rng(seed), 1.0)
        male = x[:, 0, 0, 0] / 100
        assert np.allclose(y[:, batches.GENDER], np.stack([1 - male, male], axis=1), atol=1e-5)
        assert np.allclose(y[:, batches.EMBEDDING][:, :2], y[:, batches.GENDER], atol=1e-5)
        own = np.array([1 - male[0], male[1]])
        told = own >= batches.CLEAR
        assert (y[told, batches.MASK] == targets[told, batches.MASK]).all()
        assert (y[~told, batches.MASK] == 1).all()  # any state: nothing is learnt
        assert (y[:, batches.FACE_KNOWN] == told).all()
        clear += told.tolist()
    assert 0 < np.mean(clear) < 1
    # Who does not know the gender cannot share it.
    targets[1, batches.GENDER] = 0
    _, y = batches.mix(pixels.copy(), targets, np.random.default_rng(0), 1.0)
    assert (y[:, batches.GENDER] == 0).all()


def judged_faces(n: int = 400) -> faces.Faces:
    """Faces whose first number of the embedding tells the gender, a quarter of them without a label."""
    rng = np.random.default_rng(0)
    gender = rng.integers(0, 2, n)
    embedding = rng.integers(-20, 20, (n, 128))
    embedding[:, 0] = np.where(gender == 1, 100, -100)
    empty = np.zeros(n, np.int8)
    return faces.Faces(
        images=np.zeros((n, 2, 2, 3), np.uint8),
        mask=np.tile(crop_sets.allowed("none"), (n, 1)),
        gender=np.where(np.arange(n) % 4 == 0, -1, gender).astype(np.int8),
        age=empty - 1,
        race=empty - 1,
        face=empty + 1,
        embedding=embedding.astype(np.int8),
        side=empty.astype(np.float32),
    )


def test_judges_see_no_label_of_the_faces_they_are_asked_about(caplog):
    pack = judged_faces()
    truth = (pack.embedding[:, 0] > 0).astype(int)
    # Labels that are wrong: a judge who had learnt them would repeat some, one of other folds cannot.
    wrong = np.flatnonzero((pack.gender >= 0) & (np.arange(len(pack)) % 19 == 0))
    pack.gender[wrong] = 1 - pack.gender[wrong]
    pack.embedding[1] = 0  # nothing is known of it, so that nobody has an opinion
    caplog.set_level("INFO")
    thought = second_opinions(pack, folds=3, seeds=1)
    assert len(thought) == len(pack) - 1
    said = np.array([thought[row.tobytes()] for row in pack.embedding[2:]])
    assert said.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert (said.argmax(axis=1) == truth[2:]).mean() > 0.97  # those without a label too
    assert "faces of other folds" in caplog.text
    pack.gender[150:] = -1
    assert second_opinions(pack, folds=3) == {}
    assert "too few for second opinions" in caplog.text


def test_an_opinion_is_mixed_with_the_label_and_stands_in_for_it(packs: Path):
    bare = faces.load(packs / "bare")
    opinions = {row.tobytes(): np.array([0.9, 0.1], np.float32) for row in bare.embedding if row.any()}

    def genders(soft: float, told: dict | None) -> np.ndarray:
        made = batches.AttributeBatches(
            packs, batches.Hardness(soft=soft), opinions=told, size=SIZE, batch=64, steps=1, seed=3
        )
        return made[0][1][:, batches.GENDER]

    labels, mixed, alone = genders(0.5, None), genders(0.5, opinions), genders(1.0, opinions)
    known = labels.sum(axis=1) == 1
    assert np.allclose(mixed[known], 0.5 * labels[known] + [0.45, 0.05])
    assert np.allclose(alone[known], [0.9, 0.1])
    # celeba and pins have embeddings and no gender; scenes have neither.
    assert set(np.round(mixed[~known].sum(axis=1), 3)) == {0, 1}


def test_a_step_traces_as_a_graph(packs: Path, traced_step):
    hard = batches.Hardness(worn=0.5, mixed=0.5)
    pixels, targets = batches.AttributeBatches(packs, hard, size=SIZE, batch=8, steps=1, seed=3)[0]
    traced_step(training.AttributesTrainer(net.build(SIZE, TINY, teaching=True), 0.2), pixels, targets)


def test_what_is_taught_besides_counts_as_much_as_asked(packs: Path):
    pixels, targets = batches.AttributeBatches(packs, size=SIZE, batch=8, steps=1, seed=3)[0]
    network = net.build(SIZE, TINY, teaching=True)
    answer = network(pixels)

    def loss(taught: float) -> tuple[float, dict[str, float]]:
        trainer = training.AttributesTrainer(network, taught)
        total = float(trainer.compute_loss(pixels, targets, answer))
        return total, {name: float(part.result()) for name, part in trainer.parts.items()}

    (whole, parts), (less, _) = loss(1.0), loss(0.2)
    besides = sum(training.WEIGHTS[name] * parts[name] for name in net.TEACHING)
    assert besides > 0
    assert whole - less == pytest.approx(0.8 * besides, rel=1e-4)


def test_training_goes_on_where_it_stopped_and_scores_as_it_goes(packs: Path, tmp_path: Path, caplog):
    def stage(epochs: int, size: int = 32) -> training.AttributesStage:
        return training.AttributesStage(
            size=size, placed=size == SIZE, batch=8, steps=4, epochs=epochs, warmup=2
        )

    caplog.set_level("INFO")
    training.train(packs, tmp_path, [stage(1)], TINY)
    training.train(packs, tmp_path, [stage(2)], TINY)
    # As if killed while it wrote the last checkpoint.
    (tmp_path / "stage1" / "checkpoint" / "latest.weights.h5").write_bytes(b"half")
    training.train(packs, tmp_path, [stage(3), stage(1, SIZE)], TINY)
    lines = (tmp_path / "stage1" / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [0, 1, 1, 2]  # one epoch is repeated
    assert any("dev_bare" in record.getMessage() for record in caplog.records)
    network = training.load_network(tmp_path, SIZE)
    folded = training.load_network(tmp_path, SIZE, batch=1, folded=True)
    pixels = np.random.default_rng(0).integers(0, 256, (1, SIZE, SIZE, 3)).astype(np.float32)
    assert set(network.output) == set(net.OUTPUTS)
    with pytest.raises(ValueError, match="48 px"):
        training.load_network(tmp_path, 64)
    for name, value in network(pixels).items():
        assert np.allclose(value, folded(pixels)[name], atol=1e-4)
    training.train_plain(packs, tmp_path / "plain", [stage(1)])
    mask = faces.load(tmp_path / "plain" / "packs" / "scenes").mask
    assert not mask[:, 1:3].any()  # it is told of two classes only


def test_a_stage_keeps_as_much_of_what_it_began_with_as_asked(packs: Path, tmp_path: Path):
    first = training.AttributesStage(size=32, placed=False, batch=8, steps=4, epochs=1, warmup=2)
    result = training.train(packs, tmp_path, [first, replace(first, seed=2, kept=0.25)], TINY)
    began, ended = (read_averaged(tmp_path / f"stage{n}" / "averaged.npz")[0] for n in (1, 2))
    assert any((old != new).any() for old, new in zip(began, ended, strict=True))
    for old, new, got in zip(began, ended, read_averaged(result)[0], strict=True):
        assert np.allclose(got, 0.25 * old + 0.75 * new, atol=1e-6)


def test_pooling_by_place_begins_as_the_mean():
    keras.utils.set_random_seed(1)
    opened = net.build(None, TINY, teaching=True)
    fixed = net.build(SIZE, TINY, teaching=True)
    carry_over(opened.get_weights(), fixed)
    pixels = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3)).astype(np.float32)
    for name, value in opened(pixels).items():
        assert np.allclose(value, fixed(pixels)[name], atol=1e-5)
    again = net.build(SIZE, TINY, teaching=True)
    carry_over(fixed.get_weights(), again)
    assert np.allclose(again(pixels)["mask"], fixed(pixels)["mask"], atol=1e-6)
    # For another side, weights that fall from the left to the right still do; also in many channels.
    wide = replace(TINY, top=160 * 4)
    small, larger = (net.build(side, wide, teaching=True) for side in (SIZE, 2 * SIZE))
    at = [weight.path for weight in small.weights].index(small.get_layer("pooled").weights[0].path)
    weights = small.get_weights()
    weights[at] *= np.linspace(2, 0, weights[at].shape[1])[None, :, None, None]
    carry_over(weights, larger)
    pooling = larger.get_weights()[at]
    assert pooling.shape[2] > 128
    assert pooling.sum() == pytest.approx(weights[at].sum(), rel=1e-3)
    assert (np.diff(pooling.mean((0, 2, 3))) <= 0).all()


def test_missing_packs_and_weights_say_what_to_run(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="prepare attributes"):
        training.train(tmp_path, tmp_path / "run")
    with pytest.raises(FileNotFoundError, match="train attributes"):
        training.load_network(tmp_path)


def test_a_label_of_two_states_counts_their_sum():
    logits = keras.ops.convert_to_tensor(np.log(np.array([[0.1, 0.3, 0.5, 0.1]], np.float32)))
    two = np.array([[0, 1, 1, 0]], np.float32)
    one = np.array([[0, 0, 1, 0]], np.float32)
    mean = -np.log([0.1, 0.3, 0.5, 0.1]).mean()
    for allowed, chance in ((two, 0.8), (one, 0.5)):
        got = float(training._sum_of_allowed(allowed, logits)[0])
        smooth = training.SMOOTHING
        assert got == pytest.approx((1 - smooth) * -np.log(chance) + smooth * mean, abs=1e-4)
    assert training._informative(np.array([[1, 1, 1, 1], [0, 1, 1, 0]], np.float32)).numpy().tolist() == [
        0,
        1,
    ]


def test_temperature_is_found_and_folded():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (20_000, 4))
    label = np.array([rng.choice(4, p=p) for p in scores.softmax(logits)])

    def nll(x: np.ndarray) -> float:
        return float(-np.log(scores.softmax(x)[np.arange(len(x)), label]).mean())

    found = attributes_model.fit_temperature(logits * 2.5, nll)
    assert found == pytest.approx(2.5, rel=0.05)
    p = scores.softmax(logits)
    right = p.argmax(axis=1) == label
    assert scores.calibration_error(p.max(axis=1), right) < 0.02
    sharp = scores.softmax(logits * 2.5)
    assert scores.calibration_error(sharp.max(axis=1), right) > 0.1
    network = net.build(SIZE, TINY)
    pixels = rng.integers(0, 256, (2, SIZE, SIZE, 3)).astype(np.float32)
    before = {k: v.numpy() for k, v in network(pixels).items()}
    attributes_model.fold_temperatures(network, {"mask": 2.0, "gender": 0.5})
    after = {k: v.numpy() for k, v in network(pixels).items()}
    assert np.allclose(after["mask"], before["mask"] / 2, atol=1e-5)
    assert np.allclose(after["gender"], before["gender"] * 2, atol=1e-5)
    assert np.allclose(after["face"], before["face"], atol=1e-6)


@pytest.mark.parametrize(
    ("mask", "one", "three"),
    [([1, 0, 0, 0], 0, 0), ([0, 1, 1, 0], -1, 1), ([0, 0, 0, 1], 3, 2), ([1, 1, 1, 1], -1, -1)],
)
def test_what_a_label_says(mask: list[int], one: int, three: int):
    row = np.array([mask], np.uint8)
    assert scores.one_state(row).tolist() == [one]
    assert scores.three_states(row).tolist() == [three]


def test_shares_carry_their_n():
    assert scores.share(np.array([True, True, False, True])) == {"value": 0.75, "n": 4, "ci95": 0.4244}
    right, wanted = np.array([True, True, True, False]), np.array([0, 0, 0, 1])
    assert scores.balanced(right, wanted) == {"value": 0.5, "n": 4}


def test_from_training_to_shipped_files_and_report(data: Path, packs: Path, tmp_path: Path, monkeypatch):
    """The whole road on a network that knows nothing: every file, table and picture is made and loads."""
    monkeypatch.setattr(faces, "yunet_sees", lambda *_: False)
    # Random weights quantise badly; what is tested here is the road.
    monkeypatch.setattr(attributes_model.parity, "check", lambda *_: None)
    run = tmp_path / "run"
    training.train(
        packs,
        run,
        [training.AttributesStage(size=SIZE, placed=False, batch=8, steps=4, epochs=1, warmup=1)],
        TINY,
    )
    out, report = tmp_path / "models", tmp_path / "report.md"
    out.mkdir()
    face = load_manifest().models["face"]
    (out / "manifest.json").write_text((load_manifest().folder / "manifest.json").read_text())
    assert face.threshold("score") > 0
    entry = attributes_model.convert_attributes(data, run, packs, out, SIZE, report=report)
    assert set(entry["files"]) >= {"float32", "float16", "dynamic", "int8"}
    assert set(entry["thresholds"]) == {"mask", "gender", "face", "min_side", "sharpness"}
    written = load_manifest(out)
    for precision in entry["files"]:
        model = Model(written.read("attributes", precision), name=precision)
        assert sorted(spec.shape[-1] for spec in model.outputs) == [1, 2, 4]
        assert model.inputs[0].dtype == np.uint8 or precision == "int16x8"
    assert (out / "attributes.md").read_text().startswith("# attributes")
    text = report.read_text()
    for title in ("ilc 3 states", "race", "Not a face", "Reliability"):
        assert title in text
    for part in ("confusion", "reliability", "groups"):
        assert cv2.imread(str(tmp_path / f"report_{part}.png")) is not None
    result = json.loads(report.with_suffix(".json").read_text())
    assert all(row["n"] for row in result["precisions"]["int8"].values())
    assert cards.attributes(entry, result, attributes_report)


def test_sizes_are_trained_scored_and_timed_alike(data: Path, packs: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(attributes_sizes, "ROUNDS", 2)
    monkeypatch.setattr(
        attributes_sizes,
        "schedule",
        lambda size, steps: (
            training.AttributesStage(size=size, placed=False, batch=8, steps=steps, epochs=1, warmup=1),
        ),
    )
    pair = (attributes_sizes.Candidate(32, 0.25), attributes_sizes.Candidate(48, 0.25))
    report = tmp_path / "sizes.json"
    rows = attributes_sizes.compare(data, packs, tmp_path / "run", report, candidates=pair, steps=4)
    assert [row["name"] for row in rows] == ["32 px x 0.25", "48 px x 0.25"]
    assert all(row["int8_ms"]["p50"] > 0 and 0 <= row["main"] <= 1 for row in rows)
    assert cv2.imread(str(report.with_suffix(".png"))) is not None


@pytest.mark.parametrize("precision", convert.PRECISIONS)
def test_every_precision_of_the_attributes_agrees_with_keras(precision: str):
    keras.utils.set_random_seed(4)
    network = net.build(SIZE, TINY, batch=1, folded=True)
    rng = np.random.default_rng(1)
    pixels = [rng.integers(0, 256, (1, SIZE, SIZE, 3)).astype(np.uint8) for _ in range(8)]
    model = Model(convert.to_tflite(network, precision, lambda: pixels), name=precision)
    crops = np.concatenate(pixels)
    got = scores.logits_of(model, crops)
    for name in net.OUTPUTS:
        # A face and its mirror image count alike.
        views = [np.concatenate([p, p[:, :, ::-1]]).astype(np.float32) for p in pixels]
        want = np.array([np.mean([network(v[None])[name][0] for v in pair], axis=0) for pair in views])
        assert np.abs(got[name] - want).max() < 0.2 * max(np.abs(want).max(), 0.1)


def test_no_precision_needs_a_newer_runtime_than_the_older_one_supported(tmp_path: Path):
    """tflite-runtime ends with 2.14."""
    network = net.build(SIZE, batch=1, folded=True)
    pixels = [np.zeros((1, SIZE, SIZE, 3), np.uint8)]
    for precision in ("float32", "float16", "dynamic", "int8"):
        path = tmp_path / "a.tflite"
        path.write_bytes(convert.to_tflite(network, precision, lambda: pixels))
        needed = manifest.file_facts(path)["min_runtime"].split(".")
        assert (int(needed[0]), int(needed[1])) <= (2, 14), precision
