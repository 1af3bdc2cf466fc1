"""Training of the identity model: taught by networks that know bare faces, told apart from other people."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops
from tqdm import tqdm

from export.data import identity_faces as faces
from export.data.crop_sets import unit_rows
from export.data.packs import save_whole
from export.models import identity as net
from export.train.averaging import Trainer, unit, weighted_mean
from export.train.stages import TrainConfig, read_run, train_stages
from export.verification import true_accepts

log = logging.getLogger(__name__)


@dataclass(slots=True, frozen=True)
class IdentityStage(TrainConfig):
    """A stage of training.

    Attributes:
        hardness: what is done to faces.
    """

    placed: bool = True
    decay: float = 0.05
    bfloat16: bool = True
    hardness: faces.Hardness = faces.GENTLE


LARGE = IdentityStage(size=112, batch=64, steps=800, rate=1e-3, warmup=200, ema=0.999, hardness=faces.HARD)

IMAGINED = replace(LARGE, batch=128, steps=400, rate=1.4e-3, warmup=150, ema=0.998, hardness=faces.IMAGINED)

STAGES: tuple[IdentityStage, ...] = (
    # Small pictures first: more than three times as many faces in the same time.
    IdentityStage(size=64, epochs=13, rate=3e-3),
    IdentityStage(size=64, epochs=11, rate=2e-3, seed=2, hardness=faces.HARD),
    replace(LARGE, epochs=3, seed=3),
    replace(LARGE, epochs=8, seed=4),
    replace(LARGE, epochs=12, seed=5),
    replace(LARGE, epochs=10, seed=6),
    replace(IMAGINED, epochs=13, seed=21),
    replace(IMAGINED, epochs=3, rate=4e-4, warmup=50, seed=22, hardness=faces.AS_SEEN),
    replace(IMAGINED, epochs=11, muon=True, seed=31),
    replace(IMAGINED, epochs=3, muon=True, rate=6e-4, warmup=50, kept=0.5, seed=32, hardness=faces.AS_SEEN),
    replace(IMAGINED, epochs=12, muon=True, seed=41, hardness=faces.MORE_IMAGINED),
    replace(IMAGINED, epochs=3, muon=True, rate=6e-4, warmup=50, kept=0.5, seed=42, hardness=faces.AS_SEEN),
    replace(IMAGINED, epochs=13, muon=True, seed=51, hardness=faces.MOST_IMAGINED),
    replace(IMAGINED, epochs=3, muon=True, rate=6e-4, warmup=50, kept=0.5, seed=52, hardness=faces.AS_SEEN),
    replace(IMAGINED, epochs=15, muon=True, seed=61, hardness=faces.MOST_IMAGINED),
    replace(IMAGINED, epochs=3, muon=True, rate=6e-4, warmup=50, kept=0.5, seed=62, hardness=faces.AS_SEEN),
    replace(
        IMAGINED, epochs=4, muon=True, rate=8e-4, warmup=50, kept=0.5, seed=71, hardness=faces.MORE_AS_SEEN
    ),
    replace(IMAGINED, epochs=8, muon=True, rate=1.1e-3, seed=81, hardness=faces.MOST_IMAGINED),
    replace(
        IMAGINED, epochs=3, muon=True, rate=5e-4, warmup=50, kept=0.5, seed=82, hardness=faces.MORE_AS_SEEN
    ),
)

WEIGHTS = {"first": 10.0, "second": 10.0, "others": 0.6, "people": 0.05, "quality": 0.5}
"""The teachers' embeddings teach most: after 500 steps at 64 px, true accepts at FAR 1e-2 among people held
out were 0.137 by one's alone and 0.119 with more of the others, which fit the people they see."""
SCALE = 32.0
"""Of cosines in a softmax (CosFace, Wang et al. 2018, sec. 3.4)."""
SHOWN = 12_000
"""Known faces at a time, for `others`: with all 46,055 a step of 128 took 0.76 s in place of 0.72."""
MARGIN = 0.3
"""Angle between people, radians (ArcFace, Deng et al. 2019)."""
SAME = 0.45
"""From this cosine between the teachers' embeddings on, two faces may be of one person: not pushed apart."""


