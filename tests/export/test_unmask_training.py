"""From face crops to a converted unmask model: packs, batches, losses, stages, figures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest
from keras import ops

from edge.tflite import load_manifest, load_model
from export import evaluate_unmask as scores
from export import parity, unmask_model
from export.data import unmask_faces as faces
from export.models import attributes as attributes_net
from export.models import unmask as net
from export.train import unmask as training

TINY = net.UnmaskConfig(widths=(8, 8, 8, 8), depth=2, expansion=1, attention=2, painter=8)
SIZE = 32
SMALL = net.StudentConfig(width=4, levels=1)
"""Where the loop is tested and not the network: a third of the layers."""
STAGE = training.UnmaskStage(size=SIZE, batch=4, steps=4, epochs=1, warmup=1)


@pytest.fixture(scope="module")
def photographed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three masks of one colour each and three fabrics, in the layout of photographed ones."""
    root = tmp_path_factory.mktemp("masks")
    for folder in ("templates", "textures"):
        (root / folder).mkdir()
    for i, colour in enumerate([(255, 0, 0), (0, 255, 0), (0, 0, 255)]):
        mask = np.zeros((120, 160, 4), np.uint8)
        cv2.ellipse(mask, (80, 50), (70, 60), 0, 0, 360, (*colour, 255), -1)
        cv2.imwrite(str(root / "templates" / f"{i}.png"), mask)
        cv2.imwrite(str(root / "textures" / f"{i}.png"), np.full((8, 8, 3), colour, np.uint8))
    return root


