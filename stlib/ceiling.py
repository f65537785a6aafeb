"""The ceiling of the counts: what the expected label given the true rate would score, from counts alone.

A label t is what the tissue gives plus noise of counting, which no method can predict:

    y_sg = ln(1 + x_sg) = m_sg + e_sg,    e independent between spots and between genes.

Genes share what tissue does to them: m is of low rank, e is not. Factor analysis by maximum likelihood tells
the two apart without a word about the distribution of counts, so that what sequencing adds to a Poisson draw
(overdispersion) is noise as soon as no other gene shares it. It is a ceiling from below: what a gene does
alone counts as noise, too, and so does what bends where genes are hardly counted. That shows where there is
little other noise, where counts are few, and in single genes (`results/ceiling.md` has how much, where the
truth is known). The number of factors is that of Horn's parallel analysis.

The noise of the label is that of y without what the sum over the panel takes off,

    n_sg = e_sg - d_s,    d_s = ln sum_g exp(y_sg) - ln sum_g exp(m_sg + var(e_g) / 2),

and each metric has its ceiling from n and the labels alone: an error that of n, a correlation
sqrt(1 - var(n) / var(t)) along its own axis.

`counting_noise` is the part that count splitting shows, without any model: counts thinned into two halves are
two measurements of the same tissue, if what was counted is Poisson given what was there. Halves of
overdispersed counts agree in what they have too much of, so to splitting it is signal: a ceiling from above,
and the right one for counts without overdispersion. Each metric has it by the same n.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from stlib import metrics
from stlib.expression import common_genes, log_proportion, panel_counts, top_mean_panel
from stlib.predictions import Predictions
from stlib.sections import Section

GENES = 500  # most counted ones that the factors are found in
ROUNDS, CLOSE = 500, 1e-5  # of the factor analysis: rounds at most, and change of a variance that ends it
AXIS = {metrics.pcc_per_spot: 1, metrics.pcc_per_gene: 0, metrics.pcc_flat: None}
SHARES = (1 / 2, 1 / 4, 1 / 8)  # of the counts, in each of two parts
SPLITS = 4  # of which the mean is taken


class Parts(NamedTuple):
    """ln(1 + counts) of a section, taken apart; N spots, M genes."""

    barcodes: np.ndarray  # (N,)
    genes: np.ndarray  # (M,)
    expected: np.ndarray  # m (N, M)
    noise: np.ndarray  # e (N, M)
    variance: np.ndarray  # of e (M,)


def parts(sections: dict[str, Section], genes: list[str] | tuple[str, ...] = ()) -> dict[str, Parts]:
    """Take the counts of sections apart into what genes share and what is noise: section -> parts.

    Parameters
    ----------
    sections
        Of one dataset; all of them tell what genes share.
    genes
        Those that must be among the genes, besides the `GENES` that are counted most. A section that lacks
        one takes no part: a panel is chosen without those that are hidden.
    """
    every = [section for section in sections.values() if set(genes) <= set(section.genes)]
    names = np.array(top_mean_panel(every, min(GENES, len(common_genes(every))), genes))
    labels = [np.log1p(panel_counts(section, names.tolist())) for section in every]
    means = [label.mean(0) for label in labels]
    centred = np.concatenate([label - mean for label, mean in zip(labels, means, strict=True)])
    varied = centred.any(0)  # a gene that is nowhere counted has no variance to take apart
    names, centred = names[varied], centred[:, varied]
    n = len(centred)
    freedom = n - len(every)
    rank = shared_factors(centred)
    loadings, variance = factors(centred.T @ centred / freedom, rank)
    variance *= freedom / (freedom - rank)
    weights = loadings / variance[:, None]
    strength, turn = np.linalg.eigh(loadings.T @ weights)  # orthogonal factors (rank,)
    found = centred @ (weights @ turn) / strength  # Bartlett's scores, variance 1 + 1 / strength
    residual = centred - found @ (loadings @ turn).T
    noise = residual * np.sqrt(variance / np.square(residual).mean(0))  # what the scores took along, back
    expected = (found / np.sqrt(1 + 1 / strength)) @ (loadings @ turn).T
    ends = np.cumsum([len(label) for label in labels])[:-1]
    rows = zip(every, means, np.split(expected, ends), np.split(noise, ends), strict=True)
    return {s.name: Parts(s.barcodes, names, mean[varied] + m, e, variance) for s, mean, m, e in rows}


def shared_factors(centred: np.ndarray) -> int:
    """Count the factors that genes share: eigenvalues of their correlation above all those of shuffled spots.

    `centred` is (N, M); each gene is shuffled over the spots by itself (Horn 1965).
    """
    scaled = centred / np.sqrt(np.square(centred).mean(0))
    shuffled = np.random.default_rng(0).permuted(scaled, axis=0)
    found, chance = (np.linalg.eigvalsh(z.T @ z / len(z)) for z in (scaled, shuffled))
    return max(int((found > chance.max()).sum()), 1)


def factors(covariance: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Fit covariance = L L' + diag(v) by maximum likelihood.

    Return loadings L (M, rank), and variances v (M,) of what is not shared.
    """
    total = np.diag(covariance)
    variance = total / 2
    for _ in range(ROUNDS):
        scale = np.sqrt(variance)
        values, vectors = np.linalg.eigh(covariance / np.outer(scale, scale))
        values, vectors = values[-rank:], vectors[:, -rank:]
        loadings = scale[:, None] * vectors * np.sqrt(np.maximum(values - 1, 0))
        before, variance = variance, np.maximum(total - np.square(loadings).sum(1), 1e-4 * total)
        if np.abs(variance / before - 1).max() < CLOSE:
            break
    return loadings, variance


