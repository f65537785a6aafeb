"""Slides: any H&E image -> a tiled pyramid -> pixels by place and scale. `stlib.images` opens the image.

The pyramid is a TIFF that OpenSlide reads pixel by pixel as the image was: tiles of 256 px, deflate (no
loss), one flat page per level, each half the one above, um per px in the resolution tags. Places are level-0
pixels, x right and y down, edge-based: the centre of the first pixel is (0.5, 0.5).
"""

import math
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import numpy as np
import openslide
import tifffile
from scipy import ndimage, sparse
from skimage import filters, morphology
from tqdm import tqdm

from stlib.fingerprint import seal
from stlib.images import decode, file_errors, on_white, require_rgb, scratch
from stlib.paths import replacing

TILE = 256  # px
SMALLEST_PX = 1024  # the last level is the first whose longer side is at most this
ROWS = 4  # of decoded tiles of level 0 that are kept: 120 MB of a slide of 40,000 px
GLASS_CHROMA = 12  # largest minus smallest channel, of 255: glass and ink stay below, stain does not


def write_pyramid(image: Path | np.ndarray, path: Path, um_per_px: float | np.ndarray) -> None:
    """Write an image as the tiled pyramid that `Slide` opens.

    A level is halved while it is written. Of a TIFF no level is held in memory: an uncompressed one stays
    where it is, a compressed one is unpacked strip by strip, and both that and the lower levels lie in files
    without a name beside `path`, which the system removes.

    Parameters
    ----------
    image
        A JPEG, PNG, TIFF or scanner's slide, 8-bit RGB; or such an array (H, W, 3).
    path
        The .tif to write; appears when it is complete.
    um_per_px
        Scale, or scale along x and y (2,).

    Raises
    ------
    FileNotFoundError
        If there is no such image.
    ValueError
        If the image is truncated or not 8-bit RGB, or the scale not positive.
    """
    scale = np.broadcast_to(np.asarray(um_per_px, float), 2)
    if not (np.isfinite(scale) & (scale > 0)).all():
        raise ValueError(f"{path}: um_per_px must be positive, found {um_per_px}; give the scale of level 0")
    pixels = image if isinstance(image, np.ndarray) else decode(Path(image), path.parent)
    require_rgb(pixels.shape, pixels.dtype, "the array" if pixels is image else image)
    levels = max(0, math.ceil(math.log2(max(pixels.shape) / SMALLEST_PX)))
    sides = np.ceil(np.array(pixels.shape[:2]) / TILE / 2 ** np.arange(levels + 1)[:, None])
    bar = tqdm(total=int(sides.prod(1).sum()), unit="tile", desc=path.name)
    big = pixels.size * 4 / 3 > 2**32 - 2**25
    with replacing(path) as partial, tifffile.TiffWriter(partial, bigtiff=big) as tiff, bar:
        for level in range(levels + 1):
            height, width = pixels.shape[:2]
            below = scratch(path.parent, (-(-height // 2), -(-width // 2), 3))
            tiff.write(
                _tiles(pixels, below, bar),
                shape=pixels.shape,
                dtype=np.uint8,
                tile=(TILE, TILE),
                photometric="rgb",
                compression="zlib",
                predictor=True,
                subfiletype=1 if level else 0,  # "reduced image": how OpenSlide knows a level
                resolution=1e4 / (scale * 2**level),  # px per cm
                resolutionunit="CENTIMETER",
                metadata=None,  # a description would make OpenSlide look for SubIFDs
            )
            pixels = below
    seal(path)


def _tiles(pixels: np.ndarray, below: np.ndarray, bar: tqdm) -> Iterator[np.ndarray]:
    """Yield the tiles of one level, row by row; halve each band into the level below on the way."""
    for y in range(0, len(pixels), TILE):
        band = np.asarray(pixels[y : y + TILE])
        half = _halve(band)
        below[y // 2 : y // 2 + len(half)] = half
        for x in range(0, band.shape[1], TILE):
            yield band[:, x : x + TILE]
            bar.update()


def _halve(band: np.ndarray) -> np.ndarray:
    """Average 2 x 2 pixels; the last row or column of an odd side counts twice."""
    odd = [(0, side % 2) for side in band.shape[:2]]
    wide = np.pad(band, [*odd, (0, 0)], mode="edge").astype(np.uint16)
    return ((wide[::2, ::2] + wide[1::2, ::2] + wide[::2, 1::2] + wide[1::2, 1::2] + 2) // 4).astype(np.uint8)


class Slide:
    """A pyramid opened for reading; a context manager.

    Attributes
    ----------
    size_px
        Width and height of level 0 (2,).
    um_per_px
        Scale along x and y (2,).

    Raises
    ------
    FileNotFoundError
        If there is no such slide.
    ValueError
        If it is truncated, or has no scale.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        with file_errors(self.path):  # OpenSlide hashes the last level, which ends the file
            self._slide = openslide.OpenSlide(path)
        self.size_px = np.array(self._slide.dimensions)
        scale = [self._slide.properties.get(f"openslide.mpp-{axis}") for axis in "xy"]
        if None in scale:
            self._slide.close()
            remedy = "write it with write_pyramid"
            raise ValueError(f"{path}: a slide tells its um per px in resolution tags, found none; {remedy}")
        self.um_per_px = np.array(scale, float)
        self._tiff = tifffile.TiffFile(path)
        self._tiles: OrderedDict[int, np.ndarray] = OrderedDict()  # the last that was used stands last

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._slide.close()
        self._tiff.close()

    def read(self, x: int, y: int, w: int, h: int, level: int = 0) -> np.ndarray:
        """Read a rectangle, uint8 (h, w, 3); what lies outside the slide is white.

        Parameters
        ----------
        x, y
            Upper left corner, level-0 px; may be negative.
        w, h
            Size in pixels of `level`.
        """
        with file_errors(self.path):
            if level:
                return on_white(self._slide, (int(x), int(y)), level, (int(w), int(h)))
            pixels = np.empty((int(h), int(w), 3), np.uint8)
            self._fill(pixels, int(x), int(y))
            return pixels

    def _fill(self, out: np.ndarray, x: int, y: int) -> None:
        """Read level 0 from its tiles into `out` (h, w, 3): as OpenSlide does, in a third of the time."""
        (h, w), (width, height) = out.shape[:2], map(int, self.size_px)
        x0, x1, y0, y1 = max(x, 0), min(x + w, width), max(y, 0), min(y + h, height)
        if x1 - x0 < w or y1 - y0 < h:
            out[:] = 255
        if x0 >= x1 or y0 >= y1:
            return
        for top in range(y0 - y0 % TILE, y1, TILE):
            for left in range(x0 - x0 % TILE, x1, TILE):
                tile = self._tile(top // TILE * -(-width // TILE) + left // TILE)
                a, b, c, d = max(x0, left), min(x1, left + TILE), max(y0, top), min(y1, top + TILE)
                out[c - y : d - y, a - x : b - x] = tile[c - top : d - top, a - left : b - left]

    def _tile(self, index: int) -> np.ndarray:
        """Return a tile of level 0 (TILE, TILE, 3), decoded anew if it is not among those kept."""
        if index in self._tiles:
            self._tiles.move_to_end(index)
            return self._tiles[index]
        page, file = self._tiff.pages[0], self._tiff.filehandle
        file.seek(page.dataoffsets[index])
        tile = page.decode(file.read(page.databytecounts[index]), index)[0][0]
        self._tiles[index] = tile
        if len(self._tiles) > ROWS * -(-int(self.size_px[0]) // TILE):
            self._tiles.popitem(last=False)
        return tile

    def halved(self, x: int, y: int, w: int, h: int, times: int) -> np.ndarray:
        """Read a rectangle of the slide as after its resolution was halved `times` times: uint8 (h, w, 3).

        Read from a level of the pyramid where both sides were even each time: elsewhere OpenSlide takes a
        place on it to lie between two pixels. What is left to halve is halved here, as lower levels were.
        Corner and size are px of the halved slide; what lies outside is white.
        """
        exact = [level for level, down in enumerate(self._slide.level_downsamples) if down == 2**level]
        level = max(level for level in exact if level <= times)
        left = 2 ** (times - level)
        image = self.read(x * 2**times, y * 2**times, w * left, h * left, level)
        for _ in range(times - level):
            image = _halve(image)
        return image

    def thumbnail(self, um_per_px: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the whole slide at a coarser scale, by averaging areas.

        Parameters
        ----------
        um_per_px
            The scale wanted, or that of the slide where it is coarser; met up to the rounding of the
            thumbnail's size to whole pixels.

        Returns
        -------
        image : numpy.ndarray
            uint8 (h, w, 3).
        scale : numpy.ndarray
            Level-0 px per px of the image, along x and y (2,); exact: place in the image times scale is the
            place on the slide.
        """
        wanted = max(um_per_px, self.um_per_px.max()) / self.um_per_px
        out = np.maximum(np.rint(self.size_px / wanted), 1).astype(int)
        level = self._slide.get_best_level_for_downsample(wanted.min())
        whole = self.read(0, 0, *self._slide.level_dimensions[level], level)
        used = self.size_px / 2**level  # an odd side was padded when halved
        columns, rows = (shares(*side) for side in zip(out, whole.shape[1::-1], used, strict=True))
        return average(whole, rows, columns), self.size_px / out

    def patches(self, centres: np.ndarray, size_px: int, out_px: int | None = None) -> np.ndarray:
        """Cut a square around each place: uint8 (N, out_px, out_px, 3), white outside the slide.

        Parameters
        ----------
        centres
            Level-0 px (N, 2). The corner is centre - size / 2, rounded half to even.
        size_px
            Side of the square, level-0 px.
        out_px
            Side of the result, at most `size_px`, by averaging areas; None: as cut.
        """
        out_px = size_px if out_px is None else out_px
        if not 0 < out_px <= size_px:
            raise ValueError(
                f"out_px must lie in 1 to size_px = {size_px} (nothing is enlarged), found {out_px}"
            )
        corners = _corners(centres, size_px)
        patches = np.empty((len(corners), out_px, out_px, 3), np.uint8)
        across = shares(out_px, size_px, size_px)
        for n in np.lexsort((corners[:, 0], corners[:, 1] // TILE)):  # row of tiles by row: each decoded once
            if out_px == size_px:
                with file_errors(self.path):
                    self._fill(patches[n], *map(int, corners[n]))
            else:
                patches[n] = average(self.read(*corners[n], size_px, size_px), across, across)
        return patches

    @staticmethod
    def distinct(centres: np.ndarray, size_px: int) -> tuple[np.ndarray, np.ndarray]:
        """Find the distinct patches of many places, in the order that decodes each tile once.

        Parameters are as in `Slide.patches`.

        Returns
        -------
        first : numpy.ndarray
            A place of each distinct patch (n,).
        again : numpy.ndarray
            Which of them each place has (N,).
        """
        x, y = _corners(centres, size_px).T
        where = np.stack([y // TILE, x, y], 1)
        _, first, again = np.unique(where, axis=0, return_index=True, return_inverse=True)
        return first, again.ravel()


def _corners(centres: np.ndarray, size_px: int) -> np.ndarray:
    """Return the upper left pixel of the square around each place (N, 2)."""
    return np.rint(np.asarray(centres, float) - size_px / 2).astype(int)


def shares(out: int, size: int, length: float) -> sparse.csr_matrix:
    """Return (out, size): each row averages length / out px, the parts of pixels at its ends included."""
    edges = np.linspace(0, length, out + 1)
    first = np.minimum(edges[:-1].astype(int), size - 1)
    px = first[:, None] + np.arange(int(np.ceil(length / out)) + 1)  # (out, k): those that a row may touch
    overlap = np.minimum(edges[1:, None], px + 1) - np.maximum(edges[:-1, None], px)
    kept = (overlap > 0) & (px < size)
    rows = np.nonzero(kept)[0]
    values = (overlap[kept] * (out / length)).astype(np.float32)
    return sparse.csr_matrix((values, (rows, px[kept])), shape=(out, size))


def average(image: np.ndarray, rows: sparse.csr_matrix, columns: sparse.csr_matrix) -> np.ndarray:
    """Average areas of an image (h, w, 3) along both axes; one rounding, at the end."""
    high, wide = image.shape[:2]
    image = (rows @ image.reshape(high, wide * 3).astype(np.float32)).reshape(-1, wide, 3)
    image = columns @ image.swapaxes(0, 1).reshape(wide, -1)  # (out columns, out rows * 3)
    return np.rint(image.reshape(columns.shape[0], -1, 3).swapaxes(0, 1)).astype(np.uint8)


def tissue_mask(image: np.ndarray) -> np.ndarray:
    """Tell tissue from glass: stained pixels are dark in one channel at least, and have colour.

    Otsu's threshold (1979) on the darkest channel: stain that ran out beside the tissue colours the glass
    (so that saturation takes it for tissue), but hardly darkens it. Black ink has no colour. Then gaps are
    closed, and pieces and holes below 1/200 of the tissue are dropped. Wide fields of fat, thin membranes
    around nothing, count as glass. Meant for thumbnails of about 5 to 20 um per px.
    The image is uint8 (h, w, 3), the mask bool (h, w).
    """
    smooth = ndimage.uniform_filter(image.astype(np.float32), (7, 7, 0))
    darkest = smooth.min(2)
    mask = (darkest < filters.threshold_otsu(darkest)) & (smooth.max(2) - darkest > GLASS_CHROMA)
    mask = ndimage.binary_closing(np.pad(mask, 4, mode="edge"), iterations=4)[4:-4, 4:-4]
    least = int(mask.sum() / 200)
    mask = morphology.remove_small_objects(mask, max_size=least)
    return morphology.remove_small_holes(mask, max_size=least)
