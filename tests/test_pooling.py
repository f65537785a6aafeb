"""Pooling by hand, and against the plain way: enlarge the map, then sum the pixels one location at a time."""

import numpy as np
import pytest
import torch
from made import footprints
from torch.nn.functional import interpolate

from stlib.pooling import as_tensor, full_resolution, pooled, pooling, row_scale


def covered(centre, half, shape, width, height):
    """Return the pixels of one location (height, width), from the definition."""
    x, y = np.arange(width) + 0.5, np.arange(height)[:, None] + 0.5
    dx, dy = (x - centre[0]) / half[0], (y - centre[1]) / half[1]
    if shape == "circle":
        inside = dx**2 + dy**2 <= 1 + 1e-9
    else:
        inside = (-1 <= dx) & (dx < 1) & (-1 <= dy) & (dy < 1)
    if not inside.any():
        inside[min(int(centre[1]), height - 1), min(int(centre[0]), width - 1)] = True
    return inside


def plain(cells, centre, half, shape, width, height, stride):
    """Interpolate, then sum: (N, C)."""
    size = [side * stride for side in cells.shape[1:]]
    full = interpolate(cells[None], size, mode="bilinear", align_corners=False)[0, :, :height, :width].numpy()
    return np.stack(
        [full[:, covered(c, h, shape, width, height)].sum(1) for c, h in zip(centre, half, strict=True)]
    )


def random_map(rng, rows, columns, channels=3):
    return torch.from_numpy(rng.normal(size=(channels, rows, columns)))


def dense(cells):
    return cells.flatten(1).T.numpy()  # (h w, C)


def test_one_pixel_by_hand():
    # pixel 3 of stride 4: u = 3.5 / 4 - 0.5 = 0.375, so 5/8 of cell 0 and 3/8 of cell 1; pixel 0 is cell 0's
    (matrix, pixels) = pooling(footprints([[3.5, 0.5]], 0.5, "square"), (0, 0, 8, 8), 4, (2, 2))
    np.testing.assert_array_equal(matrix.toarray(), [[5 / 8, 3 / 8, 0, 0]])
    assert pixels.tolist() == [1]


def test_bins_side_by_side_share_no_pixel():
    """2-um bins at 0.27 um per px, as they lie on a slide: edges fall anywhere."""
    side = 2 / 0.27
    place = (np.stack(np.meshgrid(np.arange(20), np.arange(20)), -1).reshape(-1, 2) + 0.5) * side
    matrix, pixels = pooling(footprints(place, side / 2, "square"), (0, 0, 160, 160), 4, (40, 40))
    edge = int(np.ceil(20 * side - 0.5))
    assert pixels.sum() == edge**2 and set(pixels) == {49, 56, 64}
    np.testing.assert_allclose(matrix.sum(1).A1 if hasattr(matrix.sum(1), "A1") else matrix.sum(1), pixels)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("shape", ["circle", "square"])
@pytest.mark.parametrize(
    ("stride", "radii"), [(4, (0.4, 9)), (4, (40, 300)), (8, (3, 60)), (1, (0.4, 5)), (3, (2, 20))]
)
def test_equals_interpolating_and_summing(dtype, shape, stride, radii):
    rng = np.random.default_rng(stride)
    rows, columns = 60 // stride + 5, 84 // stride + 3
    width, height = columns * stride - 2 * (stride > 1), rows * stride - (stride > 2)  # the map overhangs
    n = 25
    centre = rng.uniform(0, [width, height], (n, 2))
    half = rng.uniform(*radii, (n, 1)) * rng.uniform(0.7, 1.4, (n, 2))  # an ellipse in px
    centre[:5] = rng.uniform(-0.6, 0, (5, 2)) * half[:5].min() * [1, 0] + [0, height / 2]  # over the border
    cells = random_map(rng, rows, columns)
    matrix, pixels = pooling(
        footprints(centre, half, shape), (0, 0, width, height), stride, (columns, rows), dtype=dtype
    )
    assert matrix.dtype == dtype and matrix.has_canonical_format
    wanted = plain(cells, centre, half, shape, width, height, stride)
    found = matrix.astype(np.float64) @ dense(cells)
    tolerance = 1e-12 if dtype is np.float64 else 1e-5
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * np.abs(wanted).max())
    np.testing.assert_array_equal(
        pixels, [covered(c, h, shape, width, height).sum() for c, h in zip(centre, half, strict=True)]
    )


def test_blocks_and_sizes_do_not_matter(monkeypatch):
    rng = np.random.default_rng(1)
    prints = footprints(rng.uniform(0, 100, (50, 2)), rng.uniform(0.5, 30, (50, 2)), "circle")
    whole = pooling(prints, (0, 0, 100, 100), 4, (25, 25))
    monkeypatch.setattr("stlib.footprints.BLOCK", 200)
    parts = pooling(prints, (0, 0, 100, 100), 4, (25, 25))
    assert abs(whole.matrix - parts.matrix).max() == 0
    np.testing.assert_array_equal(whole.pixels, parts.pixels)
    single = [
        pooling(prints[n : n + 1], (0, 0, 100, 100), 4, (25, 25)).matrix.toarray()[0] for n in range(50)
    ]
    np.testing.assert_array_equal(whole.matrix.toarray(), single)


