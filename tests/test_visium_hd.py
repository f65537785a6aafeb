"""The reader of Visium HD on small folders in Space Ranger's layout: each trap, and what is refused."""

import json

import numpy as np
import pytest
import tifffile
import yaml
from scipy import sparse
from test_bins import write as write_table
from test_tenx import write_matrix

from stlib import datasets, paths
from stlib.bins import COLUMNS, format_names
from stlib.datasets import visium_hd
from stlib.graph import grid_parents
from stlib.locations import draw_squares
from stlib.params import Params
from stlib.records import parse
from stlib.sections import content_hash, read_section, write_section

UM_PER_PX = 0.5
SIZE = (300, 260)  # of the slide, px: width and height
GENES = ["ENSG00000197971", "ENSG00000132639", "ENSG00000141736"]
TURN = np.deg2rad(1.5)


def mapping(side_um, mirrored=True, corner=(297.3, 7.1)):
    """Return px per um of column and of row, and the corner (3, 2)."""
    sign = -1 if mirrored else 1
    axes = [[sign * np.cos(TURN), np.sin(TURN)], [-sign * np.sin(TURN), np.cos(TURN)]]
    return np.vstack([np.array(axes) / UM_PER_PX, corner])


def fine(bins=70, seed=0):
    """Return places of the bins of 2 um under tissue (N, 2) and their counts (N, 3): whole bins of 8 um."""
    rng = np.random.default_rng(seed)
    place = np.stack(np.meshgrid(np.arange(bins), np.arange(bins)), -1).reshape(-1, 2)
    under = np.hypot(*((place // 4 + 0.5) - bins / 8).T) < bins / 9
    return place[under], rng.poisson([0.5, 0.2, 0.02], (under.sum(), 3))


def write(
    folder,
    section="S1",
    sides=(2, 8, 16),
    bins=70,
    tissue=None,
    matrix=None,
    order=0,
    image=SIZE,
    factors=None,
):
    """Write the files of a section; `order` is the seed of the matrix's order, None for that of the grid."""
    place, counts = tissue or fine(bins)
    matrix = mapping(2) if matrix is None else matrix
    for side in sides:
        at = folder / section / "binned_outputs" / f"square_{side:03d}um"
        number = -(-bins * 2 // side)
        every = np.stack(np.meshgrid(np.arange(number), np.arange(number)), -1).reshape(-1, 2)
        parent, index = np.unique(place // (side // 2), axis=0, return_inverse=True)
        ones = np.ones(len(place), int)
        total = sparse.csr_matrix((ones, (index.ravel(), np.arange(len(place))))) @ counts
        rows = np.arange(len(parent))
        if order is not None:
            rows = np.random.default_rng(order).permutation(rows)
        table = np.vstack([total[rows].T, np.full(len(rows), 99)])  # the last feature is an antibody
        kinds = ["Gene Expression"] * 3 + ["Antibody Capture"]
        names = format_names(side, parent[rows]).tolist()
        write_matrix(at / "filtered_feature_bc_matrix.h5", table, names, [*GENES, "CD3"], kinds)
        px = (every + 0.5) * side @ matrix[:2] + matrix[2]
        inside = np.isin(every @ [1, 100000], parent @ [1, 100000]).astype(np.int64)
        columns = [format_names(side, every), inside, every[:, 1], every[:, 0], px[:, 1], px[:, 0]]
        write_table(at / "spatial/tissue_positions.parquet", dict(zip(COLUMNS, columns, strict=True)))
        content = {
            "spot_diameter_fullres": side / UM_PER_PX, "bin_size_um": float(side),
            "microns_per_pixel": UM_PER_PX, "tissue_hires_scalef": 6000 / max(image),
        } | (factors or {})  # fmt: skip
        content = {key: value for key, value in content.items() if value is not None}
        (at / "spatial/scalefactors_json.json").write_text(json.dumps(content))
    pixels = np.full((image[1], image[0], 3), 200, np.uint8)
    tifffile.imwrite(
        folder / section / "tissue_image.btf",
        pixels,
        bigtiff=True,
        resolution=(96, 96),
        resolutionunit="INCH",
    )
    return folder


def tiny(size="8um", sample=None, options=None, **changes) -> Params:
    """Return the parameters of a private dataset with one section at one size."""
    content = yaml.safe_load((paths.PARAMS / "vumc_hd.yaml").read_text())
    content |= content.pop("sizes")[size]
    level = {"px": 20, "out_px": 20}
    content |= {
        "name": f"tiny@{size}", "sections": {"K": ["S1"]}, "folds": {}, "sample": sample, "expect": None,
        "levels": {"spot": level, "region": level | {"px": 40}, "global": level | {"px": 100}},
    }  # fmt: skip
    content["source"] = content["source"] | {"options": options or {}}
    return parse(Params, content | changes, "params/tiny.yaml")


def square(side):
    return {"shape": "square", "size_um": side, "pitch_um": side}


SPOTS = {"shape": "circle", "size_um": 24, "pitch_um": 30}


def plain(spot, tissue, matrix):
    """Sum bins of 2 um location by location: (column, row) -> counts, and the centre on the slide."""
    place, counts = tissue
    found = {}
    for (column, row), own in zip(place, counts, strict=True):
        centre = np.array([column, row]) * 2.0 + 1
        location = tuple(int(v) for v in centre // spot["pitch_um"])
        middle = (np.array(location) + 0.5) * spot["pitch_um"]
        px = middle @ matrix[:2] + matrix[2]
        own_px = centre @ matrix[:2] + matrix[2]
        if spot["shape"] == "circle":
            if (
                np.hypot(*(centre - middle)) >= spot["size_um"] / 2
                or not ((own_px >= 0) & (own_px < SIZE)).all()
            ):
                continue
        if ((px >= 0) & (px < SIZE)).all():
            found.setdefault(location, [np.zeros(3, int), px])[0] += own
    return {location: values for location, values in found.items() if values[0].any()}


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    return write(tmp_path_factory.mktemp("clean"))


# -- what is read --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spot", [square(2), square(8), square(16), SPOTS], ids=["2", "8", "16", "circles"])
def test_locations_are_plain_sums_of_bins_at_their_places(clean, spot):
    section = visium_hd.read(tiny(spot=spot), clean, "S1")
    wanted = plain(spot, fine(), mapping(2))
    order = sorted(wanted, key=lambda location: location[::-1])  # row by row
    assert section.array.tolist() == [list(location) for location in order]
    assert section.counts.toarray().tolist() == [wanted[location][0].tolist() for location in order]
    np.testing.assert_allclose(section.position, [wanted[location][1] for location in order], atol=6e-4)
    assert section.barcodes[0] == f"s_{spot['size_um']:03d}um_{order[0][1]:05d}_{order[0][0]:05d}-1"
    assert section.genes.tolist() == GENES  # by id, no antibody
    assert (section.name, section.patient, section.layer) == ("S1", "K", 1)
    assert (section.shape, section.size_um, section.pitch_um) == tuple(spot.values())
    np.testing.assert_array_equal(section.size_px, SIZE)


def test_bins_may_lie_in_outs_beside_the_slide(clean, tmp_path):
    write(tmp_path)
    (tmp_path / "S1/outs").mkdir()
    (tmp_path / "S1/binned_outputs").rename(tmp_path / "S1/outs/binned_outputs")
    visium_hd.require(tiny(), tmp_path)
    found = visium_hd.read(tiny(), tmp_path, "S1")
    assert content_hash(found) == content_hash(visium_hd.read(tiny(), clean, "S1"))


def test_slides_of_a_patient_stand_as_the_params_file_lists_them(clean):
    assert visium_hd.read(tiny(sections={"K": ["S9", "S1"]}), clean, "S1").layer == 2


def test_the_scale_is_that_of_the_json_and_not_the_96_dpi_of_the_slide(clean):
    assert visium_hd.read(tiny(), clean, "S1").um_per_px.tolist() == [0.5, 0.5]


@pytest.mark.parametrize("size", [2, 8, 16])
def test_columns_run_to_the_left_and_rows_down(clean, size):
    section = visium_hd.read(tiny(spot=square(size)), clean, "S1")
    middle = section.array - section.array.mean(0), section.position - section.position.mean(0)
    assert (middle[0][:, 0] * middle[1][:, 0]).sum() < 0 < (middle[0][:, 1] * middle[1][:, 1]).sum()


def test_bins_outside_the_slide_are_dropped_and_counted(clean):
    section = visium_hd.read(tiny(), clean, "S1")
    assert ((section.position >= 0) & (section.position < SIZE)).all()
    outside = section.facts["bins_outside_slide"]
    under = len(np.unique(fine()[0] // 4, axis=0))
    assert section.facts == {
        "bin_um": 8, "bins": under, "bins_outside_slide": outside, "locations": len(section)
    }  # fmt: skip
    assert 0 < outside == under - len(section)
    everything = visium_hd.read(tiny(), clean, "S1", slide=False)
    assert len(everything) == under and everything.size_px is None


def test_cells_hold_all_that_was_measured_in_them(clean):
    params = tiny(sample={"number": 30, "square_um": 32})
    section, whole = (visium_hd.read(p, clean, "S1") for p in (params, tiny()))
    assert len(section) == 30 < len(whole)
    for level, px in (("region", 40), ("global", 100)):
        _, index = grid_parents(section.position, px)
        np.testing.assert_array_equal(section.cells[level].index, index)
        own = [tuple(cell) for cell in index]
        summed = np.zeros((len(own), 3), int)
        for position, counts in zip(whole.position, whole.counts.toarray(), strict=True):
            if (cell := tuple(np.floor(position / px).astype(int))) in own:
                summed[own.index(cell)] += counts
        np.testing.assert_array_equal(section.cells[level].counts.toarray(), summed)
        assert summed.sum() > section.counts.sum()


def test_where_every_location_is_listed_cells_say_nothing_more(clean):
    assert visium_hd.read(tiny(), clean, "S1").cells == {}
    part = visium_hd.read(tiny(options={"roi_px": {"S1": [100, 60, 220, 150]}}), clean, "S1")
    assert part.cells.keys() == {"region", "global"}  # those at its edge reach beyond it


def test_all_bins_under_tissue_tell_how_the_slide_lies(clean):
    places = visium_hd.under_tissue(tiny(sample={"number": 5, "square_um": 8}), clean, "S1")
    whole = visium_hd.read(tiny(), clean, "S1").position
    assert set(map(tuple, whole)) <= set(map(tuple, places)) and len(places) < 1.1 * len(whole)


def test_cells_of_pseudo_spots_hold_the_bins_between_them_too(clean):
    section = visium_hd.read(tiny(spot=SPOTS), clean, "S1")
    place, counts = fine()
    px = np.round((place * 2 + 1) @ mapping(2)[:2] + mapping(2)[2], 3)
    on_slide = ((px >= 0) & (px < SIZE)).all(1)
    for level, side in (("region", 40), ("global", 100)):
        for cell, own in zip(section.cells[level].index, section.cells[level].counts.toarray(), strict=True):
            inside = on_slide & (np.floor(px / side) == cell).all(1)
            np.testing.assert_array_equal(own, counts[inside].sum(0))


# -- what makes no difference --------------------------------------------------------------------------------


@pytest.mark.parametrize("spot", [square(8), square(16), SPOTS], ids=["8", "16", "circles"])
def test_the_order_of_matrix_and_positions_makes_none(clean, tmp_path, spot):
    reference = visium_hd.read(tiny(spot=spot), clean, "S1")
    other = write(tmp_path, order=7)
    for path in tmp_path.rglob("*.parquet"):
        from pyarrow import parquet

        rows = parquet.read_table(path)
        shuffled = rows.take(np.random.default_rng(1).permutation(len(rows)))
        parquet.write_table(shuffled, path, row_group_size=len(rows))
    assert content_hash(visium_hd.read(tiny(spot=spot), other, "S1")) == content_hash(reference)


@pytest.mark.parametrize("size", [8, 16])
@pytest.mark.parametrize("sample", [None, {"number": 20, "square_um": 32}], ids=["all", "sample"])
def test_it_makes_none_from_which_bins_paved_locations_are_summed(clean, tmp_path, size, sample):
    params = tiny(spot=square(size), sample=sample)
    reference = visium_hd.read(params, clean, "S1")
    alone = visium_hd.read(params, write(tmp_path, sides=(2,)), "S1")
    assert (reference.facts["bin_um"], alone.facts["bin_um"]) == (size, 2)  # the choice is recorded
    assert content_hash(alone) == content_hash(reference)


def test_a_grid_that_is_not_mirrored_gives_the_same_places(clean, tmp_path):
    place, counts = fine()
    bins = 72  # whole bins of 8 um, so that both grids pave alike
    there = mapping(2)
    width = np.array([bins * 2.0, 0])
    straight = np.vstack([-there[0], there[1], there[2] + width @ there[:2]])  # columns from the other side
    one = visium_hd.read(tiny(), write(tmp_path / "a", bins=bins, tissue=(place, counts), matrix=there), "S1")
    mirrored = np.column_stack([bins - 1 - place[:, 0], place[:, 1]])
    other = write(tmp_path / "b", bins=bins, tissue=(mirrored, counts), matrix=straight)
    other = visium_hd.read(tiny(), other, "S1")
    rows = [np.lexsort(section.position.round(1).T) for section in (one, other)]
    np.testing.assert_allclose(one.position[rows[0]], other.position[rows[1]], atol=2e-3)
    np.testing.assert_array_equal(one.counts[rows[0]].toarray(), other.counts[rows[1]].toarray())


def test_the_size_of_a_block_makes_none_not_even_in_the_file(clean, tmp_path):
    params = tiny(spot=square(16), sample={"number": 15, "square_um": 32})
    for block in (11, 64, 10**6):
        write_section(tmp_path / f"{block}.h5ad", visium_hd.read(params, clean, "S1", block=block))
    files = [path.read_bytes() for path in sorted(tmp_path.glob("*.h5ad"))]
    assert len(files) == 3 and len(set(files)) == 1
    again = read_section(tmp_path / "11.h5ad")
    assert content_hash(again) == content_hash(visium_hd.read(params, clean, "S1"))


# -- what is chosen ------------------------------------------------------------------------------------------


def test_pseudo_spots_are_made_of_the_smallest_bins(clean, tmp_path):
    spot = {"shape": "circle", "size_um": 40, "pitch_um": 40}
    assert visium_hd.read(tiny(spot=spot), clean, "S1").facts["bin_um"] == 2
    coarse = write(tmp_path, sides=(8, 16))
    assert visium_hd.read(tiny(spot=spot), coarse, "S1").facts["bin_um"] == 8
    with pytest.raises(FileNotFoundError, match="square_002um/filtered_feature_bc_matrix.h5 is not there"):
        visium_hd.read(tiny(spot=SPOTS), coarse, "S1")  # 24 um are three bins of 8 um
    with pytest.raises(FileNotFoundError, match="square_002um/filtered"):
        visium_hd.read(tiny(spot=square(2)), coarse, "S1")
    with pytest.raises(ValueError, match="a location is made of whole bins.*found a square of 5.0 um"):
        visium_hd.read(tiny(spot=square(5)), clean, "S1")


def test_the_last_half_bins_are_locations(tmp_path):
    place = np.stack(np.meshgrid(np.arange(66, 70), np.arange(30, 34)), -1).reshape(
        -1, 2
    )  # 70 of 2 um: 17.5 of 8
    tissue = place, np.ones((16, 3), int)
    section = visium_hd.read(tiny(), write(tmp_path, tissue=tissue, matrix=mapping(2, corner=(295, 5))), "S1")
    assert section.array.tolist() == [[16, 7], [17, 7], [16, 8], [17, 8]]
    assert section.counts.toarray()[:, 0].tolist() == [4, 4, 4, 4]


def test_locations_without_counts_are_left_out(tmp_path):
    place, counts = fine()
    empty = (place // 4 == (8, 8)).all(1)
    section = visium_hd.read(
        tiny(), write(tmp_path, tissue=(place, np.where(empty[:, None], 0, counts))), "S1"
    )
    assert empty.any() and [8, 8] not in section.array.tolist()


def test_a_region_of_interest_in_px_or_um(clean):
    whole = visium_hd.read(tiny(), clean, "S1")
    inside = ((whole.position >= (100, 60)) & (whole.position < (220, 150))).all(1)
    by_px = visium_hd.read(tiny(options={"roi_px": {"S1": [100, 60, 220, 150]}}), clean, "S1")
    by_um = visium_hd.read(tiny(options={"roi_um": {"S1": [50, 30, 110, 75]}}), clean, "S1")
    assert 0 < inside.sum() < len(whole)
    assert by_px.barcodes.tolist() == by_um.barcodes.tolist() == whole.barcodes[inside].tolist()
    with pytest.raises(ValueError, match=r"a region of interest is x0, y0, x1, y1.*section 'S1' has \[\[5"):
        visium_hd.read(tiny(options={"roi_px": {"S1": [5.0, 5.0, 1.0, 9.0]}}), clean, "S1")
    with pytest.raises(ValueError, match="has locations with counts on its slide.*found none"):
        visium_hd.read(tiny(options={"roi_px": {"S1": [0.0, 0.0, 1.0, 1.0]}}), clean, "S1")


def test_a_sample_is_drawn_among_locations_with_counts(clean):
    params = tiny(sample={"number": 20, "square_um": 16})
    section = visium_hd.read(params, clean, "S1")
    _, number = np.unique(section.array // 2, axis=0, return_counts=True)  # squares of 2 x 2
    assert len(section) == 20 and (number <= 4).all() and (number == 4).sum() >= 2
    whole = visium_hd.read(tiny(), clean, "S1")
    drawn = draw_squares((whole.array + 0.5) * 8, params.sample, "S1")
    assert section.barcodes.tolist() == whole.barcodes[drawn].tolist()


def test_another_release_of_a_slide_is_reported(clean):
    with pytest.warns(UserWarning, match="section 'S1': [0-9]+ bins of 8 um under tissue; expected 7. It"):
        visium_hd.read(tiny(options={"bins": {"S1": {8: 7}}}), clean, "S1")


# -- what is refused -----------------------------------------------------------------------------------------


def broken(tmp_path, **changes):
    return write(tmp_path, sides=(8,), **changes)


def file(folder, name):
    return folder / "S1/binned_outputs/square_008um" / name


def test_a_scale_that_is_missing_is_that_of_the_grid_and_reported(tmp_path):
    folder = broken(tmp_path, factors={"microns_per_pixel": None})
    with pytest.warns(UserWarning, match="no microns_per_pixel; 0.50000 um per px are taken from the pitch"):
        section = visium_hd.read(tiny(), folder, "S1")
    assert section.um_per_px == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        (
            {"spot_diameter_fullres": 16.1},
            r"spot_diameter_fullres is bin_size_um / microns_per_pixel; found 16\.1",
        ),
        ({"bin_size_um": 2.0}, "bin_size_um is that of the folder, 8; found 2.0"),
        (
            {"bin_size_um": None},
            "JSON with the numbers bin_size_um and spot_diameter_fullres; found KeyError",
        ),
        (
            {"microns_per_pixel": 0.2646, "spot_diameter_fullres": 8 / 0.2646},
            "microns_per_pixel is that of the positions, 0.50000; found 0.2646",
        ),
    ],
)
def test_scales_that_contradict_each_other(tmp_path, factors, message):
    with pytest.raises(ValueError, match=f"scalefactors_json.json: {message}"):
        visium_hd.read(tiny(), broken(tmp_path, factors=factors), "S1")


def test_a_slide_of_another_size_is_refused(tmp_path):
    with pytest.raises(ValueError, match="the slide has 400 px along its longer side; found .300, 260."):
        visium_hd.read(tiny(), broken(tmp_path, factors={"tissue_hires_scalef": 15.0}), "S1")


@pytest.mark.fault(
    "a file of Visium HD that is missing or cut off", "each of its files", "an error that names it"
)
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("filtered_feature_bc_matrix.h5", "damaged, or no feature-barcode matrix of 10x"),
        ("spatial/tissue_positions.parquet", "a whole Parquet file"),
        ("spatial/scalefactors_json.json", "JSON with the numbers"),
    ],
)
def test_a_file_that_is_missing_or_truncated_is_named(tmp_path, name, message):
    path = file(broken(tmp_path), name)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=f"{path.name}: {message}"):
        visium_hd.read(tiny(), tmp_path, "S1")
    path.unlink()
    with pytest.raises(FileNotFoundError, match=f"{path.name} is not there"):
        visium_hd.read(tiny(), tmp_path, "S1")


def test_bins_without_a_place_under_tissue_are_refused(tmp_path):
    path = file(broken(tmp_path), "filtered_feature_bc_matrix.h5")
    write_matrix(path, np.ones((3, 2), int), ["s_008um_00008_00008-1", "s_008um_00000_00000-1"], GENES)
    with pytest.raises(
        ValueError, match=r"has a position under tissue; found 1 without, e.g. \['s_008um_00000_00"
    ):
        visium_hd.read(tiny(), tmp_path, "S1")
    write_matrix(path, np.ones((3, 2), int), ["s_008um_00008_00008-1"] * 2, GENES)
    with pytest.raises(ValueError, match="each barcode occurs once; found 1 repeated"):
        visium_hd.read(tiny(), tmp_path, "S1")
    write_matrix(path, np.ones((3, 1), int), ["s_002um_00008_00008-1"], GENES)
    with pytest.raises(ValueError, match="square_008um has bins of 8 um; found 2 um"):
        visium_hd.read(tiny(), tmp_path, "S1")


def test_private_data_says_so(tmp_path):
    with pytest.raises(
        FileNotFoundError, match="tiny: this data is not public.*Write the names of your sections"
    ):
        visium_hd.fetch(tiny(), tmp_path)
    visium_hd.fetch(tiny(), write(tmp_path))  # a folder of the user's


# -- the house -----------------------------------------------------------------------------------------------


def test_sizes_share_the_slide_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "DATA", tmp_path / "house")
    raw = write(tmp_path / "raw")
    found = {}
    for size in (8, 16):
        params = tiny(spot=square(size), name=f"tiny@{size}um", sample={"number": 30, "square_um": 64})
        found[size] = datasets.prepare(params, raw)["S1"]
        assert len(read_section(paths.section_file(params.name, "S1"))) == 30
    assert found[8]["tif"] == found[16]["tif"] and found[8]["h5ad"] != found[16]["h5ad"]
    assert [path.name for path in sorted(paths.processed("tiny").glob("*.tif"))] == ["S1.tif"]
    assert not list(paths.processed("tiny@8um").glob("*.tif"))


def test_no_slide_is_read_twice_and_none_is_of_another_stain():
    for name in ("crc_hd", "breast_hd", "mouse_brain_hd"):
        remote = yaml.safe_load((paths.PARAMS / f"{name}.yaml").read_text())["source"]["options"]["remote"]
        slides = [place.split("/")[1] for place in remote.values()]
        assert "Visium_HD_Human_Breast_Cancer_FFPE" not in slides  # immunofluorescence
        assert len({place.removesuffix("_P2") for place in slides}) == len(slides)  # the demo slide is P2
