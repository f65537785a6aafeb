"""Ridge: a linear map from the frozen features of a spot to its labels.

The control that a trained network must beat.

y = x W + b, with the penalty chosen by leaving out one training patient at a time.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from stlib.batch import Batch, Shape
from stlib.layers import Standardise
from stlib.linear import fit_ridge
from stlib.models import Config, Method, labelled


class Ridge(Method):
    """Predict the labels (N, G) linearly from the spot's frozen features (N, D)."""

    NEEDS = frozenset({"features"})

    def __init__(self, config: Config, shape: Shape):
        super().__init__(config, shape)
        self.standardise = Standardise(shape.features)
        self.register_buffer("weight", torch.zeros(shape.features, shape.genes))
        self.register_buffer("bias", torch.zeros(shape.genes))

    def prepare(self, train: Iterable[Batch]) -> None:
        features, labels, patients = labelled(train, "features", "expression", "patient")
        self.standardise.fit(features)
        weight, bias = fit_ridge(self.standardise(features).numpy(), labels.numpy(), patients.numpy())
        self.weight, self.bias = torch.from_numpy(weight), torch.from_numpy(bias)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return {"expression": self.standardise(batch.features) @ self.weight + self.bias}


Model = Ridge
