"""Every location of a slide, predicted in tiles and written as it goes: chunked float16 Zarr.

A tile takes along whatever its predictions depend on, as far as the model's reach, so that they do not depend
on how the slide is cut. A tile is one chunk, which appears whole: where it stands, a later call goes on.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from tqdm import tqdm
from zarr.codecs import ZstdCodec

from stlib.array_tiles import TileFeed, Tiles
from stlib.checkpoint import state_hash
from stlib.models import Method, Reach
from stlib.params import Params
from stlib.paths import writing
from stlib.sections import Section

GIVEN = frozenset({"patch", "features", "relative", "levels", "graph"})  # NEEDS that a tile can meet

CHECKED = (ZstdCodec(checksum=True),)  # a chunk that was damaged is not read


def reach_of(model: Method, params: Params) -> Reach:
    """Return how far a model looks, or say why its predictions cannot be made in tiles.

    Raises
    ------
    ValueError
        If it looks at the whole section, at neighbours that are no squares, or at a field that tiles lack; if
        it maps windows of slides, or was shown the images of other places.
    """
    name, reach = type(model).__name__, model.reach(model.config)
    if model.UNIT == "window":
        raise ValueError(
            f"{name} maps windows of a slide, not tiles of its locations; predict with "
            "`stlib.genemaps.predict_slide`"
        )
    if model.config.permuted:
        raise ValueError(
            f"{name} was trained on the images of other places (`permuted`): a control for tables, which has "
            "no whole slide. Take the model without that variant"
        )
    if reach is None:
        raise ValueError(
            f"{name} looks at a whole section at once, so what it predicts in tiles would depend on where a "
            "slide is cut. Take a model that declares its reach, e.g. magnet or stnet"
        )
    if reach.locations and params.spot.shape != "square":
        raise ValueError(
            f"{name} looks at neighbours, and only squares have theirs at a bounded distance; found "
            f"{params.spot.shape}s in params/{params.base}.yaml. Predict bins"
        )
    lacking = sorted(model.needs(model.config) - GIVEN)
    if lacking:
        raise ValueError(f"{name} needs {lacking}; a tile of a slide has {sorted(GIVEN)} alone")
    return reach


@torch.no_grad()
def predict_slide(
    model: Method,
    params: Params,
    section: Section,
    array: np.ndarray,
    position: np.ndarray,
    path: Path,
    side: int = 64,
    device: str = "cpu",
) -> zarr.Array:
    """Predict all locations of a slide; tiles that stand are kept.

    Parameters
    ----------
    params, section, array, position, side
        See `stlib.array_tiles.Tiles`.
    path
        Folder of the Zarr array; one that holds other predictions is refused.

    Returns
    -------
    zarr.Array
        float16 (rows, columns, G), NaN where there is no location; its attributes say of which `dataset`,
        `section` and `model`, of which `genes`, and where the first place lies: `origin`, column and row.

    Raises
    ------
    ValueError
        See `reach_of`; or if the folder holds predictions of another slide, model or cut.
    """
    reach, tiles = reach_of(model, params), Tiles(params, section, array, position, side)
    store = _open(path, tiles, _about(model, tiles))
    feed = TileFeed(tiles, model, reach)
    model.eval().to(device)
    for tile in tqdm([*tiles], unit="tile", desc=f"{section.name}, whole"):
        window = tiles.window(tile)
        if _stands(store, path, window):
            continue
        rows = tiles.around(tile, 0)
        predicted = model.predict(feed.batch(tile).to(device))[: len(rows)]
        chunk = np.full([part.stop - part.start for part in window] + [store.shape[2]], np.nan, np.float16)
        column, row = (tiles.place[rows] % side).T
        chunk[row, column] = predicted.half().cpu().numpy()
        with writing(path):
            store[window] = chunk
    return store


def _stands(store: zarr.Array, path: Path, window: tuple[slice, slice]) -> bool:
    """Return whether a tile was predicted; one that is damaged is removed, and made anew."""
    try:
        with damage(path):
            return bool(np.isfinite(store[(*window, 0)]).any())
    except ValueError as error:
        warnings.warn(f"{error}; the tile is made anew", stacklevel=3)
        place = (part.start // side for part, side in zip(window, store.chunks, strict=False))
        (path / "c" / "/".join(map(str, (*place, 0)))).unlink(missing_ok=True)
        return False


@contextmanager
def damage(path: Path) -> Iterator[None]:
    """Turn what Zarr raises into an error that names the folder and the remedy."""
    try:
        yield
    except Exception as error:  # codecs raise what they like
        raise ValueError(f"{path} is damaged ({error}); delete it and run this again") from error


def _about(model: Method, tiles: Tiles) -> dict[str, Any]:
    """Return what the predictions of a slide depend on."""
    return {
        "dataset": tiles.params.name,
        "section": tiles.section.name,
        "model": type(model).__name__,
        "weights": state_hash(model),
        "genes": list(model.shape.panel),
        "origin": tiles.origin.tolist(),
        "side": tiles.side,
    }


def _open(path: Path, tiles: Tiles, about: dict[str, Any]) -> zarr.Array:
    """Open the array, or make it."""
    shape = *tiles.shape, len(about["genes"])
    if not (path / "zarr.json").exists():  # or it was killed before that
        chunks = tiles.side, tiles.side, len(about["genes"])
        with writing(path):
            return zarr.create_array(
                path, shape=shape, chunks=chunks, dtype="float16", fill_value=np.nan, compressors=CHECKED,
                attributes=about, overwrite=True,
            )  # fmt: skip
    with damage(path):
        store = zarr.open_array(path, mode="r+")
    if dict(store.attrs) != about or store.shape != shape:
        found = {key: store.attrs.get(key) for key in ("dataset", "section", "model", "side")}
        raise ValueError(
            f"{path}: holds predictions of another slide, model or cut, {found}; delete it or name another "
            "folder"
        )
    return store
