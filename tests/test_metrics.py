"""Metrics: by pencil, against SciPy and torchmetrics, and against the numbers of the papers' own code."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torchmetrics.functional import pearson_corrcoef

from stlib import metrics
from stlib.predictions import Predictions, concatenate

TRUTH = np.array([[1.0, 2, 3], [2, 4, 6], [3, 3, 0]])  # 3 spots x 3 genes
PREDICTION = np.array([[1.0, 2, 3], [3, 2, 1], [5, 5, 5]])


def made(blocks, fold="f", known=(), genes=None):
    """One fold from section -> (prediction, truth); a section's patient is its first letter."""
    obs = pd.DataFrame(
        [
            {"barcode": str(i), "section": name, "patient": name[0], "fold": fold, "known": name in known}
            for name, (_, truth) in blocks.items()
            for i in range(len(truth))
        ]
    )
    prediction, truth = (np.concatenate([block[side] for block in blocks.values()]) for side in (0, 1))
    genes = np.array([f"g{i}" for i in range(truth.shape[1])] if genes is None else genes)
    return Predictions(prediction.astype(np.float32), truth.astype(np.float32), genes, obs)


def random_blocks(rng, names, shape=(20, 4)):
    return {name: (rng.normal(size=shape), rng.normal(size=shape)) for name in names}


# ---- by pencil ----------------------------------------


def test_errors_by_pencil():
    assert metrics.mse(PREDICTION, TRUTH) == pytest.approx((1 + 4 + 25 + 4 + 4 + 25) / 9)
    assert metrics.mae(PREDICTION, TRUTH) == pytest.approx((1 + 2 + 5 + 2 + 2 + 5) / 9)


def test_pcc_per_spot_by_pencil():
    # spot 1 equal, spot 2 reversed, spot 3 predicted flat
    np.testing.assert_allclose(metrics.pcc_per_spot(PREDICTION, TRUTH), [1, -1, np.nan], atol=1e-12)


def test_pcc_per_gene_by_pencil():
    # gene 1: (1,3,5) on (1,2,3); gene 2, centred: (-1,-1,2) on (-1,1,0) is 0; gene 3: (0,-2,2) on (0,3,-3)
    np.testing.assert_allclose(metrics.pcc_per_gene(PREDICTION, TRUTH), [1, 0, -1], atol=1e-12)


def test_pcc_flat_by_pencil():
    assert metrics.pcc_flat(np.array([[0, 1], [2, 3]]), np.array([[1, 3], [5, 7]])) == pytest.approx(1)


@pytest.mark.parametrize("value", [0.1, 1e-30, -5.3, 1e30])
def test_a_constant_is_undefined_and_not_rounding_noise(value):
    flat, varied = np.full((7, 3), value), np.random.default_rng(0).normal(size=(7, 3))
    assert np.isnan(metrics.pcc_per_gene(flat, varied)).all()
    assert np.isnan(metrics.pcc_per_gene(varied, flat)).all()
    assert np.isnan(metrics.pcc_flat(flat, varied))


def test_tiny_and_large_numbers_keep_their_correlation():
    truth = np.random.default_rng(0).normal(size=(9, 2))
    for scale in (1e-38, 1e-8, 1e38):  # the reach of float32
        np.testing.assert_allclose(metrics.pcc_per_gene(truth * scale, truth), 1)


# ---- against others ----------------------------------------


def test_correlations_are_those_of_scipy_and_torchmetrics():
    rng = np.random.default_rng(0)
    prediction, truth = rng.normal(size=(30, 5)), rng.normal(size=(30, 5))
    theirs = pearson_corrcoef(torch.from_numpy(prediction), torch.from_numpy(truth)).numpy()
    np.testing.assert_allclose(
        metrics.pcc_per_gene(prediction, truth), stats.pearsonr(prediction, truth)[0], atol=1e-12
    )
    np.testing.assert_allclose(metrics.pcc_per_gene(prediction, truth), theirs, atol=1e-7)
    np.testing.assert_allclose(
        metrics.pcc_per_spot(prediction, truth), stats.pearsonr(prediction, truth, axis=1)[0], atol=1e-12
    )
    assert metrics.pcc_flat(prediction, truth) == pytest.approx(
        stats.pearsonr(prediction.ravel(), truth.ravel())[0]
    )


