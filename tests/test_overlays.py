"""Slides and spots: what stands where; how it looks is seen by eye."""

from dataclasses import replace
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.collections import EllipseCollection, PolyCollection
from matplotlib.figure import Figure

from stlib import overlays
from stlib.alignment import Registration, Score, Stage
from stlib.overlays import lattice
from stlib.sections import Section

PARAMS = SimpleNamespace(name="toy", spot=SimpleNamespace(pitch_um=200, size_um=100))


def test_a_gallery_names_its_images():
    figure = overlays.gallery({f"s{i}": np.zeros((4, 6, 3), np.uint8) for i in range(7)}, columns=4)
    assert isinstance(figure, Figure)
    assert [ax.get_title() for ax in figure.axes] == [f"s{i}" for i in range(7)] + [""]


def section_at(name):
    return Section(
        name=name, patient="S", layer=1, barcodes=np.array(["a"]), genes=np.array(["g"]), counts=None,
        array=np.ones((1, 2)), position=np.array([[300.0, 200.0]]), um_per_px=np.ones(2), size_px=None,
        shape="circle", size_um=100, pitch_um=200,
    )  # fmt: skip


class FakeSlide:
    """A dark square, further right on all but the middle section."""

    um_per_px = np.array([1.0, 1.0])

    def __init__(self, path):
        self.shift = 8 * (path.stem != "S2")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def thumbnail(self, um_per_px):
        image = np.full((40, 60, 3), 255, np.uint8)
        image[10:30, 10 + self.shift : 30 + self.shift] = 50
        return image, np.array([16.0, 16.0])

    def read(self, x, y, w, h):
        return np.full((h, w, 3), 200, np.uint8)


@pytest.fixture
def maps(monkeypatch):
    """Three sections; the outer two go back by 8 px of the thumbnail."""
    sections = {name: section_at(name) for name in ("S1", "S2", "S3")}
    monkeypatch.setattr(overlays, "Slide", FakeSlide)
    monkeypatch.setattr(overlays, "load_sections", lambda params, names: sections)
    rigid = Stage("rigid", Score(), Score(), True)
    back = Registration(np.array([[1.0, 0, -8 * 16], [0, 1, 0]]), np.ones(2), (rigid,))
    return {"S1": back, "S2": Registration(np.eye(2, 3), np.ones(2)), "S3": back}


def test_an_alignment_shows_each_other_section_before_and_after(maps):
    figure = overlays.alignment(PARAMS, ["S1", "S2", "S3"], maps)
    before, aligned = figure.axes[0].images[0].get_array(), figure.axes[3].images[0].get_array()
    assert figure.axes[3].get_title() == "S1 on S2, aligned"
    colour = np.ptp(aligned, axis=2)
    assert np.ptp(before, axis=2).max() > 0.5 and colour.max() < 0.01  # all dark or white once aligned
    spots = [ax.collections[0].get_offsets()[0].tolist() for ax in (figure.axes[2], figure.axes[5])]
    assert spots == [[300, 200], [300 - 128, 200]]


def test_spots_are_drawn_where_they_lie_on_the_neighbour(maps):
    figure = overlays.spots_on_neighbour(PARAMS, ["S1", "S2", "S3"], maps)
    assert [ax.get_title() for ax in figure.axes] == ["spots of S1 on S2", "spots of S3 on S2"]
    (outline,) = figure.axes[0].collections[0].get_paths()
    # the patch is about the middle section's spot at (300, 200), 1200 wide; the map goes back by 128
    low, high = outline.vertices.min(0), outline.vertices.max(0)
    assert (low + high) / 2 == pytest.approx([600 - 128, 600]) and high - low == pytest.approx(
        [100, 100], abs=0.5
    )


