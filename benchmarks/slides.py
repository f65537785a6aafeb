"""Patches cut from a slide, against decoding the same tiles alone, and against reads one by one."""

import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import openslide
import tifffile

from benchmarks.measure import Found, Row, rates, seconds
from stlib import windows
from stlib.images import on_white
from stlib.reading import ahead
from stlib.slide import TILE, Slide, write_pyramid

SIDE_PX, SPOTS, SIZE_PX = 2560, 200, 224  # of the slide; spots in any order; of a patch
WINDOWS = 40


def picture() -> np.ndarray:
    """Return a smooth image with noise (SIDE_PX, SIDE_PX, 3): it packs about as H&E does."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX] / 40
    smooth = 190 + 40 * np.stack([np.sin(x + y), np.cos(x - y), np.sin(x) * np.cos(y)], -1)
    return (smooth + rng.integers(0, 12, smooth.shape)).astype(np.uint8)


def rows() -> Found:
    """Measure patches a second."""
    centres = np.random.default_rng(0).uniform(SIZE_PX, SIDE_PX - SIZE_PX, (SPOTS, 2))
    corners = np.rint(centres - SIZE_PX / 2).astype(int)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "slide.tif"
        write_pyramid(picture(), path, 0.5)
        ends = (corners + SIZE_PX - 1) // TILE
        tiles = {
            (x, y)
            for first, last in zip(corners // TILE, ends, strict=True)
            for x in range(first[0], last[0] + 1)
            for y in range(first[1], last[1] + 1)
        }

        def cut() -> np.ndarray:
            with Slide(path) as slide:
                return slide.patches(centres, SIZE_PX)

        def raw() -> None:
            with tifffile.TiffFile(path) as tiff:
                page, file = tiff.pages[0], tiff.filehandle
                for x, y in tiles:
                    index = y * -(-SIDE_PX // TILE) + x
                    file.seek(page.dataoffsets[index])
                    page.decode(file.read(page.databytecounts[index]), index)

        def one_by_one() -> np.ndarray:
            with openslide.OpenSlide(path) as slide:
                return np.stack([on_white(slide, (int(x), int(y)), 0, (SIZE_PX,) * 2) for x, y in corners])

        if not np.array_equal(cut(), one_by_one()):
            raise ValueError("patches must be those that OpenSlide reads, found others")
        ours, bare, plain = (rates(SPOTS, taken) for taken in seconds(cut, raw, one_by_one, repeats=3))
        beside, here = (partial(consume, path, readers) for readers in (1, 0))
        handed, own = (rates(WINDOWS, taken) for taken in seconds(beside, here, repeats=3))
    what = f"patches of {SIZE_PX} px"
    return [
        Row(what, f"the same {len(tiles)} tiles, decoded", ours, bare, "patches/s", 0.7),
        Row(what, "OpenSlide, patch by patch", ours, plain, "patches/s"),
        Row("windows of 512 px, halved once, read beside", "read by who uses them", handed, own, "windows/s"),
    ]


def consume(path: Path, readers: int) -> None:
    """Take windows that processes beside this one read, whose time does not count."""
    corners = np.random.default_rng(0).integers(0, SIDE_PX // 2 - 512, (WINDOWS, 2))
    boxes = [(int(x), int(y), int(x) + 512, int(y) + 512) for x, y in corners]
    for _ in ahead(partial(windows.read, path, 1), boxes, readers):
        pass
