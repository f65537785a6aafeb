"""Files of images: slides of scanners, and rows of any slide."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from stlib.images import bands, image_size, tagged_scale
from stlib.slide import Slide, write_pyramid


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (1201, 2302, 3), dtype=np.uint8)


@pytest.fixture
def aperio(image, tmp_path):
    """An .svs: tiles, and a description that begins as Aperio's."""
    path = tmp_path / "scan.svs"
    about = "Aperio Image Library v1\r\n2302x1201 (256x256) |AppMag = 20|MPP = 0.5"
    tifffile.imwrite(path, image, photometric="rgb", tile=(256, 256), description=about, metadata=None)
    return path


def test_the_slide_of_a_scanner_becomes_a_pyramid(aperio, image, tmp_path):
    assert image_size(aperio) == (2302, 1201)
    np.testing.assert_allclose(tagged_scale(aperio), [0.5, 0.5])
    write_pyramid(aperio, tmp_path / "a.tif", 0.5)
    with Slide(tmp_path / "a.tif") as slide:
        np.testing.assert_array_equal(slide.read(0, 0, 2302, 1201), image)


def test_bands_are_rows_of_any_slide(aperio, image, tmp_path):
    write_pyramid(image, tmp_path / "a.tif", 0.5)
    Image.fromarray(image).save(tmp_path / "a.png")
    for path in (aperio, tmp_path / "a.tif", tmp_path / "a.png"):
        with bands(path, tmp_path) as (size_px, read):
            assert size_px.tolist() == [2302, 1201]
            np.testing.assert_array_equal(read(100, 163), image[100:163])
