"""Whole slides on disk: every location's expression, and maps that viewers open."""

from copy import deepcopy

import numpy as np
import pytest
import tifffile
import torch
from made import footprints

from stlib.batch import Shape
from stlib.genemaps import digest, predict_slide, write_maps
from stlib.models import build, configure
from stlib.slide import write_pyramid
from stlib.tiles import Tiles
from stlib.windows import as_pixels, read

SIDE, WIDTH, HEIGHT = 5, 1210, 420  # px: of a bin, and of the halved slide


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = configure("pixnet", "2d", encoder="test_resnet@untrained", hidden=4, halvings=1, tile_px=320)
    model = build("pixnet", config, Shape(("A", "B", "C"))).eval()
    model.head.bias.data = torch.tensor([1.0, 2.0, 3.0])
    return model


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    """A slide that was halved once, and bins on a part of it whose first place is column 3, row 7."""
    path = tmp_path_factory.mktemp("slide") / "slide.tif"
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (2 * HEIGHT // 20 + 1, 2 * WIDTH // 20 + 1, 3), dtype=np.uint8)
    write_pyramid(coarse.repeat(20, 0).repeat(20, 1)[: 2 * HEIGHT, : 2 * WIDTH], path, 0.5)
    place = np.stack(np.meshgrid(np.arange(3, 180), np.arange(7, 75)), -1).reshape(-1, 2)
    place = place[rng.permutation(len(place))[:9000]]
    place = np.concatenate([place, [[3, 7], [179, 74]]])
    return Tiles(path, (WIDTH, HEIGHT), footprints((place + 0.5) * SIDE, SIDE / 2, "square"), 1), place


@torch.no_grad()
def at_once(model, tiles):
    """The map of the whole slide (C, h, w)."""
    width, height = tiles.padded(32)
    (slide,) = read(tiles.path, 1, [(0, 0, width, height)])
    return model.dense(as_pixels(slide)[None])[0]


def test_every_location_is_where_it_belongs(model, tiles, tmp_path):
    tiles, place = tiles
    store = predict_slide(model, tiles, place, tmp_path / "expression.zarr", {"section": "S"})
    assert store.shape == (68, 177, 3) and store.dtype == np.float16
    assert store.attrs["genes"] == ["A", "B", "C"] and store.attrs["origin"] == [3, 7]
    assert store.attrs["section"] == "S"
    full = torch.nn.functional.interpolate(at_once(model, tiles)[None], scale_factor=4, mode="bilinear")[0]
    wanted = np.full(store.shape, np.nan)
    for x, y in place:  # 25 pixels each
        mean = full[:, y * SIDE : (y + 1) * SIDE, x * SIDE : (x + 1) * SIDE].mean((1, 2))
        wanted[y - 7, x - 3] = model.head(mean).detach().numpy()
    np.testing.assert_allclose(store[:], wanted, atol=2e-3)  # float16
    assert sorted(path.name for path in tmp_path.iterdir()) == ["expression.zarr"]


@pytest.mark.fault(
    "a whole slide of another model in the way",
    "other locations under the same name",
    "ValueError with the remedy",
)
def test_what_stands_is_read_and_other_predictions_are_refused(model, tiles, tmp_path, monkeypatch):
    (tiles, place), path = tiles, tmp_path / "expression.zarr"
    first = predict_slide(model, tiles, place, path, {})[:]
    monkeypatch.setattr(model, "read", None)
    np.testing.assert_array_equal(predict_slide(model, tiles, place, path, {})[:], first)
    with pytest.raises(ValueError, match="holds predictions of another slide, model or set of locations"):
        predict_slide(model, tiles.take(torch.arange(9)), place[:9], path, {})


def test_parts_of_a_model_with_other_weights_are_none_of_its_own(model, tiles):
    other = deepcopy(model)
    assert digest(other, tiles[0]) == digest(model, tiles[0])
    other.head.bias.data[0] += 1
    assert digest(other, tiles[0]) != digest(model, tiles[0])


@pytest.mark.fault(
    "a map of a whole slide with a missing or a damaged chunk",
    "a file of the Zarr array deleted, cut off, or one bit of it turned",
    "ValueError with the remedy; a gap is never read as a place without tissue",
)
@pytest.mark.parametrize("how", ["missing", "cut off", "one bit"])
def test_a_damaged_array_is_refused(model, tiles, tmp_path, how):
    (tiles, place), path = tiles, tmp_path / "expression.zarr"
    predict_slide(model, tiles, place, path, {})
    chunk = path / "c/0/1/0"
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(content if how == "one bit" else content[:20])
    if how == "missing":
        chunk.unlink()
    with pytest.raises(ValueError, match="expression.zarr is damaged .*; delete it and run this again"):
        predict_slide(model, tiles, place, path, {})


@pytest.mark.fault(
    "a whole slide in Zarr that is interrupted",
    "Ctrl-C in the fourth tile",
    "no array under its name; goes on at that tile, the same values",
)
def test_a_killed_prediction_goes_on_at_its_tile(model, tiles, tmp_path, monkeypatch):
    (tiles, place), path = tiles, tmp_path / "expression.zarr"
    wanted = predict_slide(model, tiles, place, tmp_path / "other.zarr", {})[:]
    decoded, plain = [], model.dense.forward

    def dying(window):
        decoded.append(window.shape)
        if len(decoded) == 4:
            raise KeyboardInterrupt
        return plain(window)

    monkeypatch.setattr(model.dense, "forward", dying)
    with pytest.raises(KeyboardInterrupt):
        predict_slide(model, tiles, place, path, {})
    assert not path.exists()
    found = predict_slide(model, tiles, place, path, {})[:]
    assert len(decoded) == len(tiles.cut(320, 0, 32)) + 1 == 7
    np.testing.assert_array_equal(found, wanted)


def test_maps_are_a_pyramid_with_names_and_a_scale(model, tiles, tmp_path):
    tiles, _ = tiles
    path = write_maps(model, tiles, ["C", "A"], 0.5, tmp_path / "maps.ome.tif")
    wanted = model.head(at_once(model, tiles).flatten(1).T).T.unflatten(1, (112, 304)).detach().numpy()
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_ome
        (series,) = tiff.series
        assert series.axes == "CYX" and [level.shape for level in series.levels] == [(2, 105, 303)]
        np.testing.assert_allclose(series.asarray(), wanted[[2, 0], :105, :303], atol=1e-4)
        for words in ('Name="C"', 'Name="A"', 'PhysicalSizeX="4.0"', 'PhysicalSizeYUnit="µm"'):
            assert words in tiff.ome_metadata
        assert tiff.pages[0].is_tiled
    assert sorted(file.name for file in tmp_path.iterdir()) == ["maps.ome.tif"]


def test_maps_of_other_genes_do_not_go_on_with_what_was_kept(model, tiles, tmp_path, monkeypatch):
    path = tmp_path / "maps.ome.tif"
    with monkeypatch.context() as killed:
        killed.setattr("stlib.genemaps._write", None)  # after all tiles
        with pytest.raises(TypeError):
            write_maps(model, tiles[0], ["A"], 0.5, path)
    found = tifffile.imread(write_maps(model, tiles[0], ["C"], 0.5, path))
    anew = write_maps(model, tiles[0], ["C"], 0.5, tmp_path / "anew.ome.tif")
    np.testing.assert_array_equal(found, tifffile.imread(anew))


def test_lower_levels_halve_the_upper(model, tiles, tmp_path, monkeypatch):
    monkeypatch.setattr("stlib.genemaps.SMALLEST", 100)
    path = write_maps(model, tiles[0], ["B"], 0.5, tmp_path / "maps.ome.tif")
    with tifffile.TiffFile(path) as tiff:
        levels = [level.asarray() for level in tiff.series[0].levels]
        assert [level.shape for level in levels] == [(105, 303), (53, 152), (27, 76)]
        assert len(tiff.pages[0].subifds) == 2
        np.testing.assert_allclose(levels[1][3, 4], levels[0][6:8, 8:10].mean(), rtol=1e-5)


def test_a_gene_outside_the_panel_is_named(model, tiles, tmp_path):
    with pytest.raises(ValueError, match="a gene of the model's panel, found 'ZZZ'"):
        write_maps(model, tiles[0], ["ZZZ"], 0.5, tmp_path / "maps.ome.tif")
