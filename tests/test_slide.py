"""Slides: what is written is read back exactly, places mean what they say, bad files are named."""

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image

from stlib.images import image_size, on_white
from stlib.slide import Slide, shares, tissue_mask, write_pyramid


@pytest.fixture(scope="module")
def image():
    """Return a smooth picture with noise, (H, W) = (1201, 2302): two odd halvings, three levels."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:1201, :2302]
    smooth = np.stack([x / 10, y / 5, (x + y) / 14], -1)
    return (smooth + rng.integers(0, 10, smooth.shape)).astype(np.uint8)


@pytest.fixture(scope="module")
def slide(image, tmp_path_factory):
    path = tmp_path_factory.mktemp("slide") / "a.tif"
    write_pyramid(image, path, (0.5, 0.25))
    with Slide(path) as opened:
        yield opened


# -- writing -------------------------------------------------------------------------------------------------


def test_level_0_is_the_image_pixel_by_pixel(slide, image):
    np.testing.assert_array_equal(slide.size_px, [2302, 1201])
    np.testing.assert_array_equal(slide.read(0, 0, 2302, 1201), image)


@pytest.mark.parametrize("shape", [(1200, 2304), (1201, 2302)])
@pytest.mark.parametrize("times", [0, 1, 2, 3])
def test_a_halved_rectangle_is_that_of_the_halved_slide(image, tmp_path, shape, times):
    """Whether the pyramid has that level exactly, with an odd side, or not at all."""
    image = np.pad(image, ((0, 0), (0, 2), (0, 0)))[: shape[0], : shape[1]]
    write_pyramid(image, tmp_path / "a.tif", 0.5)
    halved = np.pad(image.astype(np.uint16), ((0, 8), (0, 8), (0, 0)), constant_values=255)
    for _ in range(times):
        halved = sum(halved[i : halved.shape[0] // 2 * 2 : 2, j : halved.shape[1] // 2 * 2 : 2]
                     for i in (0, 1) for j in (0, 1)) + 2 >> 2  # fmt: skip
    with Slide(tmp_path / "a.tif") as slide:
        for x, y in ((0, 0), (101, 53), (2302 // 2**times - 30, 1200 // 2**times - 12)):
            found = slide.halved(x, y, 30, 12, times)
            np.testing.assert_array_equal(found, halved[y : y + 12, x : x + 30])
        assert (slide.halved(-9, -9, 9, 9, times) == 255).all()


def test_openslide_finds_all_levels_and_the_scale(slide):
    with openslide.OpenSlide(slide.path) as plain:
        assert plain.level_dimensions == ((2302, 1201), (1151, 601), (576, 301))
        np.testing.assert_allclose(plain.level_downsamples, [1, 2, 4], rtol=2e-3)
    np.testing.assert_allclose(slide.um_per_px, [0.5, 0.25], rtol=1e-6)


def test_a_level_averages_two_by_two_and_repeats_the_odd_edge(slide, image):
    level = slide.read(0, 0, 1151, 601, level=1).astype(int)
    assert level[0, 0, 0] == (image[:2, :2, 0].sum(dtype=int) + 2) // 4
    assert level[300, 700, 2] == (image[600:602, 1400:1402, 2].sum(dtype=int) + 2) // 4
    assert level[600, 5, 1] == (2 * image[1200, 10:12, 1].sum(dtype=int) + 2) // 4  # row 1200 has no partner


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".btf"])
def test_each_format_is_decoded_whatever_its_size(tmp_path, image, monkeypatch, suffix):
    source = tmp_path / f"source{suffix}"
    if suffix in (".png", ".jpg"):
        Image.fromarray(image).save(source, quality=90)
        expected = np.asarray(Image.open(source))
    else:  # mapped from the disk if uncompressed, decoded if not
        tifffile.imwrite(
            source, image, bigtiff=suffix == ".btf", compression="zlib" if suffix == ".tif" else None
        )
        expected = image
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)  # Pillow refuses an image of twice this size
    assert image_size(source) == (2302, 1201)
    write_pyramid(source, tmp_path / "out.tif", 1.0)
    with Slide(tmp_path / "out.tif") as slide:
        np.testing.assert_array_equal(slide.read(0, 0, 2302, 1201), expected)


def test_equal_images_give_equal_files(tmp_path, image):
    for name in ("a.tif", "b.tif"):
        write_pyramid(image, tmp_path / name, 1.0)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()


@pytest.mark.parametrize("how", [{"rowsperstrip": 100}, {"tile": (128, 256)}], ids=["strips", "tiles"])
def test_a_compressed_tiff_is_unpacked_piece_by_piece_and_never_whole(tmp_path, image, monkeypatch, how):
    kind = {"bigtiff": True, "compression": "zlib", "photometric": "rgb"}
    tifffile.imwrite(tmp_path / "source.btf", image, **kind, **how)
    monkeypatch.setattr(tifffile.TiffPage, "asarray", lambda *_, **__: pytest.fail("read as a whole"))
    write_pyramid(tmp_path / "source.btf", tmp_path / "out" / "a.tif", 1.0)
    with Slide(tmp_path / "out" / "a.tif") as slide:
        np.testing.assert_array_equal(slide.read(0, 0, 2302, 1201), image)
    left = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert left == ["a.tif", "a.tif.sha256"]  # nothing of what was unpacked


def test_of_a_compressed_tiff_too_only_rgb_is_a_slide(tmp_path, image):
    tifffile.imwrite(tmp_path / "grey.tif", image[..., 0], compression="zlib")
    with pytest.raises(ValueError, match=r"grey\.tif: a slide is 8-bit RGB .* found shape \(1201, 2302\)"):
        write_pyramid(tmp_path / "grey.tif", tmp_path / "a.tif", 1.0)


# -- reading -------------------------------------------------------------------------------------------------


def test_outside_the_slide_is_white(slide, image):
    corner = slide.read(-3, -2, 8, 6)
    assert (corner[:2] == 255).all() and (corner[:, :3] == 255).all()
    np.testing.assert_array_equal(corner[2:, 3:], image[:4, :5])
    far = slide.read(2300, 1199, 4, 4)
    np.testing.assert_array_equal(far[:2, :2], image[1199:, 2300:])
    assert (far[2:] == 255).all() and (far[:, 2:] == 255).all()


def test_patches_round_half_to_even_and_keep_the_order(slide, image):
    centres = np.array([[900.5, 800.5], [101.5, 50.5], [2.0, 2.0]])  # corners 898.5, 99.5 and 0
    patches = slide.patches(centres, 4)
    np.testing.assert_array_equal(patches[0], image[798:802, 898:902])
    np.testing.assert_array_equal(patches[1], image[48:52, 100:104])
    np.testing.assert_array_equal(patches[2], image[:4, :4])
    assert slide.patches(np.empty((0, 2)), 4).shape == (0, 4, 4, 3)


def test_tiles_give_what_openslide_reads_and_few_are_kept(slide, image, monkeypatch):
    monkeypatch.setattr("stlib.slide.ROWS", 1)
    with Slide(slide.path) as fresh, openslide.OpenSlide(slide.path) as plain:
        for x, y, w, h in (
            (-300, -10, 900, 600),
            (200, 250, 120, 7),
            (2250, 1150, 300, 300),
            (2400, 5, 9, 9),
        ):
            found = fresh.read(x, y, w, h)
            np.testing.assert_array_equal(found, on_white(plain, (x, y), 0, (w, h)))
        assert len(fresh._tiles) == 9  # of 9 x 5


def test_each_tile_is_decoded_once_for_many_patches(slide, monkeypatch):
    decoded, decode = [], tifffile.TiffPage.__dict__["decode"].func

    def counted(page):
        return lambda data, index: decoded.append(index) or decode(page)(data, index)

    monkeypatch.setattr(tifffile.TiffPage, "decode", property(counted))
    centres = np.random.default_rng(0).uniform(0, [2302, 1201], (300, 2))
    with Slide(slide.path) as fresh:
        fresh.patches(centres, 64)
    assert len(decoded) == len(set(decoded)) == 45  # 9 x 5 tiles


def test_equal_places_are_one_patch(slide):
    centres = np.array([[900.0, 300.0], [40.0, 600.0], [900.4, 300.2], [300.0, 40.0]])
    first, again = slide.distinct(centres, 16)
    assert first.tolist() == [3, 0, 1] and again.tolist() == [1, 2, 1, 0]  # row of tiles by row


def test_patches_average_areas(slide, image):
    patch = slide.patches(np.array([[50.0, 60.0]]), 40, out_px=10)[0].astype(float)  # corner (30, 40)
    expected = image[40:80, 30:70].reshape(10, 4, 10, 4, 3).mean((1, 3))
    assert np.abs(patch - expected).max() <= 0.5  # one rounding
    third = slide.patches(np.array([[50.0, 60.0]]), 4, out_px=3)[0, :, :, 0]  # corner (48, 58)
    weight = np.array([[3, 1, 0, 0], [0, 2, 2, 0], [0, 0, 1, 3]]) / 4  # 4/3 px each
    np.testing.assert_allclose(third, weight @ image[58:62, 48:52, 0] @ weight.T, atol=0.5)
    with pytest.raises(ValueError, match="out_px must lie in 1 to size_px = 40 .*found 50"):
        slide.patches(np.array([[50.0, 60.0]]), 40, out_px=50)


def test_thumbnail_scale_leads_back_to_the_place(tmp_path):
    image = np.full((1500, 2101, 3), 255, np.uint8)
    image[1200:1300, 1900:2000] = (90, 20, 120)
    write_pyramid(image, tmp_path / "a.tif", (0.5, 0.5))
    with Slide(tmp_path / "a.tif") as slide:
        thumbnail, scale = slide.thumbnail(5.0)
        whole, as_it_is = slide.thumbnail(0.4)  # nothing is enlarged
    assert whole.shape == (1500, 2101, 3) and as_it_is.tolist() == [1, 1]
    assert thumbnail.shape == (150, 210, 3)
    np.testing.assert_allclose(scale, [2101 / 210, 10])
    weight = 255.0 - thumbnail[..., 1]
    y, x = np.mgrid[:150, :210] + 0.5
    centre = np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()
    np.testing.assert_allclose(centre * scale, [1950, 1250], atol=0.1)  # level-0 px


# -- bad input -----------------------------------------------------------------------------------------------


@pytest.mark.fault(
    "an image that is cut off",
    ".png, .jpg and JPEG in .tif at 30, 90 and 99.9 %",
    "ValueError that names it; nothing is written",
)
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
@pytest.mark.parametrize("part", [0.3, 0.9, 0.999])
def test_a_truncated_image_is_named_and_leaves_nothing(tmp_path, image, suffix, part):
    source = tmp_path / f"cut{suffix}"
    if suffix == ".tif":  # JPEG tiles: the decoder itself is content with half a tile
        tifffile.imwrite(source, image[:300, :300], tile=(128, 128), compression="jpeg", photometric="rgb")
    else:
        Image.fromarray(image[:300, :300]).save(source)
    content = source.read_bytes()
    source.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(ValueError, match=rf"cut{suffix}: the slide is truncated or damaged .*Delete it"):
        write_pyramid(source, tmp_path / "out" / "a.tif", 1.0)
    assert not (tmp_path / "out").exists()


@pytest.mark.fault("a pyramid that is cut off", "at 0, 2, 50 and 99.9 %", "ValueError when it is opened")
@pytest.mark.parametrize("part", [0.0, 0.02, 0.5, 0.999])
def test_a_truncated_pyramid_is_refused_when_opened(tmp_path, image, part):
    path = tmp_path / "a.tif"
    write_pyramid(image, path, 1.0)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(
        ValueError, match=r"a\.tif: the slide is truncated or damaged .*Delete it and run `make data`"
    ):
        Slide(path)


@pytest.mark.fault(
    "an error while a slide is written",
    "an exception between two tiles",
    "the older file is as it was, nothing lies beside it",
)
def test_a_fault_while_writing_leaves_what_was_there(tmp_path, image, monkeypatch):
    path = tmp_path / "a.tif"
    path.write_text("before")
    monkeypatch.setattr("stlib.slide._halve", lambda band: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_pyramid(image, path, 1.0)
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_what_is_no_slide_is_refused(tmp_path, image):
    out = tmp_path / "out.tif"
    with pytest.raises(FileNotFoundError, match=r"none\.jpg: the slide is not there; .*make data"):
        write_pyramid(tmp_path / "none.jpg", out, 1.0)
    with pytest.raises(FileNotFoundError, match=r"none\.tif: the slide is not there; .*make data"):
        Slide(tmp_path / "none.tif")
    with pytest.raises(ValueError, match=r"is read from .*\.png.*, found '\.gif'"):
        write_pyramid(tmp_path / "a.gif", out, 1.0)
    with pytest.raises(
        ValueError, match=r"the array: a slide is 8-bit RGB .* found shape \(1201, 2302, 3\) of uint16"
    ):
        write_pyramid(image.astype(np.uint16), out, 1.0)
    Image.fromarray(image[..., 0]).save(tmp_path / "grey.png")
    with pytest.raises(
        ValueError,
        match=r"grey\.png: a slide is 8-bit RGB .* found shape \(1201, 2302\) of uint8; convert it",
    ):
        write_pyramid(tmp_path / "grey.png", out, 1.0)
    with pytest.raises(ValueError, match=r"um_per_px must be positive, found 0.0"):
        write_pyramid(image, out, 0.0)
    tifffile.imwrite(out, image, tile=(256, 256), photometric="rgb", metadata=None)
    with pytest.raises(ValueError, match="tells its um per px in resolution tags, found none"):
        Slide(out)


# -- tissue --------------------------------------------------------------------------------------------------


def test_tissue_is_stained_and_whole():
    y, x = np.mgrid[:200, :200]
    tissue = np.hypot(x - 100, y - 100) < 60
    image = np.full((200, 200, 3), 240, np.uint8)
    image[tissue] = (170, 90, 160)
    image[97:103, 97:103] = 240  # a lumen
    image[10:30, 10:30] = 20  # ink
    image[150:, 180:] = (240, 215, 230)  # stain that ran out
    image[5:8, 190:193] = (170, 90, 160)  # dirt
    mask = tissue_mask(image)
    assert mask[~tissue & (np.hypot(x - 100, y - 100) > 64)].sum() == 0
    assert mask[np.hypot(x - 100, y - 100) < 56].all()


def test_glass_alone_has_no_tissue():
    assert not tissue_mask(np.full((50, 50, 3), 245, np.uint8)).any()
    noise = np.random.default_rng(0).normal(240, 3, (80, 80, 3)).astype(np.uint8)
    assert not tissue_mask(noise).any()


def test_shares_average_what_they_cover():
    # 5 px into 2: each covers two whole ones and a half
    np.testing.assert_allclose(shares(2, 5, 5).toarray(), [[0.4, 0.4, 0.2, 0, 0], [0, 0, 0.2, 0.4, 0.4]])
    assert shares(4, 2, 2).toarray().tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]]  # enlarged
