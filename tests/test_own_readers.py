"""A lab's own files: round trips through every shape, each trap, and what is said of broken folders."""

import json

import lab
import numpy as np
import pytest
import tifffile

from stlib.datasets import folder, hest, reader, visium
from stlib.sections import read_section, write_section

ONE = lab.section()


# -- round trips: slide + AnnData -> shape -> reader -> equal section ----------------------------------------


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("home", ["outs", "."])
def test_space_ranger(tmp_path, version, home):
    found = visium.read(lab.params("visium"), lab.space_ranger(tmp_path, ONE, version, home), "S1")
    lab.same(found, ONE)


def test_a_prefix_of_the_sample_is_allowed(tmp_path):
    lab.same(visium.read(lab.params("visium"), lab.space_ranger(tmp_path, ONE, prefix="P1_"), "S1"), ONE)


def test_a_plain_folder(tmp_path):
    lab.same(folder.read(lab.params("folder"), lab.plain(tmp_path, ONE), "S1"), ONE)


@pytest.mark.filterwarnings("ignore:Writing zarr v2", "ignore:zarr v3", "ignore:Consolidated metadata")
@pytest.mark.parametrize("version", [2, 3])
def test_a_spatialdata_store(tmp_path, version):
    lab.same(folder.read(lab.params("folder"), lab.spatialdata(tmp_path, ONE, version), "S1"), ONE)


def test_hest(tmp_path):
    lab.same(hest.read(lab.params("hest"), lab.hest(tmp_path, ONE), "S1"), ONE)


def test_what_the_house_wrote_is_a_plain_folder(tmp_path):
    write_section(tmp_path / "S1.h5ad", ONE)
    lab.write_slide(tmp_path / "S1.tif")
    found = folder.read(lab.params("folder"), tmp_path, "S1")
    lab.same(found, ONE)
    lab.same(read_section(tmp_path / "S1.h5ad"), found)


def test_fetch_needs_nothing_but_the_files(tmp_path):
    for name, write in (("visium", lab.space_ranger), ("folder", lab.plain), ("hest", lab.hest)):
        reader(lab.params(name)).fetch(lab.params(name), write(tmp_path / name, ONE))


# -- traps ---------------------------------------------------------------------------------------------------


def test_the_scale_is_never_that_of_the_drawn_spot(tmp_path):
    """`spot_diameter_fullres` = 14 px spans 70 um: as 55 um it would give 3.93 um per px."""
    found = visium.read(lab.params("visium"), lab.space_ranger(tmp_path, ONE), "S1")
    assert found.um_per_px == pytest.approx([5, 5], rel=1e-3)


def test_cytassist_may_turn_the_slide(tmp_path):
    """Its array is printed beside the slide: one that is mirrored is refused for Visium, and read here."""
    lab.space_ranger(tmp_path, ONE, cytassist=True)
    path = tmp_path / "S1/outs/spatial/tissue_positions.csv"
    head, *lines = path.read_text().splitlines()
    rows = [line.split(",") for line in lines]
    mirrored = [",".join([*row[:5], str(1390 - int(row[5]))]) for row in rows]
    path.write_text("\n".join([head, *mirrored]))
    found = visium.read(lab.params("visium"), tmp_path, "S1")
    assert sorted(found.position[:, 0]) == sorted(1390 - ONE.position[:, 0])
    scale = path.with_name("scalefactors_json.json")
    scale.write_text(json.dumps({"tissue_hires_scalef": 2000 / 1500}))  # Visium: no registered image
    with pytest.raises(ValueError, match="a mirrored grid"):
        visium.read(lab.params("visium"), tmp_path, "S1")


def test_an_array_of_11_mm_has_14336_places(tmp_path):
    from stlib.visium import read_positions

    places = [(row, column) for row in range(128) for column in range(row % 2, 224, 2)]
    lines = [f"B{n}-1,0,{row},{column},{row},{column}" for n, (row, column) in enumerate(places)]
    (tmp_path / "p.csv").write_text("\n".join(lines))
    assert len(read_positions(tmp_path / "p.csv")[0]) == 14336
    (tmp_path / "p.csv").write_text("B-1,0,100,200,1,1")  # a place of it in a list of the smaller array
    with pytest.raises(ValueError, match="the array has 78 rows and 128 columns"):
        read_positions(tmp_path / "p.csv")


def test_the_preview_tells_its_own_size(tmp_path):
    """hires is 2,000 px for 6.5 mm, 4,000 for 11 mm."""
    from PIL import Image

    lab.space_ranger(tmp_path, ONE)
    spatial = tmp_path / "S1/outs/spatial"
    (spatial / "scalefactors_json.json").write_text(json.dumps({"tissue_hires_scalef": 4000 / 1500}))
    with pytest.raises(ValueError, match="Take the full-resolution image"):
        visium.read(lab.params("visium"), tmp_path, "S1")
    Image.new("RGB", (3733, 4000)).save(spatial / "tissue_hires_image.png")
    lab.same(visium.read(lab.params("visium"), tmp_path, "S1"), ONE)