@pytest.fixture(scope="module")
def packs(data: Path, photographed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("unmask") / "packs"
    return faces.prepare(data, out, masks=photographed, variants={"celeba": 2, "utkface": 1, "fairface": 1})


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> training.Features:
    """The features of an attributes network, untrained, of the layout that its training leaves."""
    run = tmp_path_factory.mktemp("attributes")
    shape = {"width": 0.25, "stem": 8, "widths": [8, 8, 8], "depths": [1, 1, 1], "expansions": [1, 1, 1]}
    config = attributes_net.AttributesConfig(
        **{k: tuple(v) if isinstance(v, list) else v for k, v in shape.items()}
    )
    network = attributes_net.build(SIZE, config, teaching=True)
    np.savez(run / "averaged.npz", count=1, **{f"w{i}": w for i, w in enumerate(network.get_weights())})
    (run / "network.json").write_text(json.dumps({"shape": shape, "size": SIZE, "placed": True}))
    return training.own_features(run)


@pytest.fixture(scope="module")
def run(packs: Path, judge: training.Features, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    stages = [STAGE, replace(STAGE, adversarial=0.1, alone=1, seed=2)]
    training.train(packs, out, stages, TINY, features=judge)
    return out


def test_packs_hold_what_is_hidden_and_nobody_held_out(packs: Path, data: Path):
    # Three of six people of celeba are held out; one of three faces of fairface is taken.
    counts = {"celeba1": 3, "celeba2": 3, "utkface1": 4, "fairface1": 2, "dev": 3}
    for name, count in counts.items():
        pack = faces.load(packs / name)
        assert len(pack) == count
        assert pack.images.shape == (count, faces.SIDE, faces.SIDE, 7)
        assert pack.known.all()
        masked, bare = pack.images[..., faces.MASKED].astype(int), pack.images[..., faces.BARE].astype(int)
        hidden = pack.images[..., faces.REGION]
        assert (hidden > 127).any(axis=(1, 2)).all()
        differ = np.abs(masked - bare).max(axis=-1)
        assert (differ[hidden > 250] > 0).mean() > 0.9
        # Beside the mask is its shadow at most, and further up nothing at all.
        assert (differ[:, : faces.SIDE // 4] == 0).all()
        # Points measured from the corner of the first pixel lie where the template has them.
        gap = pack.landmarks - faces.template() * faces.SIDE
        assert np.abs(gap).max() < 0.15 * faces.SIDE
    assert (faces.load(packs / "celeba1").images != faces.load(packs / "celeba2").images).any()
    for pack in (faces.load(packs / name) for name in ("real",) if (packs / name).exists()):
        assert not pack.known.any()
        assert not pack.images[..., faces.REGION].any()


def test_scoring_masks_are_kept_out_of_training(photographed: Path):
    learnt, held = faces.photographed(photographed, False), faces.photographed(photographed, True)
    assert [t.kind for t in learnt[0]] == ["1", "2"]
    assert [t.kind for t in held[0]] == ["0"]
    assert len(held[1]) == 1
    assert len(learnt[1]) == 2


def test_prints_are_parts_of_rooms_where_there_are_any(data: Path, tmp_path: Path):
    parts = faces.prints(data)
    assert len(parts) == faces.PRINTS
    assert {part.shape for part in parts} == {(faces.PRINT, faces.PRINT, 3)}
    assert faces.prints(tmp_path) == []


def test_packed_and_freshly_cut_faces_are_alike(packs: Path, data: Path, photographed: Path):
    fresh = faces.held_out(data, photographed)
    packed = faces.plain(faces.load(packs / "dev").images, faces.SIZE)
    assert fresh.images.shape == packed.shape
    assert np.abs(fresh.images.astype(int) - packed).mean() < 1
    small = faces.plain(faces.load(packs / "dev").images, 64)
    assert small.shape == (3, 64, 64, 7)
    assert np.abs(small[:, ::8, ::8].astype(int) - packed[:, ::16, ::16]).mean() < 12


def test_batches_repeat_and_masked_fits_bare(packs: Path):
    make = faces.UnmaskBatches(packs, size=64, batch=24, steps=2, seed=3)
    x, y = make[1]
    again = faces.UnmaskBatches(packs, size=64, batch=24, steps=2, seed=3)[1]
    assert (x == again[0]).all()
    assert (y == again[1]).all()
    assert y.shape == (24, 64, 64, faces.CHANNELS)
    known = y[:, 0, 0, faces.KNOWN][:, 0] == 1
    bare = y[known][..., faces.TRUTH]
    free = y[known][..., faces.HIDDEN][..., 0] == 0
    # What light, blur and JPEG do, they do to both: beside the mask the two stay alike.
    assert np.abs(x[known] - bare).mean(axis=-1)[free].mean() < 6
    assert ((y[..., faces.HIDDEN] >= 0) & (y[..., faces.HIDDEN] <= 1)).all()


def test_the_map_to_learn_reaches_a_pixel_further_than_the_mask():
    images = np.zeros((SIZE, SIZE, 7), np.uint8)
    images[10:20, 8:24, faces.REGION] = 255
    hidden = faces.target(images, True, SIZE)[..., faces.HIDDEN][..., 0]
    wanted = np.zeros((SIZE, SIZE), np.float32)
    wanted[9:21, 7:25] = 1
    assert (hidden == wanted).all()


def test_without_truth_only_mouth_and_eyes_are_certain():
    images = np.zeros((64, 64, 7), np.uint8)
    y = faces.target(images, False, 64)
    certain, hidden = y[..., faces.CERTAIN][..., 0], y[..., faces.HIDDEN][..., 0]
    assert (y[..., faces.KNOWN] == 0).all()
    mouth, eye = (int(0.66 * 64), 32), (int(0.36 * 64), 24)
    assert certain[mouth] == hidden[mouth] == 1
    assert certain[eye] == 1
    assert hidden[eye] == 0
    assert certain[int(0.5 * 64), 32] == 0
    assert not hidden[certain == 0].any()


@pytest.mark.parametrize("config", [TINY, replace(TINY, attention=0, gated=False)])
def test_outside_the_map_the_picture_is_copied(config: net.UnmaskConfig):
    keras.utils.set_random_seed(4)
    network = net.build(SIZE, config, teaching=True)
    network.get_layer("half_logits").set_weights(
        [10 * w for w in network.get_layer("half_logits").get_weights()]
    )
    pictures = np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 3)).astype(np.float32)
    out = {k: np.asarray(v) for k, v in network(pictures).items()}
    free, full = out["map"][..., 0] == 0, out["map"][..., 0] >= 0.5
    assert free.any()
    assert full.any()
    assert (out["completed"][free] == pictures[free]).all()
    assert np.allclose(out["completed"][full], np.clip(out["painted"], 0, 255)[full], atol=1e-3)


def test_what_the_mask_looks_like_does_not_reach_the_face():
    """The whole map hidden: nothing of the picture may be left to complete from."""
    keras.utils.set_random_seed(4)
    network = net.build(SIZE, TINY)
    kernel, bias = network.get_layer("half_logits").get_weights()
    network.get_layer("half_logits").set_weights([0 * kernel, bias + 9])
    pictures = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3)).astype(np.float32)
    out = {k: np.asarray(v) for k, v in network(pictures).items()}
    assert (out["map"] == 1).all()
    assert np.allclose(out["completed"][0], out["completed"][1], atol=1e-3)


