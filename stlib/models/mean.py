"""Mean: the training mean of each gene, everywhere. The floor of every table.

It looks at no image. On her2st it meets the printed two-dimensional results, which is why each table has this
row.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from stlib.batch import Batch, Shape
from stlib.models import Config, Method, labelled


class Mean(Method):
    """Predict the mean label of the training spots (G,)."""

    def __init__(self, config: Config, shape: Shape):
        super().__init__(config, shape)
        self.register_buffer("profile", torch.zeros(shape.genes))

    def prepare(self, train: Iterable[Batch]) -> None:
        (labels,) = labelled(train, "expression")
        self.profile = labels.double().mean(0).float()

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return {"expression": self.profile.expand(len(batch.row), -1)}


Model = Mean