def test_a_square_array_has_rows_and_columns(tmp_path):
    """ST in this layout: pitch 200 um in 40 px, every place exists."""
    one = lab.section()
    square = np.stack(np.meshgrid(np.arange(4), np.arange(3)), -1).reshape(-1, 2)
    at = tmp_path / "S1/outs"
    lab.space_ranger(tmp_path, one)
    lines = [
        f"{b},1,{r},{c},{50 + 40 * r},{60 + 40 * c}" for b, (c, r) in zip(one.barcodes, square, strict=True)
    ]
    (at / "spatial/tissue_positions.csv").write_text("\n".join(lines))
    spot = {"shape": "circle", "size_um": 100, "pitch_um": 200}
    own = lab.params("visium", options={"lattice": "square"}, spot=spot)
    found = visium.read(own, tmp_path, "S1")
    assert found.um_per_px.tolist() == pytest.approx([5, 5]) and found.array.tolist() == square.tolist()
    with pytest.raises(ValueError, match="lie where array row . column is even"):
        visium.read(lab.params("visium"), tmp_path, "S1")


def test_hest_states_a_scale_that_spots_correct(tmp_path):
    with pytest.warns(UserWarning, match=r"5.1500 um per px as estimated, \d.\d+ by spots 100 um apart"):
        found = hest.read(lab.params("hest"), lab.hest(tmp_path, lab.section(n=60), stated=5.15), "S1")
    assert found.um_per_px == pytest.approx([5, 5], rel=5e-3)


def test_hest_calls_columns_rows_where_it_read_them_so(tmp_path):
    """For her2st array_row holds the X of XxY."""
    from dataclasses import replace

    crossed = replace(ONE, array=ONE.array[:, ::-1])
    lab.same(hest.read(lab.params("hest"), lab.hest(tmp_path, crossed), "S1"), ONE)


def test_hest_pools_visium_hd_to_128_um(tmp_path):
    """Its metadata say 2 um."""
    from dataclasses import replace

    place = np.stack(np.meshgrid(np.arange(4.0), np.arange(3.0)), -1).reshape(-1, 2)
    squares = replace(ONE, array=place, position=60 + place * 128 / lab.UM)
    lab.hest(tmp_path, squares, inter_spot_dist=2.0)
    bins = {"shape": "square", "size_um": 2, "pitch_um": 2}
    with pytest.raises(ValueError, match="spot.pitch_um = 2 um apart; found 128 um at 5.0000 um per px"):
        hest.read(lab.params("hest", spot=bins), tmp_path, "S1")
    pooled = {"shape": "square", "size_um": 128, "pitch_um": 128}
    assert len(hest.read(lab.params("hest", spot=pooled), tmp_path, "S1")) == 12


def test_ids_lose_their_version_and_keep_their_dots(tmp_path):
    from dataclasses import replace

    odd = replace(
        ONE, genes=np.array(["ENSG00000141736.13", "AC087350.1", "ENSG00000108821+ENSG00000110492"])
    )
    found = folder.read(lab.params("folder"), lab.plain(tmp_path, odd), "S1")
    assert found.genes.tolist() == ["ENSG00000141736", "AC087350.1", "ENSG00000108821+ENSG00000110492"]


def test_spots_off_tissue_are_left_out_and_raw_counts_found_in_their_layer(tmp_path):
    table = lab.adata(ONE)
    table.obs["in_tissue"] = [0, *[1] * 11]
    table.layers["counts"] = table.X.copy()
    table.X = table.X * 0.5
    found = folder.read(lab.params("folder"), lab.plain(tmp_path, ONE, table), "S1")
    assert found.barcodes.tolist() == ONE.barcodes[1:].tolist()
    np.testing.assert_array_equal(found.counts.toarray(), ONE.counts[1:].toarray())


def test_the_scale_is_that_of_the_params_the_table_or_the_tags_in_this_order(tmp_path):
    table = lab.adata(ONE)
    del table.uns["um_per_px"]
    lab.plain(tmp_path / "tags", ONE, table)
    assert folder.read(lab.params("folder"), tmp_path / "tags", "S1").um_per_px == pytest.approx([5, 5])
    lab.plain(tmp_path / "none", ONE, table, tagged=False)
    with pytest.raises(
        ValueError, match="its file does not tell. Write .* source.options.um_per_px.S1 in params"
    ):
        folder.read(lab.params("folder"), tmp_path / "none", "S1")
    own = lab.params("folder", options={"um_per_px": {"S1": 5.1}})
    assert folder.read(own, tmp_path / "none", "S1").um_per_px.tolist() == [5.1, 5.1]


def test_without_an_array_places_are_counted_in_pitches(tmp_path):
    table = lab.adata(ONE)
    del table.obs["array_col"]
    found = folder.read(lab.params("folder"), lab.plain(tmp_path, ONE, table), "S1")
    np.testing.assert_allclose(found.array, ONE.position / 20)


# -- broken folders: one sentence each -----------------------------------------------------------------------


def break_visium(change):
    def broken(path):
        lab.space_ranger(path, ONE)
        change(path / "S1")
        visium.fetch(lab.params("visium"), path)
        visium.read(lab.params("visium"), path, "S1")

    return broken


