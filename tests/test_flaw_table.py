"""The table of the flaws, its chart, and that the notebook speaks of each."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from stlib import flaw_table, paths
from stlib.flaws import FLAWS


@pytest.fixture(scope="module")
def small():
    """Two flaws by pencil; the second has no correlation without it."""
    values = {
        "mse": [(1.0, 2.0), (3.0, 4.0)],
        "pcc_per_spot_zero": [(0.5, 0.25), (0.5, 0.75)],
        "pcc_per_gene": [(0.125, -0.001), (0.5, np.nan)],
    }
    columns = {"flaw": ["one", "two"], "where": ["a.py", "b.py"], "meaning": ["x", "y"]}
    columns |= {f"{name} {end}": [np.nan, np.nan] for name in values for end in ("low", "high")}
    columns |= {"mse low": [-1.5, np.nan], "mse high": [-0.5, np.nan]}
    for name, pairs in values.items():
        for place, label in enumerate((flaw_table.WITH, flaw_table.WITHOUT)):
            columns[f"{name} {label}"] = [pair[place] for pair in pairs]
    return pd.DataFrame(columns)


def test_markdown_by_pencil(small):
    lines = flaw_table.markdown(small).splitlines()
    assert lines[2] == "| one | a.py | 1.00 → 2.00 (-1.50 to -0.50) | 0.50 → 0.25 | 0.12 → 0.00 | x |"
    assert "0.50 → undefined | y |" in lines[3]


def test_one_flaw_as_text(small):
    head, with_it, without = flaw_table.one(small, "two").splitlines()
    assert head.split() == "MSE PCC per spot, flat as 0 PCC per gene".split()
    assert with_it.split() == ["with", "the", "flaw", "3.00", "0.50", "0.50"]
    assert without.split() == ["without", "4.00", "0.75", "undefined"]


def test_the_chart_joins_both_scores_and_says_what_is_undefined(small):
    left, right = flaw_table.chart(small).axes
    drawn = [np.asarray(found.get_offsets()) for found in left.collections]
    points = np.concatenate([found for found in drawn if len(found) == 4])
    assert sorted(points[:, 0].tolist()) == [0.25, 0.5, 0.5, 0.75]
    assert [text.get_text() for text in right.texts] == ["undefined without"] and not left.texts
    assert [label.get_text() for label in left.get_yticklabels()] == ["one", "two"]


def test_poolings_of_one_prediction_differ(cohort):
    found = flaw_table.poolings(cohort)
    constant, nearest = found.loc["mean of the known section"], found.loc["20 nearest known spots"]
    assert np.isnan(constant["pcc_per_gene"]) and constant["pcc_per_spot_zero"] > 0.5
    assert nearest["pcc_per_spot_zero"] > nearest["pcc_per_gene"] > 0.3


def test_every_flaw_is_scored_and_told(cohort):
    found = flaw_table.table(cohort)
    assert found["flaw"].tolist() == [flaw.title for flaw in FLAWS]
    notebook = (paths.NOTEBOOKS / "10_audit.py").read_text()
    for flaw in FLAWS:
        assert f'flaw_table.one(found, "{flaw.title}")' in notebook
    for name in flaw_table.NAMES:  # the mean of what a flaw adds lies in the middle of its interval
        added = found[f"{name} with the flaw"] - found[f"{name} without"]
        middle = (found[f"{name} low"] + found[f"{name} high"]) / 2
        np.testing.assert_allclose(middle, added, atol=1e-9)
    gains = found["pcc_per_gene with the flaw"] - found["pcc_per_gene without"].fillna(0)
    assert (gains > 0).tolist() == [True] * 3 + [False] * 4  # as the notebook says


def test_a_ceiling_needs_the_truth(cohort):
    found = flaw_table.ceiling(cohort)
    assert found["mse"] < 0.5 and found["pcc_per_gene"] > 0.6
    real = {name: replace(one, rate=None) for name, one in cohort.section.items()}
    assert flaw_table.ceiling(replace(cohort, section=real)) == {}