def test_folded_network_is_the_same():
    keras.utils.set_random_seed(1)
    whole, teaching = net.build(SIZE, TINY), net.build(SIZE, TINY, teaching=True)
    teaching.set_weights(whole.get_weights())
    folded = net.build(SIZE, TINY, batch=1, folded=True)
    net.fold(whole, folded)
    picture = np.random.default_rng(0).integers(0, 256, (1, SIZE, SIZE, 3)).astype(np.float32)
    a, b, c = whole(picture), folded(picture), teaching(picture)
    for name in net.OUTPUTS:
        assert np.allclose(a[name], b[name], atol=0.02)
        assert np.allclose(a[name], c[name], atol=1e-4)


def test_spectral_norm_settles_at_one():
    keras.utils.set_random_seed(1)
    layer = net.Spectral(6, 3, 1)
    picture = ops.ones((1, 8, 8, 4))
    layer(picture)
    layer.kernel.assign(5 * layer.kernel)
    for _ in range(30):
        layer(picture, training=True)
    kernel = np.asarray(layer.kernel).reshape(-1, 6)
    top = np.linalg.svd(kernel, compute_uv=False)[0]
    by_hand = np.asarray(ops.conv(picture, layer.kernel / top, 1, "same"))
    assert np.allclose(np.asarray(layer(picture)), by_hand, atol=1e-3)


def test_each_side_of_the_game_learns_from_its_own_loss():
    """The discriminators gain nothing from pleasing the network, nor the network from their losses."""
    keras.utils.set_random_seed(2)
    stage = replace(STAGE, adversarial=0.5)
    trainer = training.UnmaskTrainer(net.build(SIZE, TINY, teaching=True), stage)
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 255, (2, SIZE, SIZE, 3)).astype(np.float32)
    y = np.ones((2, SIZE, SIZE, faces.CHANNELS), np.float32)
    y[..., faces.TRUTH] = x
    import tensorflow as tf

    with tf.GradientTape(persistent=True) as tape:
        out = trainer(x, training=True)
        shown = out["painted"]
        hidden = y[..., faces.HIDDEN]
        played, _ = trainer._play(shown, y[..., faces.TRUTH], hidden, np.ones(2, np.float32), True)
    for name, judge in (("whole", trainer.whole), ("part", trainer.part)):
        weights = judge.trainable_variables
        for said in (name, f"{name}_match"):
            assert all(g is None for g in tape.gradient(played[said], [w.value for w in weights]))
        own = tape.gradient(played[f"{name}_own"], [w.value for w in weights])
        assert any(np.abs(g).sum() > 0 for g in own if g is not None)
        painter = [w.value for w in trainer.network.trainable_variables]
        for said in (name, f"{name}_match"):
            assert any(g is not None and np.abs(g).sum() > 0 for g in tape.gradient(played[said], painter))
        assert all(g is None for g in tape.gradient(played[f"{name}_own"], painter))


def test_discriminators_see_no_difference_in_the_truth():
    trainer = training.UnmaskTrainer(net.build(SIZE, SMALL, teaching=True), replace(STAGE, adversarial=0.5))
    truth = np.random.default_rng(0).uniform(0, 255, (2, SIZE, SIZE, 3)).astype(np.float32)
    hidden, known = np.ones((2, SIZE, SIZE, 1), np.float32), np.array([1, 0], np.float32)
    wrong = truth.copy()
    wrong[1] = 0  # of this one nothing is known, so that it does not count
    for shown, least, most in ((truth, 0.0, 1e-6), (wrong, 0.0, 1e-6), (255 - truth, 1e-3, 10.0)):
        played, _ = trainer._play(shown, truth, hidden, known, False)
        for name in ("whole", "part"):
            assert least <= float(played[f"{name}_match"]) <= most


def test_a_step_of_the_game_traces_as_a_graph(judge: training.Features, traced_step):
    keras.utils.set_random_seed(2)
    stage = replace(STAGE, adversarial=0.5)
    trainer = training.UnmaskTrainer(net.build(SIZE, SMALL, teaching=True), stage, judge)
    y = np.ones((2, SIZE, SIZE, faces.CHANNELS), np.float32)
    before = trainer.part.get_weights()
    traced_step(trainer, y[..., faces.TRUTH] * 99, y)
    assert float(trainer.steps) == 1
    assert any((a != b).any() for a, b in zip(before, trainer.part.get_weights(), strict=True))


