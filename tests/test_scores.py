"""The numbers of a table, from predictions."""

import numpy as np
import pandas as pd
import pytest
from made import numbers, predict

from stlib import jackknife, metrics, paths, scores, tables
from stlib.expression import log_proportion, panel_counts, top_mean_panel
from stlib.predictions import Predictions, concatenate


def test_numbers_by_pencil(found):
    row = found.set_index(["label", "metric"])
    good = row.loc[("Good", "mse")]  # patients: 0.25^2 and 0.5^2
    assert good["mean"] == pytest.approx((0.0625 + 0.25) / 2)
    assert good["sd"] == pytest.approx((0.25 - 0.0625) / 2**0.5)
    assert good["n"] == 2 and good["low"] < good["mean"] < good["high"]
    assert (good["reported"], good["difference"]) == (0.579, pytest.approx(0.15625 - 0.579))
    assert np.isnan(row.loc[("Bad", "mse"), "reported"])
    assert row.loc[("Oracle", "pcc_per_gene"), "mean"] == pytest.approx(1)


def test_each_patient_has_a_line(table):
    found = scores.by_patient(table, "toy", scores.patient_scores(table, "toy", predict))
    good = found[(found["label"] == "Good") & (found["metric"] == "mse")].set_index("unit")["value"]
    assert good.to_dict() == pytest.approx({"A": 0.0625, "B": 0.25})
    assert len(found) == 6 * 2 * 2  # rows, metrics, patients


def test_a_constant_row_is_undefined_and_known_as_constant(found):
    row = found.set_index(["label", "metric"]).loc[("Mean", "pcc_per_gene")]
    assert np.isnan(row["mean"]) and row["undefined"] == 1 and row["constant"] and row["n"] == 0
    assert not found[found["label"] != "Mean"]["constant"].any()


def test_the_best_is_a_method_and_who_loses_to_a_control_is_marked(found):
    mse = found[found["metric"] == "mse"].set_index("label")
    assert mse.index[mse["best"]].tolist() == [
        "Good",
        "Overlap",
    ]  # one per protocol; neither the oracle nor a control
    assert mse.index[mse["beaten"]].tolist() == ["Bad"]  # Overlap has no control beside it


def test_seeds_are_averaged_within_a_patient(table):
    two = table.model_copy(update={"seeds": [0, 1]})

    def load(run):
        right = predict(run)
        return right if run.seed == 0 else Predictions(right.truth, right.truth, right.genes, right.obs)

    row = numbers(two, load).set_index(["label", "metric"]).loc[("Good", "mse")]
    assert row["mean"] == pytest.approx(0.15625 / 2) and row["n"] == 2
    # the table's number is 0.15625 with one seed and 0 with the other
    assert row["seeds"] == 2 and row["seed_sd"] == pytest.approx(0.15625 / 2**0.5)
    mean = numbers(two, load).set_index(["label", "metric"]).loc[("Mean", "mse")]
    assert mean["seeds"] == 1 and np.isnan(mean["seed_sd"])  # what is not trained has one


def test_what_is_missing_is_named(table, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "RUNS", tmp_path)
    with pytest.raises(FileNotFoundError, match="2d/toy/mean/strict-s0/predictions.h5ad is missing"):
        scores.patient_scores(table, "toy")
    wrong = table.model_copy(
        update={
            "rows": [
                table.rows[3].model_copy(
                    update={"reported": tables.Reported(paper="ASIGN", table="I", row="ASIGN")}
                )
            ]
        }
    )
    with pytest.raises(
        ValueError, match="row 'Good': one line of tables/reported.csv must match .* found 0 .*'ASIGN 2D'"
    ):
        numbers(wrong, predict)


def ceilings(value):
    """A ceiling that is the same for both patients."""
    lines = [
        {"protocol": "2d", "setting": "strict", "size": "", "metric": name, "unit": unit,
         "model": "ceiling", "value": value[name]}
        for name in ("pcc_per_gene", "mse", "mae") for unit in "AB"
    ]  # fmt: skip
    return pd.DataFrame(lines)


def test_the_share_of_the_reachable_by_pencil(table):
    top = ceilings({"pcc_per_gene": 0.8, "mse": 0.1, "mae": 0.1})
    found = scores.frame(table, "toy", scores.patient_scores(table, "toy", predict), top)
    row = found.set_index(["label", "metric"])
    mean, good = row.loc[("Mean", "mse")], row.loc[("Good", "mse")]
    assert mean["share"] == 0 and good["ceiling"] == 0.1
    assert good["share"] == pytest.approx((mean["mean"] - good["mean"]) / (mean["mean"] - 0.1))
    pcc = row.loc[("Good", "pcc_per_gene")]  # a constant has no correlation: 0
    assert pcc["share"] == pytest.approx(pcc["mean"] / 0.8)
    assert np.isnan(row.loc[("Overlap", "mse"), "share"])  # 3d has no ceiling here
    last = row.loc[("Ceiling of the counts", "mse")]
    assert (last["mean"], last["share"], last["role"], last["n"]) == (0.1, 1, "ceiling", 2)
    assert ("Ceiling of the counts", "mae") not in row.index  # no column of this table


