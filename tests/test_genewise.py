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


def maps(rng, genes, smooth, sections):
    """Random maps of serial square sections, 80 % alike: (SIDE * SIDE, genes) each."""
    drawn = gaussian_filter(rng.normal(size=(1 + sections, SIDE, SIDE, genes)), (0, smooth, smooth, 0))
    shared, *own = drawn.reshape(1 + sections, -1, genes)
    return [np.sqrt(0.8) * shared + np.sqrt(0.2) * one for one in own]


def predictions(rng, genes=40, smooth=0.0, signal=0, sections=1):
    """Four patients; the first `signal` genes are predicted, the others by chance."""
    y, x = np.divmod(np.arange(SIDE**2), SIDE)
    parts, obs = [], []
    for patient in "ABCD":
        sides = (maps(rng, genes, smooth, sections) for _ in range(2))
        for number, (truth, guess) in enumerate(zip(*sides, strict=True)):
            guess[:, :signal] += truth[:, :signal]
            parts.append((guess, truth))
            about = {"barcode": np.arange(SIDE**2).astype(str), "section": f"{patient}{number}"}
            about |= {
                "patient": patient,
                "fold": patient,
                "known": False,
                "x_um": 200.0 * x,
                "y_um": 200.0 * y,
            }
            obs.append(pd.DataFrame(about))
    guess, truth = (np.concatenate(side).astype(np.float32) for side in zip(*parts, strict=True))
    return Predictions(
        guess, truth, np.array([f"g{i}" for i in range(genes)]), pd.concat(obs, ignore_index=True)
    )


def test_the_correlation_and_its_chance():
    found = genewise.score([predictions(np.random.default_rng(0), signal=5)])
    assert (found["p"][:5] == 1 / 1000).all()
    assert stats.kstest(found["p"][5:], "uniform").pvalue > 0.01  # the others' p are uniform
    assert (found["low"] < found["pcc"]).all() and (found["n"] == 4).all()


def test_the_number_is_the_correlation_within_sections():
    made = predictions(np.random.default_rng(1), genes=3)
    by_section = [
        [np.corrcoef(made.prediction[rows, gene], made.truth[rows, gene])[0, 1] for gene in range(3)]
        for rows in made.obs.groupby("section").indices.values()
    ]
    found = genewise.score([made])
    np.testing.assert_allclose(found["pcc"], np.mean(by_section, 0), rtol=1e-5)
    one = statistics.summary(pd.Series([row[0] for row in by_section]))
    assert found["low"].iloc[0] == pytest.approx(one.low, rel=1e-5)


@pytest.mark.parametrize("sections", [1, 3])
def test_smooth_maps_that_share_nothing_are_hardly_found_alike(sections):
    rng, false = np.random.default_rng(2), 0
    for _ in range(5):
        found = genewise.score([predictions(rng, genes=100, smooth=1.0, sections=sections)])
        false += (found["p"] < 0.05).sum()
    assert false < 55  # of 500, where 25 are right; sections pushed each by itself: 90 of three


def test_seeds_are_averaged_before_they_are_held_against_chance():
    rng = np.random.default_rng(3)
    made = predictions(rng, genes=6, smooth=1.0)
    noise = [rng.normal(0, made.prediction.std(), made.prediction.shape) for _ in range(2)]
    seeds = [Predictions(made.prediction + one, made.truth, made.genes, made.obs) for one in noise]
    both, single = genewise.score(seeds), [genewise.score([one]) for one in seeds]
    np.testing.assert_allclose(both["pcc"], (single[0]["pcc"] + single[1]["pcc"]) / 2)
    wide = np.mean([one["high"] - one["low"] for one in single], 0)
    assert (both["high"] - both["low"] < wide).mean() > 0.5
    pd.testing.assert_frame_equal(genewise.score([made] * 3), genewise.score([made]))


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
    few = found["q"] < 0.05
    assert f"(2d): A {few.sum()} of 20." in said and few[:4].all() and few.sum() < 7


def test_genes_outside_the_panel_of_a_fold_are_left_out():
    one = predictions(np.random.default_rng(5), genes=4, signal=4)
    one.truth[one.obs["patient"] == "A", 0] = np.nan
    found = genewise.score([one])
    assert found["n"].tolist() == [3, 4, 4, 4] and found["pcc"].notna().all()