def test_losses_fall_towards_the_truth():
    trainer = training.UnmaskTrainer(net.build(SIZE, TINY, teaching=True), STAGE)
    rng = np.random.default_rng(0)
    y = np.ones((2, SIZE, SIZE, faces.CHANNELS), np.float32)
    coarse = rng.uniform(0, 255, (2, 8, 8, 3)).astype(np.float32)
    y[..., faces.TRUTH] = [cv2.resize(one, (SIZE, SIZE)) for one in coarse]
    y[..., faces.HIDDEN] = 0
    y[:, SIZE // 2 :, :, faces.HIDDEN] = 1
    right = {"painted": y[..., faces.TRUTH], "logits": 20 * y[..., faces.HIDDEN] - 10}
    wrong = {"painted": 255 - right["painted"], "logits": -right["logits"]}
    assert float(trainer.compute_loss(y=y, y_pred=right)) < 0.01
    parts = {name: float(metric.result()) for name, metric in trainer.parts.items()}
    for metric in trainer.parts.values():
        metric.reset_state()
    assert float(trainer.compute_loss(y=y, y_pred=wrong)) > 5
    for name in ("map", "dice", "region", "outside", "ssim"):
        assert float(trainer.parts[name].result()) > parts[name] + 0.1
    # Where nobody knows the truth the picture teaches nothing, and the map only where it is certain.
    y[..., faces.KNOWN] = y[..., faces.CERTAIN] = 0
    assert float(trainer.compute_loss(y=y, y_pred=wrong)) < 0.01


def test_features_tell_unlike_from_alike(judge: training.Features):
    rng = np.random.default_rng(0)
    a = cv2.GaussianBlur(rng.uniform(0, 255, (64, 64, 3)), (0, 0), 4)[None].astype(np.float32)
    same = float(training.feature_distance(judge(a), judge(a))[0])
    near = float(
        training.feature_distance(judge(a), judge(a + rng.normal(0, 2, a.shape).astype(np.float32)))[0]
    )
    far = float(training.feature_distance(judge(a), judge(a[:, ::-1]))[0])
    assert same == 0
    assert 0 < near < far
    assert len(judge(a)) == 4


def test_figures_of_known_errors():
    truth = np.full((2, 8, 8, 3), 100, np.uint8)
    region = np.zeros((2, 8, 8), np.uint8)
    region[:, 4:] = 255
    found = truth.copy()
    found[0, 4:] += 10
    psnr = training.region_psnr(found, truth, region)
    assert psnr[0] == pytest.approx(10 * np.log10(255**2 / 100))
    assert psnr[1] > 80
    whole = training.region_psnr(found, truth, np.full_like(region, 255))
    assert whole[0] == pytest.approx(psnr[0] + 10 * np.log10(2))
    maps = np.zeros((2, 8, 8))
    maps[0, 4:] = maps[1, 6:] = 1
    assert training.map_iou(maps, region).tolist() == [1, 0.5]
    held = np.dstack([truth[0], truth[0], region[0]])[None]
    outside = scores.figures({"completed": found[:1], "map": maps[:1].astype(np.float32)}, held)
    assert outside["changed"] == 0
    assert outside["iou"] == 1
    found[0, 0, 0] += 1
    assert scores.figures({"completed": found[:1], "map": maps[:1]}, held)["changed"] == 1


def test_frechet_distance_of_shifted_clouds():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(4000, 3))
    assert scores.frechet(a, a) == pytest.approx(0, abs=1e-6)
    assert scores.frechet(a, a + [2, 0, 0]) == pytest.approx(4, abs=1e-6)
    assert scores.frechet(a, 3 * a) == pytest.approx(3 * 4, rel=0.1)


def test_telea_fills_the_region_only():
    crops = np.full((1, 32, 32, 3), 90, np.uint8)
    region = np.zeros((1, 32, 32), np.uint8)
    region[:, 12:20, 12:20] = 255
    crops[0, 12:20, 12:20] = 0
    assert (np.abs(scores.telea(crops, region).astype(int) - 90) <= 4).all()


def test_a_stage_that_gets_no_better_ends_and_its_best_epoch_counts(packs: Path, tmp_path: Path):
    """Scores by hand through the very loop: best in the second epoch, then patience runs out."""
    from export.train.averaging import read_averaged
    from export.train.stages import train_stages

    values = iter([1.0, 3.0, 2.0, 2.5, 9.0])
    seen: list[list[np.ndarray]] = []

    def score(network: keras.Model, size: int) -> float:
        seen.append(network.get_weights())
        return next(values)

    stage = replace(STAGE, epochs=5, patience=2, steps=4, rate=1e-2)

    def go() -> Path:
        return train_stages(
            tmp_path,
            [stage],
            SMALL,
            build=lambda size: net.build(SIZE, SMALL, teaching=True),
            trainer=lambda model, config: training.UnmaskTrainer(model, config),
            batches=lambda config, epoch: faces.UnmaskBatches(
                packs, size=SIZE, batch=config.batch, steps=config.steps, seed=1, epoch=epoch
            ),
            score=score,
        )

    weights = read_averaged(go())[0]
    assert len(seen) == 4
    assert all((a == b).all() for a, b in zip(weights, seen[1], strict=True))
    assert json.loads((tmp_path / "stage1" / "scores.json").read_text()) == [1.0, 3.0, 2.0, 2.5]
    go()  # a finished stage is not gone on with
    assert len(seen) == 4


