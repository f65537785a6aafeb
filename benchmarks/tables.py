"""Scores of predictions against a loop over genes, and a whole table from predictions."""

import numpy as np
import pandas as pd
from scipy import stats

from benchmarks.measure import Found, Row, seconds
from stlib import layout, metrics, render, scores
from stlib.predictions import Predictions
from stlib.tables import load_table

PATIENTS, SECTIONS, SPOTS, GENES = 4, 3, 140, 250
TABLE, DATASET = "asign_table2", "toy"


def made() -> Predictions:
    """Return predictions of a dataset of the toy's size: truth and noise."""
    rng, n = np.random.default_rng(0), PATIENTS * SECTIONS * SPOTS
    truth = rng.standard_normal((n, GENES)).astype(np.float32)
    section = np.repeat(np.arange(PATIENTS * SECTIONS), SPOTS)
    names = {"barcode": np.arange(n), "section": section, "patient": section // SECTIONS}
    obs = pd.DataFrame({name: values.astype(str) for name, values in names.items()})
    obs = obs.assign(fold=obs["patient"], known=False)
    noise = rng.standard_normal(truth.shape).astype(np.float32)
    return Predictions(truth + noise, truth, np.array([f"GENE{n}" for n in range(GENES)]), obs)


def loop(predictions: Predictions) -> float:
    """Correlate gene by gene and section by section, as SciPy does; return the mean."""
    found = []
    for section in predictions.obs["section"].unique():
        rows = (predictions.obs["section"] == section).to_numpy()
        pairs = zip(predictions.prediction[rows].T, predictions.truth[rows].T, strict=True)
        found.append([stats.pearsonr(one, other)[0] for one, other in pairs])
    return float(np.mean(found))


def rows() -> Found:
    """Measure the headline score, and a table."""
    predictions, table = made(), load_table(TABLE)
    found = float(metrics.score(predictions, "pcc_per_gene").mean())
    if abs(found - loop(predictions)) > 1e-5:
        raise ValueError(f"both ways must find one correlation, found {found} and {loop(predictions)}")

    def rendered() -> str:
        by_patient = scores.patient_scores(table, DATASET, lambda run: predictions)
        return render.markdown(layout.scores(table, scores.frame(table, DATASET, by_patient)))

    ours, plain = seconds(lambda: metrics.score(predictions, "pcc_per_gene"), lambda: loop(predictions))
    whole, _ = seconds(rendered, lambda: None, repeats=3)
    runs = len({row.model for row in table.rows})
    return [
        Row(
            f"pcc_per_gene, {len(predictions.obs):,} spots, {GENES} genes", "SciPy, gene by gene", ours, plain
        ),
        Row(f"a table of {runs} models from predictions, {GENES} genes", "the loop, once", whole, plain),
    ]
