"""A table of costs: lines by pencil, and what is marked."""

import pandas as pd
import pytest

from stlib import cost, tables
from stlib.params import load_params
from stlib.render import UNBROKEN, markdown

MEASURED = pd.DataFrame(
    [
        # forward 1 + 2 n, step 3 n, peak 1 + n / 2, update 4, seconds n: at 16
        {"row": 0, "parameters_m": 5.0, "epoch_steps": 3, "batch": n, "forward_gflop": 1.0 + 2 * n,
         "step_gflop": 3.0 * n, "peak_gb": 1 + n / 2, "update_gb": 4.0, "step_s": float(n)}
        for n in (2, 4, 8)
    ]
    + [
        {"row": 1, "parameters_m": 1.0, "epoch_steps": 2, "batch": 16, "forward_gflop": 1.0,
         "step_gflop": 2.0, "peak_gb": 3.0, "update_gb": 8.0, "step_s": 0.5}
    ]
)  # fmt: skip


@pytest.fixture
def table():
    cited = tables.Reported(paper="ASIGN", table="S1", row="patch 224x224")
    rows = [
        tables.CostRow(label="A", model="asign", protocol="3d", patch_px=224, reported=cited),
        tables.CostRow(label="B", model="sgn", protocol="2d"),
        tables.CostRow(label="C", model="egn", protocol="2d", absent={"toy": "it is alone"}),
    ]
    columns = [("parameters_m", ""), ("step_gflop", "GFLOPs"), ("peak_gb", ""), ("epoch_s", "")]
    return tables.Costs(
        name="s", title="S", caption="C", decimals=1, kind="costs", batch=16, rows=rows, notes=["noted"],
        metrics=[tables.Column(metric=name, reported=printed) for name, printed in columns],
        reported_dataset={"toy": "HER2"},
    )  # fmt: skip


def test_what_was_not_measured_lies_on_the_line():
    found = cost.at_batch(MEASURED, 16)
    assert found.loc[0, ["forward_gflop", "step_gflop", "peak_gb", "step_s"]].tolist() == pytest.approx(
        [33, 48, 9, 16]
    )
    assert found.loc[0, "epoch_s"] == pytest.approx(3 * 16) and found["extrapolated"].tolist() == [
        True,
        False,
    ]
    assert found.loc[1, "step_gflop"] == 2 and found.loc[1, "peak_gb"] == 8  # the update holds more


def test_the_distance_from_the_line_is_said():
    bent = MEASURED.assign(step_s=[2.0, 4.0, 9.0, 0.5])
    fit = cost.fit(bent).set_index(["row", "metric"])
    assert fit.loc[(0, "step_gflop"), "off"] == pytest.approx(0, abs=1e-12)
    assert fit.loc[(0, "step_s"), "off"] > 0.05 and set(fit.index.get_level_values("row")) == {0}


def test_seconds_that_lie_on_no_line_are_not_drawn_out(table, toy):
    for seconds in ([13.0, 9.0, 20.0, 0.5], [9.0, 8.6, 8.2, 0.5]):  # far off; falling, within a per cent
        found = cost.at_batch(MEASURED.assign(step_s=seconds), 16)
        assert found.loc[0, ["step_s", "epoch_s"]].isna().all() and found.loc[1, "epoch_s"] == 1
        assert found.loc[0, "step_gflop"] == pytest.approx(48)
        text = markdown(cost.layout(table, cost.frame(table, toy, MEASURED.assign(step_s=seconds))))
        assert (
            "| A | 5.0 | ≈ 48.0 | 2056.6 | ≈ 9.0 |  |" in text.replace(UNBROKEN, " ")
            and "- Empty: measured steps lie" in text
        )
    assert not cost.fit(MEASURED).empty and cost.fit(MEASURED)["holds"].all()


def test_the_layout_marks_what_lies_on_a_line(table, toy):
    found = cost.frame(table, toy, MEASURED)
    assert found["label"].unique().tolist() == ["A", "B"]
    text = markdown(cost.layout(table, found, ["on a machine"]))
    assert "| A | 5.0 | ≈ 48.0 | 2056.6 | ≈ 9.0 | ≈ 48.0 |" in text.replace(UNBROKEN, " ")
    assert "| B | 1.0 | 2.0 |  | 8.0 | 1.0 |" in text
    assert "- noted\n- on a machine\n- ≈: " in text and "reported: ASIGN, Table S1." in text
    assert tables.absences(table, "toy") == ["C, 2d, is not shown: it is alone."]


def test_each_line_is_printed(table, toy):
    first, *_ = cost.lines(table, toy, MEASURED)
    assert first == "A: forward_gflop = 1 + 2 n, measured values within 0.0%"


@pytest.mark.parametrize("name", tables.names("costs"))
def test_a_reported_epoch_stands_beside_whole_datasets_alone(name):
    sections = {"HER2": 36}
    for ours, theirs in tables.load_costs(name).reported_dataset.items():
        assert len(load_params(ours).with_slide) == sections[theirs]
