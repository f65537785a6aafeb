"""A whole slide through a dense network, tile by tile, as if it were seen at once.

What a cell of the map depends on ends somewhere: at the network's reach, which is measured, not assumed. A
tile is a core and around it a halo of at least that reach, both on the grid of the coarsest stride, so that
strides keep their phase; at the slide's border the halo ends where the slide does, padded with white to whole
strides, as for the slide at once. So the map of the core is that of the slide, exactly, and tiles need no
blending.

Cells belong to one core each. The pooling matrix is cut by columns: Z = sum over tiles of P[:, tile] D[tile],
whatever locations a border runs through. The head comes after.
"""

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from stlib.checkpoint import read_tensors, write_tensors
from stlib.footprints import Box, Footprints
from stlib.pooling import as_tensor, pooled, pooling
from stlib.reading import ahead
from stlib.sections import Section
from stlib.windows import CELL_PX, as_pixels, halved_size, read, section_footprints

LOOK_PX, FAR_PX = 320, 1280  # where the reach is looked for, first and last


class Tile(NamedTuple):
    """One tile of a slide."""

    core: Box  # the pixels that it answers for
    window: Box  # those that the network sees
    rows: np.ndarray  # locations that reach into the core (n,)

    def cells(self, values: Tensor) -> Tensor:
        """Return the core's part (..., r, c) of the window's map (..., h, w)."""
        x, y = ((self.core[i] - self.window[i]) // CELL_PX for i in (0, 1))
        wide, high = ((self.core[i + 2] - self.core[i]) // CELL_PX for i in (0, 1))
        return values[..., y : y + high, x : x + wide]


@dataclass(frozen=True)
class Tiles:
    """A slide, and the locations on it that are asked for."""

    path: Path
    size_px: tuple[int, int]  # width and height of the slide after halving
    prints: Footprints  # what the locations cover, in pixels of the halved slide
    halvings: int = 0  # how often the slide is halved

    def take(self, rows: Tensor) -> "Tiles":
        """Return the same slide with some of the locations."""
        return replace(self, prints=self.prints[rows.cpu().numpy()])

    def cut(self, core_px: int, halo_px: int, step: int, everywhere: bool = False) -> list[Tile]:
        """Return the tiles of the slide, row by row.

        Parameters
        ----------
        core_px, halo_px
            Side of a core, and what surrounds it; multiples of `step`.
        step
            Coarsest stride of the network, px.
        everywhere
            Whether tiles without any location count, too.
        """
        for name, px, least in (("core", core_px, step), ("halo", halo_px, 0)):
            if px % step or px < least:
                raise ValueError(
                    f"the {name} of a tile is a multiple of the network's coarsest stride, {step} px; found "
                    f"{px}. Strides would lose their phase"
                )
        width, height = self.padded(step)
        order = np.argsort(self.prints.centre[:, 1], kind="stable")
        y = self.prints.centre[order, 1]
        reach = self.prints.half.max(0) + CELL_PX + 1 if len(self.prints) else np.zeros(2)
        tiles = []
        for top in range(0, height, core_px):
            bottom = min(top + core_px, height)
            near = order[slice(*np.searchsorted(y, (top - reach[1], bottom + reach[1])))]
            x = self.prints.centre[near, 0]
            for left in range(0, width, core_px):
                right = min(left + core_px, width)
                rows = near[(x > left - reach[0]) & (x < right + reach[0])]
                if everywhere or len(rows):
                    window = (left - halo_px, top - halo_px, right + halo_px, bottom + halo_px)
                    window = *(max(px, 0) for px in window[:2]), min(window[2], width), min(window[3], height)
                    tiles.append(Tile((left, top, right, bottom), window, rows))
        return tiles

    def padded(self, step: int) -> tuple[int, int]:
        """Return width and height of the halved slide, px, up to whole strides."""
        width, height = (step * -(-side // step) for side in self.size_px)
        return width, height

    def read(self, parts: Sequence[Tile]) -> Iterator[Tensor]:
        """Yield what the network sees of each tile (1, 3, h, w), uint8; white beyond the slide."""
        for image in ahead(partial(read, self.path, self.halvings), [tile.window for tile in parts]):
            yield as_pixels(image)[None]

    def pool(self, tile: Tile, step: int) -> Tensor:
        """Return the columns of the pooling matrix in a tile's core, for its locations (n, cells), sparse."""
        cells = tuple(side // CELL_PX for side in self.padded(step))
        core = tuple(px // CELL_PX for px in tile.core)
        return as_tensor(pooling(self.prints[tile.rows], (0, 0, *self.size_px), CELL_PX, cells, core).matrix)


def of_section(path: Path, section: Section, halvings: int, permuted: bool = False) -> Tiles:
    """Return the slide of a section, at `path`, and what its locations cover, see `section_footprints`."""
    prints = section_footprints(section, halvings, permuted)
    return Tiles(path, halved_size(section.size_px, halvings), prints, halvings)


def reach(decode: nn.Module, step: int) -> int:
    """Return how far beyond a square of `step` px the cells of the square depend on pixels, px.

    The gradient tells: in a copy of the network whose weights are positive, whose maxima are means and whose
    normalisation does nothing, each pixel that a cell depends on has one.

    Parameters
    ----------
    decode
        Windows (B, 3, h, w) -> cells (B, C, h / 4, w / 4).
    step
        Coarsest stride of the network, px.

    Raises
    ------
    ValueError
        If the cells depend on everything: a network with global pooling or attention has no exact tiles.
    """
    probe = copy.deepcopy(decode).float().eval()
    for module in list(probe.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.MaxPool2d):
                setattr(module, name, nn.AvgPool2d(child.kernel_size, child.stride, child.padding))
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        for weight in probe.parameters():
            weight.uniform_(0.5, 1.5).div_(weight[0].numel() if weight.ndim > 1 else 1)
    look = step * -(-LOOK_PX // step)
    while look <= FAR_PX:
        far = max(_reach_along(probe, axis, look, step) for axis in (2, 3))
        if far < look:
            return far
        look *= 2
    raise ValueError(
        f"each cell of the network depends on pixels more than {FAR_PX} px away, so that it has no exact "
        "tiles; choose an encoder without global pooling or attention over the whole image"
    )


def _reach_along(probe: nn.Module, axis: int, look: int, step: int) -> int:
    """Return the reach in a strip along an axis that shows `look` px to either side of a square of `step`."""
    device, size = next(probe.parameters()).device, [1, 3, step, step]
    size[axis] += 2 * look
    pixels = torch.full(size, 255.0, device=device, requires_grad=True)
    with torch.enable_grad(), torch.autocast(device.type, enabled=False):
        cells = probe(pixels).narrow(axis, look // CELL_PX, step // CELL_PX).sum()
    seen = torch.autograd.grad(cells, pixels)[0].abs().transpose(axis, 0).flatten(1).any(1).nonzero()
    return max(look - int(seen.min()), int(seen.max()) + 1 - look - step)


@dataclass(frozen=True)
class Cutting:
    """How a network takes a slide: `decode` maps windows (B, 3, h, w) to cells (B, C, h / 4, w / 4)."""

    decode: Callable[[Tensor], Tensor]
    core_px: int
    halo_px: int
    step: int

    def sums(self, tiles: Tiles, device: torch.device, keep: Path | None = None) -> Tensor:
        """Return Z = P D of all locations (N, C): every tile is decoded once, and none is held.

        `keep` is a folder in which what each tile adds is kept until the caller removes it: a run that was
        killed goes on at the tile it was at, and adds the same numbers in the same order. None: nothing is
        kept.
        """
        total, parts = None, tiles.cut(self.core_px, self.halo_px, self.step)
        made = kept(tiles, parts, partial(self._added, tiles, device), keep)
        for tile, part in zip(parts, made, strict=True):
            part = part.to(device)
            if total is None:
                total = part.new_zeros(len(tiles.prints), part.shape[1])
            total.index_add_(0, torch.from_numpy(tile.rows).to(part.device), part)
        return total

    def _added(self, tiles: Tiles, device: torch.device, tile: Tile, image: Tensor) -> Tensor:
        cells = tile.cells(self.decode(image.to(device)))[0]  # (C, r, c)
        return pooled(tiles.pool(tile, self.step).to(device), cells.flatten(1).T)


def kept(
    tiles: Tiles, parts: Sequence[Tile], make: Callable[[Tile, Tensor], Tensor], folder: Path | None = None
) -> Iterator[Tensor]:
    """Yield what is made of each tile and the pixels seen of it (1, 3, h, w).

    In a folder each stands in a file once it is made; a whole one is read instead.
    """
    files = [folder and folder / f"{tile.core[1]}-{tile.core[0]}.safetensors" for tile in parts]
    absent = [file is None or not file.exists() for file in files]
    images = tiles.read([tile for tile, bare in zip(parts, absent, strict=True) if bare])
    bar = tqdm(parts, unit="tile", desc=tiles.path.stem, mininterval=2, leave=False, disable=len(parts) < 9)
    for tile, file, bare in zip(bar, files, absent, strict=True):
        values = None if bare else _whole(file)
        if values is None:
            values = make(tile, next(images if bare else tiles.read([tile])))
            if file:
                write_tensors(file, {"values": values.cpu().contiguous()}, {})
        yield values


def _whole(file: Path) -> Tensor | None:
    """Return what stands in a file; None, and a warning, if it is damaged."""
    try:
        return read_tensors(file)[0]["values"]
    except ValueError as error:
        warnings.warn(str(error), stacklevel=2)
        return None