def test_an_interrupted_run_goes_on_to_the_same_weights(packs: Path, tmp_path: Path):
    from export.train.averaging import read_averaged

    stage = replace(STAGE, steps=4, epochs=2, adversarial=0.1)

    class Interrupt(Exception):
        pass

    def run(folder: Path, stop: bool) -> Path:
        with pytest.MonkeyPatch.context() as patch:
            if stop:
                original = training.glance

                def glance(network: keras.Model, held: np.ndarray) -> dict[str, float]:
                    if (folder / "stage1" / "scores.json").exists():
                        raise Interrupt
                    return original(network, held)

                patch.setattr(training, "glance", glance)
            return training.train(packs, folder, [stage], SMALL)

    straight = read_averaged(run(tmp_path / "a", stop=False))[0]
    with pytest.raises(Interrupt):
        run(tmp_path / "b", stop=True)
    again = read_averaged(run(tmp_path / "b", stop=False))[0]
    assert len(list((tmp_path / "b" / "sheets").glob("*.png"))) == 2
    assert max(float(np.abs(a - b).max()) for a, b in zip(straight, again, strict=True)) < 1e-3


def test_the_student_network_trains_alike(packs: Path, tmp_path: Path):
    training.train(packs, tmp_path, [STAGE], net.StudentConfig(width=4, levels=2))
    out = training.predict(training.load_network(tmp_path), np.zeros((1, SIZE, SIZE, 3), np.uint8))
    assert out["completed"].shape == (1, SIZE, SIZE, 3)
    assert out["map"].shape == (1, SIZE, SIZE)


def test_from_a_run_to_shipped_files(
    data: Path, packs: Path, run: Path, judge: training.Features, tmp_path: Path, monkeypatch
):
    assert len(list((run / "sheets").glob("*.png"))) == 2  # one an epoch
    limits = {k: parity.Limits(0.9, 1.0) for k in parity.LIMITS}  # barely trained, on three faces
    monkeypatch.setattr(parity, "LIMITS", limits)
    monkeypatch.setattr(unmask_model, "CALIBRATION", 12)
    out, report = tmp_path / "models", tmp_path / "unmask_report.md"
    entry = unmask_model.convert_unmask(data, run, packs, out, SIZE, features=judge, report=report)
    assert set(entry["files"]) == {"float32", "float16", "dynamic", "int8", "int16x8"}
    text = report.read_text()
    assert "cv2.inpaint" in text
    assert "ours, int8" in text
    assert "IoU of what is completed" in text
    assert "plausible, not" in (out / "unmask.md").read_text()
    for name in ("sheet", "failures"):
        picture = cv2.imread(str(tmp_path / f"unmask_report_{name}.png"))
        assert picture.shape[1] == 2 * 4 * SIZE
    assert load_manifest(out).models["unmask"].threshold("map") > 0
    held = faces.held_out(data, None, SIZE).images
    crops = np.ascontiguousarray(held[..., faces.MASKED])
    for precision in entry["files"]:
        model = load_model("unmask", precision=precision, models_dir=out, threads=1)
        found = scores.runner(model)(crops)
        assert found["map"].min() >= 0
        assert found["map"].max() <= 1
        outside = found["map"] == 0
        assert (found["completed"][outside] == crops[outside]).all()


def test_default_is_the_fastest_that_loses_little():
    def file(drop: float, ms: float, size: int = 1_000_000) -> dict:
        return {"bytes": size, "ms": ms, "parity": {"drop": drop}}

    files = {"float32": file(0.0, 10), "dynamic": file(0.04, 7), "int8": file(0.8, 4)}
    assert unmask_model.choose(files)[0] == "dynamic"
    assert "+0.80 dB" in unmask_model.choose(files)[1]
    assert unmask_model.choose(files | {"int8": file(0.05, 4)})[0] == "int8"
    assert unmask_model.choose({"float32": file(0.0, 10, 9_000_000), "int8": file(0.8, 4)})[0] == "float32"
