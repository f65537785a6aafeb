"""What a dense network trains on: windows of slides, and how the locations in them sum up its map.

A window is a square whose corner lies on a grid of `GRID_PX`, the coarsest stride of the usual networks. Its
core is what a margin leaves; cores lie side by side over the locations of a section, shifted at random each
time, and a location belongs to the window whose core holds its centre. The margin is wider than any location
reaches, so each is supervised once in each pass, whole.

Pixels are those of the slide after `halvings`: how often its resolution was halved before anyone looked.
OpenSlide is imported when a slide is first read.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from stlib.fields import another
from stlib.footprints import Box, Footprints, pixel_counts
from stlib.pooling import as_tensor, pooling
from stlib.sections import Section

CELL_PX = 4  # stride of the map
GRID_PX = 32  # its coarsest feature map's


def section_footprints(section: Section, halvings: int, permuted: bool = False) -> Footprints:
    """Return what the locations of a section cover of its slide: discs of its spots, squares of its bins.

    If `permuted`, each has the place of another one.
    """
    scale = 2**halvings
    half = section.size_um / 2 / section.um_per_px / scale
    place = section.position[another(section, "spot", len(section))] if permuted else section.position
    return Footprints(place / scale, np.broadcast_to(half, place.shape), section.shape)


def halved_size(size_px: np.ndarray, halvings: int) -> tuple[int, int]:
    """Return width and height of a slide that was halved; an odd side is rounded up."""
    width, height = -(-np.asarray(size_px) // 2**halvings)
    return int(width), int(height)


def location_fields(section: Section, halvings: int, permuted: bool = False) -> dict[str, Tensor]:
    """Return the pixels of each location on its slide (N,), and its size (N,), um."""
    prints = section_footprints(section, halvings, permuted)
    pixels = pixel_counts(prints, (0, 0, *halved_size(section.size_px, halvings)))
    size = torch.full((len(section),), section.size_um)
    return {"pixels": torch.from_numpy(pixels), "size_um": size}


class Window(NamedTuple):
    """A square of a slide, by its upper left corner, and the locations it supervises."""

    x: int
    y: int
    rows: np.ndarray  # (n,)

    def box(self, side_px: int) -> Box:
        """Return what a window of this side covers."""
        return self.x, self.y, self.x + side_px, self.y + side_px


def cover(prints: Footprints, window_px: int, generator: torch.Generator) -> list[Window]:
    """Return the fewest windows whose cores hold all locations, in a place drawn at random.

    Raises
    ------
    ValueError
        If a window is no multiple of the grid, or too small for the locations.
    """
    margin = GRID_PX * int(np.ceil((prints.half.max() + CELL_PX) / GRID_PX))
    core = window_px - 2 * margin
    if window_px % GRID_PX or core < GRID_PX:
        raise ValueError(
            f"a window is a multiple of {GRID_PX} px, and at least {2 * margin + GRID_PX} px for locations "
            f"of {2 * prints.half.max():.0f} px; found window_px: {window_px}. Correct it in the params file"
        )
    low = prints.centre.min(0)
    extent = np.ptp(prints.centre, axis=0) + GRID_PX  # the corner is rounded down
    number = np.ceil(extent / core)
    slack = (number * core - extent) * torch.rand(2, generator=generator).numpy()
    start = (low - slack) // GRID_PX * GRID_PX
    place = ((prints.centre - start) // core).astype(int)  # column and row of the core (N, 2)
    key = place[:, 1] * int(number[0]) + place[:, 0]
    order = np.argsort(key, kind="stable")
    found, first = np.unique(key[order], return_index=True)
    corners = start + core * np.stack([found % int(number[0]), found // int(number[0])], 1) - margin
    groups = np.split(order, first[1:])
    return [Window(int(x), int(y), rows) for (x, y), rows in zip(corners, groups, strict=True)]


def read(path: Path, halvings: int, boxes: Sequence[Box]) -> Iterator[np.ndarray]:
    """Yield rectangles of a halved slide, uint8 (height, width, 3); white beyond the slide."""
    from stlib.slide import Slide

    with Slide(path) as slide:
        for left, top, right, bottom in boxes:
            yield slide.halved(left, top, right - left, bottom - top, halvings)


def as_pixels(image: np.ndarray) -> Tensor:
    """Return an image (h, w, 3) as networks take it (3, h, w)."""
    return torch.tensor(image).permute(2, 0, 1)


def window_pool(
    size_px: tuple[int, int], prints: Footprints, window: Window, window_px: int
) -> sparse.csr_matrix:
    """Return the pooling matrix of the locations of a window (n, cells).

    Parameters
    ----------
    size_px
        Width and height of the halved slide; what is beyond it is no pixel.
    prints
        What the locations of the section cover.
    window, window_px
        Which of them, and where; and the side S.
    """
    width, height = size_px
    inside = (-window.x, -window.y, width - window.x, height - window.y)
    cells = window_px // CELL_PX
    return pooling(prints[window.rows].moved(window.x, window.y), inside, CELL_PX, (cells, cells)).matrix


def turned(
    image: Tensor, matrix: sparse.csr_matrix, quarters: int, mirror: bool
) -> tuple[Tensor, sparse.csr_matrix]:
    """Turn a window by quarters, mirror it if told, and its cells with it: the sums stay what they are.

    Weights of cells depend on distances along the axes alone, so that those of a turned window are the same
    in another order.
    """
    side = image.shape[1] // CELL_PX
    cells = torch.arange(side**2).view(1, side, side)

    def turn(square: Tensor) -> Tensor:
        square = square.rot90(quarters, (1, 2))
        return square.flip(2) if mirror else square

    return turn(image), matrix[:, turn(cells).ravel().numpy()]


def joined(parts: Sequence[tuple[Tensor, sparse.csr_matrix]]) -> tuple[Tensor, Tensor]:
    """Return windows side by side (B, 3, S, S), and the pool of their locations (n, B cells), sparse."""
    images, matrices = zip(*parts, strict=True)
    return torch.stack(images), as_tensor(sparse.block_diag(matrices, "csr"))
