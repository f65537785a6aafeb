"""Nearest: the known labels, averaged over the nearest registered spots. A control without learning.

    y_i = sum_j w_ij y_j / sum_j w_ij,   w_ij = 1 / (d_ij + d0)   over the nearest known spots j

It shows what registration alone is worth; `smooth` adds denoised labels and a Gaussian.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor

from stlib.batch import Batch
from stlib.models import Config, Method


@dataclass(frozen=True)
class NearestConfig(Config):
    """How many spots, and the distance below which all weigh alike."""

    neighbours: int = 20
    softening_um: float = 27.5  # d0: 40 px of her2st


class Nearest(Method):
    """Predict (N, G) from the known spots and the registered positions (N, 2) in um."""

    UNIT = "stack"
    NEEDS = frozenset({"cross"})
    PROTOCOLS = {"3d": {}}
    Config = NearestConfig

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        place, labels = batch.registered.numpy(), batch.expression.numpy()
        here, known = np.isfinite(place).all(1), batch.known.numpy()
        there = here & known
        values = np.tile(labels[known].mean(0), (len(place), 1))  # of a section that is not registered
        if there.any():
            nearest = range(1, min(self.config.neighbours, there.sum()) + 1)
            distance, index = KDTree(place[there]).query(place[here], k=nearest)
            weight = 1 / (distance + self.config.softening_um)
            weight /= weight.sum(1, keepdims=True)
            values[here] = np.einsum("nk,nkg->ng", weight, labels[there][index])
        return {"expression": torch.from_numpy(values).float()}


Model = Nearest
