"""Which genes are predicted: the most counted, the most variable, or those that vary most with place.

=======================  =====================================================================================
rule                     genes with the highest
=======================  =====================================================================================
``top_mean``             mean count: the papers' choice, see `stlib.expression.top_mean_panel`
``highly_variable``      variance of their Pearson residuals (Lause et al., Genome Biology 22, 258, 2021)
``spatially_variable``   Moran's I of the same residuals between neighbouring locations
=======================  =====================================================================================

A residual is (x - m) / sqrt(m + m^2 / `THETA`), where m is what a location of its depth would hold of the
gene if every location were alike; what is beyond sqrt(N) is cut. Each section says its own number, a gene's
number is their mean, and a gene that a section does not count says 0 there.
"""

from collections.abc import Callable, Iterable

import numpy as np
from scipy import sparse

from stlib.expression import common_genes, top_mean_panel
from stlib.graph import radius_graph
from stlib.params import Panel
from stlib.sections import Section

THETA = 100.0
NEAR = 1.6  # pitches: the four sides and corners of a square, the six neighbours of a hexagon
COLUMNS = 2000  # genes at once


def choose(panel: Panel, sections: Iterable[Section]) -> list[str]:
    """Return the genes of a panel, best first, and those added by name.

    Under `strict` the sections hold no spot whose counts are hidden.

    Raises
    ------
    ValueError
        If there are fewer candidates than `panel.size`.
    """
    sections = list(sections)
    everyone = top_mean_panel(sections, panel.size, panel.add)  # says what is wrong with the sections
    if panel.rule == "top_mean":
        return everyone
    genes = common_genes(sections)
    found = np.mean([by_gene(section, genes, SCORES[panel.rule]) for section in sections], axis=0)
    chosen = [genes[i] for i in np.argsort(-found, kind="stable")[: panel.size]]
    return chosen + [gene for gene in panel.add if gene not in chosen]


def by_gene(section: Section, genes: list[str], score: Callable) -> np.ndarray:
    """Score the genes of a section (G,): `score` of residuals (N, some genes) and of who is near whom."""
    counts = section.counts[:, section.columns(genes)].tocsc()
    depth = np.asarray(counts.sum(1), np.float64)
    near = neighbours(section)
    parts = []
    for start in range(0, len(genes), COLUMNS):
        some = counts[:, start : start + COLUMNS]
        parts.append(score(residuals(some, depth), near))
    return np.concatenate(parts)


def residuals(counts: sparse.csc_matrix, depth: np.ndarray) -> np.ndarray:
    """Return the Pearson residuals of counts (N, G), given the depth of each location (N, 1)."""
    expected = depth / max(depth.sum(), 1) * np.asarray(counts.sum(0), np.float64)
    spread = np.sqrt(expected + np.square(expected) / THETA)
    found = (counts.toarray() - expected) / np.where(spread > 0, spread, 1)
    cut = np.sqrt(len(depth))
    return np.clip(found, -cut, cut)


def neighbours(section: Section) -> sparse.csr_matrix:
    """Return who is near whom in a section: (N, N), 1 for a neighbour, sparse."""
    edges, _ = radius_graph(section.position * section.um_per_px, NEAR * section.pitch_um)
    return sparse.csr_matrix((np.ones(edges.shape[1]), edges), shape=(len(section), len(section)))


def variance(found: np.ndarray, near: sparse.csr_matrix) -> np.ndarray:
    """Return the variance of residuals (N, G) over locations (G,)."""
    return found.var(0)


def moran(found: np.ndarray, near: sparse.csr_matrix) -> np.ndarray:
    """Return Moran's I of values (N, G) (G,): their correlation between neighbours; 0 for a constant."""
    centred = found - found.mean(0)
    total, weight = np.square(centred).sum(0), near.sum()
    shared = (centred * (near @ centred)).sum(0)
    return np.where(total > 0, len(found) / max(weight, 1) * shared / np.where(total > 0, total, 1), 0)


SCORES = {"highly_variable": variance, "spatially_variable": moran}
