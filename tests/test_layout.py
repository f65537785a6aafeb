"""What is said in a table's cells and under it."""

from made import numbers, predict

from stlib import layout
from stlib.predictions import Predictions


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
    good, ridge = cells["Good"][1].text, cells["Ridge"][1].text
    assert good == "0.078 ± 0.066 (0.110)" and "(" not in ridge  # sd of 0.15625 and 0: 0.110
    assert "What is trained was trained 2 times" in " ".join(laid.remarks)
    assert "times" not in " ".join(layout.scores(table, numbers(table)).remarks)


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
    assert "Good: 25.0% (2d) of the correlations of PCC per gene are undefined" in " ".join(laid.remarks)
