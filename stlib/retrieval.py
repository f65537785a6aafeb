"""Exact nearest neighbours among training locations, by faiss.

A query never finds a location of its own patient: in training that would be its own section, or a neighbour
that shares its tissue.
"""

from collections.abc import Mapping
from typing import Any, Literal

import faiss
import numpy as np
import torch
from torch import Tensor, nn

Metric = Literal["l2", "l1", "cosine"]
METRICS = {"l2": faiss.METRIC_L2, "l1": faiss.METRIC_L1, "cosine": faiss.METRIC_INNER_PRODUCT}


class Bank(nn.Module):
    """Keep what can be retrieved, in buffers that are saved with the model.

    Rows are ordered by patient, so that all of one patient are a range that a search can leave out.

    Parameters
    ----------
    metric
        ``l2``, ``l1``, or ``cosine``.

    Attributes
    ----------
    features
        What is searched (M, D).
    expression
        Labels (M, G).
    patient
        (M,), ascending.
    """

    features: Tensor
    expression: Tensor
    patient: Tensor

    def __init__(self, metric: Metric):
        super().__init__()
        self.metric = metric
        self.register_buffer("features", torch.zeros(0, 0))
        self.register_buffer("expression", torch.zeros(0, 0))
        self.register_buffer("patient", torch.zeros(0, dtype=torch.long))
        self._index: faiss.Index | None = None

    def fill(self, features: Tensor, expression: Tensor, patient: Tensor) -> None:
        """Take features (M, D), labels (M, G) and patients (M,); rows without a label are left out."""
        rows = expression.isfinite().all(1).nonzero().ravel()
        rows = rows[patient[rows].argsort(stable=True)]
        self.features, self.expression, self.patient = features[rows].float(), expression[rows], patient[rows]
        self._index = None

    def search(self, query: Tensor, k: int, patient: Tensor) -> Tensor:
        """Return the rows (N, k) nearest to each query, nearest first, none of the query's patient.

        Parameters
        ----------
        query
            (N, D).
        patient
            Of each query (N,).

        Raises
        ------
        ValueError
            If fewer than `k` rows belong to other patients.
        """
        if self._index is None:
            self._index = flat_index(self.features, self.metric)
        wanted, members = _array(query, self.metric), self.patient.cpu().numpy()
        found = np.empty((len(wanted), k), np.int64)
        owner = patient.cpu().numpy()
        for own in np.unique(owner):
            here, (first, end) = owner == own, np.searchsorted(members, [own, own + 1])
            if len(members) - (end - first) < k:
                raise ValueError(
                    f"retrieval needs {k} training locations of other patients than the query's, found "
                    f"{len(members) - (end - first)}; lower `k` of the model, or train on more patients"
                )
            others = faiss.IDSelectorNot(faiss.IDSelectorRange(int(first), int(end)))
            parameters = faiss.SearchParameters(sel=others)
            found[here] = self._index.search(wanted[here], k, params=parameters)[1]
        return torch.from_numpy(found).to(query.device)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        """Take the size of the saved bank."""
        for name in ("features", "expression", "patient"):
            if f"{prefix}{name}" in state_dict:
                setattr(self, name, torch.empty_like(state_dict[f"{prefix}{name}"]))
        self._index = None
        super()._load_from_state_dict(state_dict, prefix, *args)


def flat_index(features: Tensor, metric: Metric) -> faiss.Index:
    """Return an exact index over features (M, D)."""
    array = _array(features, metric)
    index = faiss.IndexFlat(array.shape[1], METRICS[metric])
    index.add(array)
    return index


def nearest(query: Tensor, features: Tensor, k: int, metric: Metric) -> Tensor:
    """Return the rows (N, k) of features (M, D) nearest to queries (N, D), nearest first; M >= k."""
    if len(features) < k:
        raise ValueError(f"retrieval needs at least {k} locations to search, found {len(features)}")
    found = flat_index(features, metric).search(_array(query, metric), k)[1]
    return torch.from_numpy(found).to(query.device)


def _array(x: Tensor, metric: Metric) -> np.ndarray:
    x = nn.functional.normalize(x.float()) if metric == "cosine" else x.float()
    return np.ascontiguousarray(x.detach().cpu().numpy())
