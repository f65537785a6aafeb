"""What was predicted of a slide of one's own, held beside what was measured on it (`stlib.measured`).

A label t is a log proportion within the panel. Where only some of its genes were measured, M, the sum over
the panel is not known, so that both sides are taken as proportions within those:

    t'_g = t_g - ln(sum over M of exp(t) / sum over the panel of exp(t)),    g in M

Of measured counts that is ln((x + 1) / sum over M of (x + 1)). Where all were measured, nothing changes.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import logsumexp

from stlib.alignment import Registration
from stlib.expression import log_proportion, panel_counts
from stlib.predictions import Predictions, obs_of
from stlib.sections import Section
from stlib.task import Task, feed_of
from stlib.train import learn, predict

if TYPE_CHECKING:
    import anndata


def measured_genes(spots: Section, panel: Sequence[str], source: Path) -> list[str]:
    """Return the genes of a panel that were measured, in its order.

    `source` is where the spots come from, for the message.

    Raises
    ------
    ValueError
        If there are fewer than two: a proportion within one gene is 1 everywhere.
    """
    genes = [gene for gene in panel if gene in set(spots.genes)]
    if len(genes) < 2:
        raise ValueError(
            f"{source}: two genes of the panel or more were measured, named as in the dataset, e.g. "
            f"'{panel[0]}'; found {len(genes)}, and names such as '{spots.genes[0]}'. Rename them"
        )
    return genes


def within(values: np.ndarray, chosen: Sequence[int]) -> np.ndarray:
    """Return log proportions within some genes, of those within the panel.

    `values` (N, G) are measured or predicted; the latter need not add up to 1. `chosen` are columns of the
    genes (M,); the result is (N, M) float32.

    Examples
    --------
    >>> np.exp(within(np.log([[0.5, 0.3, 0.2]]), [1, 2])).round(3)
    array([[0.6, 0.4]], dtype=float32)
    """
    values = np.asarray(values, np.float64)
    share = logsumexp(values[:, chosen], axis=1) - logsumexp(values, axis=1)
    return (values[:, chosen] - share[:, None]).astype(np.float32)


def constants(
    task: Task, section: Section, aligned: dict[str, Registration] | None, shown: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """Predict a new section by the controls that say the same everywhere: what a score is held against.

    Return control -> prediction (N, G).

    Parameters
    ----------
    task
        Of the model: its fold is theirs.
    section, aligned
        See `stlib.task.feed_of`.
    shown
        The known section, if there is one; then its mean is a control, too.
    """
    found = {}
    for name in ("mean", *(["known_mean"] if shown else [])):
        control = replace(task, model=name)
        feed = feed_of(control, (section,), aligned)
        model, _, fabric = learn(control, feed)
        found[name] = predict(model, feed, (*shown, section.name), shown, fabric)[section.name]
    return found


def beside(section: Section, panel: Sequence[str], genes: Sequence[str], values: np.ndarray) -> Predictions:
    """Hold what was predicted of measured spots beside what was measured, on one scale.

    Parameters
    ----------
    section
        The spots (N), with their counts.
    panel, values
        Genes (G,), and their predicted expression (N, G).
    genes
        Those that were measured (M,), see `measured_genes`.

    Returns
    -------
    Predictions
        Of the genes that were measured (N, M); what `stlib.metrics` scores.
    """
    chosen = [list(panel).index(gene) for gene in genes]
    return Predictions(
        prediction=within(values, chosen),
        truth=log_proportion(panel_counts(section, list(genes))),
        genes=np.array(genes),
        obs=obs_of(section, "new"),
    )


def write_beside(table: "anndata.AnnData", compared: Predictions) -> None:
    """Add what was measured to a table of predictions.

    Parameters
    ----------
    table
        See `stlib.slide_predictions.as_table`. It gets ``var["measured"]``, and the layers ``measured`` and
        ``predicted`` (N, G), both within the genes that were measured, NaN in the others.
    compared
        See `beside`.
    """
    chosen = table.var_names.get_indexer(compared.genes)
    table.var["measured"] = np.isin(np.arange(table.n_vars), chosen)
    for name, values in (("measured", compared.truth), ("predicted", compared.prediction)):
        layer = np.full(table.shape, np.nan, np.float32)
        layer[:, chosen] = values
        table.layers[name] = layer
