"""Nearest: the known labels, averaged over the nearest registered spots. A control without learning.

    y_i = sum_j w_ij y_j / sum_j w_ij,   w_ij = 1 / (d_ij + d0)   over the nearest known spots j

It shows what registration alone is worth; `smooth` adds denoised labels and a Gaussian.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from stlib.batch import Batch
from stlib.models import Config, Method
from stlib.smoothing import nearest_average


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
        fields = (field.numpy() for field in (batch.registered, batch.known, batch.expression))
        softening = self.config.softening_um
        values = nearest_average(*fields, self.config.neighbours, lambda distance: 1 / (distance + softening))
        return {"expression": torch.from_numpy(values).float()}


Model = Nearest
