"""What a dense network says of a whole slide: every location's expression, and maps of genes to look at.

Both take a slide of any size with the memory of a tile, of the sums of the locations (N, C), and of the maps
of the chosen genes. Both go on where they were killed: what each tile gave is kept in a hidden folder beside
the result, named by a hash of model, slide and locations, until the result stands whole under its name.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
import zarr
from tqdm import tqdm

from stlib.checkpoint import state_hash
from stlib.fingerprint import sealed
from stlib.footprints import pixel_counts
from stlib.models import Method
from stlib.paths import replacing, writing
from stlib.records import require_known
from stlib.tiles import Tile, Tiles, kept
from stlib.wholeslide import CHECKED, damage
from stlib.windows import CELL_PX

CHUNK = 64  # rows and columns of the array of locations in one chunk
TILE = 256  # pixels a side of a map's tile
SMALLEST = 512  # the last level of a map is the first whose longer side is at most this


@torch.no_grad()
def predict_slide(
    model: Method, tiles: Tiles, array: np.ndarray, path: Path, about: dict[str, Any]
) -> zarr.Array:
    """Predict all locations of a slide, tile by tile.

    Parameters
    ----------
    model
        Trained, of UNIT ``window``.
    array
        Column and row of each in its array (N, 2).
    path
        The Zarr array to write, a folder; appears when it is complete, and is then read, not made again.
    about
        What its attributes say beside `genes`, `origin` (column and row of its first place) and `digest`.

    Returns
    -------
    zarr.Array
        float16 (rows, columns, G), NaN where there is no location.

    Raises
    ------
    ValueError
        If the folder holds other predictions, or lacks some.
    """
    stamp = digest(model, tiles)
    if path.exists():
        return _standing(path, stamp)
    model.eval()
    device = next(model.parameters()).device
    place = array.astype(np.int64) - (origin := array.min(0).astype(np.int64))
    columns, rows = (int(n) for n in place.max(0) + 1)
    attributes = about | {"genes": list(model.shape.panel), "origin": origin.tolist(), "digest": stamp}
    pixels = torch.from_numpy(pixel_counts(tiles.prints, (0, 0, *tiles.size_px)))
    order = np.argsort(place[:, 1], kind="stable")
    ends = np.searchsorted(place[order, 1], np.arange(0, rows + CHUNK, CHUNK))
    with writing(path), _hidden(path, stamp) as folder:
        sums = model.cutting.sums(tiles, device, folder / "sums")
        store = zarr.create_array(
            folder / path.name, shape=(rows, columns, model.shape.genes), dtype="float16", fill_value=np.nan,
            chunks=(CHUNK, CHUNK, model.shape.genes), compressors=CHECKED, attributes=attributes,
            overwrite=True,
        )  # fmt: skip
        for top, here in enumerate(tqdm(np.split(order, ends[1:-1]), unit="chunk", desc=path.stem)):
            x, y = place[here].T
            values = model.read(sums[torch.from_numpy(here).to(device)], pixels[here].to(device))
            band = np.full((min(CHUNK, rows - top * CHUNK), *store.shape[1:]), np.nan, np.float16)
            band[y - top * CHUNK, x] = values.half().cpu().numpy()
            store[top * CHUNK : top * CHUNK + len(band)] = band
        store.attrs["chunks_written"] = store.nchunks_initialized
        os.replace(folder / path.name, path)
    return zarr.open_array(path, mode="r")


@torch.no_grad()
def write_maps(
    model: Method, tiles: Tiles, genes: Sequence[str], um_per_px: np.ndarray | float, path: Path
) -> Path:
    """Write maps of genes over the whole slide, one value for each cell: a pyramid for QuPath or napari.

    A cell has the expression that a location of the usual area would have if all of it looked like the cell.

    Parameters
    ----------
    model
        Trained, of UNIT ``window``.
    tiles
        The slide; its locations do not matter.
    genes
        Of the panel, K.
    um_per_px
        Scale of the slide, before it is halved, along x and y.
    path
        An .ome.tif, float32 (K, rows, columns): a channel for each gene. Appears when it is complete.

    Raises
    ------
    ValueError
        If the panel lacks a gene.
    """
    panel = list(model.shape.panel)
    for gene in genes:
        require_known(gene, panel, f"a map is of a gene of the model's panel, found '{gene}'")
    chosen = torch.tensor([panel.index(gene) for gene in genes])
    model.eval()
    device, cutting = next(model.parameters()).device, model.cutting
    width, height = (-(-side // CELL_PX) for side in tiles.size_px)
    maps = np.empty((len(genes), height, width), np.float32)

    def values(tile: Tile, image: torch.Tensor) -> torch.Tensor:
        cells = tile.cells(cutting.decode(image.to(device)))[0]  # (C, r, c)
        found = cells.float().flatten(1).T * model.area
        found = model.read(found, model.area.expand(len(found)))[:, chosen.to(device)]  # (r c, K)
        return found.T.unflatten(1, cells.shape[1:])

    stamp = hashlib.sha256(
        repr((digest(model, tiles), list(genes), "files named by px")).encode()
    ).hexdigest()
    with _hidden(path, stamp) as folder:
        parts = tiles.cut(cutting.core_px, cutting.halo_px, cutting.step, everywhere=True)
        for tile, found in zip(parts, kept(tiles, parts, values, folder), strict=True):
            left, top = (px // CELL_PX for px in tile.core[:2])
            part = maps[:, top : top + found.shape[1], left : left + found.shape[2]]
            part[:] = found[:, : part.shape[1], : part.shape[2]].cpu().numpy()  # without what was padded
        _write(maps, genes, CELL_PX * 2**tiles.halvings * np.broadcast_to(um_per_px, 2), path)
    return path


def digest(model: Method, tiles: Tiles) -> str:
    """Return a hash of all that the prediction of a slide depends on."""
    found = hashlib.sha256(sealed(tiles.path).encode())
    seen = model.config, model.shape, state_hash(model), tiles.halvings, tiles.prints.shape
    found.update(repr(seen).encode())
    for values in (tiles.prints.centre, tiles.prints.half):
        found.update(np.ascontiguousarray(values).tobytes())
    return found.hexdigest()


@contextmanager
def _hidden(path: Path, stamp: str) -> Iterator[Path]:
    """Yield the folder in which parts of a result are kept; it goes when the result stands."""
    folder = path.with_name(f".{path.stem}.{stamp[:16]}")
    folder.mkdir(parents=True, exist_ok=True)
    yield folder
    shutil.rmtree(folder)


def _standing(path: Path, stamp: str) -> zarr.Array:
    """Return predictions that were made before, if they are the same."""
    with damage(path):
        store = zarr.open_array(path, mode="r")
    if store.attrs.get("digest") != stamp:
        raise ValueError(
            f"{path}: holds predictions of another slide, model or set of locations; delete it, or choose "
            "another folder"
        )
    with damage(path):
        if (found := store.nchunks_initialized) != (written := store.attrs.get("chunks_written")):
            raise ValueError(f"{found} chunks of {written} that were written")
        for top in range(0, store.shape[0], CHUNK):
            store[top : top + CHUNK]
    return store


def _write(maps: np.ndarray, genes: Sequence[str], um_per_cell: np.ndarray, path: Path) -> None:
    """Write maps (K, h, w) as OME-TIFF: tiles, levels in SubIFDs, channels with names, a scale."""
    levels = [maps]
    while max(levels[-1].shape[1:]) > SMALLEST:
        odd = [(0, side % 2) for side in levels[-1].shape[1:]]
        wide = np.pad(levels[-1], [(0, 0), *odd], mode="edge")
        levels.append(wide.reshape(len(maps), wide.shape[1] // 2, 2, -1, 2).mean((2, 4)))
    about = {
        "axes": "CYX", "Channel": {"Name": list(genes)}, "Name": path.name.split(".")[0],
        "PhysicalSizeX": um_per_cell[0], "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": um_per_cell[1], "PhysicalSizeYUnit": "µm",
    }  # fmt: skip
    with replacing(path) as partial, tifffile.TiffWriter(partial, bigtiff=True, ome=True) as tiff:
        for level, image in enumerate(levels):
            tiff.write(
                image,
                tile=(TILE, TILE),
                photometric="minisblack",
                compression="zlib",
                resolution=1e4 / (um_per_cell * 2**level),  # cells per cm
                resolutionunit="CENTIMETER",
                **({"subfiletype": 1} if level else {"subifds": len(levels) - 1, "metadata": about}),
            )
