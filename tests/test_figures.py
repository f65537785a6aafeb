"""Whole figures: what stands where; how it looks is seen by eye."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.image import imread

from stlib import figures, plots, tables
from stlib.predictions import Predictions

NAN = float("nan")


def history(**changes):
    rows = [("choose", 0, 3.0, 1.0), ("choose", 1, 2.0, 0.5), ("final", 0, 3.0, NAN)]
    return pd.DataFrame(rows, columns=["stage", "epoch", "loss", "validation"]).assign(fold="A", **changes)


def test_all_maps_of_a_gene_have_one_scale_and_their_error():
    positions = np.array([[0.0, 0], [200, 0], [0, 200], [200, 200]])
    truth = np.array([0.0, 1, 2, 3])
    figure = figures.gene_maps(truth, {"same": truth, "off": truth + 2}, positions, 100, "ERBB2")
    maps = [ax for ax in figure.axes if ax.collections and ax.get_aspect() == 1]
    assert [ax.get_title() for ax in maps] == ["measured", "same", "off"]
    assert {ax.collections[0].get_clim() for ax in maps} == {plots.shared_limits(truth, truth, truth + 2)}
    assert [ax.texts[0].get_text() for ax in maps] == ["100 µm", "MSE 0.000", "MSE 4.000"]


def predictions():
    obs = pd.DataFrame(
        [
            {
                "section": section,
                "patient": section[0],
                "fold": section[0],
                "known": section == "A1",
                "x_um": 200.0 * i,
                "y_um": 100.0 * i,
            }
            for section in ("A1", "A2", "A3", "B1")
            for i in range(5)
        ]
    )
    truth = np.tile(np.arange(5.0)[:, None], (4, 2))
    truth[:15, 1] = NAN  # the second gene is in the panel of fold B only
    return Predictions(truth + 1, truth, np.array(["g", "h"]), obs)


def test_few_maps_are_wide_and_many_fill_the_page():
    square = np.array([[0.0, 0], [1, 1]])
    widths = [figures._maps(1, columns, square)[0].get_figwidth() * 25.4 for columns in (1, 2, 6)]
    np.testing.assert_allclose(widths, [55 + 22, 110 + 22, 183])


def test_section_maps_show_one_patients_unknown_sections():
    params = SimpleNamespace(spot=SimpleNamespace(pitch_um=200))
    figure = figures.section_maps(predictions(), "g", params, "asign")
    assert [ax.get_title() for ax in figure.axes if ax.get_title()] == ["A2", "A3"]
    assert [text.get_text() for ax in figure.axes for text in ax.texts if "MSE" in text.get_text()] == [
        "MSE 1.000"
    ] * 2
    assert [
        ax.get_title()
        for ax in figures.section_maps(predictions(), "h", params, "asign").axes
        if ax.get_title()
    ] == ["B1"]


def test_a_gene_outside_every_panel_does_not_end_a_notebook():
    figure = figures.section_maps(predictions(), "ERBB2", SimpleNamespace(), "asign")
    assert figure.axes[0].texts[0].get_text() == "ERBB2 is in no fold's panel"


def test_training_shows_those_that_were_trained():
    class Run(SimpleNamespace):
        __hash__ = object.__hash__

    empty = history().iloc[:0]
    figure = figures.training({Run(model="mean"): empty, Run(model="asign"): history()})
    assert [ax.get_title() for ax in figure.axes] == ["asign", ""]
    assert (
        "nothing here is trained" in figures.training({Run(model="mean"): empty}).axes[0].texts[0].get_text()
    )


def rows(*models):
    return [tables.Row(label=model.title(), model=model, protocol="2d") for model in models]


def fake_params(**more):
    spot = SimpleNamespace(pitch_um=200, size_um=100)
    return SimpleNamespace(
        name="toy", size="", spot=spot, folds={"2d": {"A": ["A"]}, "3d": {}}, known={}, **more
    )


def test_a_gene_is_shown_for_each_method_of_the_protocol_on_one_unknown_section():
    table = SimpleNamespace(name="t", rows=rows("mean", "asign"), seeds=[0])
    load = lambda run: predictions() if run.model == "mean" else off_by(3)  # noqa: E731
    figure = figures.gene_across_methods(table, fake_params(), "2d", "g", load)
    assert [ax.get_title() for ax in figure.axes if ax.get_title()] == ["measured", "Mean", "Asign"]
    assert [ax.texts[0].get_text() for ax in figure.axes[1:3]] == ["MSE 1.000", "MSE 9.000"]
    assert (
        figure.axes[-1].get_ylabel() == "g in A3 (2d),\nlog proportion"
    )  # A1 is known; the middle of A2, A3
    measured = fake_params()
    measured.known["A"] = "A3"  # known in 3d: its neighbour is shown, in 2d, too
    other = figures.gene_across_methods(table, measured, "2d", "g", load)
    assert "g in A2" in other.axes[-1].get_ylabel()
    missing = figures.gene_across_methods(table, fake_params(), "2d", "h", load)
    assert missing.axes[0].texts[0].get_text() == "h is not in the panel of fold A (2d)"


def off_by(error):
    found = predictions()
    return Predictions(found.truth + error, found.truth, found.genes, found.obs)


def test_no_window_holds_a_figure_so_that_it_is_shown_once():
    plt.close("all")
    figures.training({})
    assert not plt.get_fignums()


def test_a_figure_is_saved_whole_and_the_same_twice(tmp_path):
    one, two = (figures.save(figures.training({}), tmp_path / f"{n}.png") for n in "ab")
    assert one.read_bytes() == two.read_bytes() and imread(one).shape[1] > 100
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]