def test_every_metric_stands_beside_those_of_the_table(table):
    every = scores.with_every_metric(table)
    names = [column.metric for column in every.metrics]
    assert names[:2] == ["pcc_per_gene", "mse"] and sorted(names) == sorted(metrics.METRICS)
    found = scores.patient_scores(every, "toy", predict)
    assert set(found["metric"]) == set(metrics.METRICS)
    own = scores.by_patient(table, "toy", found)
    pd.testing.assert_frame_equal(
        own, scores.by_patient(table, "toy", scores.patient_scores(table, "toy", predict))
    )


def test_what_is_reachable_needs_the_counts(toy, toy_sections):
    panel = top_mean_panel(toy_sections.values(), 20)
    table = tables.load_table("table1")

    def load(run):
        parts = []
        for name, section in toy_sections.items():
            truth = log_proportion(panel_counts(section, panel))
            about = {"section": name, "patient": section.patient, "fold": section.patient, "known": False}
            parts.append(
                Predictions(
                    truth, truth, np.array(panel), pd.DataFrame({"barcode": section.barcodes} | about)
                )
            )
        return concatenate(parts)

    row = tables.Row(
        label="A", model="ridge", protocol="transfer", train={"toy": "toy_st"}, role="control"
    )  # the counts of what is tested, not of what was trained on
    moved = table.model_copy(update={"rows": [row]})
    assert list(scores.reachable(moved, "toy", {"toy": toy_sections}, load)) == [("transfer", "strict", "")]
    assert scores.reachable(table, "toy", {"toy": {}}, load) == {}
    found = scores.reachable(table, "toy", {"toy": toy_sections}, load)
    assert list(found) == [("2d", "strict", ""), ("3d", "strict", "")]
    top = scores.ceilings(table, found)
    assert set(top["metric"]) == {column.metric for column in table.metrics} and len(top) == 2 * 2 * 5 * 4
    mean = top.groupby(["model", "metric"])["value"].mean().unstack()
    assert mean.loc["ceiling", "pcc_per_gene"] < mean.loc["counting", "pcc_per_gene"] < 1
    assert mean.loc["ceiling", "mse"] > mean.loc["counting", "mse"] > 0
    assert scores.ceilings(table, {}).empty


def test_one_patient_has_an_interval_over_pieces_of_tissue(table):
    def load(run):
        both = predict(run)
        return Predictions(both.prediction[:3], both.truth[:3], both.genes, both.obs[:3])

    row = numbers(table, load).set_index(["label", "metric"]).loc[("Overlap", "mse")]
    assert row["n"] == 1 and np.isnan(row["sd"])
    half = jackknife.half_width(load(tables.Run("3d", "toy", "overlap", "strict", 0)), "mse")
    assert row["high"] - row["mean"] == pytest.approx(half)


def test_a_paper_reports_each_size_or_one_number_for_all(table):
    row, column = table.rows[3], table.metrics[1]  # the paper reports the squared error alone
    key = row.reported.model_dump() | {"dataset": table.reported_dataset["toy"], "metric": column.reported}
    lines = [key | {"resolution_um": um, "mean": um / 100, "std": 0.1} for um in (8.0, 16.0)]
    found = scores.reported(pd.DataFrame(lines), table, row, column, "toy", "16um")
    assert found == {"reported": 0.16, "reported_sd": 0.1}
    with pytest.raises(ValueError, match="must match .* found 2"):
        scores.reported(pd.DataFrame(lines), table, row, column, "toy")
    one = pd.DataFrame([key | {"resolution_um": np.nan, "mean": 0.5, "std": 0.1}])
    assert scores.reported(one, table, row, column, "toy", "16um")["reported"] == 0.5
    assert scores.reported(one, table, row, column, "toy")["reported"] == 0.5


def test_the_size_of_a_row_reaches_what_is_reported(table, monkeypatch):
    asked = []
    monkeypatch.setattr(scores, "reported", lambda *given: asked.append(given[-1]) or {"reported": 1.0})
    found = scores.patient_scores(table, "toy", predict)
    sized = table.model_copy(update={"rows": [row.model_copy(update={"size": "8um"}) for row in table.rows]})
    monkeypatch.setattr(scores, "rows_for", lambda table, dataset: table.rows)
    scores.frame(sized, "toy", found)
    assert set(asked) == {"8um"}
