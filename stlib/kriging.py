"""Carry measured labels to places that were not measured, by Gaussian processes over place and looks.

The label of a spot is the mean of the known section plus a field z, seen through the noise of counting:

    y_s = mean + z_s + noise_s         cov(z_sg, z_th) = C_gh k(s, t)
    k(s, t) = w1 exp(-d^2 / 2 l^2) + w2 exp(-f^2 / 2 m^2) + w3 exp(-d^2 / 2 l^2 - f^2 / 2 m^2)

d is the distance of the registered spots, f that of their frozen features. C is the covariance of the genes
within sections (coregionalisation), and each direction in which they vary together has its own weights w.
The noise of a log count x is about 1 / (x + 1), and falls with the depth of a spot. Weights and lengths are
those of the highest marginal likelihood of the known labels: none is set by hand, and no hidden label is
needed. Exact for up to `PIECE` known spots, else in pieces of tissue, so that time grows linearly.
"""

from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.spatial import KDTree
from torch import Tensor

from stlib.blocks import kd_blocks

PIECE = 512  # known spots that are solved for at once: O(PIECE^3)
DIRECTIONS = 25  # in which genes vary together, at most
LEAST = 1e-3  # variance of a direction, in units of its noise
PLACE_LENGTH, LOOK_LENGTH = 1.0, 1.0  # where the search begins: pitches, deviations
ROUGH = 0.1  # of the variance, likewise: what no neighbour shares
FLOOR = 0.02  # of the noise variance: sequencing varies more than counting alone
FAR = 1e6  # squared pitches
KINDS = 3  # place, looks, both
STEPS, LIMITS = 60, (-6.0, 6.0)  # of the search; logs, so that a covariance keeps its inverse


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
    """Predict the labels of spots from the known ones, (N, G) float32.

    Parameters
    ----------
    place, looks
        Of the spots to predict (N, 2), (N, D), as in `Known`. A spot that is not registered (NaN) is
        predicted from its looks alone.
    covariance
        Of the genes (G, G), from `gene_covariance`; negative directions are set aside.

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
    blocks = kd_blocks(known.place.nan_to_num(), PIECE, torch.Generator().manual_seed(0))
    pieces = [_Piece.of(Known(*(field[rows] for field in known)), genes) for rows in blocks]
    kernel = _fit(pieces, genes)
    out = torch.empty(len(place), known.labels.shape[1], dtype=torch.float64)
    owner = _nearest_piece(place, [piece.known.place for piece in pieces])
    for number, piece in enumerate(pieces):
        here = owner == number
        out[here] = kernel.predict(piece, place[here], looks[here])
    return out.float()


class _Genes(NamedTuple):
    """The directions in which genes vary most together, scaled so that the mean noise of each is 1."""

    mean: Tensor  # (G,)
    into: Tensor  # (G, R)
    out: Tensor  # (R, G)
    variance: Tensor  # of the field along each direction (R,)
    depth: Tensor  # mean over the known spots ()

    @classmethod
    def of(cls, known: Known, covariance: Tensor) -> "_Genes":
        scale = ((1 / (known.counts + 1)).mean(0) + FLOOR).sqrt()  # (G,)
        variance, axes = torch.linalg.eigh(covariance / scale / scale[:, None])
        variance, axes = variance[-DIRECTIONS:].clamp(min=LEAST), axes[:, -DIRECTIONS:]
        weight = known.depth.clamp(min=1).sqrt()[:, None]
        mean = (weight * known.labels).sum(0) / weight.sum()
        return cls(mean, axes / scale[:, None], axes.T * scale, variance, known.depth.mean())

    def scores(self, labels: Tensor) -> Tensor:
        return (labels - self.mean) @ self.into  # (K, R)

    def back(self, scores: Tensor) -> Tensor:
        return self.mean + scores @ self.out  # (N, G)


class _Kernel:
    """The covariance over spots along each direction.

    Parameters are logs: two lengths, six numbers that all directions share, and how each departs from them.
    """

    def __init__(self, parameters: Tensor, genes: _Genes):
        lengths, rest = parameters[:2].exp(), parameters[2:].reshape(KINDS + 3, -1)
        rest = rest[:, :1] + rest[:, 1:]  # (6, R)
        self.place_length, self.look_length = PLACE_LENGTH * lengths[0], LOOK_LENGTH * lengths[1]
        size, noise, rough = rest[KINDS:].exp()  # each (R,)
        self.weights = rest[:KINDS].softmax(0) * size * genes.variance  # (KINDS, R)
        self.rough = ROUGH * rough * genes.variance
        self.noise = noise
        self.genes = genes

    def between(self, apart: Tensor, unlike: Tensor) -> Tensor:
        """Return k (R, A, B) from squared distances in place and in looks (A, B)."""
        near = torch.exp(-apart / 2 / self.place_length**2)
        alike = torch.exp(-unlike / 2 / self.look_length**2)
        return torch.einsum("kr,kab->rab", self.weights, torch.stack([near, alike, near * alike]))

    def measured(self, piece: "_Piece") -> Tensor:
        """Return the covariance of what was measured (R, K, K): of the field, with noise on the diagonal."""
        shallow = self.genes.depth / piece.known.depth.clamp(min=1)  # (K,)
        own = self.noise[:, None] * shallow + self.rough[:, None]
        return self.between(piece.apart, piece.unlike) + torch.diag_embed(own)

    def misfit(self, piece: "_Piece") -> tuple[Tensor, Tensor]:
        """Return the negative log likelihood of known labels, up to a constant, and a sum of equal gradient.

        With S the covariance and a = S^-1 y, the gradient by S is (S^-1 - a a^T) / 2: one inverse, in place
        of a way back through the factor of S.
        """
        covariance = self.measured(piece)
        with torch.no_grad():
            factor = torch.linalg.cholesky(covariance)
            inverse = torch.cholesky_inverse(factor)
            solved = inverse @ piece.scores  # (R, K, 1)
            value = (piece.scores * solved).sum() / 2 + factor.diagonal(dim1=1, dim2=2).log().sum()
            slope = (inverse - solved @ solved.mT) / 2
        return value, (slope * covariance).sum()

    def predict(self, piece: "_Piece", place: Tensor, looks: Tensor) -> Tensor:
        """Return the expected labels (N, G)."""
        solved = torch.cholesky_solve(piece.scores, torch.linalg.cholesky(self.measured(piece)))
        across = self.between(_apart(place, piece.known.place), _unlike(looks, piece.known.looks))
        return self.genes.back((across @ solved)[:, :, 0].T)  # (R, N, K) @ (R, K, 1)


class _Piece(NamedTuple):
    """Known spots that are solved for at once, and what stays the same while the kernel is sought."""

    known: Known
    scores: Tensor  # (R, K, 1)
    apart: Tensor  # (K, K)
    unlike: Tensor  # (K, K)

    @classmethod
    def of(cls, known: Known, genes: _Genes) -> "_Piece":
        scores = genes.scores(known.labels).T[:, :, None].contiguous()
        return cls(known, scores, _apart(known.place, known.place), _unlike(known.looks, known.looks))


def _fit(pieces: list[_Piece], genes: _Genes) -> _Kernel:
    """Return the kernel of the highest marginal likelihood; all but lengths have a standard normal prior."""

    @torch.enable_grad()  # a feed may be asked under no_grad
    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        parameters = torch.tensor(flat, requires_grad=True)
        kernel = _Kernel(parameters, genes)
        prior = parameters[2:].square().sum() / 2
        values, slopes = zip(*(kernel.misfit(piece) for piece in pieces), strict=True)
        (prior + sum(slopes)).backward()
        return (prior.detach() + sum(values)).item(), parameters.grad.numpy()

    start = np.zeros(2 + (KINDS + 3) * (1 + len(genes.variance)))
    found = minimize(
        loss, start, jac=True, method="L-BFGS-B", bounds=[LIMITS] * len(start), options={"maxiter": STEPS}
    )
    return _Kernel(torch.tensor(found.x), genes)


def _apart(a: Tensor, b: Tensor) -> Tensor:
    """Return squared distances of places (A, B); one that is not registered is near nothing."""
    return _squares(a, b).nan_to_num(FAR)


def _unlike(a: Tensor, b: Tensor) -> Tensor:
    """Return mean squared differences of looks (A, B)."""
    return _squares(a, b) / a.shape[1]


def _squares(a: Tensor, b: Tensor) -> Tensor:
    """Return squared distances (A, B) of rows (A, D), (B, D)."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist") ** 2


def _nearest_piece(place: Tensor, pieces: list[Tensor]) -> Tensor:
    """Return for each spot the piece whose known spots lie nearest (N,); not registered, any one."""
    if len(pieces) == 1:
        return torch.zeros(len(place), dtype=torch.long)
    number = np.repeat(np.arange(len(pieces)), [len(piece) for piece in pieces])
    _, index = KDTree(torch.cat(pieces).nan_to_num().numpy()).query(place.nan_to_num().numpy())
    return torch.from_numpy(number[index])