def test_reference_numbers_of_the_papers_code():
    i, j = np.mgrid[:4, :6]
    x, y = (np.sin(a * i + b * j * (1 + 0.05 * i) + c) for a, b, c in ((0.37, 0.11, 0), (0.91, 0.23, 0.5)))
    assert metrics.pcc_per_spot(x, y).mean() == pytest.approx(-0.464664, abs=1e-6)
    assert metrics.pcc_per_gene(x, y).mean() == pytest.approx(-0.777812, abs=1e-6)
    assert metrics.mse(x, y) == pytest.approx(0.947806, abs=1e-6)
    x[2] = 0.7  # theirs counts the flat spot as 0; ours leaves it out, and has theirs under its own name
    flat = made({"A1": (x, y)})
    assert metrics.score(flat, "pcc_per_spot_zero")["A"] == pytest.approx(-0.219048, abs=1e-6)
    assert metrics.score(flat, "pcc_per_spot")["A"] == pytest.approx(-0.219048 * 4 / 3, abs=1e-6)
    assert metrics.scores(flat, "pcc_per_spot")["undefined"]["A"] == 0.25


# ---- one number per patient ----------------------------------------


def test_a_score_is_the_mean_over_genes_then_sections():
    blocks = random_blocks(np.random.default_rng(1), ["A1", "A2", "B1"])
    per_section = {name: metrics.pcc_per_gene(*block).mean() for name, block in blocks.items()}
    score = metrics.score(made(blocks), "pcc_per_gene")
    assert list(score.index) == ["A", "B"]
    assert score["A"] == pytest.approx((per_section["A1"] + per_section["A2"]) / 2, abs=1e-6)
    assert score["B"] == pytest.approx(per_section["B1"], abs=1e-6)


def test_errors_pool_the_spots_of_a_patient_and_fold():
    blocks = {
        "A1": (np.zeros((1, 2)), np.ones((1, 2))),
        "A2": (np.zeros((3, 2)), np.full((3, 2), 3.0)),
        "B1": (np.zeros((4, 2)), np.zeros((4, 2))),
    }
    predictions = made(blocks)
    assert metrics.score(predictions, "mse").to_dict() == {"A": (1 + 3 * 9) / 4, "B": 0}
    assert metrics.by_fold(predictions, "mse")["f"] == (1 + 3 * 9) / 8


def test_the_section_mean_alone_earns_nothing_within_sections_and_much_when_pooled():
    rng = np.random.default_rng(2)
    level = {"A1": 0.0, "A2": 5.0, "B1": 10.0, "B2": 15.0}
    truth = {name: rng.normal(value, 1, size=(200, 3)) for name, value in level.items()}
    constant = made({name: (np.full_like(t, level[name]), t) for name, t in truth.items()})
    assert metrics.constant(constant)
    assert metrics.score(constant, "pcc_per_gene").isna().all()
    assert (metrics.scores(constant, "pcc_per_gene")["undefined"] == 1).all()
    assert metrics.score(constant, "pcc_per_gene_pooled")["f"] > 0.95
    noisy = made({name: (level[name] + rng.normal(0, 0.1, t.shape), t) for name, t in truth.items()})
    assert not metrics.constant(noisy)
    prediction = np.zeros((200, 3))
    prediction[0, 1] = 1  # one spot of one gene is enough
    assert not metrics.constant(made({"A1": (prediction, truth["A1"])}))
    assert metrics.score(noisy, "pcc_per_gene").abs().max() < 0.15
    assert metrics.score(noisy, "pcc_per_gene_pooled")["f"] > 0.95


def test_an_undefined_gene_is_left_out_and_counted():
    rng = np.random.default_rng(3)
    truth = rng.normal(size=(50, 4))
    prediction = truth.copy()
    prediction[:, 0] = 1
    found = metrics.scores(made({"A1": (prediction, truth)}), "pcc_per_gene").loc["A"]
    assert found["value"] == pytest.approx(1, abs=1e-6) and found["undefined"] == 0.25


