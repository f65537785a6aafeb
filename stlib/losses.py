"""Loss terms: squares and correlations, of labelled locations alone, and likelihoods of counts."""

import torch
from torch import Tensor

from stlib.batch import LEVELS, Batch

EPS = 1e-8  # under the root, as in ASIGN's released loss


def seen(label: Tensor) -> Tensor:
    """Return which rows of labels (N, G) can be learned from (N,): those without NaN, which hides a label."""
    return ~label.isnan().any(1)


def mse(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean squared error of a prediction.

    `a` and `b` are (N, G); rows of `b` with NaN (hidden labels) are left out. Zero without any row.
    """
    rows = seen(b)
    if not rows.any():
        return a.sum() * 0
    return ((a[rows] - b[rows]) ** 2).mean()


def mse_and_pearson(a: Tensor, b: Tensor, share: float) -> Tensor:
    """Return `mse` plus `share` times `pearson_loss_per_gene`: what EGN, EGGN and SGN learn from.

    `a` and `b` are (N, G); rows of `b` with NaN (hidden labels) are left out.
    """
    return mse(a, b) + share * pearson_loss_per_gene(a, b)


def pearson_loss(a: Tensor, b: Tensor) -> Tensor:
    """Return P(a, b) = 1 - mean over rows of Pearson's r across the genes (ASIGN eq. 9, MagNet eq. 8).

    `a` and `b` are (N, G); rows of `b` with NaN (hidden labels) are left out. The loss lies in [0, 2]; it
    is zero without any row.
    """
    rows = seen(b)
    if not rows.any():
        return a.sum() * 0
    a, b = a[rows], b[rows]
    a = a - a.mean(1, keepdim=True)
    b = b - b.mean(1, keepdim=True)
    r = (a * b).sum(1) / ((a**2).sum(1) * (b**2).sum(1) + EPS).sqrt()
    return 1 - r.mean()


def with_levels(
    loss: Tensor, batch: Batch, out: dict[str, Tensor], rows: Tensor, pearson: float, consistency: float
) -> Tensor:
    """Return a loss plus what the coarser levels add (ASIGN eq. 9 and 10, MagNet eq. 3 and 4).

    Of each level l, P(p_l, y_l) over its labelled cells, and P(p_s, p_l) of the locations with their cells.

    Parameters
    ----------
    loss
        Of the locations.
    batch, out
        What a model was given, and what it predicts: ``expression`` and the levels.
    rows
        Locations that are held against their cells (N,), bool.
    pearson, consistency
        Weights of the two terms.
    """
    for level in LEVELS:
        p_l, parent = out[level], batch[f"{level}_parent"][rows]
        loss = loss + pearson * pearson_loss(p_l, batch[f"{level}_expression"])
        loss = loss + consistency * pearson_loss(out["expression"][rows], p_l[parent])
    return loss


def pearson_loss_per_gene(a: Tensor, b: Tensor) -> Tensor:
    """Return 1 - mean over genes of Pearson's r across the locations (EGN, EGGN and SGN: "batch-wise PCC").

    `a` and `b` are (N, G); rows of `b` with NaN (hidden labels) are left out, and so are genes whose label is
    the same at every location left. The loss lies in [0, 2]; it is zero without any gene that varies.
    """
    rows = seen(b)
    varies = (b[rows] != b[rows][:1]).any(0)
    if not varies.any():
        return a.sum() * 0
    a, b = a[rows][:, varies], b[rows][:, varies]
    a = a - a.mean(0)
    b = b - b.mean(0)
    r = (a * b).sum(0) / ((a**2).sum(0) * (b**2).sum(0) + EPS).sqrt()
    return 1 - r.mean()


def zinb_nll(counts: Tensor, mean: Tensor, dispersion: Tensor, dropout: Tensor, eps: float = 1e-10) -> Tensor:
    """Return the mean negative log likelihood of counts under a zero-inflated negative binomial (Hist2ST).

    P(0) = pi + (1 - pi) NB(0), P(x) = (1 - pi) NB(x) for x > 0. NB has the mean m and the variance
    m + m^2 / theta. In float64: among log-gammas of 1e4, float32 errs by 0.01. In nats per entry.

    Parameters
    ----------
    counts
        Raw counts x (N, G).
    mean
        m, from 0 up (N, G): the size factor of the location is part of it.
    dispersion
        theta, above 0 (N, G).
    dropout
        pi, the share of additional zeros in [0, 1] (N, G).
    eps
        Under the logs; a probability below it counts as it.

    Examples
    --------
    >>> one = torch.ones(1, 1)
    >>> f"{zinb_nll(counts=0 * one, mean=one, dispersion=one, dropout=0.5 * one):.4f}"  # -ln(1/2 + 1/2 1/2)
    '0.2877'
    """
    x, m, theta, pi = counts.double(), mean.double(), dispersion.double(), dropout.double()
    log_zero = -theta * (m / theta).log1p()  # log NB(0)
    ways = (x + theta).lgamma() - theta.lgamma() - (x + 1).lgamma()
    log_some = ways + log_zero + x * ((m + eps).log() - (m + theta).log())  # log NB(x)
    zero = (pi + (1 - pi) * log_zero.exp() + eps).log()
    some = (1 - pi + eps).log() + log_some
    return -torch.where(x == 0, zero, some).mean().to(mean.dtype)
