"""An interval where there is one patient: over pieces of his tissue. It says nothing of other patients.

Spots are no independent repeats, for neighbours resemble each other; pieces of tissue nearly are. Each piece
is left out once and the score computed anew (delete-a-group jackknife): with B pieces

    se^2 = (B - 1) / B * sum_b (score_without_b - their mean)^2

and the interval is the score +- se times Student's t of B - 1 degrees of freedom.
"""

import numpy as np
from scipy.special import stdtrit

from stlib import metrics
from stlib.predictions import Predictions

PIECES = 8  # that a section is cut into; a power of two


def half_width(predictions: Predictions, name: str) -> float:
    """Return half the 95 % interval of a score over pieces of tissue; NaN where the score is undefined.

    Parameters
    ----------
    predictions
        Of one patient; `obs` has x_um and y_um.
    name
        Of the metric.
    """
    found = np.array([metrics.score(rest, name).mean() for rest in without_each_piece(predictions)])
    found = found[~np.isnan(found)]
    n = len(found)
    if n < 2:
        return float("nan")
    error = np.sqrt((n - 1) / n * np.square(found - found.mean()).sum())
    return float(stdtrit(n - 1, 0.975) * error)


def without_each_piece(predictions: Predictions) -> list[Predictions]:
    """Return the scored rows without each piece of tissue in turn."""
    import torch  # takes seconds, which a table of several patients need not wait for

    from stlib.blocks import kd_blocks

    scored = np.flatnonzero(~predictions.obs["known"].to_numpy(bool))
    places = torch.from_numpy(predictions.obs[["x_um", "y_um"]].to_numpy(np.float64))
    rests = []
    for index in predictions.obs.iloc[scored].groupby(["fold", "section"], sort=False).indices.values():
        rows = scored[index]
        pieces = kd_blocks(places[rows], -(-len(rows) // PIECES), torch.Generator().manual_seed(0))
        rests += [np.setdiff1d(scored, rows[piece.numpy()]) for piece in pieces]
    sides = predictions.prediction, predictions.truth
    return [
        Predictions(*(side[rows] for side in sides), predictions.genes, predictions.obs.iloc[rows])
        for rows in rests
        if len(rows)
    ]