def noise(found: Parts, panel: list[str]) -> np.ndarray:
    """Return the noise of the labels of a section on a panel (N, G), see n above."""
    place = {gene: column for column, gene in enumerate(found.genes)}
    columns = [place[gene] for gene in panel]
    expected, own, variance = found.expected[:, columns], found.noise[:, columns], found.variance[columns]
    total = np.log(np.exp(expected + own).sum(1)) - np.log(np.exp(expected + variance / 2).sum(1))
    return own - (total - total.mean())[:, None]


def reachable(metric: metrics.Metric, noise: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the ceiling of a metric's values, in the shape of its `function`.

    The noise of the labels and the labels themselves, `truth`, are (N, G).
    """
    if metric.function not in AXIS:
        return metric.function(noise, np.zeros_like(noise))
    axis = AXIS[metric.function]
    total = np.var(truth, axis=axis, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = 1 - np.var(noise, axis=axis, dtype=np.float64) / total
    return np.where(total > 0, np.sqrt(np.clip(share, 0, 1)), np.nan)


def of_predictions(
    predictions: Predictions,
    sections: dict[str, Section],
    noises: Callable[[list[str], list[str]], list[np.ndarray]],
) -> Predictions:
    """Return predictions with the noise of their labels in the place of what was predicted.

    Parameters
    ----------
    predictions
        Of any method: which locations and genes, and what was measured there.
    noises
        (names of sections, genes of a panel) -> the noise of their labels, (N, G) each.
    """
    found = np.full(predictions.truth.shape, np.nan, np.float32)
    for name in predictions.obs["fold"].unique():
        fold = (predictions.obs["fold"] == name).to_numpy()
        columns = ~np.isnan(predictions.truth[fold]).all(0)
        groups = predictions.obs[fold].groupby("section", sort=False).indices
        noise_of = noises(list(groups), predictions.genes[columns].tolist())
        for (section, index), own in zip(groups.items(), noise_of, strict=True):
            rows = np.flatnonzero(fold)[index]
            place = pd.Index(sections[section].barcodes).get_indexer(predictions.obs["barcode"].iloc[rows])
            found[np.ix_(rows, columns)] = own[place]
    return Predictions(found, predictions.truth, predictions.genes, predictions.obs)


class Noises(NamedTuple):
    """Noise of the labels that some predictions were held against, in the place of what was predicted."""

    below: Predictions  # all that no other gene shares: a ceiling from below
    above: Predictions  # counting alone: a ceiling from above


def noises(predictions: Predictions, sections: dict[str, Section], found: dict[str, Parts]) -> Noises:
    """Return the noise of labels, found in both ways.

    Parameters
    ----------
    predictions
        Of any method: which locations and genes, and what was measured there.
    found
        From `parts`, for the same sections.
    """

    def counting(names: list[str], panel: list[str]) -> list[np.ndarray]:
        counts = [panel_counts(sections[name], panel) for name in names]
        return np.split(counting_noise(np.concatenate(counts)), np.cumsum([len(one) for one in counts])[:-1])

    def not_shared(names: list[str], panel: list[str]) -> list[np.ndarray]:
        return [noise(found[name], panel) for name in names]

    return Noises(*(of_predictions(predictions, sections, one) for one in (not_shared, counting)))


def scores(noises: Predictions, name: str) -> pd.Series:
    """Return the ceiling of a metric: one value per patient (or fold), as `stlib.metrics.score` does.

    `noises` are from `of_predictions`.
    """
    metric = metrics.find(name)
    ceiling = replace(metric, function=lambda noise, truth: reachable(metric, noise, truth))
    return metrics.scores(noises, ceiling)["value"].rename(name)


def by_gene(noises: Predictions) -> pd.Series:
    """Return the ceiling of each gene's correlation: mean over the sections of a patient, then patients.

    `noises` are from `of_predictions`.
    """
    metric, ceilings = metrics.find("pcc_per_gene"), []
    scored = ~noises.obs["known"].to_numpy(bool)
    for (_, patient, _), index in noises.obs[scored].groupby(["fold", "patient", "section"]).indices.items():
        rows = np.flatnonzero(scored)[index]
        own = reachable(metric, noises.prediction[rows], noises.truth[rows])
        ceilings.append(pd.Series(own, noises.genes, name=patient))
    return pd.DataFrame(ceilings).groupby(level=0).mean().mean().rename_axis("gene")


def counting_noise(counts: np.ndarray) -> np.ndarray:
    """Return noise of labels as counting alone makes it (N, G), by splitting counts.

    Two parts of the counts, a share q of them each, are two measurements of the same tissue at depth q: half
    of their mean squared difference is the variance of one, v. The parabola of ln v over ln q through
    `SHARES` leads to the counts as they are, q = 1. The noise is the difference of two halves, with that
    variance in each gene. `counts` are raw counts of the panel (N, G), of any sections.
    """
    rng, counts = np.random.default_rng(0), counts.astype(np.int64)
    variances = []
    for share in SHARES:
        total = np.zeros(counts.shape[1])
        for _ in range(SPLITS):
            one = rng.binomial(counts, share)
            two = rng.binomial(counts - one, share / (1 - share))
            apart = log_proportion(one) - log_proportion(two)
            total += np.square(apart).mean(0) / 2
            if share == SHARES[0]:
                drawn = apart
        variances.append(total / SPLITS)
    half, quarter, eighth = variances
    return drawn * np.sqrt(half**3 * eighth / quarter**3 / np.square(drawn).mean(0))
