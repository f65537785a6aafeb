"""Spots that were measured on a slide of one's own: where they lie on its copy, and what is refused."""

from dataclasses import replace

import lab
import numpy as np
import pytest
from PIL import Image
from scipy import sparse

from stlib import paths
from stlib.measured import measured_spots, recognised
from stlib.new_slide import NewSlide
from stlib.params import Sample


@pytest.fixture
def own(toy, toy_sections, tmp_path):
    """P1-1 as if it were new, at half the px of the file it came from; and what reads its spots."""
    section = toy_sections["P1-1"]
    new = NewSlide("mine", "P1-1", np.array([1.0, 1.0]), np.array([2.0, 2.0]), "", "")
    Image.new("RGB", tuple(2 * section.size_px)).save(tmp_path / "mine.png")
    table = lab.adata(replace(section, position=2 * section.position, um_per_px=new.um_per_px))

    def read(params=toy, name="spots.h5ad", **changes):
        for key, value in changes.items():
            setattr(table, key, value)
        table.write_h5ad(tmp_path / "spots.h5ad")
        return measured_spots(params, new, tmp_path / "mine.png", tmp_path / name, section)

    return section, table, read


def test_spots_lie_on_the_copy_of_the_slide(own):
    section, _, read = own
    found = read()
    np.testing.assert_allclose(found.position, section.position)
    np.testing.assert_array_equal(found.counts.toarray(), section.counts.toarray())
    assert found.name == "P1-1" and found.patient == "new mine"
    assert found.size_px.tolist() == section.size_px.tolist() and found.um_per_px.tolist() == [2, 2]
    assert 0.5 < found.facts["on_tissue"] < 1  # painted tissue has holes


def test_places_without_an_array_are_counted_in_pitches(own, toy):
    section, table, read = own
    del table.obs["array_col"]
    np.testing.assert_allclose(read().array, section.position * 2 / 200)
    bins = toy.model_copy(update={"sample": Sample(number=9, square_um=400)})
    with pytest.raises(
        ValueError, match=r"spots.h5ad: bins of a whole slide have whole columns and rows, obs"
    ):
        read(bins)


@pytest.mark.parametrize("part", ["outs", ""])
def test_space_ranger_is_read_by_its_own_reader(tmp_path, monkeypatch, part):
    one, params = lab.section(), lab.params("folder")  # trained on another lab's files
    monkeypatch.setattr(paths, "DATA", tmp_path / "data")
    lab.write_slide(paths.slide_file("mine", "new-scan"))
    lab.space_ranger(tmp_path, one)
    new = NewSlide("scan", "new-scan", np.full(2, lab.UM), np.ones(2), "", "")
    slide, spots = tmp_path / "S1" / "scan.tif", tmp_path / "S1" / part
    lab.same(measured_spots(params, new, slide, spots, one), replace(one, patient="new scan"))
    (tmp_path / "S1/outs/filtered_feature_bc_matrix.h5").unlink()
    with pytest.raises(
        FileNotFoundError, match="or the folder outs of Space Ranger; found none at .*matrix.h5"
    ):
        measured_spots(params, new, slide, spots, one)
    Image.new("RGB", (700, 750)).save(tmp_path / "small.png")
    lab.space_ranger(tmp_path, one)
    with pytest.raises(ValueError, match=r"has 1500 px along its longer side; found \[700, 750\]"):
        measured_spots(params, new, tmp_path / "small.png", spots, one)


def outside(table):
    table.obsm["spatial"] = table.obsm["spatial"] + [2000, 0]


def of_the_copy(table):
    table.obsm["spatial"] = table.obsm["spatial"] / 2


def normalised(table):
    table.X = table.X * 0.5


def negative(table):
    table.X = -table.X


def empty(table):
    table.X = sparse.csr_matrix(table.shape, dtype=np.int32)


def without_counts(table):
    del table.X


def without_places(table):
    del table.obsm["spatial"]


def off_tissue(table):
    table.obs["in_tissue"] = 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (outside, r"spots.h5ad: spots lie on the slide \(3360 x 3360 px\); section .* has \d+ spot\(s\)"),
        (
            of_the_copy,
            r"spots are 200 um apart, as .*; found 100 um at 1.0000 um per px. .* correct UM_PER_PX",
        ),
        (normalised, r"counts are whole numbers from 0 up; found values such as .*\.5.* Write raw counts"),
        (negative, r"counts are whole numbers from 0 up; found values such as \[-\d+"),
        (empty, r"each spot has counts; .* has 138 spot\(s\) that break this"),
        (without_counts, r"raw counts stand in X or layers\[.counts.\]; found neither. Add them"),
        (without_places, r"obsm\[.spatial.\] holds the centres of spots in level-0 px; found \[\]. Add it"),
        (off_tissue, r"two spots or more lie under tissue, found 0. Check in_tissue"),
    ],
)
def test_what_cannot_be_scored_is_refused(own, change, message):
    _, table, read = own
    change(table)
    with pytest.raises(ValueError, match=message):
        read()


def test_a_missing_file_is_named(own):
    with pytest.raises(FileNotFoundError, match="SPOTS is an .h5ad .* found no such thing at .*none.h5ad"):
        own[2](name="none.h5ad")


def test_a_scale_that_contradicts_the_slide_is_reported(own):
    _, table, read = own
    table.uns["um_per_px"] = np.array([2.0, 2.0])
    with pytest.warns(
        UserWarning, match=r"\[2.0, 2.0\] um per px by its spots, \[1.0, 1.0\] by the slide: taken"
    ):
        read()


def test_a_slide_that_lies_otherwise_than_its_spots_is_reported(own):
    section, _, read = own
    turned = 2 * (section.size_px - section.position)[:, ::-1]
    with pytest.warns(UserWarning, match="of its spots lie on tissue, .* if the slide were"):
        read(obsm={"spatial": turned})


def test_the_counts_tell_whose_slide_it_is(own, toy, toy_sections):
    """The file was written anew, rows stand in another order under other names, and genes are missing."""
    _, table, read = own
    new = NewSlide("mine", "P1-1", np.ones(2), np.ones(2), "", "")
    found = read()
    rows = np.random.default_rng(0).permutation(len(found))[:100]
    some = replace(
        found,
        barcodes=np.array([f"B{row}" for row in rows]),
        counts=found.counts[rows][:, 20:],
        genes=found.genes[20:],
    )
    for spots in (found, some):
        known = recognised(toy, new, spots, toy_sections)
        assert (known.shows, known.patient) == ("P1-1", "P1")
    others = {name: section for name, section in toy_sections.items() if name != "P1-1"}
    assert recognised(toy, new, found, others) == new
    one = replace(found, counts=found.counts[:, :1], genes=found.genes[:1])  # small numbers are anybody's
    assert recognised(toy, new, one, others) == new
    assert recognised(toy, new, replace(found, genes=np.char.add("x", found.genes)), toy_sections) == new
