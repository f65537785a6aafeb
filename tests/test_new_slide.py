"""A slide of one's own: known scale or none at all, a copy at the training scale, locations, whose it is."""

import json
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from PIL import Image

from stlib import paths
from stlib.images import tagged_scale
from stlib.locations import draw_squares
from stlib.new_slide import (
    _shown,
    adopt,
    lay_grid,
    locations,
    sampled,
    scale_of,
    tissue_share,
    training_scale,
)
from stlib.params import Sample, Spot
from stlib.slide import Slide, write_pyramid

SPOT = Spot(shape="circle", size_um=100, pitch_um=200)


@pytest.fixture
def house(toy, tmp_path, monkeypatch):
    """The prepared toy in a folder that may be written to."""
    (tmp_path / "processed").mkdir()
    real = paths.processed("toy")
    (tmp_path / "processed" / "toy").mkdir()
    for path in real.iterdir():
        if path.suffix in (".json", ".h5ad", ".tif", ".sha256"):
            (tmp_path / "processed" / "toy" / path.name).symlink_to(path)
    monkeypatch.setattr(paths, "DATA", tmp_path)
    return tmp_path


def flat(path, image, resolution=None, unit="CENTIMETER"):
    tifffile.imwrite(
        path, image, photometric="rgb", resolution=resolution, resolutionunit=unit if resolution else None
    )
    return path


IMAGE = np.full((64, 80, 3), 200, np.uint8)


def test_tags_tell_the_scale_of_pyramids_and_flat_files(tmp_path):
    write_pyramid(IMAGE, tmp_path / "a.tif", (0.5, 0.25))
    np.testing.assert_allclose(tagged_scale(tmp_path / "a.tif"), [0.5, 0.25])
    np.testing.assert_allclose(tagged_scale(flat(tmp_path / "b.tif", IMAGE, (20_000, 40_000))), [0.5, 0.25])
    inch = flat(tmp_path / "c.tif", IMAGE, (50_800, 50_800), "INCH")
    np.testing.assert_allclose(scale_of(inch), [0.5, 0.5])


def test_a_slide_of_unknown_scale_is_refused(tmp_path):
    Image.fromarray(IMAGE).save(tmp_path / "a.jpg", dpi=(96, 96))
    remedy = "Give the scanner's um per px: UM_PER_PX=0.5"
    with pytest.raises(
        ValueError, match=f"a.jpg: the um per px of a slide must be known, and its file.*{remedy}"
    ):
        scale_of(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match="b.tif: the um per px of a slide must be known"):
        scale_of(flat(tmp_path / "b.tif", IMAGE))
    assert scale_of(tmp_path / "a.jpg", "0.7").tolist() == [0.7, 0.7]


@pytest.mark.parametrize(
    ("um", "message"),
    [
        (0.26458, "0.2646 um per px, which is what programs write that know the resolution of a screen"),
        (264.58, r"a scanned slide has 0.05 to 10.0 um per px, its tags say \[264.58, 264.58\]"),
    ],
)
def test_tags_of_a_screen_are_not_believed(tmp_path, um, message):
    path = flat(tmp_path / "a.tif", IMAGE, (10_000 / um, 10_000 / um))
    with pytest.raises(ValueError, match=message):
        scale_of(path)
    with pytest.warns(UserWarning, match="0.2738 by UM_PER_PX: taken"):
        assert scale_of(path, "0.2738").tolist() == [0.2738, 0.2738]


@pytest.mark.parametrize("told", ["half", "0", "-1", "500", "nan"])
def test_what_is_no_scale_is_refused(tmp_path, told):
    with pytest.raises(ValueError, match=f"UM_PER_PX is a number from 0.05 to 10.0, found '{told}'"):
        scale_of(flat(tmp_path / "a.tif", IMAGE), told)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="SLIDE=.*none.tif is no file"):
        scale_of(tmp_path / "none.tif")


def test_a_slide_of_the_training_scale_keeps_its_pixels(house, toy, painted):
    image = painted(640, 480)
    write_pyramid(image, house / "mine.tif", 2.0)
    new = adopt(toy, house / "mine.tif", np.array([2.0, 2.0]), 2.0)
    assert new.title == "mine" and new.section.startswith("new-mine-") and new.patient == ""
    assert new.px.tolist() == [1, 1]
    path = paths.slide_file("toy", new.section)
    with Slide(path) as slide:
        np.testing.assert_array_equal(slide.read(0, 0, 640, 480), image)
    before = path.stat().st_mtime_ns
    assert adopt(toy, house / "mine.tif", np.array([2.0, 2.0]), 2.0).section == new.section
    assert path.stat().st_mtime_ns == before  # not made again


