from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from stlib.sections import Cells, Section, check_section, content_hash, read_section, write_section


def counts(*rows: list[float]) -> sparse.csr_matrix:
    return sparse.csr_matrix(np.array(rows))


def small(**changes) -> Section:
    section = Section(
        name="S1", patient="S", layer=2,
        barcodes=np.array(["1x1", "2x1", "1x2"]), genes=np.array(["G1", "G2"]),
        counts=sparse.csr_matrix(np.array([[3, 0], [1, 2], [0, 5]], np.int32)),
        array=np.array([[1.0, 1.0], [2.0, 1.0], [1.0, 2.0]]),
        position=np.array([[10.0, 10.0], [60.0, 10.0], [10.0, 60.0]]),
        um_per_px=np.array([2.0, 2.1]), size_px=np.array([100, 80]),
        shape="circle", size_um=50.0, pitch_um=100.0,
    )  # fmt: skip
    return replace(section, **changes)


def test_round_trip(tmp_path):
    section = small()
    write_section(tmp_path / "S1.h5ad", section)
    again = read_section(tmp_path / "S1.h5ad")
    assert content_hash(again) == content_hash(section)
    assert (again.name, again.patient, again.layer, again.shape) == ("S1", "S", 2, "circle")
    np.testing.assert_array_equal(again.counts.toarray(), section.counts.toarray())
    np.testing.assert_array_equal(again.size_px, section.size_px)
    assert again.rate is None


CELLS = {
    "region": Cells(np.array([[0, 0], [0, 1]]), sparse.csr_matrix(np.array([[9, 2], [0, 70000]], np.int32))),
    "global": Cells(np.array([[0, 0]]), sparse.csr_matrix(np.array([[0, 8]], np.int32))),
}


def test_cells_and_facts_are_kept(tmp_path):
    section = small(cells=CELLS, facts={"bins_outside_slide": 3})
    write_section(tmp_path / "S1.h5ad", section)
    again = read_section(tmp_path / "S1.h5ad")
    assert content_hash(again) == content_hash(section) and again.facts == {"bins_outside_slide": 3}
    assert list(again.cells) == ["global", "region"]
    for level, cells in CELLS.items():
        np.testing.assert_array_equal(again.cells[level].index, cells.index)
        np.testing.assert_array_equal(again.cells[level].counts.toarray(), cells.counts.toarray())
    write_section(tmp_path / "S1.h5ad", small())
    assert (read_section(tmp_path / "S1.h5ad").cells, read_section(tmp_path / "S1.h5ad").facts) == ({}, {})


def test_scanpy_sees_the_scverse_layout(tmp_path):
    import anndata

    write_section(tmp_path / "S1.h5ad", small())
    table = anndata.read_h5ad(tmp_path / "S1.h5ad")
    assert table.uns["spatial"]["S1"]["scalefactors"]["spot_diameter_fullres"] == pytest.approx(50 / 2.05)
    assert list(table.obs_names) == ["1x1", "2x1", "1x2"]
    np.testing.assert_array_equal(table.obsm["spatial"][1], [60, 10])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"barcodes": np.array(["1x1", "1x1", "1x2"])}, "each barcode occurs once.*2 spot"),
        ({"counts": counts([3, 0], [-1, 2], [0, 5])}, r"counts are whole numbers from 0 up.*'2x1'"),
        ({"counts": counts([3, 0], [0.5, 2], [0, 5])}, "Give raw counts, before any normalisation"),
        ({"counts": counts([3, 0], [0, 0], [0, 5])}, r"each spot has counts.*'2x1'"),
        ({"position": np.array([[10, 10], [np.nan, 10], [10, 60.0]])}, "coordinates are finite numbers"),
        ({"position": np.array([[10, 10], [101, 10], [10, 6.0]])}, r"spots lie on the slide \(100 x 80 px\)"),
    ],
)
def test_bad_input_is_named(changes, message):
    with pytest.raises(ValueError, match=f"spots.tsv: .*{message}"):
        check_section(small(**changes), "spots.tsv")


def test_an_empty_spot_may_be_declared():
    counts = sparse.csr_matrix(np.array([[3, 0], [0, 0], [0, 5]]))
    assert check_section(small(counts=counts), "x", allowed_empty=("2x1",)).barcodes[1] == "2x1"


def test_content_hash_notices_each_part():
    base = content_hash(small())
    assert content_hash(small(counts=sparse.csr_matrix(np.array([[3, 0], [1, 2], [0, 6]], np.int32)))) != base
    assert content_hash(small(position=np.array([[10.0, 10.0], [60.0, 10.0], [10.0, 61.0]]))) != base
    assert content_hash(small(genes=np.array(["G1", "G3"]))) != base
    celled = content_hash(small(cells=CELLS))
    assert celled != base
    assert content_hash(small(cells=CELLS | {"region": CELLS["global"]})) != celled
    assert content_hash(small(cells={"region": CELLS["global"], "global": CELLS["region"]})) != celled
    assert content_hash(small(facts={"bins": 3})) == base  # nothing computes with facts


def test_missing_and_damaged_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="make data DATASET="):
        read_section(tmp_path / "S9.h5ad")
    write_section(tmp_path / "S1.h5ad", small())
    whole = (tmp_path / "S1.h5ad").read_bytes()
    (tmp_path / "S1.h5ad").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="S1.h5ad is damaged.*Delete it"):
        read_section(tmp_path / "S1.h5ad")


def test_labels_are_kept_and_change_nothing_that_is_computed_with(tmp_path):
    plain = small()
    labelled = replace(plain, region=np.array(["fat", "", "tumour"][: len(plain)]))
    write_section(tmp_path / "A1.h5ad", labelled)
    back = read_section(tmp_path / "A1.h5ad")
    assert back.region.tolist() == labelled.region.tolist()
    assert content_hash(labelled) == content_hash(plain) and plain.region is None
