"""Charts of numbers: what is drawn, where; how it looks is seen by eye."""

import numpy as np
import pandas as pd
import pytest

from stlib import charts, plots

NAN = float("nan")


@pytest.fixture
def found():
    """One section of a table: a constant, a control at 0.4, a ceiling, a method that was reported at 0.7."""
    lines = [
        ("Mean", "mean", "control", NAN, NAN),
        ("Ridge", "ridge", "control", 0.4, NAN),
        ("Oracle", "oracle", "ceiling", 0.9, NAN),
        ("ASIGN", "asign@no_graph", "method", 0.6, 0.7),
    ]
    frame = pd.DataFrame(lines, columns=["label", "model", "role", "mean", "reported"])
    return frame.assign(
        protocol="2d",
        setting="strict",
        size="",
        metric="pcc_per_gene",
        low=frame["mean"] - 0.1,
        high=frame["mean"] + 0.1,
    )


def by_label(ax, label):
    return [line for line in ax.lines if line.get_label() == label]


def test_dots_stand_at_the_means_and_crosses_at_the_reported_values(found, ax):
    assert charts.dot_plot(found, ax) is ax
    (method,) = by_label(ax, "method")
    assert (method.get_xdata()[0], method.get_ydata()[0]) == (0.6, 4)
    assert method.get_color() == method.get_markerfacecolor() == plots.COLOURS["asign"]
    (control,) = by_label(ax, "control")
    assert (
        control.get_xdata()[0] == 0.4
        and control.get_markerfacecolor() == "white"
        and control.get_color() == plots.GREY
    )
    (reported,) = by_label(ax, "reported")
    assert (reported.get_xdata()[0], reported.get_marker()) == (0.7, "x")
    (best,) = by_label(ax, "best control")
    assert list(best.get_xdata()) == [0.4, 0.4]


def test_an_interval_wider_than_the_table_ends_in_arrowheads_at_the_span_of_the_dots(found, ax):
    wide = found.assign(low=[NAN, 0.3, 0.8, -9.0], high=[NAN, 0.5, 1.0, 9.0])  # dots and crosses: 0.4 to 0.9
    charts.dot_plot(wide, ax)
    arrows = {line.get_marker(): line.get_xdata()[0] for line in ax.lines if line.get_marker() in ("<", ">")}
    assert arrows == {"<": pytest.approx(0.275), ">": pytest.approx(1.025)}
    assert 0.2 < ax.get_xlim()[0] < 0.275 and 1.025 < ax.get_xlim()[1] < 1.1


def test_names_of_metrics_leave_room_for_each_other(found, ax):
    charts.dot_plot(found.assign(metric="pcc_per_gene_pooled_quartile"), ax)
    lines = ["PCC per gene,", "pooled (first", "quartile)", "(higher is better)"]
    assert ax.get_xlabel().splitlines() == lines


def test_a_row_without_a_value_says_so(found, ax):
    charts.dot_plot(found, ax)
    assert [(text.get_text(), text.get_position()[1]) for text in ax.texts] == [("undefined", 1)]


def test_the_first_row_is_on_top_under_the_name_of_its_section(found, ax):
    charts.dot_plot(found, ax)
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == ["2d, strict", "Mean", "Ridge", "Oracle", "ASIGN"]
    assert ax.yaxis_inverted() and ax.get_yticklabels()[0].get_fontweight() == "bold"


def test_the_best_control_of_an_error_is_the_lowest(found, ax):
    found = found.assign(metric="mse", mean=[0.5, 0.4, 0.1, 0.3])
    charts.dot_plot(found, ax)
    assert by_label(ax, "best control")[0].get_xdata()[0] == 0.4


def test_the_legend_has_each_kind_once(found, ax):
    charts.dot_plot(found, ax)
    assert [artist.get_label() for artist in charts.dot_legend(ax)] == [
        "method",
        "control",
        "ceiling",
        "reported",
        "best control",
    ]


def test_dots_of_two_metrics_are_refused(found, ax):
    with pytest.raises(ValueError, match=r"shows one metric, found 2 \(pcc_per_gene, mse\)"):
        charts.dot_plot(pd.concat([found, found.assign(metric="mse")]), ax)


def boxes():
    """A method at 1, 2, 3, 4 that differs, one patient of another, and a constant."""
    rows = [("A", "asign", "method", value, 0.01) for value in (1.0, 2, 3, 4)]
    rows += [("B", "stnet", "method", 5.0, NAN), ("C", "mean", "control", NAN, NAN)]
    frame = pd.DataFrame(rows, columns=["label", "model", "role", "value", "p"])
    return frame.assign(protocol="2d", setting="strict", size="", metric="mse")


def test_a_box_has_the_quartiles_every_patient_and_a_star_if_it_differs(ax):
    charts.box_plot(boxes(), ax)
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    assert [list(line.get_xdata()) for line in dots] == [[1, 2, 3, 4], [5]]
    assert [line.get_ydata()[0] for line in dots] == [1, 2]
    box = next(line for line in ax.lines if len(line.get_xdata()) == 5)
    assert {round(x, 2) for x in box.get_xdata()} == {1.75, 3.25}  # quartiles of 1, 2, 3, 4
    assert sum(len(line.get_xdata()) == 5 for line in ax.lines) == 1  # one patient has no box
    assert [(text.get_text(), text.get_position()[1]) for text in ax.texts] == [("*", 1), ("undefined", 3)]


def changes():
    line = {"metric": "mse", "mean": 0.2, "low": 0.1, "high": 0.3, "seed_low": 0.15, "seed_high": 0.25}
    line |= {"patients": np.array([0.1, 0.3]), "verdict": "worse"}
    unclear = {"group": "II", "label": "w/o b", "verdict": "unclear"}
    return pd.DataFrame([line | {"group": "I", "label": "w/o a"}, line | unclear])


def test_differences_stand_with_both_intervals_and_every_patient(ax):
    charts.difference_plot(changes(), ax)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["I", "w/o a", "II", "w/o b"]
    data = [tuple(line.get_xdata()) for line in ax.lines]
    assert data[:4] == [(0.1, 0.3), (0.1, 0.3), (0.15, 0.25), (0.2,)]  # patients, theirs, the seeds', mean
    assert ax.lines[3].get_markerfacecolor() == "black"
    assert (ax.lines[7].get_color(), ax.lines[7].get_markerfacecolor()) == (plots.GREY, "white")
    assert "worse to the right" in ax.get_xlabel()