class IdentityTrainer(Trainer):
    """The network with its losses.

    first: cosine to the embedding that the teacher of the data gives the bare face, however the face is
    covered now; of an imagined face to what it would say, see `translated`.
    second: to that of the teacher who is asked.
    others: softmax over the teachers' embeddings of training faces and of this one, in which it has to find
    its own (as in contrastive distillation, Tian et al. 2020); faces that may be of the same person are left
    out. Each batch is shown up to `SHOWN` of them, which count for all.
    people: ArcFace on the sets that tell who it is.
    quality: the squared error of the cosine that the network expects.

    Args:
        network: from `export.models.identity.build`.
        known: n x d float32, the teachers' embeddings of all training faces, `balanced`.
        centres: m x d float32, where the embeddings of each person with a label are to be at first.
    """

    def __init__(self, network: keras.Model, known: np.ndarray, centres: np.ndarray) -> None:
        super().__init__(network, WEIGHTS)
        turns = math.ceil(len(known) / SHOWN)
        mixed = np.random.default_rng(0).permutation(known)[: len(known) // turns * turns]
        self.known = ops.convert_to_tensor(mixed.reshape(turns, -1, known.shape[1]))
        self.chance = keras.random.SeedGenerator(1)
        self.centres = self.add_weight(shape=centres.shape, name="people")
        self.centres.assign(centres)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        p: dict[str, Any] = y_pred
        row, person = ops.cast(y[:, faces.ROW], "int32"), ops.cast(y[:, faces.PERSON], "int32")
        own, target = balanced(p["embedding"]), balanced(y[:, faces.TARGET])
        first, second = (
            2 * ops.sum(own[:, part] * target[:, part], axis=-1) for part in (faces.FIRST, faces.SECOND)
        )
        losses = {
            "first": ops.mean(1 - first),
            "second": ops.mean(1 - second),
            "others": self._others(own, target),
            "people": self._people(own, person),
            "quality": weighted_mean(
                ops.square(ops.sigmoid(p["quality"][:, 0]) - ops.stop_gradient((first + second) / 2)),
                row >= 0,
            ),
        }
        total = 0.0
        for name, loss in losses.items():
            self.parts[name].update_state(loss)
            total = total + WEIGHTS[name] * loss
        return total

    def _others(self, own: Any, target: Any) -> Any:
        turns = self.known.shape[0]
        turn = keras.random.randint((), 0, turns, seed=self.chance)
        known = ops.transpose(ops.take(self.known, turn, axis=0))
        # Its own is among the known ones, if it is a true face, and the parts of a blended one: all alike.
        doubtful = ops.cast(ops.matmul(target, known) > SAME, "float32")
        shown = ops.logsumexp(SCALE * ops.matmul(own, known) - 1e4 * doubtful, axis=-1)
        others = shown + math.log(turns)
        it = SCALE * ops.sum(own * target, axis=-1)
        return ops.mean(ops.logaddexp(it, others) - it)

    def _people(self, own: Any, person: Any) -> Any:
        it = ops.one_hot(ops.maximum(person, 0), self.centres.shape[0])
        cosine = ops.clip(ops.matmul(own, ops.transpose(unit(self.centres))), -0.999, 0.999)
        logits = SCALE * (it * ops.cos(ops.arccos(cosine) + MARGIN) + (1 - it) * cosine)
        return weighted_mean(ops.logsumexp(logits, axis=-1) - ops.sum(logits * it, axis=-1), person >= 0)


def balanced(vectors: Any) -> Any:
    """Rows of length 1 in which what either teacher teaches counts alike; n x `faces.DIMENSIONS`."""
    parts = [unit(vectors[:, part]) for part in (faces.FIRST, faces.SECOND)]
    return ops.concatenate(parts, axis=-1) / 2**0.5


CARRIED = 0.8
"""Of what one teacher says of a face and the others do not tell, in a face that is imagined of it: as a share
of that face times the square of its own share. Found with the second teacher in place of the first: from what
the helper says of 30,000 imagined faces it was told with a mean cosine of 0.893, with what is carried over
with 0.917; least squares in ranges of shares gave 0.12, 0.29, 0.54 and 0.73 of what is untold of the faces
themselves for mean shares of 0.4, 0.6, 0.78 and 0.93."""


def translated(
    first: np.ndarray,
    said: np.ndarray,
    new: np.ndarray,
    file: Path,
    *,
    made_of: Sequence[tuple[np.ndarray, np.ndarray]] = (),
    features: int = 12_000,
    ridge: float = 0.3,
    folds: int = 4,
) -> np.ndarray:
    """What the teacher of the data would say of new faces, from what those who are asked say of them.

    Learnt from faces of which all told, by ridge regression on random features (Rahimi and Recht 2007; these
    are ReLUs, the arc-cosine kernel of Cho and Saul 2009): on people held out its answers have a mean cosine
    of 0.826 to the true ones (n 925). A network of two hidden layers of 2,048 had 0.812, and 0.729 where no
    helper was asked. To that is added what they leave untold of the faces that a new one is made of, see
    `CARRIED`.

    Args:
        first: n x 128, what it says, of length 1.
        said: n x d, what the others say of the same faces, see `teacher.Teachers`.
        new: m x d, what they say of the new ones.
        file: where the answers are kept; found in a few minutes unless it is there.
        made_of: what the new ones are made of: pairs of rows of `first`, m int, and their shares, m float.
        features: how many, and no more than n.
        ridge: as a share of their mean variance.
        folds: parts of the faces; what is untold of one is learnt from those in the other parts.

    Returns:
        m x 128 float16, of length 1.
    """
    if file.exists():
        return np.asarray(np.load(file))
    log.info("first is learnt what one teacher would say, from what the others say")
    features, folds = min(features, len(said)), folds if made_of else 1
    mean = said.mean(axis=0, dtype=np.float32)
    rng = np.random.default_rng(0)
    spread = said.std(dtype=np.float32) * said.shape[1] ** 0.5
    kernel = rng.normal(0, 1 / spread, (said.shape[1], features)).astype(np.float32)
    bias = rng.normal(0, 0.3, features).astype(np.float32)

    def lifted(vectors: np.ndarray) -> np.ndarray:
        return np.maximum((vectors.astype(np.float32) - mean) @ kernel + bias, 0)

    def parts(count: int, title: str) -> Iterator[slice]:
        for start in tqdm(range(0, count, 1024 * folds), desc=title, unit=f"{1024 * folds} faces"):
            yield slice(start, start + 1024 * folds)

    def solved(chosen: list[int]) -> np.ndarray:
        total = np.zeros_like(square[0])  # indexing with a list would copy gigabytes
        for fold in chosen:
            total += square[fold]
        total[np.diag_indices(features)] += ridge * np.trace(total) / features
        return np.linalg.solve(total, product[chosen].sum(axis=0))

    def told(weights: np.ndarray, vectors: np.ndarray, title: str) -> np.ndarray:
        out = [(lifted(vectors[part]) - centre) @ weights for part in parts(len(vectors), title)]
        return np.concatenate(out) + middle

    centre, middle = lifted(said[:4096]).mean(axis=0), first.mean(axis=0, dtype=np.float32)
    square = np.zeros((folds, features, features), np.float32)
    product = np.zeros((folds, features, first.shape[1]), np.float32)
    for part in parts(len(said), "learning to translate"):
        x, y = lifted(said[part]) - centre, first[part] - middle
        for fold in range(folds):
            square[fold] += x[fold::folds].T @ x[fold::folds]
            product[fold] += x[fold::folds].T @ y[fold::folds]
    everything = told(solved(list(range(folds))), new, "translating")
    if made_of:
        untold = np.empty_like(first)
        for fold in range(folds):
            weights = solved([other for other in range(folds) if other != fold])
            mine = slice(fold, None, folds)
            untold[mine] = first[mine] - told(weights, said[mine], f"what is untold, {fold + 1} of {folds}")
        for rows, share in made_of:
            everything += CARRIED * share[:, None] ** 2 * untold[rows]
    answer = unit_rows(everything).astype(np.float16)
    save_whole(file, answer)
    return answer


def predict(network: keras.Model, crops: np.ndarray) -> np.ndarray:
    """Embeddings of any length, n x d float32, of crops n x S x S x 3 in 0..255."""
    out: np.ndarray = network.predict(crops, batch_size=128, verbose=0)["embedding"]
    return out


def embed(network: keras.Model, crops: np.ndarray) -> np.ndarray:
    """Embeddings of length 1; arguments as in `predict`."""
    return np.asarray(unit(predict(network, crops)))


def whitening(
    vectors: np.ndarray,
    people: np.ndarray,
    *,
    parts: Sequence[slice] = (),
    share: float = 0.6,
    shrinkage: float = 3.0,
) -> np.ndarray:
    """What makes pictures of one person differ more evenly: `vectors @ matrix`.

    Directions in which the same person varies most, from one picture to the next, would else count as much in
    the cosine as those that tell people apart (within-class covariance normalisation, Hatch et al. 2006; here
    it is shrunk a lot and goes part of the way). The mean of all faces is left in: without it 1.1 to 2.8
    points of true accepts were lost with one side painted.

    Args:
        vectors: n x d, of training faces, bare.
        people: n int, who each is; -1: nobody knows.
        parts: of the d, which first are made to count alike.
        share: of the way to where all directions vary alike: 0..1.
        shrinkage: added to each direction's variance, in mean variances.

    Returns:
        d x d float32, of any scale: the device divides by the length. Where no two faces are known to be of
        the same person, only parts are made to count alike.
    """
    scale = np.ones(vectors.shape[1])
    for part in parts:
        scale[part] = 1 / np.linalg.norm(vectors[:, part], axis=1).mean()
    _, who, count = np.unique(people, return_inverse=True, return_counts=True)
    chosen = (people >= 0) & (count[who] > 1)
    if not chosen.any():
        return np.diag(scale).astype(np.float32)
    seen, who = unit_rows(vectors[chosen] * scale), who[chosen]
    total = np.zeros((len(count), vectors.shape[1]))
    np.add.at(total, who, seen)
    apart = seen - total[who] / count[who, None]
    values, axes = np.linalg.eigh(apart.T @ apart)
    matrix = axes @ np.diag((values / values.mean() + shrinkage) ** (-share / 2)) @ axes.T
    return np.asarray(scale[:, None] * matrix, np.float32)


def whiten(network: keras.Model, matrix: np.ndarray) -> None:
    """Lets the last layer of the embedding, which is linear, do what `whitening` found."""
    layer = network.get_layer("embedding")
    kernel, bias = layer.get_weights()
    layer.set_weights([kernel @ matrix, bias @ matrix])


def quick_scores(
    network: keras.Model, held: dict[str, faces.People], size: int
) -> dict[str, dict[str, float]]:
    """Cosines to the teachers on held-out people, and true accepts against bare views of them.

    Returns:
        For each pack `first` and `second`, and where it knows people `tar@1e-3` and `tar@1e-2`.
    """
    out: dict[str, dict[str, float]] = {}
    found = {
        name: np.asarray(balanced(sum(predict(network, view) for view in faces.dev_batches(pack, size))))
        for name, pack in held.items()
    }
    for name, pack in held.items():
        alike = found[name] * np.asarray(balanced(pack.embedding.astype(np.float32)))
        out[name] = {
            teacher: round(float(2 * alike[:, part].sum(axis=1).mean()), 4)
            for teacher, part in (("first", faces.FIRST), ("second", faces.SECOND))
        }
        bare = name.replace("painted", "bare")
        if (pack.person >= 0).any() and bare in held:
            scores = found[name] @ found[bare].T
            same = pack.person[:, None] == held[bare].person[None]
            other = ~same
            # A face is not compared with itself, bare or painted.
            np.fill_diagonal(same, False)
            rates = true_accepts(scores[same], scores[other], (1e-3, 1e-2))
            out[name] |= {f"tar@{rate:g}": round(share, 4) for rate, share in rates.items()}
    return out


def load_network(
    run: Path, size: int | None = None, *, batch: int | None = None, folded: bool = False
) -> keras.Model:
    """The trained network of a run folder (averaged weights).

    Args and errors as in `export.train.stages.read_run`, `batch` and `folded` as in the model's `build`.
    """

    def build(size: int, shape: dict[str, Any]) -> keras.Model:
        return net.build(size, net.IdentityConfig(**shape), batch=batch, folded=folded)

    return read_run(run, size, build, folded=folded, name="identity")


def train(
    packs: Path,
    run: Path,
    stages: Sequence[IdentityStage] = STAGES,
    network: net.IdentityConfig | None = None,
    *,
    begin: Path | None = None,
) -> Path:
    """Trains from scratch, or goes on where the last checkpoint of the run folder stands.

    Args:
        packs: folder that `identity_faces.prepare` wrote.
        run: folder for checkpoints and logs, a folder a stage.
        stages: one after the other, each starting from the averaged weights of the one before.
        network: shape of the network.
        begin: see `train_stages`.

    Returns:
        The file of averaged weights, for `load_network`.

    Raises:
        FileNotFoundError: if the packs are missing.
    """
    if not (packs / "bare" / "ready").exists():
        raise FileNotFoundError(f"no packed faces at {packs}: run `python -m export prepare identity` first")
    shape = network or net.IdentityConfig()
    bare = faces.load(packs / "bare")
    embeddings = bare.embedding.astype(np.float32)
    known = np.asarray(balanced(embeddings))
    told = None
    if any(stage.hardness.imagined for stage in stages):
        files = packs / "bare" / faces.ANSWERS, packs / faces.NEW_ANSWERS
        said, new = (faces.answers(file) for file in files)
        kept = run / "translated.npy"
        if kept.exists() and kept.stat().st_mtime < max(file.stat().st_mtime for file in files):
            kept.unlink()  # somebody else was asked since, or about more faces
        made_of = faces.made_of(bare, range(len(new)))
        first = embeddings[:, faces.FIRST]
        told = translated(first, said, new, kept, made_of=made_of)
    # The teacher's idea of each person; without any labels one that nobody is.
    centres = np.zeros((max(int(bare.person.max()) + 1, 1), net.DIMENSIONS), np.float32)
    np.add.at(centres, bare.person[bare.person >= 0], known[bare.person >= 0])
    held = {p.parent.name: faces.load(p.parent) for p in sorted(packs.glob("dev*/ready"))}

    def score(model: keras.Model, size: int) -> None:
        for name, figures in quick_scores(model, held, size).items():
            log.info("  %-16s n %-5d %s", name, len(held[name]), figures)

    return train_stages(
        run,
        stages,
        shape,
        build=lambda size: net.build(size, shape),
        trainer=lambda model, _: IdentityTrainer(model, known, centres),
        batches=lambda config, epoch: faces.IdentityBatches(
            packs,
            config.hardness,
            told=told,
            size=config.size,
            batch=config.batch,
            steps=config.steps,
            seed=config.seed,
            epoch=epoch,
        ),
        score=score,
        begin=begin,
    )
