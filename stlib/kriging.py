"""Carry measured labels to places that were not measured, by Gaussian processes over place and looks.

The label of a spot is the mean of the known section plus a field z, seen through the noise of counting:

    y_s = mean + z_s + noise_s         cov(z_sg, z_th) = C_gh k(s, t)
    k(s, t) = w1 exp(-d^2 / 2 l^2) + w2 exp(-f^2 / 2 m^2) + w3 exp(-d^2 / 2 l^2 - f^2 / 2 m^2)

d is the distance of the registered spots, f that of their frozen features. C is the covariance of the genes
within sections (coregionalisation); the noise of a log count x is about 1 / (x + 1), and falls with the depth
of a spot. Weights and lengths are those of the highest marginal likelihood of the known labels: nothing is set
by hand, and no hidden label is needed. Exact for up to `PIECE` known spots, else in pieces of tissue, so that
time grows linearly.
"""

from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from stlib.blocks import kd_blocks

PIECE = 512  # known spots that are solved for at once: O(PIECE^3)
PITCH_LENGTHS, LOOK_LENGTH = 1.0, 1.0  # where the search for the lengths begins: pitches, deviations
FLOOR = 0.02  # of the noise variance: sequencing varies more than counting alone
KINDS = 3  # place, looks, both


class Known(NamedTuple):
    """Measured spots of a stack."""

    place: Tensor  # registered (K, 2), pitches; NaN: not registered
    looks: Tensor  # frozen features (K, D), of deviation 1
    counts: Tensor  # of the panel (K, G)
    labels: Tensor  # log proportions (K, G)
    depth: Tensor  # total counts (K,)


def gene_covariance(counts: Tensor, labels: Tensor) -> Tensor:
    """Return how labels vary together within one section (G, G): their covariance less the counting noise."""
    centred = labels - labels.mean(0)
    return centred.T @ centred / len(labels) - torch.diag((1 / (counts + 1)).mean(0))


def krige(known: Known, place: Tensor, looks: Tensor, covariance: Tensor) -> Tensor:
    """Predict the labels of spots from the known ones.

    Parameters
    ----------
    known
        Measured spots.
    place, looks
        Of the spots to predict (N, 2), (N, D), as in `Known`. A spot that is not registered (NaN) is predicted
        from its looks alone.
    covariance
        Of the genes (G, G), from `gene_covariance`; negative directions are set aside.

    Returns
    -------
    Tensor
        (N, G) float32.

    Raises
    ------
    ValueError
        If no spot is known.
    """
    if not len(known.place):
        raise ValueError("kriging needs known spots, found none; is the known section in the stack?")
    known = Known(*(field.double() for field in known))
    place, looks = place.double(), looks.double()
    genes = _Genes.of(known, covariance.double())
    pieces = kd_blocks(known.place.nan_to_num(), PIECE, torch.Generator().manual_seed(0))
    kernel = _fit([Known(*(field[rows] for field in known)) for rows in pieces], genes)
    out = torch.empty(len(place), known.labels.shape[1], dtype=torch.float64)
    owner = _nearest_piece(place, [known.place[rows] for rows in pieces])
    for number, rows in enumerate(pieces):
        here = owner == number
        piece = Known(*(field[rows] for field in known))
        out[here] = genes.back(kernel.predict(piece, genes.scores(piece.labels), place[here], looks[here], genes))
    return out.float()


class _Genes(NamedTuple):
    """Directions in which genes vary together, scaled so that the mean noise of each is 1."""

    mean: Tensor  # (G,)
    into: Tensor  # (G, R)
    out: Tensor  # (R, G)
    variance: Tensor  # of the field along each direction (R,)
    depth: Tensor  # mean over the known spots ()

    @classmethod
    def of(cls, known: Known, covariance: Tensor) -> "_Genes":
        scale = ((1 / (known.counts + 1)).mean(0) + FLOOR).sqrt()  # (G,)
        variance, axes = torch.linalg.eigh(covariance / scale / scale[:, None])
        kept = variance > 1e-3 * variance.max()
        weight = known.depth.clamp(min=1).sqrt()[:, None]
        mean = (weight * known.labels).sum(0) / weight.sum()
        axes = axes[:, kept]
        return cls(mean, axes / scale[:, None], axes.T * scale, variance[kept], known.depth.mean())

    def scores(self, labels: Tensor) -> Tensor:
        return (labels - self.mean) @ self.into  # (K, R)

    def back(self, scores: Tensor) -> Tensor:
        return self.mean + scores @ self.out  # (N, G)


