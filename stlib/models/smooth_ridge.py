"""Smooth ridge: half of `smooth`, half a ridge from the known section's features.

The strongest control in 3d.

The ridge is fitted on the measured section of the very patient, on frozen features of its spots; the smoother
carries its labels through the registration. Two simple estimates whose errors differ: a learned 3D method is
worth its cost only where it beats their mean.
"""

import torch
from torch import Tensor

from stlib.batch import Batch
from stlib.layers import Standardise
from stlib.linear import fit_ridge
from stlib.models import Method
from stlib.smoothing import SmoothConfig, gaussian_average, low_rank


class SmoothRidge(Method):
    """Predict (N, G) from the known spots, their registered positions, and the features (N, D) of all."""

    UNIT = "stack"
    NEEDS = frozenset({"cross", "features"})
    PROTOCOLS = {"3d": {}}
    Config = SmoothConfig

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        known = batch.known.numpy()
        place, depth = batch.registered.numpy(), batch.depth.numpy()[known]
        labels = batch.expression.numpy()[known]
        smooth = gaussian_average(
            place, place[known], low_rank(labels, depth, self.config.rank), depth, self.config.sigma_um
        )
        scale = Standardise(self.shape.features)
        scale.fit(batch.features[batch.known])
        features = scale(batch.features).numpy()
        weight, bias = fit_ridge(features[known], labels, batch.section.numpy()[known])
        return {"expression": torch.from_numpy(0.5 * smooth + 0.5 * (features @ weight + bias)).float()}


Model = SmoothRidge
