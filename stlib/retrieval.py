"""Exact nearest neighbours among training locations, by faiss.

A query never finds a location of its own patient: in training that would be its own section, or a neighbour
that shares its tissue.
"""

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, Literal

import faiss
import numpy as np
import torch
from torch import Tensor, nn

from stlib.layers import Standardise

Metric = Literal["l2", "l1", "cosine"]
METRICS = {"l2": faiss.METRIC_L2, "l1": faiss.METRIC_L1, "cosine": faiss.METRIC_INNER_PRODUCT}

KEPT = 64  # edge lists that a bank remembers


class AnySize(nn.Module):
    """A module whose own buffers are loaded in the size that was saved: rows of any number of locations."""

    def _forget(self) -> None:
        """Drop what was computed from the buffers."""

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        for name, buffer in list(self.named_buffers(recurse=False)):
            if f"{prefix}{name}" in state_dict:
                setattr(self, name, torch.empty_like(state_dict[f"{prefix}{name}"], device=buffer.device))
        self._forget()
        super()._load_from_state_dict(state_dict, prefix, *args)


class Bank(AnySize):
    """Keep what can be retrieved, in buffers that are saved with the model.

    Rows are ordered by patient, so that all of one patient are a range that a search can leave out. What was
    found is remembered until the bank changes: frozen features ask the same in each epoch. `metric` is
    ``l2``, ``l1``, or ``cosine``.
    """

    features: Tensor  # what is searched (M, D)
    expression: Tensor  # labels (M, G)
    patient: Tensor  # (M,), ascending

    def __init__(self, metric: Metric):
        super().__init__()
        self.metric = metric
        self.register_buffer("features", torch.zeros(0, 0))
        self.register_buffer("expression", torch.zeros(0, 0))
        self.register_buffer("patient", torch.zeros(0, dtype=torch.long))
        self._forget()

    def fill(self, features: Tensor, expression: Tensor, patient: Tensor) -> None:
        """Take features (M, D), labels (M, G) and patients (M,); rows without a label are left out."""
        rows = expression.isfinite().all(1).nonzero().ravel()
        rows = rows[patient[rows].argsort(stable=True)]
        self.features, self.expression, self.patient = features[rows].float(), expression[rows], patient[rows]
        self._forget()

    def fill_standardised(
        self, scale: Standardise, features: Tensor, expression: Tensor, patient: Tensor
    ) -> None:
        """Fit `scale` to training features (M, D), and take them and their labels (M, G), both standardised.

        `scale` brings queries to the same scale and is part of the model; `patient` is (M,).
        """
        label = Standardise(expression.shape[1])
        label.fit(expression)
        scale.fit(features)
        self.fill(scale(features), label(expression), patient)

    def search(self, query: Tensor, k: int, patient: Tensor) -> Tensor:
        """Return the rows (N, k) nearest to each query, nearest first, none of the query's patient.

        `query` is (N, D), `patient` that of each query (N,).

        Raises
        ------
        ValueError
            If fewer than `k` rows belong to other patients.
        """
        array, owner = _array(query, self.metric), patient.cpu().numpy()
        asked = [(k, int(own), _digest(row)) for own, row in zip(owner, array, strict=True)]
        new = [place for place, key in enumerate(asked) if key not in self._found]
        if new:
            found = self._search(array[new], k, owner[new])
            self._found |= zip((asked[place] for place in new), found, strict=True)
        rows = np.stack([self._found[key] for key in asked]) if asked else np.empty((0, k), np.int64)
        return torch.from_numpy(rows).to(query.device)

    def _search(self, query: np.ndarray, k: int, owner: np.ndarray) -> np.ndarray:
        if self._index is None:
            self._index = flat_index(self.features, self.metric)
        members = self.patient.cpu().numpy()
        found = np.empty((len(query), k), np.int64)
        for own in np.unique(owner):
            here, (first, end) = owner == own, np.searchsorted(members, [own, own + 1])
            if len(members) - (end - first) < k:
                raise ValueError(
                    f"retrieval needs {k} training locations of other patients than the query's, found "
                    f"{len(members) - (end - first)}; lower `k` of the model, or train on more patients"
                )
            others = faiss.IDSelectorNot(faiss.IDSelectorRange(int(first), int(end)))
            parameters = faiss.SearchParameters(sel=others)
            found[here] = self._index.search(query[here], k, params=parameters)[1]
        return _require_found(found)

    def among(self, rows: Tensor, k: int) -> Tensor:
        """Join some rows (U,) of the bank to their `k` nearest others among them, in features and expression.

        The distance is Euclidean, over both side by side. With k or fewer rows each has all the others.
        Return edge_index (2, U k): places in `rows`, from the neighbour to the row.
        """
        key = (k, _digest(rows.cpu().numpy()))
        if key not in self._joined:
            if len(self._joined) >= KEPT:  # sections that are cut at random cite other rows each time
                self._joined.clear()
            both = torch.cat([self.features[rows], self.expression[rows]], 1)
            self._joined[key] = alike(both, k).cpu()
        return self._joined[key].to(rows.device)

    def _forget(self) -> None:
        self._index: faiss.Index | None = None
        self._found: dict[tuple[int, int, bytes], np.ndarray] = {}  # (k, patient, query) -> rows (k,)
        self._joined: dict[tuple[int, bytes], Tensor] = {}  # (k, rows) -> edge_index


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
    return torch.from_numpy(_require_found(found)).to(query.device)


def alike(features: Tensor, k: int) -> Tensor:
    """Return edges (2, N k) to each row of features (N, D) from its `k` nearest others, nearest first.

    The distance is Euclidean. With k or fewer rows each has all the others.
    """
    k = min(k, len(features) - 1)
    near = nearest(features, features, k + 1, "l2")
    here = torch.arange(len(features), device=near.device)
    other = near != here[:, None]
    other &= other.cumsum(1) <= k  # among equal rows the row itself may be missing
    return torch.stack([near[other], here.repeat_interleave(k)])


def _require_found(rows: np.ndarray) -> np.ndarray:
    """Refuse what faiss answers to NaN: -1, which would be the last row."""
    lost = int((rows < 0).any(1).sum())
    if lost:
        raise ValueError(
            f"retrieval needs queries and locations that are finite, found none for {lost} of {len(rows)} "
            "queries: the model diverged; lower its learning rate"
        )
    return rows


def _array(x: Tensor, metric: Metric) -> np.ndarray:
    x = nn.functional.normalize(x.float()) if metric == "cosine" else x.float()
    return np.ascontiguousarray(x.detach().cpu().numpy())


def _digest(array: np.ndarray) -> bytes:
    return blake2b(np.ascontiguousarray(array), digest_size=16).digest()
