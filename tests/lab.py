"""A lab's section in each shape that users have, made from one slide and its counts: for tests of readers."""

import json

import anndata
import numpy as np
import pandas as pd
import yaml
from scipy import sparse
from test_tenx import write_matrix
from test_visium import grid, write_positions

from stlib import paths
from stlib.params import Params
from stlib.records import parse
from stlib.sections import Section
from stlib.slide import write_pyramid

GENES = np.array(["ENSG00000141736", "ENSG00000108821", "ENSG00000110492"])
UM = 5.0  # per px: `grid` has 20 px to 100 um
SIZE = (1400, 1500)  # px


def section(name="S1", patient="A", seed=0, n=12, genes=GENES) -> Section:
    """N neighbouring spots of a Visium array, in no order."""
    rng = np.random.default_rng(seed)
    column, row, x, y = np.stack(grid()).astype(float)
    rows = rng.permutation(np.argsort(np.hypot(x - 500, y - 600), kind="stable")[:n])  # one piece of tissue
    counts = sparse.csr_matrix(rng.integers(1, 90, (n, len(genes))).astype(np.int32))
    return Section(
        name=name, patient=patient, layer=1, barcodes=np.array([f"SPOT{i:04d}-1" for i in rows]), genes=genes,
        counts=counts, array=np.stack([column, row], 1)[rows], position=np.stack([x, y], 1)[rows],
        um_per_px=np.full(2, UM), size_px=np.array(SIZE), shape="circle", size_um=55, pitch_um=100,
    )  # fmt: skip


def params(reader, sections=None, options=None, **changes) -> Params:
    """The parameters of Visium sections of one lab."""
    content = yaml.safe_load((paths.PARAMS / "dlpfc.yaml").read_text())
    source = {"reader": reader, "licence": "own", "citation": "own", "options": options or {}}
    content |= {"name": "mine", "source": source, "sections": sections or {"A": ["S1"]}, "known": {}}
    return parse(Params, content | {"folds": {}, "expect": None} | changes, "params/mine.yaml")


def write_slide(path, tagged=True):
    """A slide of the right size; its tags tell the scale, or nothing."""
    image = np.full((SIZE[1], SIZE[0], 3), 240, np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    if tagged:
        write_pyramid(image, path, UM)
    else:
        from PIL import Image

        Image.fromarray(image).save(path)
    return path


def space_ranger(folder, one, version=2, home="outs", cytassist=False, slide="scan.tif", prefix=""):
    """What Space Ranger writes, of version 1 or 2, and the slide beside it."""
    at = folder / one.name / home
    under = {tuple(place) for place in one.array.astype(int).tolist()}
    name = "tissue_positions_list.csv" if version == 1 else "tissue_positions.csv"
    write_positions(at / "spatial" / name, grid(), under, header=version > 1)
    table = one.counts.toarray().T
    write_matrix(
        at / f"{prefix}filtered_feature_bc_matrix.h5", table, one.barcodes.tolist(), one.genes.tolist()
    )
    factors = {"spot_diameter_fullres": 14.0, "tissue_hires_scalef": 2000 / max(SIZE)}
    factors |= {"regist_target_img_scalef": 0.5} if cytassist else {}
    (at / "spatial/scalefactors_json.json").write_text(json.dumps(factors))
    if slide:
        write_slide(folder / one.name / slide)
    return folder


def adata(one) -> anndata.AnnData:
    """The AnnData of a section."""
    column, row = one.array.astype(int).T
    return anndata.AnnData(
        X=one.counts.copy(),
        obs=pd.DataFrame({"array_col": column, "array_row": row, "in_tissue": 1}, index=one.barcodes),
        var=pd.DataFrame(index=one.genes),
        obsm={"spatial": one.position.copy()},
        uns={"um_per_px": one.um_per_px.copy()},
    )


def plain(folder, one, table=None, tagged=True):
    """<section>.h5ad and <section>.tif."""
    folder.mkdir(parents=True, exist_ok=True)
    (adata(one) if table is None else table).write_h5ad(folder / f"{one.name}.h5ad")
    write_slide(folder / f"{one.name}.{'tif' if tagged else 'png'}", tagged)
    return folder


def spatialdata(folder, one, version=3):
    """The table of a SpatialData store as the library writes it, and the slide beside it."""
    import zarr

    store = folder / f"{one.name}.zarr"
    zarr.open_group(store, mode="w", zarr_format=version).create_group("tables")
    table = adata(one)
    table.obs["region"] = pd.Categorical(["spots"] * len(one))
    table.uns["spatialdata_attrs"] = {"region": "spots", "region_key": "region", "instance_key": "spot"}
    with anndata.settings.override(zarr_write_format=version):
        table.write_zarr(store / "tables" / "table")
    write_slide(folder / f"{one.name}.tif")
    return folder


def hest(folder, one, stated=UM, **about):
    """HEST's layout."""
    (folder / "st").mkdir(parents=True)
    (folder / "metadata").mkdir()
    table = adata(one)
    del table.uns["um_per_px"]
    table.write_h5ad(folder / "st" / f"{one.name}.h5ad")
    content = {"pixel_size_um_estimated": stated, "inter_spot_dist": 100.0, "spot_diameter": 55.0} | about
    (folder / "metadata" / f"{one.name}.json").write_text(json.dumps(content))
    write_slide(folder / "wsis" / f"{one.name}.tif")
    return folder


def same(found: Section, wanted: Section) -> None:
    """Demand equal sections, whatever the order of spots."""
    order = [found.barcodes.tolist().index(barcode) for barcode in wanted.barcodes]
    assert len(found) == len(wanted) and found.genes.tolist() == wanted.genes.tolist()
    np.testing.assert_array_equal(found.counts[order].toarray(), wanted.counts.toarray())
    np.testing.assert_array_equal(found.array[order], wanted.array)
    np.testing.assert_allclose(found.position[order], wanted.position)
    np.testing.assert_allclose(found.um_per_px, wanted.um_per_px, rtol=2e-3)
    assert found.size_px.tolist() == wanted.size_px.tolist()
    assert (found.patient, found.layer, found.shape) == (wanted.patient, wanted.layer, wanted.shape)
