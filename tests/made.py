"""What several tests use: a table whose scores can be checked with a pencil, footprints, alignments."""

import numpy as np
import pandas as pd

from stlib import registration, scores
from stlib.footprints import Footprints
from stlib.predictions import Predictions

YAML = """
title: a table for tests
caption: H&E, 100 % made.
decimals: 3
seeds: [0]
metrics: [{metric: pcc_per_gene}, {metric: mse, reported: MSE}]
reported_dataset: {toy: HER2}
rows:
  - {label: Mean, model: mean, protocol: 2d, role: control}
  - {label: Ridge, model: ridge, protocol: 2d, role: control}
  - {label: Oracle, model: oracle, protocol: 2d, role: ceiling, datasets: [toy]}
  - {label: Good, model: stnet, protocol: 2d, reported: {paper: ASIGN, table: I, row: ASIGN 2D}}
  - {label: Bad, model: asign@no_graph, protocol: 2d}
  - {label: Overlap, model: overlap, protocol: 3d, run: controls}
"""
TRUTH = np.array([[0.0, 0], [1, 3], [2, 0]])  # per-gene correlations by pencil: 1, 0, ...
ERROR = {"mean": None, "ridge": 0.5, "oracle": 0.0, "stnet": 0.25, "asign@no_graph": 1.0, "overlap": 1.0}


def predict(run):
    """Two patients of one section; off by a checkerboard of `ERROR`, or constant."""
    error = ERROR[run.model]
    pattern = np.array([[1.0, -1], [-1, 1], [1, -1]])
    one = np.zeros((3, 2)) if error is None else TRUTH + error * pattern
    two = np.zeros((3, 2)) if error is None else TRUTH + 2 * error * pattern
    obs = pd.DataFrame(
        {
            "barcode": list("abcdef"),
            "section": ["A1"] * 3 + ["B1"] * 3,
            "patient": ["A"] * 3 + ["B"] * 3,
            "fold": "f",
            "known": False,
            "x_um": [0.0, 200, 400] * 2,
            "y_um": 0.0,
        }
    )
    return Predictions(np.vstack([one, two]), np.vstack([TRUTH, TRUTH]), np.array(["g", "h"]), obs)


def numbers(table, load=predict):
    """Return the table's numbers on the toy."""
    return scores.frame(table, "toy", scores.patient_scores(table, "toy", load))


def footprints(centre, half, shape):
    """Return what locations cover: `half` one for all, one along each axis (2,), or (N, 1) or (N, 2), px."""
    centre = np.asarray(centre, float).reshape(-1, 2)
    return Footprints(centre, np.broadcast_to(np.asarray(half, float), centre.shape), shape)


def register(moving, fixed, moving_um_per_px, fixed_um_per_px, settings=registration.ROBUST):
    """Return the map from one thumbnail (h, w, 3) to another, in px; scales along x and y (2,), or one."""
    scales = [np.broadcast_to(np.asarray(um, np.float64), 2) for um in (moving_um_per_px, fixed_um_per_px)]
    views = [registration._views(image, um) for image, um in zip((moving, fixed), scales, strict=True)]
    return registration._in_px(registration.align(*views, settings), *scales)