def test_pooled_gives_first_quartile_median_and_mean_over_genes_of_a_fold():
    blocks = random_blocks(np.random.default_rng(4), ["A1", "B1"], (30, 7))
    r = metrics.pcc_per_gene(*(np.concatenate([block[side] for block in blocks.values()]) for side in (0, 1)))
    names = ("pcc_per_gene_pooled_quartile", "pcc_per_gene_pooled_median", "pcc_per_gene_pooled")
    for name, value in zip(names, (np.quantile(r, 0.25), np.median(r), r.mean()), strict=True):
        score = metrics.score(made(blocks), name)
        assert score.index.name == "fold" and score["f"] == pytest.approx(value, abs=1e-6)


def test_known_rows_are_never_scored():
    blocks = random_blocks(np.random.default_rng(5), ["A1", "A2"])
    alone = made({"A2": blocks["A2"]})
    blocks["A1"] = (np.full((20, 4), np.nan), blocks["A1"][1])
    for name in metrics.METRICS:
        pd.testing.assert_series_equal(
            metrics.score(made(blocks, known=["A1"]), name), metrics.score(alone, name)
        )


def test_folds_may_have_different_panels():
    rng = np.random.default_rng(6)
    parts = [
        made(random_blocks(rng, [f"{p}1"]), fold=p, genes=genes)
        for p, genes in (("A", list("wxyz")), ("B", list("zvwu")))
    ]
    whole = concatenate(parts)
    assert np.isnan(whole.truth).any()
    for name in metrics.METRICS:
        expected = pd.concat([metrics.score(part, name) for part in parts])
        pd.testing.assert_series_equal(metrics.score(whole, name), expected)
        pd.testing.assert_series_equal(
            metrics.by_fold(whole, name), pd.concat([metrics.by_fold(part, name) for part in parts])
        )


def test_the_order_of_rows_does_not_matter():
    predictions = made(random_blocks(np.random.default_rng(7), ["A1", "A2", "B1"]))
    order = np.random.default_rng(0).permutation(len(predictions.obs))
    mixed = Predictions(
        predictions.prediction[order],
        predictions.truth[order],
        predictions.genes,
        predictions.obs.iloc[order],
    )
    for name in metrics.METRICS:
        pd.testing.assert_series_equal(
            metrics.score(mixed, name).sort_index(), metrics.score(predictions, name)
        )


def test_overview_has_one_row_a_patient():
    found = metrics.overview(made(random_blocks(np.random.default_rng(8), ["A1", "B1"])))
    assert list(found.index) == ["A", "B"] and list(found.columns) == list(metrics.OVERVIEW)


# ---- declarations and errors ----------------------------------------


@pytest.mark.parametrize("name", metrics.METRICS)
def test_a_perfect_prediction_is_best_and_in_range(name):
    metric = metrics.METRICS[name]
    truth = np.random.default_rng(9).normal(size=(30, 5))
    perfect = metrics.score(made({"A1": (truth, truth)}), name).iloc[0]
    worse = metrics.score(made({"A1": (-truth, truth)}), name).iloc[0]
    assert perfect == pytest.approx(metric.range[1] if metric.higher_is_better else metric.range[0], abs=1e-6)
    assert (perfect > worse) == metric.higher_is_better
    assert metric.label and metric.axis


def test_errors_say_what_to_do():
    blocks = random_blocks(np.random.default_rng(10), ["A1"])
    with pytest.raises(ValueError, match=r"metric 'pcc_per_gen' .*nearest: 'pcc_per_gene'"):
        metrics.score(made(blocks), "pcc_per_gen")
    with pytest.raises(ValueError, match="fold 'f' needs rows to score, found only known ones"):
        metrics.score(made(blocks, known=["A1"]), "mse")
    blocks["A1"][0][3, 2] = np.nan
    with pytest.raises(
        ValueError, match=r"prediction must be finite .*found 1 of 80 .*section 'A1', gene 'g2'"
    ):
        metrics.score(made(blocks), "mse")