def break_folder(change=lambda table: None, after=lambda path: None, **options):
    def broken(path):
        table = lab.adata(ONE)
        change(table)
        lab.plain(path, ONE, table)
        after(path)
        folder.fetch(lab.params("folder"), path)
        folder.read(lab.params("folder", options=options), path, "S1")

    return broken


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def swap_columns(home):
    path = home / "outs/spatial/tissue_positions.csv"
    head, *lines = path.read_text().splitlines()
    rows = [line.split(",") for line in lines]
    path.write_text("\n".join([head, *(",".join([*row[:4], row[5], row[4]]) for row in rows)]))


def halve(table):
    table.X = table.X * 0.5


def replace_slide(home, shape):
    tifffile.imwrite(home / "scan.tif", np.zeros((*shape, 3), np.uint8), photometric="rgb")


BROKEN = {
    "empty folder": (
        break_visium(lambda at: [p.unlink() for p in at.rglob("*") if p.is_file()]),
        "is not there",
    ),
    "no slide": (
        break_visium(lambda at: (at / "scan.tif").unlink()),
        "Copy the image that was given to Space R",
    ),
    "two slides": (
        break_visium(lambda at: lab.write_slide(at / "b.tif")),
        r"found \['b.tif', 'scan.tif'\]. Keep",
    ),
    "a preview as slide": (
        break_visium(lambda at: (at / "scan.tif").rename(at / "tissue_hires_image.tif")),
        "not one of its previews",
    ),
    "slide of another section": (
        break_visium(lambda at: replace_slide(at, (900, 800))),
        "Take the full-resolution",
    ),
    "no positions": (
        break_visium(lambda at: (at / "outs/spatial/tissue_positions.csv").unlink()),
        "tissue_positions.csv is not there",
    ),
    "half a matrix": (
        break_visium(lambda at: truncate(at / "outs/filtered_feature_bc_matrix.h5")),
        "damaged, or no feature-barcode matrix of 10x",
    ),
    "two matrices": (
        break_visium(lambda at: (at / "outs/x_filtered_feature_bc_matrix.h5").write_bytes(b"")),
        "a section has one filtered_feature_bc_matrix.h5, found",
    ),
    "swapped columns": (break_visium(swap_columns), "Check that x and y are not exchanged"),
    "scale factors of nothing": (
        break_visium(lambda at: (at / "outs/spatial/scalefactors_json.json").write_text("[]")),
        "JSON with the number tissue_hires_scalef",
    ),
    "scale factors cut off": (
        break_visium(lambda at: truncate(at / "outs/spatial/scalefactors_json.json")),
        "JSON with scale factors; found",
    ),
    "wrong um per px": (
        break_folder(um_per_px={"S1": 2.5}),
        "found 49.31 um at 2.5000 um per px. Correct um_per_px",
    ),
    "px of a preview": (
        break_folder(lambda table: table.obsm.update(spatial=table.obsm["spatial"] / 7)),
        "positions are px of the full-resolution slide",
    ),
    "no positions in the table": (
        break_folder(lambda table: table.obsm.clear()),
        r"obsm\[.spatial.\] holds the c",
    ),
    "normalised counts": (break_folder(halve), "Write raw counts into layers"),
    "a barcode twice": (
        break_folder(lambda table: setattr(table, "obs_names", ["a", "a", *table.obs_names[2:]])),
        "each barcode occurs once",
    ),
    "a gene twice": (
        break_folder(lambda table: setattr(table, "var_names", ["TP53", "TP53", "X"])),
        r"each gene occurs once; found \['TP53'\] repeated",
    ),
    "half a table": (
        break_folder(after=lambda at: truncate(at / "S1.h5ad")),
        "damaged, or no AnnData of one section",
    ),
    "spots beside the slide": (
        break_folder(lambda table: table.obsm.update(spatial=table.obsm["spatial"] + 5000)),
        "Check that slide and spot file belong together",
    ),
    "a spot without counts": (
        break_folder(lambda table: table.X.__setitem__((0, slice(None)), 0)),
        "each spot has counts",
    ),
    "a table of nothing": (break_folder(after=lambda at: (at / "S1.h5ad").unlink()), "S1.h5ad is not there"),
}


@pytest.mark.fault(
    "a folder of a lab that is broken",
    "21 ways, from no slide to swapped columns",
    "one sentence each: requirement, finding, place, remedy",
)
@pytest.mark.filterwarnings("ignore:.*sparse", "ignore:.*names are not unique")
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_folder_is_answered_by_one_sentence(tmp_path, name):
    broken, message = BROKEN[name]
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        broken(tmp_path)
    assert str(tmp_path) in str(error.value)  # says where


def test_a_section_that_params_do_not_list_is_named(tmp_path):
    from stlib.datasets import listed

    with pytest.raises(ValueError, match="has no section 'S2' .nearest: 'S1'"):
        listed(lab.params("visium"), "S2")
    assert listed(lab.params("visium", {"A": ["S10", "S9"]}), "S9") == 2  # as listed, not as sorted
