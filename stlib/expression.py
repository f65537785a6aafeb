"""From raw counts to what is predicted: the panel of genes, the label scale, and sums over coarser levels."""

from collections.abc import Iterable

import numpy as np
from scipy import sparse

from stlib.sections import Section


def common_genes(sections: Iterable[Section]) -> list[str]:
    """Return the genes that every section measures, in the order of the first."""
    first, *rest = sections
    shared = set(first.genes).intersection(*(section.genes for section in rest))
    return [gene for gene in first.genes if gene in shared]


def top_mean_panel(sections: Iterable[Section], size: int, add: Iterable[str] = ()) -> list[str]:
    """Return the `size` genes of the highest mean raw count, in descending order, and those added by name.

    The mean is taken over the spots of each section, then over sections without weights (ASIGN, section IV:
    "the highest average expression"; the order of steps is that of ASIGN's released code).

    Parameters
    ----------
    sections
        Those the choice may look at. Under `strict` they hold no spot whose counts are hidden.
    add
        Genes that follow, unless they are among them.

    Raises
    ------
    ValueError
        If there are fewer candidates than `size`.
    """
    sections = list(sections)
    genes = common_genes(sections)
    if len(genes) < size:
        raise ValueError(
            f"a panel of {size} genes needs that many genes common to all sections, found {len(genes)} in "
            f"{len(sections)} sections. Lower panel.size in the params file"
        )
    means = [np.asarray(s.counts[:, s.columns(genes)].mean(0), np.float64).ravel() for s in sections]
    order = np.argsort(-np.mean(means, axis=0), kind="stable")[:size]
    chosen = [genes[i] for i in order]
    return chosen + [gene for gene in add if gene not in chosen]


def panel_counts(section: Section, panel: list[str]) -> np.ndarray:
    """Return the raw counts of the panel's genes, in its order, as (N, G) float64."""
    return section.counts[:, section.columns(panel)].toarray().astype(np.float64)


def log_proportion(counts: np.ndarray) -> np.ndarray:
    """Return t = ln((x + 1) / sum over the panel of (x + 1)), the label scale of ASIGN's released pipeline.

    `counts` are raw counts of the panel (N, G), or sums of them over a region. The result is (N, G) float32,
    negative; a flat profile of 250 genes is ln(1 / 250) = -5.5 everywhere.

    Examples
    --------
    >>> log_proportion(np.array([[0, 4, 0]])).round(3)
    array([[-1.946, -0.336, -1.946]], dtype=float32)
    """
    shifted = np.asarray(counts, np.float64) + 1
    return np.log(shifted / shifted.sum(1, keepdims=True)).astype(np.float32)


def thinned_log_proportion(counts: np.ndarray, share: float) -> np.ndarray:
    """Return what `log_proportion` is expected to be where only a share of what was counted is counted.

    The +1 draws the labels of few counts together, so that those of a large spot and of a small bin differ
    even where the tissue is the same. Of x counts Binomial(x, share) are left, and to second order

        E ln(1 + x') = ln(1 + r x) - r (1 - r) x / (2 (1 + r x)^2),    r = share.

    A share above 1, of a larger location than was counted, has no such noise to take off.

    Parameters
    ----------
    counts
        Raw counts of the panel (N, G); the result has their shape, float32.
    share
        Of the area that was counted; 1: as they are.

    Examples
    --------
    >>> thinned_log_proportion(np.array([[0, 400, 0]]), 0.01).round(3)
    array([[-1.946, -0.416, -1.946]], dtype=float32)
    """
    if share == 1:
        return log_proportion(counts)
    left = share * np.asarray(counts, np.float64)
    label = np.log1p(left) - max(1 - share, 0) * left / (2 * (1 + left) ** 2)
    return (label - np.log(left.sum(1, keepdims=True) + left.shape[1])).astype(np.float32)


def sum_over(parents: np.ndarray, counts: np.ndarray, n_parents: int) -> np.ndarray:
    """Add the counts of all locations that share a parent.

    `parents` is the index of each location's region (or global) cell (N,), `counts` are raw (N, G); the sums
    are (R, G), R = `n_parents`.
    """
    n = len(parents)
    assign = sparse.csr_matrix((np.ones(n), (parents, np.arange(n))), shape=(n_parents, n))
    return assign @ counts
