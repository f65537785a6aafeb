"""Tiles equal the slide at once, whatever their size; and a halo that is too small does not."""

import numpy as np
import pytest
import torch
from made import footprints
from torch import nn

from stlib.batch import Shape
from stlib.models import build, configure
from stlib.pooling import as_tensor, pooled, pooling
from stlib.slide import write_pyramid
from stlib.tiles import Cutting, Tiles, reach
from stlib.windows import as_pixels, read


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    """A slide of noise, 205 x 175 px."""
    path = tmp_path_factory.mktemp("slide") / "slide.tif"
    write_pyramid(np.random.default_rng(0).integers(0, 256, (175, 205, 3), dtype=np.uint8), path, 0.5)
    return path


@pytest.fixture(scope="module")
def tiles(slide):
    rng = np.random.default_rng(1)
    prints = footprints(rng.uniform(0, [205, 175], (60, 2)), rng.uniform(1, 30, (60, 1)), "circle")
    return Tiles(slide, (205, 175), prints)


class Small(nn.Module):
    """Three strides of 2 and one upwards, with known reach: (B, 3, H, W) -> (B, 4, H / 4, W / 4)."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(),
            nn.ConvTranspose2d(8, 4, 2, 2), nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4),
        )  # fmt: skip

    def forward(self, window):
        return self.layers((window / 255).to(self.layers[0].weight.dtype))


@pytest.fixture
def small():
    return Small().double().eval().requires_grad_(False)


def at_once(decode, tiles, step):
    """Decode the whole slide, padded with white, and pool it."""
    width, height = tiles.padded(step)
    (slide,) = read(tiles.path, tiles.halvings, [(0, 0, width, height)])
    cells = decode(as_pixels(slide)[None])[0]
    matrix = pooling(tiles.prints, (0, 0, *tiles.size_px), 4, (width // 4, height // 4)).matrix
    return pooled(as_tensor(matrix), cells.flatten(1).T)


def test_reach_by_hand(small):
    # from the cell: 3 x 3 at stride 4: one cell; up from stride 8: of a square of 8 px to the left one more
    # cell of 8; 3 x 3 / 2 there: 2 * 4 ... left of a square of 8 px: 8 at stride 8, -1 * 4, -1 * 2, -1 = 15
    assert reach(small, 8) == 15
    wide = nn.Sequential(nn.AvgPool2d(4), nn.Conv2d(3, 1, 5, padding=2))
    assert reach(wide, 8) == 8


@pytest.mark.parametrize("core_px", [8, 24, 64, 512])
def test_tiles_equal_the_slide_at_once(small, tiles, core_px):
    cutting = Cutting(small, core_px, 16, 8)
    found = cutting.sums(tiles, torch.device("cpu"))
    wanted = at_once(small, tiles, 8)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12 * float(wanted.abs().max()))


@pytest.mark.parametrize("readers", [0, 2])
def test_parts_that_stand_are_not_made_again_whoever_reads(small, tiles, tmp_path, monkeypatch, readers):
    """Some of them, in the middle, so that the images of the others must not slip."""
    monkeypatch.setattr("stlib.reading.readers", lambda: readers)
    cutting = Cutting(small, 48, 16, 8)
    wanted = cutting.sums(tiles, torch.device("cpu"), tmp_path)
    parts = sorted(tmp_path.iterdir())
    for path in parts[::2]:
        path.unlink()
    assert torch.equal(cutting.sums(tiles, torch.device("cpu"), tmp_path), wanted)
    assert sorted(tmp_path.iterdir()) == parts and len(parts) > 6
    parts[1].write_bytes(b"cut off")
    with pytest.warns(UserWarning, match="not a readable checkpoint"):
        assert torch.equal(cutting.sums(tiles, torch.device("cpu"), tmp_path), wanted)


def test_cells_of_tiles_are_exactly_those_of_the_slide(small, tiles):
    (slide,) = read(tiles.path, 0, [(0, 0, 208, 176)])
    whole = small(as_pixels(slide)[None])
    differ = []
    for halo in (16, 8):
        worst = 0.0
        for tile in tiles.cut(48, halo, 8, everywhere=True):
            left, top, right, bottom = (px // 4 for px in tile.core)
            (seen,) = tiles.read([tile])
            off = tile.cells(small(seen)) - whole[..., top:bottom, left:right]
            worst = max(worst, float(off.abs().max()))
        differ.append(worst)
    assert differ[0] < 1e-15 < differ[1]


def test_the_halo_of_the_real_network_is_288_px():
    """ResNet18 and the decoder of the paper: 281 px, so 9 strides of 32 px; 8 are too few."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build(
            "pixnet", configure("pixnet", "2d", encoder="resnet18@untrained", hidden=8), Shape(("A",))
        )
    model = model.eval().requires_grad_(False)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.fill_(1.0)  # timm starts some at 0: residual branches would do nothing
    assert reach(model.dense, 32) == 281
    cutting = model.cutting
    assert (cutting.halo_px, cutting.step, cutting.core_px) == (288, 32, 2048)
    rng = np.random.default_rng(0)
    strip = torch.from_numpy(rng.integers(0, 256, (1, 3, 64, 960))).double()
    dense = model.dense.double()
    whole = dense(strip)[..., 80:88]  # of the core, 320 to 352 px
    exact, short = (
        dense(strip[..., 320 - halo : 352 + halo])[..., halo // 4 : halo // 4 + 8] for halo in (288, 256)
    )
    exact, short = (exact - whole).abs().max(), (short - whole).abs().max()
    assert exact < 1e-14 and 1e-9 < short < 1e-6  # some processors sum a wider strip in another order


def test_a_network_that_sees_everything_is_refused():
    class Global(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(3, 1, 4, 4)

        def forward(self, window):
            cells = self.layer(window)
            return cells * cells.mean((2, 3), keepdim=True)

    with pytest.raises(ValueError, match="more than 1280 px away, so that it has no exact tiles"):
        reach(Global(), 32)


def test_locations_are_looked_for_where_they_reach(tiles):
    found = tiles.cut(64, 0, 8)
    own = {tuple(tile.core): set(tile.rows.tolist()) for tile in found}
    for (left, top, right, bottom), rows in own.items():
        (x, y), half = tiles.prints.centre.T, tiles.prints.half[:, 0]
        near = np.hypot(x - x.clip(left, right), y - y.clip(top, bottom)) < half
        assert set(np.flatnonzero(near)) <= rows
    alone = tiles.take(torch.tensor([3]))
    assert len(alone.cut(64, 0, 8)) <= 4 < len(alone.cut(64, 0, 8, everywhere=True)) == 12


@pytest.mark.fault(
    "a dense prediction that is interrupted",
    "Ctrl-C in the sixth tile",
    "goes on at that tile; the sums are equal, bit for bit",
)
def test_a_run_that_was_killed_goes_on(small, tiles, tmp_path):
    cutting = Cutting(small, 64, 16, 8)
    wanted = cutting.sums(tiles, torch.device("cpu"))
    calls = []

    def dying(window):
        calls.append(window.shape)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return small(window)

    with pytest.raises(KeyboardInterrupt):
        Cutting(dying, 64, 16, 8).sums(tiles, torch.device("cpu"), tmp_path / "kept")
    found = Cutting(dying, 64, 16, 8).sums(tiles, torch.device("cpu"), tmp_path / "kept")
    assert len(calls) == 12 + 1  # five tiles, one that died, the seven left
    assert torch.equal(found, wanted)


def test_gradients_pass_through_tiles(tiles):
    small = Small().eval()
    Cutting(small, 64, 16, 8).sums(tiles, torch.device("cpu")).square().mean().backward()
    assert all(weight.grad.abs().any() for weight in small.parameters())


@pytest.mark.parametrize(("core", "halo"), [(60, 16), (64, 12), (0, 16)])
def test_strides_keep_their_phase(tiles, core, halo):
    with pytest.raises(ValueError, match="multiple of the network's coarsest stride, 8 px"):
        tiles.cut(core, halo, 8)
