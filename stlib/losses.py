"""Loss terms used by two or more models."""

from torch import Tensor

EPS = 1e-8  # under the root, as in ASIGN's released loss


def pearson_loss(a: Tensor, b: Tensor) -> Tensor:
    """Return P(a, b) = 1 - mean over rows of Pearson's r across the genes (ASIGN eq. 9, MagNet eq. 8).

    Parameters
    ----------
    a, b
        (N, G); rows of `b` with NaN (hidden labels) are left out.

    Returns
    -------
    Tensor
        Scalar in [0, 2]; zero without any row.
    """
    seen = ~b.isnan().any(1)
    if not seen.any():
        return a.sum() * 0
    a, b = a[seen], b[seen]
    a = a - a.mean(1, keepdim=True)
    b = b - b.mean(1, keepdim=True)
    r = (a * b).sum(1) / ((a**2).sum(1) * (b**2).sum(1) + EPS).sqrt()
    return 1 - r.mean()
