"""What the known labels of a stack let expect of its other spots, without any training.

A feed adds these to a batch; `asign` mixes them with its network.
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from stlib import expression
from stlib.batch import Batch
from stlib.kriging import Known, gene_covariance, krige
from stlib.linear import fit_ridge
from stlib.losses import seen
from stlib.sections import Section
from stlib.smoothing import RANK, low_rank

FIELDS = ("start", "denoised", "imputed", "readout")


def known_fields(batch: Batch, needs: frozenset[str], covariance: Tensor | None) -> dict[str, Tensor]:
    """Return those of `FIELDS` that are wanted, each (N, G); see `stlib.batch.Batch`.

    Parameters
    ----------
    batch
        Whole sections. Where no spot is known, `start` is the mean of all labels and the others are NaN.
    covariance
        Of the genes in other patients (G, G), if there are any.
    """
    known, labels = batch.known, batch.expression
    fields = {name: torch.full_like(labels, torch.nan) for name in FIELDS if name in needs}
    if "start" in fields:
        fields["start"] = labels[known if known.any() else seen(labels)].mean(0).expand_as(labels)
    if not known.any():
        return fields
    if "denoised" in fields:
        fields["denoised"][known] = torch.from_numpy(
            low_rank(labels[known].numpy(), batch.depth[known].numpy(), RANK)
        ).float()
    if "imputed" in fields:
        fields["imputed"] = _kriged(batch, covariance)
    if "readout" in fields:
        looks = batch.relative.numpy()
        weight, bias = fit_ridge(looks[known], labels[known].numpy(), np.zeros(int(known.sum())))
        fields["readout"] = torch.from_numpy(looks @ weight + bias)
    return fields


def _kriged(batch: Batch, covariance: Tensor | None) -> Tensor:
    place = batch.registered / batch.pitch_um
    fields = (place, batch.relative, batch.counts, batch.expression, batch.depth)
    measured = Known(*(field[batch.known] for field in fields))
    own = gene_covariance(measured.counts.double(), measured.labels.double())
    return krige(measured, place, batch.relative, own if covariance is None else (own + covariance) / 2)


class Covariances:
    """How genes vary together within the sections of patients.

    Parameters
    ----------
    counted
        Sections, slide or not; two of one patient are put together, each by its number of locations.
    panel
        The genes (G).
    """

    def __init__(self, counted: Sequence[Section], panel: list[str]):
        self.counted, self.panel = counted, panel

    def of_others(self, patient: str) -> Tensor | None:
        """Return the covariance (G, G) within the sections of all patients but one; None without any."""
        others = [found for name, found in self._by_patient.items() if name != patient]
        total = sum(number for _, number in others)
        return sum(covariance * number for covariance, number in others) / total if total else None

    @cached_property
    def _by_patient(self) -> dict[str, tuple[Tensor, int]]:
        """Patient -> covariance within the sections, and their locations."""
        found: dict[str, tuple[Tensor, int]] = {}
        for section in self.counted:
            counts = torch.from_numpy(expression.panel_counts(section, self.panel))
            labels = torch.from_numpy(expression.log_proportion(counts.numpy())).double()
            before, number = found.get(section.patient, (torch.zeros(()), 0))
            total = number + len(section)
            here = gene_covariance(counts, labels)
            found[section.patient] = (before * number + here * len(section)) / total, total
        return found
