"""The toy tissue in bins: laid out as Space Ranger does, its bins sums of one another, its truth kept."""

import hashlib
import threading
from dataclasses import replace

import h5py
import numpy as np
import pytest
import tifffile
import yaml
from pyarrow import parquet

from stlib import datasets, paths
from stlib.bins import COLUMNS, read_grid
from stlib.datasets import toy_hd
from stlib.params import Params
from stlib.records import parse
from stlib.slide import Slide
from stlib.tenx import read_matrix
from stlib.toy import Block

SMALL = {
    "size_px": 300,
    "radius_um": 145.0,
    "shift_um": 20.0,
    "genes": 20,
    "bins": 170,
}  # 340 um: 42.5 bins of 8
SIDES = (2, 8, 16)


def small(size="8um", sample=None, **options) -> Params:
    """Return the dataset with two patients and little tissue."""
    content = yaml.safe_load((paths.PARAMS / "toy_hd.yaml").read_text())
    content |= content.pop("sizes")[size]
    content |= {"name": f"toy_hd@{size}", "sections": {"P1": ["P1"], "P2": ["P2"]}, "folds": {}}
    content["source"]["options"] |= SMALL | options
    return parse(Params, content | {"sample": sample}, "params/toy_hd.yaml")


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A house in which the small dataset was made."""
    patch = pytest.MonkeyPatch()
    patch.setattr(paths, "DATA", tmp_path_factory.mktemp("house"))
    toy_hd.fetch(small(), paths.raw("toy_hd"))
    yield paths.raw("toy_hd")
    patch.undo()


@pytest.fixture(scope="module")
def measured():
    """What was measured on P1, and where: places of bins of 8 um, counts and rates."""
    tissue = toy_hd.tissue(small())
    return tissue.spots("P1")[0], *tissue.measure("P1")


def folder(house, side, section="P1"):
    return house / section / "binned_outputs" / f"square_{side:03d}um"


# -- frozen --------------------------------------------------------------------------------------------------


def test_the_tissue_is_frozen(house, measured):
    """Its numbers were fixed before any model was trained on it; who changes them does so knowingly, here."""
    place, counts, rate = measured
    slide = tifffile.imread(house / "P1/tissue_image.btf")
    frozen = {"place": place, "counts": counts, "log rate, 1e-4": np.rint(np.log(rate) * 1e4), "slide": slide}
    lines = [
        f"{hashlib.sha256(np.ascontiguousarray(array, '<i8').tobytes()).hexdigest()}  {name}\n"
        for name, array in frozen.items()
    ]
    assert "".join(lines) == (paths.ROOT / "tests/expected/toy_hd.sha256").read_text()


# -- the files -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", SIDES)
def test_files_are_those_of_space_ranger(house, side):
    names = {str(path.relative_to(folder(house, side))) for path in folder(house, side).rglob("*.*")}
    assert names == {
        "filtered_feature_bc_matrix.h5", "spatial/tissue_positions.parquet", "spatial/scalefactors_json.json"
    }  # fmt: skip
    with h5py.File(folder(house, side) / "filtered_feature_bc_matrix.h5") as file:
        matrix = file["matrix"]
        assert matrix["barcodes"].dtype == "S21" and matrix["data"].dtype == np.int32
        assert matrix["indptr"].dtype == matrix["indices"].dtype == np.int64
        order = [name[9:20] for name in matrix["barcodes"][:].astype(str)]  # rows and columns
        assert order != sorted(order)
    rows = parquet.ParquetFile(folder(house, side) / "spatial/tissue_positions.parquet")
    assert rows.num_row_groups == 1 and tuple(rows.schema_arrow.names) == COLUMNS
    assert str(rows.schema_arrow.field("pxl_row_in_fullres").type) == "double"
    assert rows.metadata.num_rows == {2: 170, 8: 43, 16: 22}[side] ** 2  # the last bins of a row are cut


def test_the_grid_lies_mirrored_turned_and_beyond_the_slide(house):
    grid = read_grid(folder(house, 2) / "spatial/tissue_positions.parquet", 2)
    assert np.linalg.det(grid.matrix[:2]) < 0
    assert grid.um_per_px == pytest.approx(1.02, rel=1e-4)
    assert np.rad2deg(np.arctan2(grid.matrix[0, 1], -grid.matrix[0, 0])) == pytest.approx(1.3, abs=0.01)
    px = grid.to_px(np.array([[0, 0], [340, 0], [0, 340], [340, 340]]))
    assert ((px < 0) | (px > 300)).any(1).all()


def test_bins_are_sums_of_one_another(house):
    found = {}
    for side in SIDES:
        names, genes, counts = read_matrix(folder(house, side) / "filtered_feature_bc_matrix.h5")
        rows, columns = (np.array([int(name[a : a + 5]) for name in names]) for a in (8, 14))
        grid = np.zeros((22, 22, len(genes)), int)
        np.add.at(grid, (rows * side // 16, columns * side // 16), counts.toarray())
        found[side] = grid
        assert genes[0] == "ERBB2"
    np.testing.assert_array_equal(found[2], found[16])
    np.testing.assert_array_equal(found[8], found[16])


def test_the_slide_is_an_uncompressed_bigtiff(house):
    with tifffile.TiffFile(house / "P1/tissue_image.btf") as tiff:
        assert tiff.is_bigtiff and tiff.pages[0].compression == 1 and tiff.pages[0].shape == (300, 300, 3)


# -- the truth -----------------------------------------------------------------------------------------------


def test_bins_of_8_um_have_the_counts_that_were_drawn(house, measured):
    place, counts, rate = measured
    section = toy_hd.read(small(), house, "P1")
    row = {tuple(p): n for n, p in enumerate(place.tolist())}
    at = [row[tuple(p)] for p in section.array.astype(int).tolist()]
    np.testing.assert_array_equal(section.counts.toarray(), counts[at])
    np.testing.assert_allclose(section.rate, rate[at], rtol=1e-3, atol=1e-6)
    assert section.dispersion == pytest.approx(0.35)
    assert 30 < np.median(counts.sum(1)) < 80  # depth: 50


def test_expected_counts_of_any_location_are_sums_of_those_of_its_bins(house, measured):
    place, _, rate = measured
    section = toy_hd.read(small("16um"), house, "P1")
    plain = np.stack([rate[(place // 2 == location).all(1)].sum(0) for location in section.array])
    np.testing.assert_allclose(section.rate, plain, rtol=2e-3, atol=1e-6)
    assert 0.35 / 4 < section.dispersion < 0.35 / 3  # of four bins that are not alike

    section = toy_hd.read(small("55um"), house, "P1")
    fine = np.stack(np.meshgrid(np.arange(170), np.arange(170)), -1).reshape(-1, 2)
    px = toy_hd.tissue(small()).to_px(fine, 2)
    on_slide = ((px >= 0) & (px < 300)).all(1)
    parts = np.zeros(43 * 43)
    np.add.at(parts, fine // 4 @ [1, 43], 1)  # 16 bins of 2 um in one of 8 um, fewer at the edge
    for location, found in zip(section.array, section.rate, strict=True):
        inside = on_slide & (np.hypot(*(fine * 2 + 1 - (location + 0.5) * 55).T) < 27.5)
        number = np.bincount(fine[inside] // 4 @ [1, 43], minlength=43 * 43) / parts
        np.testing.assert_allclose(found, number[place @ [1, 43]] @ rate, rtol=2e-3, atol=1e-6)
    assert 0.35 / 37 < section.dispersion < 0.35 / 25  # the area of a circle is 37 bins


def test_a_bin_that_the_edge_cuts_keeps_its_counts():
    tissue = toy_hd.tissue(small())
    place = np.array([[42, 3], [0, 0], [42, 42]])  # 170 of 2 um: the last of 8 um is half a one
    fine, parent = tissue.children(place)
    assert np.bincount(parent).tolist() == [8, 16, 4] and fine.max() == 169
    counts = np.arange(60).reshape(3, 20)
    fine, split = tissue.split("P1", place, counts)
    np.testing.assert_array_equal(np.stack([split[parent == n].sum(0).A1 for n in range(3)]), counts)
    assert (split[parent == 2].sum(1) > 0).all()  # 1,000 counts reach each of four bins


def test_a_bin_that_the_edge_cuts_keeps_its_rate(house):
    """It has fewer bins of 2 um, and all of them are its own."""
    place = np.array([[42, 3], [0, 0], [42, 42]])
    section = toy_hd.read(small(), house, "P1")
    nothing = {"counts": None, "rate": None, "cells": {}, "barcodes": np.zeros(3, "U1")}
    cut = replace(section, array=place.astype(float), position=np.zeros((3, 2)), **nothing)
    np.testing.assert_allclose(toy_hd._shares(small(), cut, place).toarray(), np.eye(3))


def test_what_lies_around_bins_is_that_of_the_place_itself():
    """A grid with splines tells it; sixty places around each one, counted at both, move it by a few."""
    tissue = toy_hd.tissue(small())
    block, places = tissue.blocks["P1"], tissue.places("P1")
    found, direct = block.tumour_around(places), Block.tumour_around(block, places)
    assert np.abs(found - direct).max() < 4 / 60 and np.abs(found - direct).mean() < 0.01
    with pytest.raises(ValueError, match="places must be those of one section, found z from 0.0 to 48.0 um"):
        block.tumour_around(np.array([[0.0, 0, 0], [0, 0, 48]]))


@pytest.mark.parametrize("size", ["8um", "16um", "55um"])
def test_counts_scatter_about_the_expected_ones_as_they_should(house, size):
    sections = [toy_hd.read(small(size), house, name) for name in ("P1", "P2")]
    rate = np.concatenate([section.rate for section in sections])
    counts = np.concatenate([section.counts.toarray() for section in sections])
    standard = (counts - rate) / np.sqrt(rate + sections[0].dispersion * rate**2)
    assert counts.sum() / rate.sum() == pytest.approx(1, abs=0.03)
    whole = rate.sum(1) > np.median(rate.sum(1)) / 2  # a location that the tissue's edge cuts has fewer bins
    assert standard[whole][rate[whole] > 0.3].var() == pytest.approx(1, abs=0.15)


# -- the making ----------------------------------------------------------------------------------------------


def test_sizes_share_the_files_and_other_options_make_others(house, monkeypatch):
    made = []
    monkeypatch.setattr(toy_hd, "write_raw", lambda folder, *_: made.append(folder.name))
    toy_hd.fetch(small("16um"), house)
    assert made == []
    truth = house / "P2/expected_counts.h5"
    truth.rename(house / "kept")
    toy_hd.fetch(small("16um"), house)
    (house / "kept").rename(truth)
    assert made == ["P1", "P2"]  # a file that was lost is made again
    with pytest.raises(ValueError, match="made from other options than params/toy_hd.yaml; run `make data`"):
        toy_hd.read(small(seed=1), house, "P1")


def test_processes_that_prepare_sizes_at_once_make_each_file_once(house, monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "DATA", tmp_path)
    made, lock = [], threading.Lock()

    def counting(what):
        def count(first, *rest):
            with lock:
                made.append(what)
            return {"raw": write_raw, "slide": write_pyramid}[what](first, *rest)

        return count

    from stlib import slide

    write_raw, write_pyramid = toy_hd.write_raw, slide.write_pyramid
    monkeypatch.setattr(toy_hd, "write_raw", counting("raw"))
    monkeypatch.setattr(slide, "write_pyramid", counting("slide"))

    def work(size):
        params = small(size, {"number": 40, "square_um": 64})
        toy_hd.fetch(params, paths.raw("toy_hd"))
        datasets.prepare(params, paths.raw("toy_hd"))

    threads = [threading.Thread(target=work, args=(size,)) for size in ("8um", "16um")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == ["raw", "raw", "slide", "slide"]  # one of each patient
    for size in ("8um", "16um"):
        assert (paths.processed(f"toy_hd@{size}") / "manifest.json").exists()
    with Slide(paths.slide_file("toy_hd@8um", "P1")) as opened:
        assert opened.size_px.tolist() == [300, 300]


def test_in_a_folder_of_the_users_nothing_is_made(tmp_path):
    with pytest.raises(FileNotFoundError, match="filtered_feature_bc_matrix.h5 is not there"):
        toy_hd.fetch(small(), tmp_path)
    assert not list(tmp_path.iterdir())
