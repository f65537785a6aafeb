"""What is said in a table's cells and under it."""

import re

from made import numbers, predict

from stlib import layout
from stlib.predictions import Predictions
from stlib.tables import Row


def test_the_notes_of_the_declaration_come_before_those_of_the_caller(table, found):
    noted = table.model_copy(update={"notes": ["a slip"]})
    laid = layout.scores(noted, found, ["four slides"])
    assert laid.notes == ["a slip", "four slides"]
    assert [text for text in laid.remarks if text in laid.notes] == laid.notes


def test_the_spread_over_seeds_stands_in_brackets_where_there_are_seeds(table):
    two = table.model_copy(update={"seeds": [0, 1]})

    def load(run):
        right = predict(run)
        return right if run.seed == 0 else Predictions(right.truth, right.truth, right.genes, right.obs)

    laid = layout.scores(two, numbers(two, load))
    cells = {label: cells for block in laid.blocks for label, _, cells in block.lines}
    good, ridge = cells["Good"][2].text, cells["Ridge"][2].text
    assert good == "0.078 ± 0.066 (0.110)" and "(" not in ridge  # sd of 0.15625 and 0: 0.110
    assert "What is trained was trained 2 times" in " ".join(laid.remarks)
    once = " ".join(layout.scores(table, numbers(table)).remarks)
    assert "times" not in once and "trained once: what another seed would give" in once


def test_one_patient_has_no_spread_and_the_table_says_so(table):
    def load(run):
        both = predict(run)
        return Predictions(both.prediction[:3], both.truth[:3], both.genes, both.obs[:3])

    laid = layout.scores(table, numbers(table, load))
    cells = [cell.text for block in laid.blocks for _, _, line in block.lines for cell in line]
    assert "over 1 patient; one has no spread" in " ".join(laid.remarks)
    assert not any("±" in text for text in cells)


def test_partly_undefined_correlations_are_reported(table):
    def load(run):
        whole = predict(run)
        flat = whole.prediction.copy()
        flat[:3, 0] = 1
        return Predictions(flat, whole.truth, whole.genes, whole.obs)

    laid = layout.scores(table, numbers(table, load))
    remarks = [line for line in laid.remarks if "of the correlations" in line]
    share = "of the correlations of PCC per gene are undefined, one side being constant"
    shared = f"25.0% (2d) {share}: Ridge, Oracle, Good, Bad."  # one line for the same share
    assert remarks == [shared, f"25.0% (3d) {share}: Overlap."]


def test_one_label_under_two_settings_is_told_apart(table):
    twice = table.model_copy(
        update={"rows": [*table.rows, Row(label="Mean", model="mean", protocol="2d", setting="published")]}
    )

    def load(run):
        both = predict(run)
        flat = both.prediction.copy()
        flat[:3, 0] = flat[0, 0]
        return both if run.model == "mean" else Predictions(flat, both.truth, both.genes, both.obs)

    laid = layout.scores(twice, numbers(twice, load))
    constant = laid.remarks[0]
    assert "Mean (2d, strict): PCC per gene undefined" in constant
    assert "Mean (2d, published): PCC per gene undefined" in constant
    under = " ".join(laid.remarks)
    assert "PCC per gene; MSE (2d, published): over 2 patients" in under
    assert re.search(r"25\.0% \(2d, strict\) of the correlations [^.]*: [^.]*Good", under)


def test_the_number_of_patients_is_said_of_each_protocol(table):
    def load(run):
        both = predict(run)
        if run.protocol == "2d":
            return both
        return Predictions(both.prediction[:3], both.truth[:3], both.genes, both.obs[:3])

    said = layout.remarks(table, numbers(table, load))
    assert said[0].startswith("PCC per gene; MSE (2d): over 2 patients; ±")
    assert said[1].startswith("PCC per gene; MSE (3d): over 1 patient; one has no spread")
    flat = table.model_copy(update={"rows": [row for row in table.rows if row.protocol == "2d"]})
    assert layout.remarks(flat, numbers(flat))[0].startswith("PCC per gene; MSE: over 2 patients; ±")


def test_the_share_of_the_reachable_stands_beside_the_headlines_alone(table, found):
    heads = layout.scores(table, found).heads
    assert not any(part == layout.SHARE for _, part in heads)
    known = found.assign(share=0.5, ceiling=1.0)
    laid = layout.scores(table, known, shown=["what tests show"])
    assert [part for _, part in laid.heads] == [
        "ours",
        layout.INTERVAL,
        layout.SHARE,
        "ours",
        layout.INTERVAL,
        layout.SHARE,
        "reported",
        "difference",
    ]
    cells = {label: cells for block in laid.blocks for label, _, cells in block.lines}
    assert cells["Good"][2].text == "50%" and cells["Good"][4].text == "-1.035 to 1.347"
    assert laid.remarks[-1] == "what tests show" and any(
        text.startswith("of reachable:") for text in laid.remarks
    )
    below = layout.scores(table, known.assign(share=-0.001))
    assert below.blocks[0].lines[0][2][2].text == "0%"
