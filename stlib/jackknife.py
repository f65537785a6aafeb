"""An interval where there is one patient: over pieces of his tissue. It says nothing of other patients.

Spots are no independent repeats, for neighbours resemble each other; pieces of tissue nearly are. Each piece
of a section is left out once and the score computed anew (delete-a-group jackknife): with B pieces

    se^2 = (B - 1) / B * sum_b (score_without_b - their mean)^2

Serial sections are no independent repeats either: they cut the same tissue again. So what each section
contributes is added as if all erred alike, and the interval is the score +- (sum of se over sections) times
Student's t of B - 1 degrees of freedom. Where sections share nothing it is too wide.
"""

from collections.abc import Iterator

import numpy as np
from scipy.special import stdtrit

from stlib import metrics
from stlib.predictions import Predictions

PIECES = 8  # that a section is cut into; a power of two


def half_width(predictions: Predictions, name: str) -> float:
    """Return half the 95 % interval of a score over pieces of tissue; NaN where the score is undefined.

    `predictions` are of one patient; `obs` has x_um and y_um.
    """
    error, freedom = 0.0, []
    for rests in without_each_piece(predictions):
        found = np.array([metrics.score(rest, name).mean() for rest in rests])
        found = found[~np.isnan(found)]
        if len(found) > 1:
            error += np.sqrt((1 - 1 / len(found)) * np.square(found - found.mean()).sum())
            freedom.append(len(found) - 1)
    return float(stdtrit(min(freedom), 0.975) * error) if freedom else float("nan")


def without_each_piece(predictions: Predictions) -> Iterator[list[Predictions]]:
    """Yield, section by section, all scored rows without each piece of its tissue in turn."""
    import torch  # takes seconds, which a table of several patients need not wait for

    from stlib.blocks import kd_blocks

    scored = np.flatnonzero(~predictions.obs["known"].to_numpy(bool))
    places = torch.from_numpy(predictions.obs[["x_um", "y_um"]].to_numpy(np.float64))
    for index in predictions.obs.iloc[scored].groupby(["fold", "section"], sort=False).indices.values():
        rows = scored[index]
        pieces = kd_blocks(places[rows], -(-len(rows) // PIECES), torch.Generator().manual_seed(0))
        rests = [np.setdiff1d(scored, rows[piece.numpy()]) for piece in pieces]
        yield [_of(predictions, rest) for rest in rests if len(rest)]


def _of(predictions: Predictions, rows: np.ndarray) -> Predictions:
    sides = (side[rows] for side in (predictions.prediction, predictions.truth))
    return Predictions(*sides, predictions.genes, predictions.obs.iloc[rows])
