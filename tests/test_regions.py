"""Scores by region, checked with a pencil."""

import numpy as np
import pandas as pd
import pytest
from made import predict
from scipy import sparse

from stlib import regions
from stlib.predictions import Predictions
from stlib.sections import Section
from stlib.tables import Column, Row, Table

ROWS = [Row(label="A", model="asign", protocol="2d")]
TABLE = Table(
    name="t", title="T", caption="", decimals=3, seeds=[0, 1], rows=ROWS, metrics=[Column(metric="mse")]
)


def section(name, labels):
    n = len(labels)
    place = np.zeros((n, 2))
    return Section(
        name, name[0], 1, np.arange(n).astype(str), np.array(["g", "h"]), sparse.csr_matrix((n, 2)), place,
        place, np.ones(2), None, "circle", 100.0, 200.0,
        region=None if labels[0] is None else np.array(labels),
    )  # fmt: skip


def two(run):
    """Two patients of 24 spots, in a new order: off by 1 in the first twelve, by 2 in the others."""
    error = np.repeat([1.0, 2], 12)[:, None] * (2 if run.seed else 1)
    truth = np.random.default_rng(0).normal(size=(24, 2))
    parts, order = [], np.random.default_rng(1).permutation(24)
    for name in ("A1", "B1"):
        about = {"section": name, "patient": name[0], "fold": "f", "known": False}
        obs = pd.DataFrame({"barcode": np.arange(24).astype(str)} | about)
        parts.append(((truth + error)[order], truth[order], obs.iloc[order]))
    side = [np.concatenate([part[k] for part in parts]).astype(np.float32) for k in (0, 1)]
    return Predictions(*side, np.array(["g", "h"]), pd.concat([part[2] for part in parts], ignore_index=True))


def test_each_label_is_scored_by_itself_and_seeds_are_averaged():
    labels = ["tumour"] * 12 + ["fat"] * 11 + [""]
    sections = {"toy": {name: section(name, labels) for name in ("A1", "B1")}}
    found = regions.scores(TABLE, "toy", sections, two).set_index(["region", "metric"])
    assert set(found.index.get_level_values(0)) == {"tumour", "fat"}
    assert found.loc[("tumour", "mse"), "mean"] == pytest.approx((1 + 4) / 2, rel=1e-5)
    assert found.loc[("fat", "mse"), "mean"] == pytest.approx((4 + 16) / 2, rel=1e-5)
    assert found.loc[("fat", "pcc_per_gene"), "mean"] == pytest.approx(1, abs=1e-5)
    assert found.loc[("fat", "mse"), ["spots", "n"]].tolist() == [22, 2]


def test_sections_without_labels_or_with_few_of_them_take_no_part():
    rare = ["tumour"] * 21 + ["fat"] * 3
    sections = {"toy": {"A1": section("A1", rare), "B1": section("B1", [None] * 24)}}
    found = regions.scores(TABLE, "toy", sections, two)
    assert set(found["region"]) == {"tumour"} and set(found["n"]) == {1} and set(found["spots"]) == {21}
    assert regions.scores(TABLE, "toy", {"toy": {}}, two).empty
    assert regions.labels_of(predict(type("Run", (), {"model": "mean"})), {}).tolist() == [""] * 6
