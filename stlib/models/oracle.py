"""Oracle: the expected label given the true rate. The ceiling, where the truth is known: on made data.

E[t_g] with x ~ NB(rate, dispersion) for every gene of the panel, by drawing counts; t is the log proportion.
What remains between it and a measurement is counting noise, which no method can predict.
"""

import torch
from torch import Tensor

from stlib.batch import Batch
from stlib.models import Method

DRAWS = 256  # the mean of 256 draws is within 1/16 of a label's standard deviation


class Oracle(Method):
    """Predict the mean label of counts drawn at the true rate (N, G)."""

    NEEDS = frozenset({"rate"})

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(0)
        rate, size = batch.rate.double(), 1 / batch.dispersion
        total = torch.zeros_like(rate)
        for _ in range(DRAWS):  # negative binomial as a gamma mixture of Poissons
            scale = torch._standard_gamma(torch.full_like(rate, size), generator=generator) / size
            shifted = torch.poisson(rate * scale, generator=generator) + 1
            total += (shifted / shifted.sum(1, keepdim=True)).log()
        return {"expression": (total / DRAWS).float()}


Model = Oracle
