"""Smooth: the known section's labels, denoised and averaged through the registration.

A control without any learning.

Labels are reduced to their leading components (weights sqrt of the spot's counts), then averaged with a
Gaussian around the registered place of each unknown spot. It shows what position alone is worth; a learned 3D
method has to add to it.
"""

import torch
from torch import Tensor

from stlib.batch import Batch
from stlib.models import Method
from stlib.smoothing import SmoothConfig, gaussian_average, low_rank


class Smooth(Method):
    """Predict (N, G) from the known spots of the stack and their registered positions."""

    UNIT = "stack"
    NEEDS = frozenset({"cross"})
    PROTOCOLS = {"3d": {}}
    Config = SmoothConfig

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        known = batch.known.numpy()
        place, depth = batch.registered.numpy(), batch.depth.numpy()[known]
        labels = low_rank(batch.expression.numpy()[known], depth, self.config.rank)
        values = gaussian_average(place, place[known], labels, depth, self.config.sigma_um)
        return {"expression": torch.from_numpy(values).float()}


Model = Smooth
