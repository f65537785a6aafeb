"""Methods compared patient by patient, on differences that can be checked with a pencil."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from stlib import comparisons
from stlib.tables import Column, Row, Table


def ablation():
    """Two patients, two seeds; `no_a` loses 0.2 and 0.4 (0.1 more or less by seed), `no_b` nothing."""
    rows = [Row(label=name, model=f"asign{name}", protocol="3d") for name in ("", "@no_a", "@no_b")]
    table = Table(name="t", title="T", caption="", decimals=3, seeds=[0, 1], rows=rows,
                  metrics=[Column(metric="pcc_per_gene"), Column(metric="mse")])  # fmt: skip
    full = {"A": 0.5, "B": 0.9}
    loss = {0: {"A": 0, "B": 0}, 1: {"A": 0.2, "B": 0.4}, 2: {"A": 0, "B": 0}}
    lines = [
        {"row": place, "metric": metric, "seed": seed, "unit": unit,
         "value": full[unit] + (0.1 if seed else -0.1) * (place == 1) - loss[place][unit]}
        for place in range(3) for metric in ("pcc_per_gene", "mse") for seed in (0, 1) for unit in "AB"
    ]  # fmt: skip
    return {"t": table}, {"t": pd.DataFrame(lines)}


def test_differences_by_pencil():
    tables, scores = ablation()
    found = comparisons.differences(tables, "toy", scores).set_index(["label", "metric"])
    assert set(found["against"]) == {""}  # the label of the whole
    line = found.loc[("@no_a", "pcc_per_gene")]
    np.testing.assert_allclose(line["patients"], [-0.2, -0.4])
    assert line["mean"] == pytest.approx(-0.3) and (line["n"], line["seeds"]) == (2, 2)
    assert line["p"] == pytest.approx(stats.ttest_1samp([-0.2, -0.4], 0).pvalue)
    # seeds: -0.4 and -0.2, so +- t(1) 0.1
    assert line["seed_high"] - line["mean"] == pytest.approx(stats.t.ppf(0.975, 1) * 0.1)
    assert np.isnan(found.loc[("@no_b", "mse"), "p"]) and found.loc[("@no_b", "mse"), "verdict"] == "unclear"


def test_a_variant_of_two_tables_is_tested_once_with_most_seeds():
    tables, scores = ablation()
    one = scores["t"][scores["t"]["seed"] == 1]  # here `no_a` loses 0.1 and 0.3
    alone = comparisons.differences(tables, "toy", scores)
    for both in ({"u": one, **scores}, {**scores, "u": one}):
        found = comparisons.differences(dict.fromkeys(both, tables["t"]), "toy", both)
        pd.testing.assert_frame_equal(found, alone)


def test_a_variant_is_held_against_what_it_changes():
    tables, scores = ablation()
    whole, a, b = tables["t"].rows
    rows = [whole, a, b.model_copy(update={"against": "asign@no_a"})]
    table = tables["t"].model_copy(update={"rows": rows})
    found = comparisons.differences({"t": table}, "toy", scores).set_index(["label", "metric"])
    line = found.loc[("@no_b", "pcc_per_gene")]
    assert line["against"] == "@no_a" and line["mean"] == pytest.approx(0.3)


@pytest.mark.parametrize(("metric", "mean", "verdict"), [("mse", 0.1, "worse"), ("mse", -0.1, "better"),
                                                         ("pcc_per_gene", 0.1, "better")])  # fmt: skip
def test_the_verdict_knows_which_way_is_better(metric, mean, verdict):
    line = {"metric": metric, "mean": mean, "p_holm": 0.01}
    assert comparisons._verdict(line) == verdict
    apart, across = ({"seed_low": low, "seed_high": 0.3} for low in (0.1, -0.1))
    assert comparisons._verdict(line | apart) == verdict and comparisons._verdict(line | across) == "unclear"
    assert (
        comparisons._verdict(line | {"p_holm": 0.2})
        == comparisons._verdict(line | {"p_holm": np.nan})
        == "unclear"
    )


def test_words_follow_from_the_verdict():
    line = {"label": "w/o a", "model": "asign@no_a", "metric": "mse", "mean": 0.2, "low": 0.1, "high": 0.3}
    line |= {"n": 4, "p_holm": 0.0001, "verdict": "worse", "against": "the whole"}
    line |= {"seeds": 3, "seed_low": 0.15, "seed_high": 0.25}
    (said,) = comparisons.in_words(pd.DataFrame([line]), "mse")
    assert said == (
        "w/o a: +0.200 against the whole, worse: what was changed is worth something (95 % interval "
        "+0.100 to +0.300 over 4 patients, +0.150 to +0.250 over 3 seeds; p < 0.001)."
    )
    (said,) = comparisons.in_words(pd.DataFrame([line | {"n": 1}]), "mse")
    assert said == "w/o a: +0.200 against the whole, one patient has no spread, so nothing follows."


def declared():
    """ASIGN is ours; two controls."""
    rows = [
        Row(label="Floor", model="mean", protocol="2d", role="control"),
        Row(label="Ridge", model="ridge", protocol="2d", role="control"),
        Row(label="Best", model="oracle", protocol="2d", role="ceiling"),
        Row(label="Ours", model="asign", protocol="2d", ours=True),
        Row(label="Net", model="stnet", protocol="2d"),
    ]
    metrics = [Column(metric="mse"), Column(metric="pcc_per_gene_pooled")]
    return Table(name="t", title="T", caption="", decimals=3, seeds=[0], rows=rows, metrics=metrics)


MSE = {
    "Floor": [9.0, 9, 9],
    "Ridge": [1.0, 1.2, 1.1],
    "Best": [0.1] * 3,
    "Ours": [0.9, 1, 1.02],
    "Net": [2, 2.5, 2],
}


def by_patient():
    return pd.DataFrame([
        {"protocol": "2d", "setting": "strict", "size": "", "label": row.label, "model": row.model,
         "role": row.role, "metric": name, "unit": unit, "value": value}
        for row in declared().rows for name in ("mse", "pcc_per_gene_pooled")
        for unit, value in zip("ABC", MSE[row.label], strict=True)
    ])  # fmt: skip


def test_each_method_is_tested_against_the_best_control_and_ours():
    found = comparisons.tests(declared(), "toy", by_patient())
    assert found[["label", "against", "other"]].values.tolist() == [
        ["Ours", "best control", "Ridge"], ["Net", "best control", "Ridge"], ["Net", "ours", "Ours"],
    ]  # fmt: skip
    assert set(found["metric"]) == {"mse"}  # pooled metrics belong to folds
    one = found.iloc[0]
    assert one["difference"] == pytest.approx(np.mean([-0.1, -0.2, -0.08])) and one["n"] == 3
    assert one["p_t"] == pytest.approx(stats.ttest_rel(MSE["Ours"], MSE["Ridge"]).pvalue)
    assert one["p_signs"] == one["smallest_p"] == 0.25
    assert one["p_welch"] == stats.ttest_ind(MSE["Ours"], MSE["Ridge"], equal_var=False).pvalue
    order = found["p_t"].rank(ascending=False)  # Holm: the smallest of three p counts three times
    assert found.loc[order == 3, "p_t_holm"].item() == pytest.approx(3 * found["p_t"].min())
    assert found["verdict"].tolist() == ["unclear", "worse", "worse"]


def test_the_best_control_of_a_correlation_is_the_highest():
    table = declared().model_copy(update={"metrics": [Column(metric="pcc_per_gene")]})
    found = comparisons.tests(table, "toy", by_patient().replace({"mse": "pcc_per_gene"}))
    assert set(found.loc[found["against"] == "best control", "other"]) == {"Floor"}


def test_what_tests_show_is_said_with_the_smallest_p():
    found = comparisons.tests(declared(), "toy", by_patient())
    (said,) = comparisons.said_of_tests(found, "mse")
    assert (
        "all 3 tests" in said
        and "better than the best control: none; worse than the best control: Net (2d)" in said
    )
    assert "no p below 0.25 with 3 patients" in said
    assert comparisons.said_of_tests(found.assign(n=1), "mse") == []
    (of_bins,) = comparisons.said_of_tests(found.assign(size="8um"), "mse")
    assert "worse than the best control: Net (2d, 8um)" in of_bins


def test_a_table_without_controls_and_ours_has_no_tests():
    alone = by_patient()[lambda rows: rows["label"] == "Net"]
    table = declared().model_copy(update={"rows": declared().rows[4:]})
    found = comparisons.tests(table, "toy", alone)
    assert found.empty and comparisons.said_of_tests(found, "mse") == []