@pytest.mark.parametrize("shape", ["circle", "square"])
def test_a_constant_map_gives_the_constant_at_any_size(shape):
    rng = np.random.default_rng(2)
    half = np.geomspace(0.3, 300, 40)
    prints = footprints(rng.uniform(0, 200, (40, 2)), np.stack([half, half / 2], 1), shape)
    matrix, pixels = pooling(prints, (0, 0, 200, 200), 4, (50, 50))
    sums = pooled(as_tensor(matrix), torch.full((2500, 1), 0.7, dtype=torch.float64)).ravel()
    pixels, constant = torch.from_numpy(pixels), torch.full((40,), 0.7, dtype=torch.float64)
    torch.testing.assert_close(sums * row_scale(pixels, "mean", 0.0), constant, rtol=1e-12, atol=0)
    torch.testing.assert_close(sums * row_scale(pixels, "sum", 5.0), constant * pixels, rtol=1e-12, atol=0)
    torch.testing.assert_close(row_scale(pixels, "sum_scaled", 5.0), constant / 3.5)


def test_columns_can_be_cut_into_tiles_and_summed():
    rng = np.random.default_rng(3)
    prints = footprints(rng.uniform(0, [120, 80], (40, 2)), rng.uniform(1, 30, (40, 1)), "circle")
    image, cells = (0, 0, 118, 80), (30, 20)
    whole = pooling(prints, image, 4, cells).matrix
    values = random_map(rng, 20, 30)
    total = np.zeros((40, 3))
    seen = 0
    for c0, c1 in ((0, 8), (8, 21), (21, 30)):
        for r0, r1 in ((0, 13), (13, 20)):
            part = pooling(prints, image, 4, cells, window=(c0, r0, c1, r1)).matrix
            total += part @ dense(values[:, r0:r1, c0:c1])
            seen += part.nnz
    assert seen == whole.nnz
    np.testing.assert_allclose(total, whole @ dense(values), atol=1e-12 * 2800)


def test_gradients_reach_the_map():
    rng = np.random.default_rng(4)
    prints = footprints(rng.uniform(0, 24, (5, 2)), rng.uniform(0.4, 9, (5, 2)), "circle")
    pool = as_tensor(pooling(prints, (0, 0, 24, 24), 4, (6, 6), dtype=np.float64).matrix)
    cells = torch.from_numpy(rng.normal(size=(36, 2))).requires_grad_()
    assert torch.autograd.gradcheck(lambda cells: pooled(pool, cells), (cells,))


def test_sums_are_in_float32_under_autocast():
    pool = as_tensor(pooling(footprints([[8, 8]], 6.0, "circle"), (0, 0, 16, 16), 4, (4, 4)).matrix)
    cells = torch.full((16, 1), 3.0, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        out = pooled(pool, cells)
    assert out.dtype == torch.float32 and out.item() == 3 * 112
    assert pooled(pool, cells.double()).dtype == torch.float64


def test_a_window_of_the_full_map():
    cells = random_map(np.random.default_rng(5), 7, 9)
    whole = interpolate(cells[None], (28, 36), mode="bilinear", align_corners=False)[0]
    for window in ((0, 0, 36, 28), (5, 3, 17, 28), (30, 0, 31, 1)):
        x0, y0, x1, y1 = window
        torch.testing.assert_close(full_resolution(cells, window, 4), whole[:, y0:y1, x0:x1])


def test_no_location_and_many():
    none = pooling(footprints(np.zeros((0, 2)), 3.0, "circle"), (0, 0, 8, 8), 4, (2, 2))
    assert none.matrix.shape == (0, 4) and len(none.pixels) == 0
    rng = np.random.default_rng(6)
    place = rng.integers(0, 4000, (200_000, 2)) + 0.5
    many = pooling(footprints(place, 3.08, "circle"), (0, 0, 4000, 4000), 4, (1000, 1000))
    assert many.matrix.nnz / 200_000 == pytest.approx(11.0, abs=0.05)  # specification, section 1.14
    assert np.median(many.pixels) == 29
    assert many.matrix.indices.dtype == np.int32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: pooling(footprints([[4, 4], [4, -9]], 2, "circle"), (0, 0, 8, 8), 4, (2, 2)),
            r"1 lie wholly outside, e.g. location 1 at \[4.0, -9.0\] px",
        ),
        (lambda: row_scale(torch.ones(1), "median", 1.0), "found 'median'"),
        (lambda: full_resolution(torch.zeros(1, 2, 2), (0, 0, 9, 1), 4), "map of 8 x 8 px, found"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