def test_the_frame_is_that_of_the_registration_where_the_middle_slide_is_blank(maps):
    """As `register_stack` leaves it: the middle one is put down as it lies, the first one takes its place."""
    maps |= {"S1": maps["S2"], "S2": replace(maps["S2"], ok=False, message="it shows no tissue")}
    stack = ["S1", "S2", "S3"]
    assert overlays.common_frame(stack, maps) == "S1"
    titles = [ax.get_title() for ax in overlays.alignment(PARAMS, stack, maps).axes]
    assert titles == [
        "S2 on S1, as it lies", "S3 on S1, as it lies", "spots as they lie",
        "S2 on S1, not proven", "S3 on S1, aligned", "spots, not all proven",
    ]  # fmt: skip
    titles = [ax.get_title() for ax in overlays.spots_on_neighbour(PARAMS, stack, maps).axes]
    assert titles == ["spots of S2 on S1, not proven", "spots of S3 on S1"]
    blank = dict.fromkeys(stack, maps["S2"])
    assert overlays.common_frame(stack, blank) == "S2"


def test_a_slide_and_its_spots(monkeypatch):
    monkeypatch.setattr(overlays, "Slide", FakeSlide)
    figure = overlays.slide_and_spots(PARAMS, section_at("S2"), np.array([1.0]), "gene")
    assert figure.axes[0].get_title() == "slide S2 and its 1 spots"
    assert figure.axes[-1].get_ylabel() == "gene"


@pytest.mark.parametrize(("shape", "kind"), [("circle", EllipseCollection), ("square", PolyCollection)])
def test_spots_and_bins_are_drawn_in_their_form(monkeypatch, shape, kind):
    monkeypatch.setattr(overlays, "Slide", FakeSlide)
    section = replace(section_at("S2"), shape=shape)
    figure = overlays.slide_and_spots(PARAMS, section, np.array([1.0]), "gene")
    assert [type(drawn) for drawn in figure.axes[0].collections] == [kind]


def test_no_window_holds_a_figure_so_that_it_is_shown_once():
    plt.close("all")
    overlays.gallery({"a": np.zeros((4, 6, 3), np.uint8)})
    assert not plt.get_fignums()


def test_levels_and_sizes_are_drawn_in_true_size(toy_hd):
    from stlib.params import load_params
    from stlib.sections import load_sections

    figure = overlays.levels(toy_hd, load_sections(toy_hd, ["P1"])["P1"])
    left, right = figure.axes
    assert left.get_title() == "P1: 1000 locations of 16 um"
    squares = {patch.get_label(): patch.get_paths()[0].get_extents() for patch in right.collections[1:]}
    um_per_px = 1.02
    for level, extent in squares.items():
        assert extent.width == pytest.approx(toy_hd.levels[level].px * um_per_px, rel=1e-6)
    inner, outer = squares["spot"], squares["global"]
    centre = (inner.x0 + inner.x1) / 2, (inner.y0 + inner.y1) / 2
    assert outer.x0 <= centre[0] < outer.x1 and outer.y0 <= centre[1] < outer.y1
    figure = overlays.sizes([toy_hd, load_params("toy_hd@16um")], "P1")
    assert [ax.get_title() for ax in figure.axes] == ["squares of 16 um"] * 2
    places = [path.get_extents() for path in figure.axes[0].collections[0].get_paths()]
    assert len(places) >= 16 and places[0].width == pytest.approx(16)


@pytest.fixture
def turned(toy_sections):
    array = np.array([[0.0, 0], [3, 0], [0, 5], [2, 2]])
    position = np.stack([100 - 10 * array[:, 1], 20 + 10 * array[:, 0]], 1)  # x from rows, y from columns
    section = toy_sections["P1-1"]
    return replace(section, barcodes=np.array(list("abcd")), array=array, position=position)


def test_every_place_in_a_rectangle_is_there_once(turned):
    array, position = lattice(turned, np.array([75.0, 15.0]), np.array([105.0, 45.0]))
    wanted = {(column, row) for column in (0, 1, 2) for row in (0, 1, 2)}  # x 80 to 100, y 20 to 40
    assert sorted(map(tuple, array.astype(int).tolist())) == sorted(wanted)
    np.testing.assert_allclose(position[:, 0], 100 - 10 * array[:, 1], atol=1e-9)


def test_places_outside_of_it_are_not(turned):
    array, _ = lattice(turned, np.array([75.0, 15.0]), np.array([79.0, 45.0]))
    assert len(array) == 0