class _Kernel:
    """The covariance over spots, with its parameters (9,), all on a log scale."""

    def __init__(self, parameters: Tensor):
        lengths, weights, (size, noise, rough) = parameters.split([2, KINDS, 3])
        self.place_length = PITCH_LENGTHS * lengths[0].exp()
        self.look_length = LOOK_LENGTH * lengths[1].exp()
        self.weights = weights.softmax(0)
        self.size, self.noise, self.rough = size.exp(), noise.exp(), 0.1 * rough.exp()

    def between(self, place: tuple[Tensor, Tensor], looks: tuple[Tensor, Tensor]) -> Tensor:
        """Return k (A, B)."""
        apart = _squares(*place)
        near = torch.exp(-apart / 2 / self.place_length**2).nan_to_num(0.0)  # not registered: near nothing
        alike = torch.exp(-_squares(*looks) / looks[0].shape[1] / 2 / self.look_length**2)
        return torch.einsum("k,kab->ab", self.weights, torch.stack([near, alike, near * alike]))

    def whitened(self, known: Known, genes: _Genes) -> tuple[Tensor, Tensor]:
        """Return k of the known spots over their noise (K, K), and the root of the noise of each (K,)."""
        root = (genes.depth / known.depth.clamp(min=1)).sqrt()
        own = self.between((known.place,) * 2, (known.looks,) * 2)
        own = own + self.rough * torch.eye(len(own), dtype=own.dtype)  # what no neighbour shares
        return own / root / root[:, None], root

    def predict(self, known: Known, scores: Tensor, place: Tensor, looks: Tensor, genes: _Genes) -> Tensor:
        """Return the expected field (N, R) given the scores of the known spots (K, R)."""
        inside, root = self.whitened(known, genes)
        values, vectors = torch.linalg.eigh(inside)
        size = self.size * genes.variance  # (R,)
        solved = (vectors.T @ (scores / root[:, None])) / (size * values[:, None] + self.noise)
        across = self.between((place, known.place), (looks, known.looks)) / root
        return size * (across @ (vectors @ solved))


def _fit(pieces: list[Known], genes: _Genes) -> _Kernel:
    """Return the kernel of the highest marginal likelihood, under a standard normal prior of its parameters."""
    scores = [genes.scores(piece.labels) for piece in pieces]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        parameters = torch.tensor(flat, requires_grad=True)
        total = (parameters**2).sum() / 2
        for piece, score in zip(pieces, scores, strict=True):
            total = total + _misfit(_Kernel(parameters), piece, score, genes)
        total.backward()
        return total.item(), parameters.grad.numpy()

    found = minimize(loss, np.zeros(2 + KINDS + 3), jac=True, method="L-BFGS-B", options={"maxiter": 40})
    return _Kernel(torch.tensor(found.x))


def _misfit(kernel: _Kernel, known: Known, scores: Tensor, genes: _Genes) -> Tensor:
    """Return the negative log likelihood of the scores of one piece (K, R), up to a constant.

    All directions share the eigenvectors of one matrix. Its gradient is written out, because that of an
    eigendecomposition is not defined where two eigenvalues meet.
    """
    inside, root = kernel.whitened(known, genes)
    values, vectors = torch.linalg.eigh(inside.detach())
    turned = vectors.T @ (scores / root[:, None])  # (K, R)
    size = kernel.size * genes.variance
    spread = size * values[:, None] + kernel.noise  # (K, R): variance along each eigenvector
    direct = (turned**2 / spread + spread.log()).sum() / 2
    with torch.no_grad():
        solved = turned / spread * size.sqrt()
        slope = torch.diag((size / spread).sum(1)) - solved @ solved.T
        slope = vectors @ slope @ vectors.T / 2  # of the likelihood by each entry of `inside`
    through = (slope * inside).sum()
    return direct + through - through.detach()


def _squares(a: Tensor, b: Tensor) -> Tensor:
    """Return squared distances (A, B) of rows (A, D), (B, D)."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist") ** 2


def _nearest_piece(place: Tensor, pieces: list[Tensor]) -> Tensor:
    """Return for each spot the piece whose known spots lie nearest (N,); the first one if not registered."""
    if len(pieces) == 1:
        return torch.zeros(len(place), dtype=torch.long)
    from scipy.spatial import KDTree

    number = np.repeat(np.arange(len(pieces)), [len(piece) for piece in pieces])
    _, index = KDTree(torch.cat(pieces).numpy()).query(place.nan_to_num().numpy())
    return torch.from_numpy(number[index])
