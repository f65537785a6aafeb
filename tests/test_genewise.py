"""Which genes are predicted, on predictions whose answer is known."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.ndimage import gaussian_filter

from stlib import genewise, statistics
from stlib.predictions import Predictions
from stlib.tables import Column, Row, Table

SIDE = 14


def maps(rng, genes, smooth):
    """Random maps of a square section (SIDE * SIDE, genes)."""
    drawn = rng.normal(size=(SIDE, SIDE, genes))
    return gaussian_filter(drawn, (smooth, smooth, 0)).reshape(-1, genes)


def predictions(rng, genes=40, smooth=0.0, signal=0):
    """Four patients of one section; the first `signal` genes are predicted, the others by chance."""
    y, x = np.divmod(np.arange(SIDE**2), SIDE)
    parts, obs = [], []
    for patient in "ABCD":
        truth, guess = maps(rng, genes, smooth), maps(rng, genes, smooth)
        guess[:, :signal] += truth[:, :signal]
        parts.append((guess, truth))
        about = {"barcode": np.arange(SIDE**2).astype(str), "section": f"{patient}1", "patient": patient}
        about |= {"fold": patient, "known": False, "x_um": 200.0 * x, "y_um": 200.0 * y}
        obs.append(pd.DataFrame(about))
    guess, truth = (np.concatenate(side).astype(np.float32) for side in zip(*parts, strict=True))
    return Predictions(
        guess, truth, np.array([f"g{i}" for i in range(genes)]), pd.concat(obs, ignore_index=True)
    )


def test_the_correlation_and_the_two_chances():
    found = genewise.score(predictions(np.random.default_rng(0), signal=5))
    assert (found["p"][:5] < 1e-10).all() and (found["p_shifted"][:5] == 1 / 1000).all()
    for name in ("p", "p_shifted"):  # the others' p are uniform
        assert stats.kstest(found[name][5:], "uniform").pvalue > 0.01
    assert (found["low"] < found["pcc"]).all() and (found["n"] == 4).all()


def test_the_number_is_the_correlation_within_sections():
    made = predictions(np.random.default_rng(1), genes=3)
    by_section = [
        [np.corrcoef(made.prediction[rows, gene], made.truth[rows, gene])[0, 1] for gene in range(3)]
        for rows in made.obs.groupby("section").indices.values()
    ]
    found = genewise.score(made)
    np.testing.assert_allclose(found["pcc"], np.mean(by_section, 0), rtol=1e-5)
    one = statistics.summary(pd.Series([row[0] for row in by_section]))
    assert found["low"].iloc[0] == pytest.approx(one.low, rel=1e-5)


def test_shuffled_spots_find_smooth_maps_alike_and_pushed_maps_hardly():
    rng, false = np.random.default_rng(2), {"p": 0, "p_shifted": 0}
    for _ in range(5):
        found = genewise.score(predictions(rng, genes=100, smooth=1.0))
        for name in false:
            false[name] += (found[name] < 0.05).sum()
    assert false["p"] > 75 and false["p_shifted"] < 50  # of 500, where 25 are right


def test_sections_and_patients_count_as_in_the_mean_of_means():
    weight = genewise._weights(
        np.array(["A", "A", "B"]), np.array([[True, True], [True, False], [True, True]])
    )
    np.testing.assert_allclose(weight, [[0.25, 0.5], [0.25, 0], [0.5, 0.5]])


def test_places_are_ordered_row_by_row_although_they_are_not_quite_in_rows():
    y, x = np.divmod(np.array([4, 1, 5, 3, 0, 2]), 3)
    places = np.stack([x, y], 1) * 200.0 + np.random.default_rng(0).uniform(-20, 20, (6, 2))
    assert genewise.along(places).tolist() == [4, 1, 5, 3, 0, 2]


def test_rows_of_a_table_by_gene(toy):
    rows = [
        Row(label="Mean", model="mean", protocol="2d", role="control"),
        Row(label="A", model="asign", protocol="2d"),
    ]
    table = Table(name="t", title="T", caption="", decimals=3, seeds=[0, 1], rows=rows,
                  metrics=[Column(metric="pcc_per_gene")])  # fmt: skip
    made = predictions(np.random.default_rng(4), genes=20, signal=4)
    flat = Predictions(np.zeros_like(made.truth), made.truth, made.genes, made.obs)
    found = genewise.genes(table, "toy", {}, lambda run: flat if run.model == "mean" else made)
    assert set(found["label"]) == {"A"} and len(found) == 20 and found["ceiling"].isna().all()
    assert (found["q"] >= found["p"]).all()
    (said,) = genewise.predictable(found)
    assert "(2d): A 4 (4) of 20." in said


def test_genes_outside_the_panel_of_a_fold_are_left_out():
    one = predictions(np.random.default_rng(5), genes=4, signal=4)
    one.truth[one.obs["patient"] == "A", 0] = np.nan
    found = genewise.score(one)
    assert found["n"].tolist() == [3, 4, 4, 4] and found["pcc"].notna().all()
