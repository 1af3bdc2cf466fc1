"""What all training draws its batches from."""

from __future__ import annotations

import keras
import numpy as np


class Batches(keras.utils.PyDataset):
    """Endless variety from what was packed: every batch is a function of (seed, epoch, index).

    Args:
        size: side of the picture the network sees, pixels.
        batch: pictures a batch.
        steps: batches an epoch.
        seed: of everything random.
        epoch: to start from (resume).
        workers: threads that prepare batches.
    """

    def __init__(
        self, *, size: int, batch: int, steps: int, seed: int, epoch: int = 0, workers: int = 2
    ) -> None:
        super().__init__(workers=workers, max_queue_size=8)
        self.size, self.batch, self.steps, self.seed, self.epoch = size, batch, steps, seed, epoch

    def __len__(self) -> int:
        return self.steps

    def on_epoch_end(self) -> None:
        self.epoch += 1

    def rng(self, index: int) -> np.random.Generator:
        """Source of all chance in a batch."""
        return np.random.default_rng((self.seed, self.epoch, index))
