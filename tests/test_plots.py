"""Plots: what is drawn, where, and in which colours; how it looks is seen by eye."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from stlib import plots

NAN = float("nan")


def test_every_method_has_a_colour_of_its_own_and_a_new_one_is_black():
    assert len(set(plots.COLOURS.values())) == len(plots.COLOURS)
    assert plots.colour("asign@no_graph") == plots.colour("asign") != plots.colour("newnet") == "#000000"


def test_a_map_has_round_spots_of_their_size_and_y_downwards(ax):
    positions = np.array([[0.0, 0], [1000, 0], [0, 2000]])
    assert plots.gene_map(np.array([1.0, 2, 3]), positions, ax, 1, 3, 100) is ax
    (spots,) = ax.collections
    np.testing.assert_array_equal(spots.get_offsets(), positions)
    assert (spots.get_widths() == 100).all() and spots.get_clim() == (1, 3) and spots.get_rasterized()
    assert ax.yaxis_inverted() and ax.get_aspect() == 1 and not len(ax.get_xticks()) + len(ax.get_yticks())


@pytest.mark.parametrize(("number", "smooth"), [(plots.MANY, True), (plots.MANY + 1, False)])
def test_spots_of_a_few_pixels_keep_their_colour(ax, number, smooth):
    plots.gene_map(np.zeros(number), np.random.default_rng(0).uniform(0, 9000, (number, 2)), ax, 0, 1, 8)
    assert set(ax.collections[0].get_antialiased()) == {smooth}


def test_the_scale_bar_is_as_long_as_it_says(ax):
    plots.gene_map(np.zeros(2), np.array([[0.0, 0], [6800, 3000]]), ax, 0, 1, 100)
    (bar,) = ax.lines
    assert np.ptp(bar.get_xdata()) == 2000 and ax.texts[0].get_text() == "2000 µm"
    assert bar.get_ydata()[0] > 3100  # below the tissue


def test_outlines_are_as_wide_as_the_spots_and_named(ax):
    plots.outlines(np.array([[0.0, 0], [500, 0]]), 100, ax, "red", "A1")
    (spots,) = ax.collections
    assert (spots.get_widths() == 100).all() and spots.get_label() == "A1" and ax.get_aspect() == 1
    assert ax.get_xlim() == (0, 1)


def test_a_picture_is_measured_in_um(ax):
    plots.picture(np.zeros((10, 20, 3), np.uint8), np.array([2.0, 3.0]), ax)
    assert ax.images[0].get_extent() == [0, 40, 30, 0]


def test_glass_is_no_ink(ax):
    grey = np.full((10, 10, 3), 230, np.uint8)
    stained = grey.copy()
    stained[:5] = 100
    image = plots.overlay(grey, stained, ax).images[0].get_array()
    assert (image[5:] == 1).all() and (image[:5, :, 0] < 0.5).all()


def test_limits_are_shared_and_never_empty():
    low, high = plots.shared_limits(np.arange(101.0), np.full(3, 50.0), np.array([NAN]))
    assert low == pytest.approx(1, abs=0.1) and high == pytest.approx(99, abs=0.1)
    assert plots.shared_limits(np.full(4, 2.0)) == (2, 3)


def test_an_overlay_is_dark_where_both_are_and_coloured_where_one_is(ax):
    fixed, moving = np.full((1, 4, 3), 255, np.uint8), np.full((1, 4, 3), 255, np.uint8)
    fixed[0, [0, 1]] = 55
    moving[0, [1, 2]] = 55
    image = plots.overlay(fixed, moving, ax).images[0].get_array()
    np.testing.assert_allclose(image[0], [plots.FIXED, [0, 0, 0], plots.MOVING, [1, 1, 1]], atol=1e-12)
    with pytest.raises(ValueError, match=r"two images of one size, found \(1, 4, 3\) and \(1, 3, 3\)"):
        plots.overlay(fixed, moving[:, :3], ax)


def history():
    rows = [
        ("choose", 0, 3.0, 1.0),
        ("choose", 1, 2.0, 0.5),
        ("choose", 2, 1.0, 0.8),
        ("final", 0, 3.0, NAN),
        ("final", 1, 2.0, NAN),
    ]
    return pd.DataFrame(rows, columns=["stage", "epoch", "loss", "validation"]).assign(fold="A")


def test_curves_mark_the_epoch_that_was_chosen(ax):
    plots.curves(history(), ax, "validation")
    line, best = ax.lines
    assert list(line.get_xdata()) == [1, 2, 3] and (best.get_xdata()[0], best.get_ydata()[0]) == (2, 0.5)


def test_the_style_has_printed_sizes():
    assert 7 <= plt.rcParams["font.size"] <= 8 and plt.rcParams["pdf.fonttype"] == 42
    figure, _ = plots.grid(1, 1, plots.DOUBLE_MM, 25.4)
    assert figure.get_size_inches() == pytest.approx([7.2, 1], abs=0.01)
    assert to_rgb(plots.colour("asign")) == pytest.approx(tuple(plots.FIXED), abs=0.01)
