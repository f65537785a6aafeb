"""Carry the labels of a known section over to its neighbours: denoised, and averaged around each place."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree

from stlib.models import Config

RANK = 6  # leading components that are kept of known labels
NEAREST = 64  # known spots that can weigh in; a Gaussian of 0.7 pitches reaches fewer


@dataclass(frozen=True)
class SmoothConfig(Config):
    """Denoising and width, fixed on real sections of her2st's patient C (a small grid on C3 and C4)."""

    rank: int = RANK
    sigma_um: float = 138.0  # 200 px of her2st


def low_rank(labels: np.ndarray, depth: np.ndarray, rank: int) -> np.ndarray:
    """Return labels with their noise reduced: the `rank` leading components of the weighted, centred labels.

    Parameters
    ----------
    labels
        (K, G).
    depth
        Total counts of each spot (K,); a spot weighs by its square root.
    """
    weight = np.sqrt(np.maximum(depth, 1.0))[:, None]
    mean = (weight * labels).sum(0) / weight.sum()
    u, s, v = np.linalg.svd(weight * (labels - mean), full_matrices=False)
    return mean + (u[:, :rank] * s[:rank]) @ v[:rank] / weight


def nearest_average(
    place: np.ndarray,
    known: np.ndarray,
    labels: np.ndarray,
    number: int,
    weigh: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """Average the labels of the nearest known spots around each place, (N, G).

    A place that is not registered (NaN) takes the mean of all known labels.

    Parameters
    ----------
    place
        (N, 2), um in the common frame.
    known
        Which of them are known (N,).
    labels
        (N, G), read where they are known.
    number
        Of known spots that count, at most.
    weigh
        Distances (n, number), the nearest first -> weights.
    """
    here = np.isfinite(place).all(1)
    there = here & known
    out = np.tile(labels[known].mean(0), (len(place), 1))
    if there.any():
        nearest = range(1, min(number, there.sum()) + 1)
        distance, index = KDTree(place[there]).query(place[here], k=nearest)
        weight = weigh(distance)
        weight /= weight.sum(1, keepdims=True)
        out[here] = np.einsum("nk,nkg->ng", weight, labels[there][index])
    return out


def gaussian_average(
    place: np.ndarray, known_place: np.ndarray, labels: np.ndarray, depth: np.ndarray, sigma: float
) -> np.ndarray:
    """Average the labels of the known spots around each place, (N, G).

    Weights are sqrt(depth) exp(-d^2 / (2 sigma^2)), normalised; far from all known spots the nearest decides.
    A place that is not registered (NaN) takes the mean label.

    Parameters
    ----------
    place
        (N, 2), um in the common frame.
    known_place, labels, depth
        (K, 2), (K, G), (K,).
    sigma
        um.
    """
    here, there = np.isfinite(place).all(1), np.isfinite(known_place).all(1)
    out = np.tile(np.average(labels, axis=0, weights=np.sqrt(np.maximum(depth, 1.0))), (len(place), 1))
    if here.any() and there.any():
        known_place, labels, depth = known_place[there], labels[there], depth[there]
        nearest = range(1, min(NEAREST, len(known_place)) + 1)
        distance, index = KDTree(known_place).query(place[here], k=nearest)
        log_weight = 0.5 * np.log(np.maximum(depth[index], 1.0)) - distance**2 / (2 * sigma**2)
        weight = np.exp(log_weight - log_weight.max(1, keepdims=True))
        out[here] = np.einsum("nk,nkg->ng", weight / weight.sum(1, keepdims=True), labels[index])
    return out
