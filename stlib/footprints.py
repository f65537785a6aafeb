"""What locations cover of an image, in pixels: discs of spots and squares of bins, of any size, anywhere.

Places are pixels, x right and y down, edge-based: pixel X covers [X, X + 1) and belongs to a location if its
centre X + 1/2 does. Discs are closed, rectangles half-open, so that bins side by side share no pixel. A
location that is cut by the image's border counts the pixels that are left; one too small to hold a pixel's
centre takes the pixel that it lies in.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

BLOCK = 1 << 21  # numbers that are held at once
DIGITS = 6  # of a pixel: edges that are equal but for rounding are equal

Box = tuple[int, int, int, int]  # left, top, right, bottom: half-open


@dataclass(frozen=True)
class Footprints:
    """What N locations cover of one image."""

    centre: np.ndarray  # x and y (N, 2), px
    half: np.ndarray  # half width and height (N, 2), px: a disc may be an ellipse, where a pixel is no square
    shape: str  # circle or square; either may be longer one way

    def __len__(self) -> int:
        return len(self.centre)

    def __getitem__(self, rows: np.ndarray | slice) -> "Footprints":
        return Footprints(self.centre[rows], self.half[rows], self.shape)

    @property
    def uneven(self) -> bool:
        """Whether they differ in size."""
        return len(self) > 0 and bool(np.ptp(self.half, 0).any())

    def moved(self, x: float, y: float) -> "Footprints":
        """Return them on an image whose corner lies at (x, y) of this one."""
        return Footprints(self.centre - [x, y], self.half, self.shape)


class Bands(NamedTuple):
    """The pixels of n locations as R rectangles each, (n, R), half-open; some may be empty."""

    left: np.ndarray
    right: np.ndarray
    top: np.ndarray
    bottom: np.ndarray

    @property
    def pixels(self) -> np.ndarray:
        """How many there are (n,)."""
        return ((self.right - self.left) * (self.bottom - self.top)).sum(1)


def bands(prints: Footprints, image: Box, rows: np.ndarray) -> Bands:
    """Return the pixels of locations on an image: one band for a rectangle, one for each row of a disc."""
    (x, y), (wide, high) = prints.centre.T[..., None], prints.half.T[..., None]  # (n, 1)
    if prints.shape == "square":
        left, right = _first(x - wide), _first(x + wide)
        top, bottom = _first(y - high), _first(y + high)
    else:
        top = _first(y - high) + np.arange(int(2 * high.max()) + 2)  # (n, R)
        bottom = top + 1
        chord = 1 - ((top + 0.5 - y) / high) ** 2  # of the ellipse, squared; below 0: outside
        reach = wide * np.sqrt(np.where(chord > -(10.0**-DIGITS), chord.clip(0), np.nan))
        left = _first(x - np.nan_to_num(reach))
        right = np.where(np.isnan(reach), left, np.floor((x + reach - 0.5).round(DIGITS)) + 1)
    left, right = (px.clip(image[0], image[2]) for px in (left, right))
    top, bottom = (px.clip(image[1], image[3]) for px in (top, bottom))
    bands = Bands(
        *(np.nan_to_num(px).astype(np.int64) for px in (left, np.maximum(left, right), top, bottom))
    )
    return _nearest_pixel(bands, prints, image, rows)


def _first(px: np.ndarray) -> np.ndarray:
    """Return the first pixel whose centre is not before a place."""
    return np.ceil((px - 0.5).round(DIGITS))


def _nearest_pixel(bands: Bands, prints: Footprints, image: Box, rows: np.ndarray) -> Bands:
    """Give locations that hold no pixel's centre the pixel that they lie in."""
    empty = np.flatnonzero(bands.pixels == 0)
    if not len(empty):
        return bands
    corner, end = np.array(image[:2]), np.array(image[2:])
    place = prints.centre[empty]
    outside = ((place < corner) | (place > end)).any(1)
    if outside.any():
        raise ValueError(
            f"a location has pixels on the image, which spans {image[0]} to {image[2]} px along x and "
            f"{image[1]} to {image[3]} along y; {outside.sum()} lie wholly outside, e.g. location "
            f"{rows[empty[outside][0]]} at {place[outside][0].round(1).tolist()} px. Check that slide and "
            "positions belong together, or leave these out"
        )
    pixel = np.minimum(place.astype(np.int64), end - 1)
    for band in bands:
        band[empty] = 0
    bands.left[empty, 0], bands.top[empty, 0] = pixel.T
    bands.right[empty, 0], bands.bottom[empty, 0] = pixel.T + 1
    return bands


def blocks(prints: Footprints, stride: int) -> Iterator[np.ndarray]:
    """Yield the rows of blocks that fit into the memory of `BLOCK` numbers; those of a size together."""
    order = np.argsort(-prints.half.max(1), kind="stable") if prints.uneven else np.arange(len(prints))
    while len(order):
        wide, high = prints.half[order[0]]  # the largest left
        numbers = (2 * wide / stride + 3) * (1 if prints.shape == "square" else 2 * high + 2)
        block, order = np.split(order, [max(1, int(BLOCK / numbers))])
        yield block


def pixel_counts(prints: Footprints, image: Box) -> np.ndarray:
    """Return how many pixels of the image each location has (N,), without a matrix; see `pooling`."""
    pixels = np.zeros(len(prints), np.int64)
    for rows in blocks(prints, 1):
        pixels[rows] = bands(prints[rows], image, rows).pixels
    return pixels