def test_a_slide_of_another_scale_is_rewritten(house, toy, painted, recwarn):
    write_pyramid(painted(1280, 960), house / "mine.tif", 1.0)
    new = adopt(toy, house / "mine.tif", np.array([1.0, 1.0]), 2.0)
    with Slide(paths.slide_file("toy", new.section)) as slide:
        assert slide.size_px.tolist() == [640, 480] and slide.um_per_px == pytest.approx(2)
    assert new.px.tolist() == [2, 2] and not recwarn.list
    with pytest.warns(UserWarning, match="4.000 um per px is coarser than the training sections' 2.000"):
        adopt(toy, house / "mine.tif", np.array([4.0, 4.0]), 2.0)


def test_a_slide_of_another_told_scale_is_another_copy(house, toy, painted):
    write_pyramid(painted(640, 480), house / "mine.tif", 2.0)
    names = [adopt(toy, house / "mine.tif", np.full(2, um), 2.0).section for um in (2.0, 1.99, 1.5)]
    assert len(set(names)) == 3


def test_a_slide_of_the_dataset_is_recognised(house, toy):
    manifest = json.loads((paths.processed("toy") / "manifest.json").read_text())
    assert _shown(toy, manifest["P3-2"]["tif"]) == "P3-2" and _shown(toy, "no such") == ""  # the raw file
    file = paths.slide_file("toy", "P2-1")
    new = adopt(toy, file, np.array([2.0, 2.0]), 2.0)
    assert (new.shows, new.patient) == ("P2-1", "P2")


def test_nothing_is_measured_at_its_locations(house, toy, toy_sections, painted):
    write_pyramid(painted(1200, 900), house / "mine.tif", 2.0)
    new = adopt(toy, house / "mine.tif", np.array([2.0, 2.0]), 2.0)
    section = locations(toy, new, toy_sections["P1-1"])
    assert section.counts.shape == (len(section), 0) and section.patient not in toy.sections
    assert (section.position < section.size_px).all() and len(section) > 10
    assert sampled(toy, section) is section
    some = sampled(toy.model_copy(update={"sample": Sample(number=7, square_um=400)}), section)
    sample = Sample(number=7, square_um=400)  # two pitches: 200 px of 2 um
    assert (
        some.barcodes.tolist()
        == section.barcodes[draw_squares(section.position * 2, sample, section.name)].tolist()
    )
    assert len(some) == some.counts.shape[0] == 7 and set(some.barcodes) < set(section.barcodes)


def test_the_training_scale_is_the_median_and_differences_are_reported(toy_sections):

    some = dict(list(toy_sections.items())[:3])
    assert training_scale(some) == 2.0
    some["P1-1"] = replace(some["P1-1"], um_per_px=np.array([3.0, 3.0]))
    with pytest.warns(
        UserWarning, match="2.000 to 3.000 um per px; the slide is brought to their median, 2.000"
    ):
        assert training_scale(some) == 2.0


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    """2400 um x 1600 um at 2 um per px; stained from x = 800 to 1600 um."""
    image = np.full((800, 1200, 3), 240, np.uint8)
    image[:, 400:800] = (160, 80, 150)
    path = tmp_path_factory.mktemp("slide") / "a.tif"
    write_pyramid(image, path, 2.0)
    with Slide(path) as opened:
        yield opened


def test_a_square_array_by_hand(slide):
    array, position = lay_grid(slide, SPOT, hexagonal=False)
    # 12 columns of 200 um; those with centres at 900, 1100, 1300 and 1500 um lie on tissue; 8 rows
    assert np.unique(array[:, 0]).tolist() == [4, 5, 6, 7] and len(array) == 32
    assert array[0].tolist() == [4, 0] and position[0].tolist() == [450, 50]  # px


def test_a_hexagonal_array_is_shifted_row_by_row(slide):
    array, position = lay_grid(slide, Spot(shape="circle", size_um=55, pitch_um=100), hexagonal=True)
    assert (array.sum(1) % 2 == 0).all()
    first, second = (position[array[:, 1] == row] for row in (2, 3))
    assert np.diff(first[:, 0]).tolist() == [50] * (len(first) - 1)  # 100 um in px
    assert (second[0] - first[0]).round(3).tolist() == [25, 43.301] or (first[0] - second[0])[0] == 25


def test_the_share_of_tissue(slide):
    share = tissue_share(slide, np.array([[600.0, 400], [400, 400], [100, 400]]), 200)  # on, at its edge, off
    assert share[0] == 1 and share[2] == 0 and share[1] == pytest.approx(0.5, abs=0.1)


def test_a_slide_without_tissue_is_refused(tmp_path):
    noise = np.random.default_rng(0).integers(235, 245, (400, 400, 1), dtype=np.uint8).repeat(3, 2)
    write_pyramid(noise, tmp_path / "glass.tif", 2.0)
    with Slide(tmp_path / "glass.tif") as glass:
        with pytest.raises(
            ValueError, match="glass.tif: locations are laid over tissue, found 16 places and none"
        ):
            lay_grid(glass, SPOT, hexagonal=False)
