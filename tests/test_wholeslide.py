"""A whole slide in Zarr: what stands is kept, what does not fit is refused."""

import numpy as np
import pytest
import torch
import zarr

from stlib import wholeslide
from stlib.array_tiles import TileFeed
from stlib.batch import Shape
from stlib.models import build, configure
from stlib.overlays import lattice
from stlib.params import load_params
from stlib.sections import load_sections
from stlib.wholeslide import predict_slide, reach_of

SMALL = {"encoder": "frozen", "width": 8, "heads": 2}


@pytest.fixture(scope="module")
def piece(toy_hd):
    section = load_sections(toy_hd, ["P1"])["P1"]
    middle = section.size_px / 2
    array, position = lattice(section, middle - 80, middle + 80)
    return section, array[3:], position[3:]  # three places are no tissue


@pytest.fixture
def model():
    torch.manual_seed(0)
    made = build("magnet", configure("magnet", "hd", **SMALL), Shape(("A", "B", "C"), 52))
    for head in made.head.values():
        torch.nn.init.normal_(head.genes.weight)
    return made


def test_every_place_is_written_and_the_rest_is_nan(toy_hd, piece, model, tmp_path):
    store = predict_slide(model, toy_hd, *piece, tmp_path / "p.zarr", side=4)
    section, array, position = piece
    assert store.dtype == np.float16 and store.chunks == (4, 4, 3)
    assert store.shape == (*(np.ptp(array, axis=0)[::-1].astype(int) + 1), 3)
    found = store[:]
    column, row = (array - store.attrs["origin"]).astype(int).T
    assert np.isfinite(found[row, column]).all() and np.isfinite(found).all(2).sum() == len(array)
    again = predict_slide(model, toy_hd, *piece, tmp_path / "q.zarr", side=64)[:]
    np.testing.assert_allclose(found, again, atol=1e-2)  # float16
    assert store.attrs["genes"] == ["A", "B", "C"] and store.attrs["section"] == "P1"


@pytest.mark.fault(
    "bins of a whole slide that are interrupted",
    "Ctrl-C in the fourth tile",
    "goes on at the next tile, the same values",
)
def test_a_killed_run_goes_on_at_the_next_tile(toy_hd, piece, model, tmp_path, monkeypatch):
    whole = predict_slide(model, toy_hd, *piece, tmp_path / "whole.zarr", side=4)[:]
    made, batch = [], TileFeed.batch

    def killed(feed, tile):
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(tile)
        return batch(feed, tile)

    monkeypatch.setattr(TileFeed, "batch", killed)
    with pytest.raises(KeyboardInterrupt):
        predict_slide(model, toy_hd, *piece, tmp_path / "p.zarr", side=4)
    monkeypatch.setattr(TileFeed, "batch", lambda feed, tile: made.append(tile) or batch(feed, tile))
    found = predict_slide(model, toy_hd, *piece, tmp_path / "p.zarr", side=4)
    assert len(made) == len(set(made)) == -(-found.shape[0] // 4) * -(-found.shape[1] // 4)
    np.testing.assert_array_equal(found[:], whole)


def test_predictions_of_another_model_are_refused(toy_hd, piece, model, tmp_path):
    predict_slide(model, toy_hd, *piece, tmp_path / "p.zarr", side=64)
    model.head["spot"].genes.bias.data.add_(1)
    with pytest.raises(ValueError, match="holds predictions of another slide, model or cut.*delete it"):
        predict_slide(model, toy_hd, *piece, tmp_path / "p.zarr", side=64)
    assert zarr.open_array(tmp_path / "p.zarr", mode="r").attrs["model"] == "MagNet"


def test_a_model_that_looks_everywhere_is_refused(toy_hd):
    shape = Shape(("A",), 52)
    for name in ("eggn", "mean"):
        model = build(name, configure(name, "hd"), shape)
        if name == "mean":
            assert reach_of(model, toy_hd) == (0, 0)
        else:
            with pytest.raises(ValueError, match="EGGN looks at a whole section at once.*magnet or stnet"):
                reach_of(model, toy_hd)


def test_neighbours_that_are_no_squares_are_refused(model):
    with pytest.raises(ValueError, match="MagNet looks at neighbours, and only squares.*found circles"):
        reach_of(model, load_params("toy_hd@55um"))
    alone = build("magnet@no_gat", configure("magnet@no_gat", "hd", **SMALL), Shape(("A",), 52))
    assert reach_of(alone, load_params("toy_hd@55um")) == (0, 1)


def test_a_field_that_tiles_lack_is_refused(toy_hd):
    model = build("oracle", configure("oracle", "hd"), Shape(("A",)))
    with pytest.raises(ValueError, match=r"Oracle needs \['rate'\]; a tile of a slide has"):
        reach_of(model, toy_hd)
    assert wholeslide.GIVEN >= build("magnet", configure("magnet", "hd", **SMALL), Shape(("A",), 52)).needs(
        configure("magnet", "hd")
    )


def test_windows_and_images_of_other_places_have_no_tiles(toy_hd):
    small = {"encoder": "test_resnet@untrained", "hidden": 8}
    dense = build("pixnet", configure("pixnet", "hd", **small), Shape(("A",)))
    with pytest.raises(ValueError, match="PixNet maps windows of a slide.*genemaps.predict_slide"):
        reach_of(dense, toy_hd)
    name = "magnet@permuted"
    with pytest.raises(ValueError, match="MagNet was trained on the images of other places"):
        reach_of(build(name, configure(name, "hd", **SMALL), Shape(("A",), 52)), toy_hd)


@pytest.mark.fault(
    "a chunk of a whole slide that is missing, cut off, or has one bit turned",
    "a file of the Zarr array of bins deleted or changed",
    "noticed by its checksum; that tile alone is predicted anew, the others are kept",
)
@pytest.mark.parametrize("how", ["missing", "cut off", "one bit"])
def test_a_damaged_tile_is_made_anew(toy_hd, piece, model, tmp_path, monkeypatch, how):
    path, made, batch = tmp_path / "p.zarr", [], TileFeed.batch
    wanted = predict_slide(model, toy_hd, *piece, path, side=4)[:]
    chunk = max((path / "c").rglob("*"), key=lambda file: file.is_file() and file.stat().st_size)
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(content if how == "one bit" else content[:20])
    monkeypatch.setattr(TileFeed, "batch", lambda feed, tile: made.append(tile) or batch(feed, tile))
    if how == "missing":
        chunk.unlink()
        found = predict_slide(model, toy_hd, *piece, path, side=4)[:]
    else:
        with pytest.warns(UserWarning, match="p.zarr is damaged .* the tile is made anew"):
            found = predict_slide(model, toy_hd, *piece, path, side=4)[:]
    assert len(made) == 1
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.fault(
    "killed while the folder of a whole slide is made",
    "a folder without its zarr.json, and one whose zarr.json is garbage",
    "the first is begun anew; the second is refused with the remedy",
)
def test_a_folder_that_is_no_array(toy_hd, piece, model, tmp_path):
    path = tmp_path / "p.zarr"
    path.mkdir()
    wanted = predict_slide(model, toy_hd, *piece, path, side=64)[:]
    assert np.isfinite(wanted).any()
    (path / "zarr.json").write_text("{")
    with pytest.raises(ValueError, match="p.zarr is damaged .*; delete it and run this again"):
        predict_slide(model, toy_hd, *piece, path, side=64)
