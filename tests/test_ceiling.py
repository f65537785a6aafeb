"""The ceiling of the counts, where the true rate is known."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from stlib import ceiling, metrics
from stlib.expression import log_proportion, panel_counts, top_mean_panel
from stlib.predictions import Predictions
from stlib.sections import Section


def oracle(rate, dispersion, draws=256):
    """The expected label given the rate (N, G); 0: Poisson."""
    rng, total = np.random.default_rng(1), 0
    for _ in range(draws):
        more = rng.gamma(1 / dispersion, dispersion, rate.shape) if dispersion else 1
        total = total + log_proportion(rng.poisson(rate * more)).astype(np.float64)
    return (total / draws).astype(np.float32)


def made(dispersion, depth=40.0, n=400, genes=60, spread=0.7):
    """Two patients of one section each: three factors that all genes share, and their true rate."""
    rng = np.random.default_rng(3)
    loadings, base = rng.normal(0, 0.5, (3, genes)), rng.normal(0, spread, genes)
    sections, rates = {}, {}
    for name in ("A1", "B1"):
        rate = depth * np.exp(rng.normal(size=(n, 3)) @ loadings + base)
        more = rng.gamma(1 / dispersion, dispersion, rate.shape) if dispersion else 1
        counts, place = sparse.csr_matrix(rng.poisson(rate * more)), np.zeros((n, 2))
        sections[name] = Section(
            name, name[0], 1, np.arange(n).astype(str), np.array([f"g{i}" for i in range(genes)]), counts,
            place, place, np.ones(2), None, "circle", 100.0, 200.0,
        )  # fmt: skip
        rates[name] = rate
    return sections, rates


def compare(sections, rates, dispersion, size):
    """Return metric -> (what the oracle scores, the ceiling), means over patients."""
    panel = top_mean_panel(sections.values(), size)
    parts = []
    for name, section in sections.items():
        rate = rates[name][:, section.columns(panel)]
        about = {"section": name, "patient": section.patient, "fold": section.patient, "known": False}
        obs = pd.DataFrame({"barcode": section.barcodes} | about)
        parts.append((oracle(rate, dispersion), log_proportion(panel_counts(section, panel)), obs))
    best, truth, obs = (np.concatenate([part[k] for part in parts]) for k in (0, 1, 2))
    obs = pd.concat([part[2] for part in parts], ignore_index=True)
    predictions = Predictions(best, truth, np.array(panel), obs)
    noise = ceiling.noises(predictions, sections, ceiling.parts(sections, panel)).below
    names = ("mse", "mae", "pcc_per_gene", "pcc_per_spot", "pcc_per_gene_pooled", "pcc_flat")
    found = {n: (metrics.score(predictions, n).mean(), ceiling.scores(noise, n).mean()) for n in names}
    return found, noise, panel


@pytest.mark.parametrize(("dispersion", "depth"), [(0.35, 40.0), (0.35, 5.0), (0.8, 40.0)])
def test_the_ceiling_is_within_five_percent_of_what_the_true_rate_scores(dispersion, depth):
    sections, rates = made(dispersion, depth)
    found, *_ = compare(sections, rates, dispersion, 30)
    for name, (true, estimate) in found.items():
        assert estimate == pytest.approx(true, rel=0.05), name


def test_the_ceiling_is_within_five_percent_of_the_oracle_on_the_toy(toy_sections):
    rates = {name: section.rate for name, section in toy_sections.items()}
    found, *_ = compare(toy_sections, rates, next(iter(toy_sections.values())).dispersion, 50)
    for name, (true, estimate) in found.items():
        assert estimate == pytest.approx(true, rel=0.05), name


def test_a_section_without_a_gene_of_the_panel_takes_no_part():
    sections, _ = made(0.35)
    lacking = sections["B1"]
    few = replace(lacking, name="C1", genes=lacking.genes[1:], counts=lacking.counts[:, 1:])
    found = ceiling.parts(sections | {"C1": few}, ["g0", "g1"])
    assert list(found) == ["A1", "B1"] and "g0" in found["A1"].genes
    assert list(ceiling.parts(sections | {"C1": few}, ["g1"])) == ["A1", "B1", "C1"]


def test_a_gene_that_makes_most_of_the_sum_has_its_own_ceiling():
    """Its label is nearly constant, and so is the noise of its label."""
    sections, rates = made(0.35, spread=2.0)
    _, noise, panel = compare(sections, rates, 0.35, 30)
    true = []
    for name, section in sections.items():
        best = oracle(rates[name][:, section.columns(panel)], 0.35)
        true.append(np.square(log_proportion(panel_counts(section, panel)) - best)[:, 0].mean())
    assert np.square(noise.prediction[:, 0]).mean() == pytest.approx(np.mean(true), rel=0.1)


def test_split_counts_show_the_noise_of_counting_and_take_overdispersion_for_tissue():
    noise = {}
    for dispersion in (0, 0.35):
        sections, rates = made(dispersion, 5.0, n=1500)
        counts = sections["A1"].counts.toarray()
        truth = log_proportion(counts)
        noise[dispersion] = np.square(truth - oracle(rates["A1"], dispersion)).mean()
        found = np.square(ceiling.counting_noise(counts)).mean()
        if not dispersion:
            assert found == pytest.approx(noise[0], rel=0.05)
    assert found < 0.8 * noise[0.35]


def test_a_ceiling_by_pencil():
    noise, truth = np.array([[1.0, 0], [-1, 0]]), np.array([[2.0, 1], [-2, 1]])
    find = metrics.find
    assert ceiling.reachable(find("mse"), noise, truth) == 0.5
    assert ceiling.reachable(find("mae"), noise, truth) == 0.5
    found = ceiling.reachable(find("pcc_per_gene"), noise, truth)  # variances 1 of 4; a constant gene
    assert found[0] == pytest.approx(0.75**0.5) and np.isnan(found[1])
    over = ceiling.reachable(find("pcc_per_gene"), 3 * noise, truth)
    assert over[0] == 0  # more noise than there is variance


def test_factors_are_found_by_pencil():
    loadings = np.array([1.0, 2, 0, 1])[:, None]
    found, variance = ceiling.factors(loadings @ loadings.T + np.diag([1.0, 2, 3, 4]), 1)
    np.testing.assert_allclose(variance, [1, 2, 3, 4], rtol=1e-2)
    np.testing.assert_allclose(np.abs(found[:, 0]), [1, 2, 0, 1], atol=1e-2)


def test_rows_are_found_by_barcode_and_genes_have_both_ceilings():
    sections, rates = made(0.35)
    _, noise, panel = compare(sections, rates, 0.35, 20)
    rows = np.random.default_rng(0).permutation(len(noise.obs))
    other = Predictions(noise.truth[rows], noise.truth[rows], noise.genes, noise.obs.iloc[rows])
    again = ceiling.noises(other, sections, ceiling.parts(sections, panel))
    np.testing.assert_array_equal(again.below.prediction, noise.prediction[rows])
    below, above = (ceiling.by_gene(one) for one in again)
    assert below.index.tolist() == panel and (above > below).all()
    assert below.mean() == pytest.approx(ceiling.scores(noise, "pcc_per_gene").mean())
