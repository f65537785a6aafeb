"""Overlap: the known section's labels, weighted by how much the registered spots overlap.

The first 3D baseline of ASIGN.

ASIGN (Zhu et al. 2024), Table I and supplement 2.3; inspired by PASTE, which itself is not run. Neither a
formula nor code is published.

    y_i = sum_j IoU(i, j) y_j / sum_j IoU(i, j)        over the known spots j that overlap spot i

Differences from the paper
1. The rule is ours: weights are the IoU of equal circles in closed form; a spot that no known spot overlaps
   takes the label of the nearest known one. On arrays with a 200 um pitch that is frequent. A section that
   is not registered takes the known mean.
"""

import numpy as np
import torch
from torch import Tensor

from stlib.batch import Batch
from stlib.models import Method
from stlib.overlap import circle_overlap
from stlib.smoothing import nearest_average

CANDIDATES = 12  # nearest known spots; on an array no more can overlap one circle


class Overlap(Method):
    """Predict (N, G) from the known spots and the registered positions (N, 2) in um."""

    UNIT = "stack"
    NEEDS = frozenset({"cross"})
    PROTOCOLS = {"3d": {}}

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        def shares(distance: np.ndarray) -> np.ndarray:
            weight = circle_overlap(distance, batch.radius_um, batch.radius_um)
            weight[weight.sum(1) == 0, 0] = 1.0  # the nearest, where nothing overlaps
            return weight

        fields = (field.numpy() for field in (batch.registered, batch.known, batch.expression))
        values = nearest_average(*fields, CANDIDATES, shares)
        return {"expression": torch.from_numpy(values).float()}


Model = Overlap
